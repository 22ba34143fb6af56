//! What is answered to which request.

use super::WebState;
use super::auth::Authenticator;
use super::cache::Cache;
use super::config::{LoadedSecurity, Security};
use super::connection::Connection;
use crate::exposition::{self, Exposition, ExpositionError, Shown};
use crate::shown::html::{self, Language};
use crate::system::clock;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use http::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, REFERRER_POLICY,
    VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use prometheus::TEXT_FORMAT;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// On the answer to a scrape: what it shows, to be noted once the scraper has it.
#[derive(Clone, Copy)]
pub(super) struct Given(pub(super) Shown);

/// All that is needed to answer.
pub(super) struct Routes {
    shared: Shared,
    security: Arc<Security>,
    authenticator: Authenticator,
}

/// What answers a request; the name is the `handler` label.
#[derive(Clone, Copy)]
enum Handler {
    Metrics,
    Healthy,
    Ready,
    Status,
    Landing,
    None,
}

impl Handler {
    fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Status => "status",
            Self::Landing => "landing",
            Self::None => "none",
        }
    }
}

struct Metrics {
    shown: Shown,
    text: Bytes,
    gzip: Option<Bytes>,
}

struct Pages {
    json: Bytes,
    english: Bytes,
    japanese: Bytes,
}

/// One of the pages, and what it says of itself.
struct ServedPage {
    which: fn(&Pages) -> &Bytes,
    kind: &'static str,
    language: Option<Language>,
}

struct Shared {
    state: WebState,
    metrics: Cache<exposition::Version, Metrics>,
    /// Apart, because most scrapers take gzip and others should not pay for it.
    gzipped: Cache<exposition::Version, Metrics>,
    pages: Cache<exposition::Version, Pages>,
    telemetry_path: String,
}

impl Routes {
    pub(super) fn new(state: WebState, security: Security, telemetry_path: &str) -> Self {
        let shared = Shared {
            state,
            metrics: Cache::new(),
            gzipped: Cache::new(),
            pages: Cache::new(),
            telemetry_path: telemetry_path.to_owned(),
        };
        Self { shared, security: Arc::new(security), authenticator: Authenticator::new() }
    }

    /// What `--web.config.file` asks for now.
    pub(super) async fn security(&self) -> Arc<LoadedSecurity> {
        self.security.current(Instant::now(), &self.shared.state.exposition).await
    }

    /// What it asks for now and from now on.
    pub(super) fn follow_security(&self) -> watch::Receiver<Arc<LoadedSecurity>> {
        self.security.follow()
    }

    /// Answers one request, by the rules of `security`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        security: &LoadedSecurity,
        connection: &Connection,
    ) -> Response<Bytes> {
        let handler = self.shared.handler(request.uri().path());
        let is_head = request.method() == Method::HEAD;
        let mut response = match self.refusal(&request, security, connection).await {
            Some(refusal) => refusal,
            None => caught(self.shared.answer(handler, &request)).await,
        };
        let length = response.body().len();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        if is_head {
            *response.body_mut() = Bytes::new();
        }
        let headers = response.headers_mut();
        headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        for (name, value) in &security.headers {
            headers.insert(name, value.clone());
        }
        self.shared.state.exposition.health().http_request(handler.name(), response.status().as_str());
        response
    }

    /// What is said to a request that no route is to see.
    async fn refusal(
        &self,
        request: &Request<Incoming>,
        security: &LoadedSecurity,
        connection: &Connection,
    ) -> Option<Response<Bytes>> {
        if let Err(said) = check_host(request) {
            let mut response = text(StatusCode::BAD_REQUEST, said);
            if request.version() < Version::HTTP_2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return Some(response);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        if security.rate.as_ref().is_some_and(|rate| !rate.admits(Instant::now())) {
            let said = "too many requests: rate_limit of --web.config.file\n";
            return Some(text(StatusCode::TOO_MANY_REQUESTS, said));
        }
        let authorization = request.headers().get(AUTHORIZATION);
        if security.users.is_empty()
            || self.authenticator.admits(&security.users, authorization, connection).await
        {
            return None;
        }
        let mut response = text(StatusCode::UNAUTHORIZED, "a user name and password are needed\n");
        let challenge = HeaderValue::from_static("Basic realm=\"teiten\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(response)
    }
}

/// Whether the request names its host as it has to (RFC 9112, 3.2).
fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err("more than one Host header\n"),
        (None, None) if request.version() == Version::HTTP_11 => Err("missing required Host header\n"),
        (None, None) => Ok(()),
        (Some(host), None) => {
            let is_host = |host: &str| {
                host.is_empty() || (!host.contains('@') && host.parse::<http::uri::Authority>().is_ok())
            };
            if host.to_str().is_ok_and(is_host) { Ok(()) } else { Err("malformed Host header\n") }
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The answer, or, when making it panicked, that it failed: the panic has to stay within the request.
async fn caught(answer: impl Future<Output = Response<Bytes>>) -> Response<Bytes> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        text(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; standard error of teiten says why\n")
    })
}

impl Shared {
    fn handler(&self, path: &str) -> Handler {
        match path {
            path if path == self.telemetry_path => Handler::Metrics,
            "/-/healthy" => Handler::Healthy,
            "/-/ready" => Handler::Ready,
            "/api/v1/status" => Handler::Status,
            "/" => Handler::Landing,
            _ => Handler::None,
        }
    }

    async fn answer<B>(&self, handler: Handler, request: &Request<B>) -> Response<Bytes> {
        match handler {
            Handler::Metrics => self.metrics(request.method(), request.headers()).await,
            Handler::Healthy => text(StatusCode::OK, "teiten is healthy\n"),
            Handler::Ready => self.ready(),
            Handler::Status => {
                let page =
                    ServedPage { which: |pages| &pages.json, kind: "application/json", language: None };
                self.page(page).await
            }
            Handler::Landing => {
                let language = Language::wanted(request.uri().query(), request.headers());
                let which: fn(&Pages) -> &Bytes = match language {
                    Language::English => |pages| &pages.english,
                    Language::Japanese => |pages| &pages.japanese,
                };
                let page = ServedPage { which, kind: "text/html; charset=utf-8", language: Some(language) };
                self.page(page).await
            }
            Handler::None => {
                let landing = if self.telemetry_path == "/" { "" } else { "/, " };
                let telemetry_path = &self.telemetry_path;
                let said = format!(
                    "not found; there are {landing}{telemetry_path}, /-/healthy, /-/ready and /api/v1/status\n"
                );
                text(StatusCode::NOT_FOUND, said)
            }
        }
    }

    fn ready(&self) -> Response<Bytes> {
        let (health, now) = (self.state.exposition.health(), clock::now());
        if health.is_up(now) {
            text(StatusCode::OK, "teiten is ready\n")
        } else {
            let why = health.why_not_up(now).join("\nnot ready: ");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
        }
    }

    async fn metrics(&self, method: &Method, headers: &HeaderMap) -> Response<Bytes> {
        let gzip = takes_gzip(headers);
        let cache = if gzip { &self.gzipped } else { &self.metrics };
        let (to_ask, to_render) = (Arc::clone(&self.state.exposition), Arc::clone(&self.state.exposition));
        let made = cache.get(move || to_ask.version(), move || render(&to_render, gzip)).await;
        let metrics = match made {
            Some(Ok(metrics)) => metrics,
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "render /metrics");
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cannot render the metrics; the log says why\n",
                );
            }
            None => return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics\n"),
        };
        let body = metrics.gzip.as_ref().unwrap_or(&metrics.text);
        let mut response = Response::new(body.clone());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, text_format());
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if metrics.gzip.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // Who asks for the head only has not seen a single series.
        if method == Method::GET {
            response.extensions_mut().insert(Given(metrics.shown));
        }
        response
    }

    async fn page(&self, page: ServedPage) -> Response<Bytes> {
        let exposition = Arc::clone(&self.state.exposition);
        let status = Arc::clone(&self.state.status);
        let telemetry_path = self.telemetry_path.clone();
        let make = move || {
            let status = status();
            let mut json = serde_json::to_vec(&status)?;
            json.push(b'\n');
            let html = |language| html::render(&status, &telemetry_path, language).into();
            let (english, japanese) = (html(Language::English), html(Language::Japanese));
            Ok::<_, serde_json::Error>(Pages { json: json.into(), english, japanese })
        };
        let pages = match self.pages.get(move || exposition.version(), make).await {
            Some(Ok(pages)) => pages,
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "write the status");
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cannot write the status; the log says why\n",
                );
            }
            None => return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the status\n"),
        };
        let mut response = Response::new((page.which)(&pages).clone());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
        if let Some(language) = page.language {
            headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language.code()));
            headers.insert(VARY, HeaderValue::from_static("accept-language"));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'",
            ),
        );
        response
    }
}

fn text_format() -> HeaderValue {
    HeaderValue::from_str(&format!("{TEXT_FORMAT}; charset=utf-8")).expect("a constant without controls")
}

fn render(exposition: &Exposition, gzip: bool) -> Result<Metrics, ExpositionError> {
    let render = exposition.render(clock::now())?;
    // Level 2: a quarter smaller than level 1 for a third more time; the levels above gain little.
    let gzip = gzip.then(|| {
        let mut encoder = GzEncoder::new(Vec::with_capacity(render.text.len() / 8), Compression::new(2));
        encoder.write_all(&render.text).and_then(|()| encoder.finish()).ok().map(Bytes::from)
    });
    Ok(Metrics { shown: render.shown, gzip: gzip.flatten(), text: render.text.into() })
}

/// Whether `Accept-Encoding` (RFC 9110, 12.5.3) lets gzip be sent.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else { continue };
        for coding in value.split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(Ok(1.0), str::parse::<f32>);
            let is_taken = quality.is_ok_and(|quality| quality > 0.0);
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                return is_taken;
            }
            if name == "*" {
                any = Some(is_taken);
            }
        }
    }
    any.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (value, is_taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("gzipped", false),
            ("gzip;q=x", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(takes_gzip(&headers), is_taken, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
