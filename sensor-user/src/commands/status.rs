//! `teiten status`: asks the running sensor's own endpoint.

use crate::config::{Config, Environment, PASSWORD_VARIABLE, WebClient};
use crate::shown::{Status, render};
use crate::system::terminal::Terminal;
use crate::web::{WebConfigError, own_certificate};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long the sensor may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than any sensor says of itself.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Where the running sensor listens, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`, as `--web.listen-address` has it.
    pub address: String,
    /// The sensor's `--web.config.file`. With TLS in it, the sensor is believed when it shows the
    /// certificate that is there, whatever name it is for.
    pub web_config_file: Option<PathBuf>,
    /// Who asks, where the sensor wants to know.
    pub credentials: Option<Credentials>,
    /// Client certificate and key, where the sensor wants one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// User and password of basic authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// What `config` says about the sensor and about who asks; the password is in the environment or in
    /// a file.
    ///
    /// # Errors
    /// When there is a user without a password, or the file with it cannot be read.
    pub fn of(config: &Config, environment: &Environment) -> Result<Self, StatusError> {
        let WebClient { user, password_file, certificate } = config.web_client.clone();
        let credentials = match user {
            None => None,
            Some(user) => {
                let password = match (password_file, environment.variables.get(PASSWORD_VARIABLE)) {
                    (Some(path), _) => std::fs::read_to_string(&path)
                        .map_err(|source| StatusError::File { what: "--web.password-file", path, source })?
                        .trim_end_matches(['\r', '\n'])
                        .to_owned(),
                    (None, Some(password)) => password.clone(),
                    (None, None) => return Err(StatusError::NoPassword { user }),
                };
                Some(Credentials { user, password })
            }
        };
        let address = config.listen[0].to_string();
        Ok(Self { address, web_config_file: config.web_config.clone(), credentials, certificate })
    }
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nothing listens there.
    #[error(
        "no sensor answers on {address}: {source}; is `teiten run` running? \
         `--web.listen-address` names another"
    )]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("{address} does not agree on TLS: {source}; {hint}")]
    Handshake {
        /// Who was asked.
        address: String,
        /// Why.
        #[source]
        source: rustls::Error,
        /// The way out.
        hint: String,
    },
    /// A user without a password.
    #[error(
        "user {user} has no password; put it into {PASSWORD_VARIABLE}, or into a file that \
         `--web.password-file` names"
    )]
    NoPassword {
        /// The user.
        user: String,
    },
    /// A file cannot be read.
    #[error("read {what} {path}")]
    File {
        /// Which flag names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client certificate or its key cannot be used.
    #[error("{path}: no usable PEM; {what} names it")]
    Pem {
        /// Which flag names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// What listens there does not speak HTTP.
    #[error(
        "{address} does not answer as a sensor does: {source}; does something else listen there? \
         `--web.listen-address` names another"
    )]
    Http {
        /// Who was asked.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer is not a status.
    #[error("{address} answers {status}; {hint}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it answered.
        status: StatusCode,
        /// The way out.
        hint: String,
    },
    /// The answer is too long, broken off, or of another form.
    #[error("the answer of {address} cannot be read: {reason}; are both of the same version?")]
    Form {
        /// Who was asked.
        address: String,
        /// Why.
        reason: String,
    },
    /// `--web.config.file` cannot be used.
    #[error("--web.config.file: {0}")]
    Config(#[from] WebConfigError),
    /// TLS cannot be set up.
    #[error("prepare TLS for asking the sensor")]
    Tls(#[source] rustls::Error),
    /// The tables cannot be written.
    #[error("write the status")]
    Output(#[source] io::Error),
}

/// The address to ask, for an address to listen on: loopback, when that is all addresses.
fn to_ask(address: &str) -> String {
    if let Some(port) = address.strip_prefix(':') {
        return format!("127.0.0.1:{port}");
    }
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let loopback = match socket.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(loopback, socket.port()).to_string()
        }
        _ => address.to_owned(),
    }
}

/// The rustls error that caused another, if there is one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    std::iter::successors(Some(error), |&error| {
        // An I/O error is not the source of what it carries.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source())
    })
    .find_map(<dyn std::error::Error>::downcast_ref)
}

impl Endpoint {
    fn handshake(&self, address: &str, source: rustls::Error) -> StatusError {
        let hint = match (&source, &self.certificate) {
            (rustls::Error::AlertReceived(_), None) => {
                "if it asks for a client certificate, give `--web.client-cert-file` and \
                 `--web.client-key-file`"
                    .to_owned()
            }
            (rustls::Error::AlertReceived(_), Some((certificate, _))) => format!(
                "does it take the certificate {}? An authority of its client_ca_file has to have signed it, for a \
                 name of client_allowed_sans",
                certificate.display()
            ),
            (rustls::Error::InvalidMessage(_), _) => {
                "it may serve without TLS: is this the `--web.config.file` of the running sensor?".to_owned()
            }
            _ => "is this the `--web.config.file` of the running sensor?".to_owned(),
        };
        StatusError::Handshake { address: address.to_owned(), source, hint }
    }

    /// The way out of an answer that is no status.
    fn hint(&self, address: &str, status: StatusCode, is_tls: bool) -> String {
        let url = format!("{}://{address}/api/v1/status", if is_tls { "https" } else { "http" });
        match (status, &self.credentials) {
            (StatusCode::UNAUTHORIZED, None) => format!(
                "if it is the sensor, it asks for a user and a password: give `--web.user NAME` and \
                 `--web.password-file FILE` (or {PASSWORD_VARIABLE} in the environment). \
                 `curl{} --user NAME {url}` asks for the same",
                if is_tls { " --insecure" } else { "" }
            ),
            (StatusCode::UNAUTHORIZED, Some(Credentials { user, .. })) => {
                format!("if it is the sensor, its basic_auth_users has no {user} with this password")
            }
            (StatusCode::BAD_REQUEST, _) if !is_tls => {
                "if it is the sensor, it expects TLS: give the `--web.config.file` that it runs with"
                    .to_owned()
            }
            (StatusCode::FORBIDDEN, _) => "the sensor itself forbids nothing: a proxy in front of it may; \
                 `--web.listen-address` names the sensor's own"
                .to_owned(),
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                "if it is the sensor, its rate_limit is used up: try again in a moment".to_owned()
            }
            (StatusCode::SERVICE_UNAVAILABLE, _) => {
                "if it is the sensor, it is starting: try again in a moment".to_owned()
            }
            _ => "does something else listen there? `--web.listen-address` names another".to_owned(),
        }
    }
}

/// Asks the sensor for its status: the JSON text and what it says.
///
/// # Errors
/// [`StatusError`] when nothing answers within ten seconds, or not with a status.
pub fn fetch(endpoint: &Endpoint) -> Result<(String, Status), StatusError> {
    let address = to_ask(&endpoint.address);
    let certificate = match &endpoint.web_config_file {
        Some(path) => own_certificate(path)?,
        None => None,
    };
    let tls = certificate.map(|certificate| pinned(certificate, endpoint)).transpose()?;
    let no_answer = |source| StatusError::NoAnswer { address: address.clone(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_answer)?;
    runtime.block_on(async {
        match tokio::time::timeout(TIMEOUT, get(endpoint, &address, tls)).await {
            Ok(answer) => answer,
            Err(_) => Err(no_answer(io::ErrorKind::TimedOut.into())),
        }
    })
}

async fn get(
    endpoint: &Endpoint,
    address: &str,
    tls: Option<Arc<ClientConfig>>,
) -> Result<(String, Status), StatusError> {
    let no_answer = |source| StatusError::NoAnswer { address: address.to_owned(), source };
    let http = |source: hyper::Error| match tls_error(&source) {
        // With TLS 1.3 the server looks at the client's certificate after the handshake.
        Some(error) => endpoint.handshake(address, error.clone()),
        None => StatusError::Http { address: address.to_owned(), source },
    };
    let form = |reason: String| StatusError::Form { address: address.to_owned(), reason };

    let is_tls = tls.is_some();
    let stream = TcpStream::connect(address).await.map_err(no_answer)?;
    let mut sender = match tls {
        None => converse(stream).await.map_err(http)?,
        Some(config) => {
            // Not sent and not compared: the certificate is known.
            let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
            let stream = TlsConnector::from(config).connect(name, stream).await;
            let stream = stream.map_err(|error| match tls_error(&error) {
                Some(error) => endpoint.handshake(address, error.clone()),
                None => no_answer(error),
            })?;
            converse(stream).await.map_err(http)?
        }
    };
    let mut request = Request::get("/api/v1/status").header(http::header::HOST, address);
    if let Some(Credentials { user, password }) = &endpoint.credentials {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        request = request.header(http::header::AUTHORIZATION, format!("Basic {encoded}"));
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| form(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    if status != StatusCode::OK {
        let hint = endpoint.hint(address, status, is_tls);
        return Err(StatusError::Refused { address: address.to_owned(), status, hint });
    }
    let body = Limited::new(response.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|error| form(error.to_string()))?
        .to_bytes();
    let text = String::from_utf8(body.to_vec()).map_err(|error| form(error.to_string()))?;
    let status = serde_json::from_str(&text).map_err(|error| form(error.to_string()))?;
    Ok((text, status))
}

type Sender = http1::SendRequest<Empty<bytes::Bytes>>;

async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> hyper::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or with the runtime.
    tokio::spawn(connection);
    Ok(sender)
}

/// TLS with a server that proves to have the key of `certificate`.
fn pinned(
    certificate: CertificateDer<'static>,
    endpoint: &Endpoint,
) -> Result<Arc<ClientConfig>, StatusError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(StatusError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, algorithms }));
    let mut config = match &endpoint.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let text = read("--web.client-cert-file", chain)?;
            let chain = CertificateDer::pem_slice_iter(&text)
                .collect::<Result<Vec<_>, _>>()
                .map_err(pem("--web.client-cert-file", chain))?;
            let text = read("--web.client-key-file", key)?;
            let key = PrivateKeyDer::from_pem_slice(&text).map_err(pem("--web.client-key-file", key))?;
            builder.with_client_auth_cert(chain, key).map_err(StatusError::Tls)?
        }
    };
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, StatusError> {
    std::fs::read(path).map_err(|source| StatusError::File { what, path: path.to_owned(), source })
}

fn pem(what: &'static str, path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> StatusError {
    move |source| StatusError::Pem { what, path: path.to_owned(), source }
}

/// Believes one certificate. That is more than an authority's word: it is the sensor's own file.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "it shows another certificate than --web.config.file names".to_owned(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The `teiten status` command: asks the sensor at `endpoint` and prints tables, or with `json` what
/// it answered, on standard output.
///
/// # Errors
/// [`StatusError`] when there is no status, or nowhere to print it.
pub fn run(endpoint: &Endpoint, json: bool) -> Result<(), StatusError> {
    let (text, status) = fetch(endpoint)?;
    let mut out = io::stdout().lock();
    let written = if json {
        writeln!(out, "{}", text.trim_end())
    } else {
        let is_terminal = out.is_terminal();
        write!(out, "{}", render(&status, Terminal::of_process(is_terminal), width(is_terminal)))
    };
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough: `teiten status | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(StatusError::Output),
    }
}

/// Columns to fill: the terminal's, or a page's.
fn width(is_terminal: bool) -> u16 {
    let terminal = if is_terminal { comfy_table::Table::new().width() } else { None };
    terminal.unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn plain(address: &impl ToString) -> Endpoint {
        Endpoint { address: address.to_string(), ..Endpoint::default() }
    }

    /// Answers one connection with `answer`.
    fn answering(answer: &'static str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /api/v1/status HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        plain(&address)
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listen, ask) in [
            (":9477", "127.0.0.1:9477"),
            ("0.0.0.0:9477", "127.0.0.1:9477"),
            ("[::]:9477", "[::1]:9477"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("sensor.example:80", "sensor.example:80"),
        ] {
            assert_eq!(to_ask(listen), ask);
        }
    }

    #[test]
    fn a_refused_connection_says_so_and_the_way_out() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let message = fetch(&plain(&free)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("no sensor answers on {free}: ")), "{message}");
        assert!(
            message.ends_with("is `teiten run` running? `--web.listen-address` names another"),
            "{message}"
        );
    }

    #[test]
    fn another_server_is_not_taken_for_a_sensor() {
        let said = |answer| fetch(&answering(answer)).unwrap_err().to_string();
        let other = said("SSH-2.0-OpenSSH_9.9\r\n");
        assert!(other.contains("does not answer as a sensor does"), "{other}");
        let missing = said("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert!(missing.contains("answers 404 Not Found"), "{missing}");
        let locked = said("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        assert!(
            locked.contains("give `--web.user NAME` and `--web.password-file FILE` (or TEITEN_WEB_PASSWORD")
                && locked.contains("`curl --user NAME http://127.0.0.1:"),
            "{locked}"
        );
        let refused = |status| said(status);
        for (answer, hint) in [
            ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "a proxy in front of it"),
            ("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", "rate_limit is used up"),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "it is starting"),
            ("HTTP/1.0 400 Bad Request\r\n\r\n", "give the `--web.config.file` that it runs with"),
        ] {
            let message = refused(answer);
            assert!(message.contains(hint), "{message}");
        }
        let form = said("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert!(form.contains("missing field"), "{form}");
    }
}
