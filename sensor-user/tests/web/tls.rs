//! `--web.config.file`: TLS, client certificates and passwords, against clients of all kinds.

use crate::support::{Answer, Serving, accesses, config, large};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sensor_user::commands::status::{Endpoint, StatusError, fetch};
use sensor_user::web::{BindError, Server, WebConfig};
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A certificate authority, in a directory with what it has signed.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.crt"), root.pem()).unwrap();
        let root = root.der().clone();
        let authority = Self { directory, issuer: Issuer::new(params, key), root };
        authority.sign("server", "sensor.example");
        authority
    }

    /// Writes `NAME.crt` and `NAME.key` for this subject alternative name.
    fn sign(&self, name: &str, san: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([san.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server with a web configuration file of this text.
    fn serve(&self, yaml: &str) -> Serving {
        let file = self.path("web.yml");
        fs::write(&file, yaml).unwrap();
        let serving = Serving::with(
            &WebConfig { config_file: Some(file), ..config(&["127.0.0.1:0"]) },
            Duration::from_secs(75),
        );
        serving.exposition.update(Arc::new(accesses(445, 3)));
        serving
    }

    /// A client that trusts this authority, with a certificate or without, over these protocols.
    fn client(&self, certificate: Option<&str>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut client = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::pem_file_iter(self.path(&format!("{name}.crt")))
                    .unwrap()
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(client)
    }
}

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn connect(serving: &Serving, client: Arc<ClientConfig>) -> io::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(serving.address()).await?;
    let name = ServerName::try_from("sensor.example").unwrap();
    tokio_rustls::TlsConnector::from(client).connect(name, stream).await
}

/// Asks for `/metrics` over TLS and HTTP/1.1.
async fn get(serving: &Serving, client: Arc<ClientConfig>, headers: &str) -> io::Result<Answer> {
    let mut stream = connect(serving, client).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: s\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Answer::parse(&answer)) }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

fn metrics(serving: &Serving, client: Arc<ClientConfig>, headers: &str) -> io::Result<Answer> {
    serving.run(get(serving, client, headers))
}

#[test]
fn metrics_over_tls_with_http_1_and_http_2() {
    let authority = Authority::new();
    let serving = authority.serve(TLS);
    let answer = metrics(&serving, authority.client(None, &[b"http/1.1"]), "").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("teiten_accesses_total{transport=\"tcp\",port=\"445\"} 0\n"));
    let later = || Instant::now() + Duration::from_secs(75);
    serving.until("the scrape is noted", |serving| !serving.exposition.due(later()).is_empty());

    let serving = authority.serve(TLS);
    serving.run(async {
        let stream = connect(&serving, authority.client(None, &[b"h2", b"http/1.1"])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let request = http::Request::get("https://sensor.example/metrics")
                .body(Empty::<bytes::Bytes>::new())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.ends_with(b"\n") && body.len() > 1_000);
        }
    });
    serving.until("the scrape is noted", |serving| !serving.exposition.due(later()).is_empty());
}

#[test]
fn a_stream_that_the_scraper_resets_is_no_scrape() {
    let authority = Authority::new();
    let serving = authority.serve(TLS);
    serving.exposition.update(large());
    let later = || Instant::now() + Duration::from_secs(75);
    serving.run(async {
        let stream = connect(&serving, authority.client(None, &[b"h2"])).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(100_000)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = || {
            http::Request::get("https://sensor.example/metrics").body(Empty::<bytes::Bytes>::new()).unwrap()
        };
        let mut broken_off = sender.send_request(request()).await.unwrap();
        broken_off.body_mut().frame().await.unwrap().unwrap();
        drop(broken_off);
        // The server reads the reset before the request that follows it.
        let healthy = http::Request::get("https://sensor.example/-/healthy")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let healthy = sender.send_request(healthy).await.unwrap();
        healthy.into_body().collect().await.unwrap();
        assert_eq!(serving.exposition.due(later()), []);

        // The connection is as good as before, and so is a whole answer.
        let whole = sender.send_request(request()).await.unwrap();
        assert!(whole.into_body().collect().await.unwrap().to_bytes().len() > 1_000_000);
    });
    serving.until("the scrape is noted", |serving| !serving.exposition.due(later()).is_empty());
}

#[test]
fn teiten_status_believes_the_certificate_of_the_file_and_no_other() {
    let authority = Authority::new();
    let serving = authority.serve(TLS);
    let endpoint = Endpoint {
        address: serving.address().to_string(),
        web_config_file: Some(authority.path("web.yml")),
        ..Endpoint::default()
    };
    let (_, status) = fetch(&endpoint).unwrap();
    assert_eq!(status.total.accesses, 3);

    // A certificate for the same name that is not the one of the file.
    let other = Authority::new();
    fs::write(other.path("web.yml"), TLS).unwrap();
    let endpoint = Endpoint { web_config_file: Some(other.path("web.yml")), ..endpoint };
    let message = fetch(&endpoint).unwrap_err().to_string();
    assert!(message.contains("another certificate than --web.config.file names"), "{message}");

    // The file says TLS and the server knows nothing of it.
    let plain = Serving::start(Duration::ZERO);
    let endpoint = Endpoint { address: plain.address().to_string(), ..endpoint };
    let error = fetch(&endpoint).unwrap_err();
    assert!(matches!(error, StatusError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("it may serve without TLS"), "{error}");
}

#[test]
fn teiten_status_shows_who_asks_and_says_what_is_missing() {
    use sensor_user::config::{Config, Environment};
    let authority = Authority::new();
    authority.sign("staff", "staff.example");
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    let serving = authority.serve(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n\
         basic_auth_users:\n  alice: {hash}\n"
    ));
    let path = |name| authority.path(name).display().to_string();
    fs::write(authority.path("password"), "correct horse\n").unwrap();
    fs::write(authority.path("wrong"), "battery staple").unwrap();
    // As the command does it, from its command line and environment.
    let ask = |args: &[(&str, String)], password: Option<&str>| {
        let mut line = vec!["teiten".to_owned(), "status".to_owned()];
        line.push(format!("--web.listen-address={}", serving.address()));
        line.push(format!("--web.config.file={}", path("web.yml")));
        line.extend(args.iter().map(|(flag, value)| format!("--web.{flag}={value}")));
        let cli = sensor_user::cli::Cli::try_from_args(line).unwrap();
        let sensor_user::cli::Command::Status(args) = cli.command else { panic!("not status") };
        let mut environment = Environment::of_process();
        environment
            .variables
            .extend(password.map(|word| ("TEITEN_WEB_PASSWORD".to_owned(), word.to_owned())));
        let (config, _) = Config::load_for_status(&args.flags, &environment).unwrap();
        let fetched = Endpoint::of(&config, &environment).and_then(|endpoint| fetch(&endpoint));
        fetched.map(|(_, status)| status.total.accesses).map_err(|error| error.to_string())
    };
    let certificate = [("client-cert-file", path("staff.crt")), ("client-key-file", path("staff.key"))];
    let with = |more: &[(&'static str, String)]| [&certificate[..], more].concat();
    let alice = ("user", "alice".to_owned());
    assert_eq!(ask(&with(&[alice.clone(), ("password-file", path("password"))]), None), Ok(3));
    assert_eq!(ask(&with(std::slice::from_ref(&alice)), Some("correct horse")), Ok(3));

    let message = ask(&[], None).unwrap_err();
    assert!(message.contains("give `--web.client-cert-file` and `--web.client-key-file`"), "{message}");
    let message = ask(&with(&[]), None).unwrap_err();
    let url = format!("curl --insecure --user NAME https://{}/api/v1/status", serving.address());
    assert!(message.contains("give `--web.user NAME`") && message.contains(&url), "{message}");
    let message = ask(&with(&[alice.clone(), ("password-file", path("wrong"))]), None).unwrap_err();
    assert!(message.contains("basic_auth_users has no alice with this password"), "{message}");
    let message = ask(&with(&[alice]), None).unwrap_err();
    assert!(message.starts_with("user alice has no password; put it into TEITEN_WEB_PASSWORD"), "{message}");
    let other = Authority::new();
    other.sign("staff", "staff.example");
    let foreign = [
        ("client-cert-file", other.path("staff.crt").display().to_string()),
        ("client-key-file", other.path("staff.key").display().to_string()),
    ];
    let message = ask(&foreign, None).unwrap_err();
    assert!(message.contains("An authority of its client_ca_file has to have signed it"), "{message}");

    // Without the file, the sensor is taken to serve without TLS.
    let endpoint = Endpoint { address: serving.address().to_string(), ..Endpoint::default() };
    let message = fetch(&endpoint).unwrap_err().to_string();
    assert!(message.contains("it expects TLS: give the `--web.config.file`"), "{message}");
}

#[test]
fn without_http2_none_is_offered() {
    let authority = Authority::new();
    let serving = authority.serve(&format!("{TLS}http_server_config:\n  http2: false\n"));
    let stream = serving.run(connect(&serving, authority.client(None, &[b"h2", b"http/1.1"]))).unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn plain_http_to_a_tls_port_and_half_a_handshake_do_no_harm() {
    let authority = Authority::new();
    let serving = authority.serve(TLS);
    let silent: Vec<_> = (0..300).map(|_| serving.connect()).collect();
    let mut plain = TcpStream::connect(serving.address()).unwrap();
    io::Write::write_all(&mut plain, b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    io::Read::read_to_end(&mut plain, &mut answer).unwrap();
    drop(plain);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), "{answer}");
    assert_eq!(metrics(&serving, authority.client(None, &[]), "").unwrap().status, 200);
    serving.until("the plain one is counted", |serving| {
        serving.metric("teiten_http_connections_closed_total{reason=\"handshake\"}") >= 1.0
    });
    drop(silent);
}

#[test]
fn client_certificates_are_verified_and_their_names_compared() {
    let authority = Authority::new();
    authority.sign("prometheus", "prometheus.example");
    authority.sign("wildcard", "*.example");
    authority.sign("address", "192.0.2.7");
    let other = Authority::new();
    other.sign("prometheus", "prometheus.example");

    let mutual = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
    let serving = authority.serve(&mutual);
    let try_as = |serving: &Serving, name| metrics(serving, authority.client(name, &[]), "");
    assert_eq!(try_as(&serving, Some("wildcard")).unwrap().status, 200);
    assert!(try_as(&serving, None).is_err(), "no certificate");
    // Signed by another authority, shown to this server.
    let mut forged = (*authority.client(None, &[])).clone();
    forged.client_auth_cert_resolver =
        other.client(Some("prometheus"), &[]).client_auth_cert_resolver.clone();
    assert!(metrics(&serving, Arc::new(forged), "").is_err(), "another authority");

    let serving =
        authority.serve(&format!("{mutual}  client_allowed_sans: [prometheus.example, 192.0.2.7]\n"));
    assert_eq!(try_as(&serving, Some("prometheus")).unwrap().status, 200);
    assert_eq!(try_as(&serving, Some("address")).unwrap().status, 200);
    assert!(try_as(&serving, Some("server")).is_err(), "another name");
    assert!(try_as(&serving, Some("wildcard")).is_err(), "a wildcard is not the name");
}

/// Asks on an open connection until the server does not answer on it any more.
async fn ask_until_closed<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) {
    let begun = Instant::now();
    let mut answer = [0; 4096];
    loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "still answered");
        if stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: s\r\n\r\n").await.is_err() {
            return;
        }
        match stream.read(&mut answer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[test]
fn tightened_terms_reach_connections_that_are_open() {
    let authority = Authority::new();
    authority.sign("prometheus", "prometheus.example");
    let serving = authority.serve("");
    let file = authority.path("web.yml");
    let healthy = b"GET /-/healthy HTTP/1.1\r\nhost: s\r\n\r\n";
    let mut answer = [0; 4096];
    serving.run(async {
        // From plain HTTP to TLS.
        let mut plain = tokio::net::TcpStream::connect(serving.address()).await.unwrap();
        plain.write_all(healthy).await.unwrap();
        assert!(plain.read(&mut answer).await.unwrap() > 0);
        fs::write(&file, TLS).unwrap();
        ask_until_closed(&mut plain).await;

        // To client certificates; one that is idle is closed too, when another is asked for.
        let mut asking = connect(&serving, authority.client(None, &[])).await.unwrap();
        let mut idle = connect(&serving, authority.client(None, &[])).await.unwrap();
        for stream in [&mut asking, &mut idle] {
            stream.write_all(healthy).await.unwrap();
            assert!(stream.read(&mut answer).await.unwrap() > 0);
        }
        let mutual =
            format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
        fs::write(&file, mutual).unwrap();
        ask_until_closed(&mut asking).await;
        assert!(matches!(idle.read(&mut answer).await, Ok(0) | Err(_)));
        assert_eq!(get(&serving, authority.client(Some("prometheus"), &[]), "").await.unwrap().status, 200);
    });
}

#[test]
fn new_users_reach_connections_that_are_open() {
    let authority = Authority::new();
    let serving = authority.serve("");
    let mut stream = serving.connect();
    let mut ask = || {
        io::Write::write_all(&mut stream, b"HEAD /-/healthy HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
        let mut answer = vec![0; 4096];
        let read = io::Read::read(&mut stream, &mut answer).unwrap();
        Answer::parse(&answer[..read]).status
    };
    assert_eq!(ask(), 200);
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    fs::write(authority.path("web.yml"), format!("basic_auth_users:\n  alice: {hash}\n")).unwrap();
    serving.until("the password is asked for", |_| ask() == 401);
}

#[test]
fn passwords_are_asked_for_on_every_path() {
    let authority = Authority::new();
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    let serving = authority.serve(&format!("basic_auth_users:\n  alice: {hash}\n"));
    let ask = |path: &str, credentials: Option<&str>| {
        let header = credentials
            .map(|text| format!("authorization: Basic {}\r\n", BASE64_STANDARD.encode(text)))
            .unwrap_or_default();
        serving.ask(&format!("GET {path} HTTP/1.1\r\nhost: s\r\nconnection: close\r\n{header}\r\n"))
    };
    for path in ["/metrics", "/", "/api/v1/status", "/-/healthy", "/-/ready", "/nowhere"] {
        let answer = ask(path, None);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Basic realm=\"teiten\"");
        assert!(!answer.text().contains("teiten_"), "{path}");
    }
    assert_eq!(ask("/metrics", Some("alice:wrong")).status, 401);
    assert_eq!(ask("/metrics", Some("bob:correct horse")).status, 401);
    assert_eq!(ask("/metrics", Some("alice:correct horse")).status, 200);
}

#[test]
fn guessing_passwords_keeps_no_known_scraper_waiting() {
    let authority = Authority::new();
    // About a second of bcrypt for each guess in a build without optimisation.
    let hash = bcrypt::hash("correct horse", 8).unwrap();
    let serving = authority.serve(&format!("basic_auth_users:\n  alice: {hash}\n"));
    let request = |password: &str| {
        let credentials = BASE64_STANDARD.encode(format!("alice:{password}"));
        format!(
            "GET /metrics HTTP/1.1\r\nhost: s\r\nauthorization: Basic {credentials}\r\nconnection: close\r\n\r\n"
        )
    };
    assert_eq!(serving.ask(&request("correct horse")).status, 200);
    let guesses: Vec<_> = (0..50)
        .map(|guess| {
            let mut stream = serving.connect();
            io::Write::write_all(&mut stream, request(&guess.to_string()).as_bytes()).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(serving.ask(&request("correct horse")).status, 200);
    // Behind all of them it would take far longer.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(guesses);
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    let authority = Authority::new();
    let serving = authority.serve(TLS);
    let shown = || {
        let stream = serving.run(connect(&serving, authority.client(None, &[]))).unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown();
    authority.sign("server", "sensor.example");
    serving.until("the new certificate is shown", |_| shown() != before);
}

#[test]
fn configured_headers_are_on_every_answer() {
    let authority = Authority::new();
    let serving = authority.serve(
        "http_server_config:\n  headers:\n    Content-Security-Policy: \"default-src 'self'\"\n    \
         X-Frame-Options: sameorigin\n",
    );
    for path in ["/", "/metrics", "/nowhere"] {
        let answer = serving.get(path);
        assert_eq!(answer.headers["content-security-policy"], "default-src 'self'", "{path}");
        assert_eq!(answer.headers["x-frame-options"], "sameorigin", "{path}");
    }
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_server_from_binding() {
    let authority = Authority::new();
    let file = authority.path("web.yml");
    fs::write(&file, "tls_server_config:\n  cert_flie: x\n").unwrap();
    let config = WebConfig { config_file: Some(file.clone()), ..config(&["127.0.0.1:0"]) };
    let error = Server::bind(&config).unwrap_err();
    assert!(matches!(error, BindError::Config(_)));
    let message = error.to_string();
    assert!(
        message.contains(&file.display().to_string()) && message.contains("unknown field `cert_flie`"),
        "{message}"
    );
}
