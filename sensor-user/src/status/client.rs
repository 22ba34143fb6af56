//! `teiten status`: asks the running sensor's own endpoint.

use super::{Status, render};
use crate::web::{WebConfigError, own_certificate};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long the sensor may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than any sensor says of itself.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Where the running sensor listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`, as `--web.listen-address` has it.
    pub address: String,
    /// The sensor's `--web.config.file`. With TLS in it, the sensor is believed when it shows the
    /// certificate that stands there, whatever name that is for.
    pub web_config_file: Option<PathBuf>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody is there.
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
    /// Somebody is there who does not speak HTTP.
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
    #[error("{address} answers {status}; does something else listen there? {hint}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it answered.
        status: StatusCode,
        /// The way out.
        hint: &'static str,
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

/// The address to ask for one to listen on: whoever listens on all addresses is asked on loopback.
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

/// Asks the sensor for its status: the JSON text and what it says.
///
/// # Errors
/// [`StatusError`] when nobody answers within ten seconds, or not with a status.
pub fn fetch(endpoint: &Endpoint) -> Result<(String, Status), StatusError> {
    let address = to_ask(&endpoint.address);
    let certificate = match &endpoint.web_config_file {
        Some(path) => own_certificate(path)?,
        None => None,
    };
    let tls = certificate.map(pinned).transpose().map_err(StatusError::Tls)?;
    let no_answer = |source| StatusError::NoAnswer { address: address.clone(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_answer)?;
    runtime.block_on(async {
        match tokio::time::timeout(TIMEOUT, get(&address, tls)).await {
            Ok(answer) => answer,
            Err(_) => Err(no_answer(io::ErrorKind::TimedOut.into())),
        }
    })
}

async fn get(address: &str, tls: Option<Arc<ClientConfig>>) -> Result<(String, Status), StatusError> {
    let no_answer = |source| StatusError::NoAnswer { address: address.to_owned(), source };
    let http = |source| StatusError::Http { address: address.to_owned(), source };
    let form = |reason: String| StatusError::Form { address: address.to_owned(), reason };

    let stream = TcpStream::connect(address).await.map_err(no_answer)?;
    let mut sender = match tls {
        None => converse(stream).await.map_err(http)?,
        Some(config) => {
            // Not sent and not compared: the certificate is known.
            let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(no_answer)?;
            converse(stream).await.map_err(http)?
        }
    };
    let request = Request::get("/api/v1/status")
        .header(http::header::HOST, address)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| form(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    if status != StatusCode::OK {
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                "if it is the sensor, it asks for a password (`--web.config.file`): \
                 use `curl --user NAME` on /api/v1/status"
            }
            StatusCode::SERVICE_UNAVAILABLE => "if it is the sensor, it is starting: try again in a moment",
            _ => "`--web.listen-address` names another",
        };
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

/// TLS with whoever proves to have the key of `certificate`.
fn pinned(certificate: CertificateDer<'static>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, algorithms }))
        .with_no_client_auth();
    config.enable_sni = false;
    Ok(Arc::new(config))
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
        // https://no-color.org
        let is_rich = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        write!(out, "{}", render(&status, is_rich, width(is_terminal)))
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `teiten status | head`.
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
        Endpoint { address: address.to_string(), web_config_file: None }
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
    fn nobody_there_says_so_and_the_way_out() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let message = fetch(&plain(&free)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("no sensor answers on {free}: ")), "{message}");
        assert!(
            message.ends_with("is `teiten run` running? `--web.listen-address` names another"),
            "{message}"
        );
    }

    #[test]
    fn somebody_else_is_told_from_a_sensor() {
        let said = |answer| fetch(&answering(answer)).unwrap_err().to_string();
        let other = said("SSH-2.0-OpenSSH_9.9\r\n");
        assert!(other.contains("does not answer as a sensor does"), "{other}");
        let missing = said("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert!(missing.contains("answers 404 Not Found"), "{missing}");
        let locked = said("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        assert!(locked.contains("asks for a password"), "{locked}");
        let form = said("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert!(form.contains("missing field"), "{form}");
    }
}
