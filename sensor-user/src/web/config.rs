//! `--web.config.file`: TLS, client certificates, basic authentication and response headers in the
//! format of Prometheus' exporter-toolkit.
//!
//! The file and the certificates it names are looked at again, at most once a second, when a
//! connection or a request comes in, so a renewed certificate or a changed password needs no reload.
//! When the new state cannot be used, the one before stays and the failure is logged and counted.

use super::auth::Users;
use crate::exposition::{Health, Reload};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

/// How long a look at the files stays good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why `--web.config.file` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// A file cannot be read.
    #[error("read {what} {path}")]
    Read {
        /// Which key names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not YAML, an unknown key, or a value of the wrong kind.
    #[error("{path}: {source}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A key's value makes no sense, alone or beside the others.
    #[error("{path}: {key}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error("{path}: {key}: no usable PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// TLS refuses the certificate, the key, or the two together.
    #[error("{path}: tls_server_config: {source}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<TlsFile>,
    http_server_config: HttpFile,
    #[serde(deserialize_with = "null_is_default")]
    basic_auth_users: BTreeMap<String, String>,
    rate_limit: Option<RateFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateFile {
    interval: jiff::SignedDuration,
    #[serde(default)]
    burst: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsFile {
    cert: Option<String>,
    cert_file: Option<PathBuf>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    client_ca: Option<String>,
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    client_allowed_sans: Vec<String>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Vec<String>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpFile {
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for HttpFile {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// YAML writes an empty mapping as nothing.
fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What the file asks for, ready for use.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) tls: Option<Tls>,
    pub(super) users: Users,
    pub(super) headers: HeaderMap,
    pub(super) rate: Option<Rate>,
}

/// Lets a request through every so often, and a number of them at once: a token bucket.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// How far requests may run ahead of the interval.
    ahead: Duration,
    /// When the bucket is full again; `None` before the first request.
    full: Mutex<Option<Instant>>,
}

impl Rate {
    /// Whether a request may be answered now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        // One value, whole whatever panics elsewhere.
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full.unwrap_or(now).max(now);
        let is_admitted = from.saturating_duration_since(now) <= self.ahead;
        if is_admitted {
            *full = Some(from + self.interval);
        }
        is_admitted
    }
}

/// The TLS side of a connection.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    allowed_sans: Vec<String>,
}

impl Tls {
    /// Whether the client's certificate carries a name that is allowed. Whether a certificate is
    /// needed at all, the handshake has already decided.
    pub(super) fn allows(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        if self.allowed_sans.is_empty() {
            return true;
        }
        let Some(certificate) = certificates.and_then(<[_]>::first) else { return false };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        self.allowed_sans.iter().any(|allowed| match allowed.parse::<std::net::IpAddr>() {
            Ok(address) => certificate
                .verify_is_valid_for_subject_name(&ServerName::IpAddress(IpAddr::from(address)))
                .is_ok(),
            // Exactly, as exporter-toolkit compares: a wildcard in a certificate is just a name.
            Err(_) => {
                certificate.valid_dns_names().any(|name| name == allowed)
                    || certificate.valid_uri_names().any(|name| name == allowed)
            }
        })
    }
}

/// The certificate that a server with this file shows, for a client on the same machine; `None` when
/// it serves without TLS.
pub(crate) fn own_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, WebConfigError> {
    let file = parse(path)?;
    let Some(tls) = file.tls_server_config else { return Ok(None) };
    Ok(Reader { path }.chain(&tls)?.into_iter().next())
}

/// What tells a file from its earlier self.
type Fingerprint = Vec<Option<(SystemTime, u64, u64)>>;

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    paths
        .iter()
        .map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
        .collect()
}

/// The state of `--web.config.file`, followed as it changes.
#[derive(Debug)]
pub(super) struct Security {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    loaded: Arc<Loaded>,
    files: Vec<PathBuf>,
    fingerprint: Fingerprint,
    looked: Instant,
}

impl Security {
    /// Reads the file, or takes plain HTTP for all when there is none.
    pub(super) fn load(path: Option<&Path>, now: Instant) -> Result<Self, WebConfigError> {
        let (loaded, files, fingerprint) = match path {
            None => (Loaded::default(), Vec::new(), Vec::new()),
            Some(path) => read(path)?,
        };
        let state = State { loaded: Arc::new(loaded), files, fingerprint, looked: now };
        Ok(Self { path: path.map(Path::to_owned), state: Mutex::new(state) })
    }

    /// What holds now.
    pub(super) fn current(&self, now: Instant, health: &Health) -> Arc<Loaded> {
        // The state is replaced as a whole, so a panic elsewhere leaves it usable.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else { return Arc::clone(&state.loaded) };
        if now.saturating_duration_since(state.looked) >= LOOK_AGAIN {
            state.looked = now;
            let fresh = fingerprint(&state.files);
            if fresh != state.fingerprint {
                match read(path) {
                    Ok((loaded, files, fingerprint)) => {
                        tracing::info!(path = %path.display(), "reloaded --web.config.file");
                        *state = State { loaded: Arc::new(loaded), files, fingerprint, looked: now };
                    }
                    Err(error) => {
                        health.reload_failed(Reload::Web);
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(
                            path = %path.display(),
                            error,
                            "cannot reload --web.config.file; what was read before stays in use"
                        );
                        // Not again until something changes again.
                        state.fingerprint = fresh;
                    }
                }
            }
        }
        Arc::clone(&state.loaded)
    }
}

fn parse(path: &Path) -> Result<File, WebConfigError> {
    let text = fs::read_to_string(path).map_err(|source| WebConfigError::Read {
        what: "--web.config.file",
        path: path.to_owned(),
        source,
    })?;
    let form = |source| WebConfigError::Form { path: path.to_owned(), source };
    // An empty file asks for nothing.
    let file: Option<File> = serde_yaml_ng::from_str(&text).map_err(form)?;
    Ok(file.unwrap_or_default())
}

fn read(path: &Path) -> Result<(Loaded, Vec<PathBuf>, Fingerprint), WebConfigError> {
    let mut files = vec![path.to_owned()];
    // Taken before reading: a change in between is then seen at the next look.
    let before = fingerprint(&files);
    let file = parse(path)?;
    let reader = Reader { path };

    if let Some(tls) = &file.tls_server_config {
        let named = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
        files.extend(named.into_iter().flatten().map(|file| reader.beside(file)));
    }
    let mut seen = before;
    seen.extend(fingerprint(&files[1..]));

    let tls = match &file.tls_server_config {
        Some(tls) => Some(reader.tls(tls, file.http_server_config.http2)?),
        None => None,
    };
    let users = Users::new(file.basic_auth_users)
        .map_err(|(user, reason)| reader.value(&format!("basic_auth_users: {user}"), reason))?;
    let headers = reader.headers(&file.http_server_config.headers)?;
    let rate = match &file.rate_limit {
        Some(rate) => reader.rate(rate)?,
        None => None,
    };
    Ok((Loaded { tls, users, headers, rate }, files, seen))
}

/// PEM text, and where it stands.
struct Pem {
    path: PathBuf,
    key: &'static str,
    text: Vec<u8>,
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn value(&self, key: &str, reason: impl Into<String>) -> WebConfigError {
        WebConfigError::Value { path: self.path.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    /// Relative names are meant from the file's directory.
    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// The PEM text that stands in the file itself or in another; `None` when neither is named.
    fn text(
        &self,
        keys: [&'static str; 2],
        inline: Option<&String>,
        file: Option<&PathBuf>,
    ) -> Result<Option<Pem>, WebConfigError> {
        match (inline, file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(self.value(keys[0], format!("stands beside {}; keep one of them", keys[1])))
            }
            (Some(text), None) => {
                Ok(Some(Pem { path: self.path.to_owned(), key: keys[0], text: text.clone().into_bytes() }))
            }
            (None, Some(file)) => {
                let path = self.beside(file);
                match fs::read(&path) {
                    Ok(text) => Ok(Some(Pem { path, key: keys[1], text })),
                    Err(source) => Err(WebConfigError::Read { what: keys[1], path, source }),
                }
            }
        }
    }

    fn certificates(Pem { path, key, text }: &Pem) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
        let pem = |source| WebConfigError::Pem { path: path.clone(), key, source };
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(pem)?;
        if certificates.is_empty() { Err(pem(pem::Error::NoItemsFound)) } else { Ok(certificates) }
    }

    fn chain(&self, file: &TlsFile) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
        let chain = self
            .text(["cert", "cert_file"], file.cert.as_ref(), file.cert_file.as_ref())?
            .ok_or_else(|| self.value("tls_server_config", "names no cert_file (or cert)"))?;
        Self::certificates(&chain)
    }

    fn tls(&self, file: &TlsFile, http2: bool) -> Result<Tls, WebConfigError> {
        let refused = |source| WebConfigError::Tls { path: self.path.to_owned(), source };
        let chain = self.chain(file)?;
        let key = self
            .text(["key", "key_file"], file.key.as_ref(), file.key_file.as_ref())?
            .ok_or_else(|| self.value("tls_server_config", "names no key_file (or key)"))?;
        let key = PrivateKeyDer::from_pem_slice(&key.text).map_err(|source| WebConfigError::Pem {
            path: key.path,
            key: key.key,
            source,
        })?;

        let provider = Arc::new(self.provider(file)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions(file)?)
            .map_err(refused)?;

        let authorities = self.text(
            ["client_ca", "client_ca_file"],
            file.client_ca.as_ref(),
            file.client_ca_file.as_ref(),
        )?;
        let policy = file.client_auth_type.as_deref().unwrap_or("NoClientCert");
        let is_required = match policy {
            "NoClientCert" | "" => None,
            "VerifyClientCertIfGiven" => Some(false),
            "RequireAndVerifyClientCert" => Some(true),
            // These ask for a certificate and believe any: an open door that looks closed.
            "RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert" => {
                return Err(self.value(
                    "client_auth_type",
                    format!("{policy} does not verify certificates; RequireAndVerifyClientCert does"),
                ));
            }
            _ => {
                return Err(self.value(
                    "client_auth_type",
                    format!(
                        "there is no {policy}; there are NoClientCert, VerifyClientCertIfGiven and \
                         RequireAndVerifyClientCert"
                    ),
                ));
            }
        };
        let builder = match (is_required, authorities) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => {
                return Err(self.value(
                    "client_ca_file",
                    "is of no use without client_auth_type: RequireAndVerifyClientCert",
                ));
            }
            (Some(_), None) => {
                return Err(self.value("client_auth_type", format!("{policy} needs client_ca_file")));
            }
            (Some(is_required), Some(authorities)) => {
                let mut roots = RootCertStore::empty();
                for certificate in Self::certificates(&authorities)? {
                    roots.add(certificate).map_err(refused)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier =
                    verifier.build().map_err(|error| self.value("client_ca_file", error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        if !file.client_allowed_sans.is_empty() && is_required != Some(true) {
            return Err(self.value(
                "client_allowed_sans",
                "is of no use without client_auth_type: RequireAndVerifyClientCert",
            ));
        }
        if let Some(san) = file.client_allowed_sans.iter().find(|san| san.contains('@') && !san.contains(':'))
        {
            return Err(self.value(
                "client_allowed_sans",
                format!("{san}: e-mail names are not compared; use a DNS name, an IP address or a URI"),
            ));
        }

        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.ignore_client_order = file.prefer_server_cipher_suites.unwrap_or(true);
        if http2 {
            config.alpn_protocols.push(b"h2".to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(Tls { config: Arc::new(config), allowed_sans: file.client_allowed_sans.clone() })
    }

    fn versions(&self, file: &TlsFile) -> Result<Vec<&'static SupportedProtocolVersion>, WebConfigError> {
        let rank = |key, version: Option<&String>, default| match version.map(String::as_str) {
            None => Ok(default),
            Some("TLS12") => Ok(2),
            Some("TLS13") => Ok(3),
            Some("TLS10" | "TLS11") => {
                Err(self.value(key, "TLS 1.0 and 1.1 are deprecated (RFC 8996) and not spoken; use TLS12"))
            }
            Some(other) => Err(self.value(key, format!("there is no {other}; there are TLS12 and TLS13"))),
        };
        let min = rank("min_version", file.min_version.as_ref(), 2)?;
        let max = rank("max_version", file.max_version.as_ref(), 3)?;
        match (min, max) {
            (3, 2) => Err(self.value("min_version", "is above max_version")),
            (3, _) => Ok(vec![&TLS13]),
            (_, 2) => Ok(vec![&TLS12]),
            _ => Ok(vec![&TLS13, &TLS12]),
        }
    }

    /// The cryptography, cut down to the suites and curves that the file names.
    fn provider(&self, file: &TlsFile) -> Result<CryptoProvider, WebConfigError> {
        let mut provider = ring::default_provider();
        if !file.cipher_suites.is_empty() {
            let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
            let mut chosen = Vec::new();
            for wanted in &file.cipher_suites {
                let wanted_13 = wanted.replacen("TLS_", "TLS13_", 1);
                let suite =
                    provider.cipher_suites.iter().find(|s| name(s) == *wanted || name(s) == wanted_13);
                match suite {
                    // The list is for TLS up to 1.2; 1.3 keeps all of its own.
                    Some(suite) if suite.tls13().is_some() => {}
                    Some(suite) => chosen.push(*suite),
                    None => {
                        let known: Vec<_> = provider.cipher_suites.iter().map(name).collect();
                        let reason = format!("there is no {wanted}; there are {}", known.join(", "));
                        return Err(self.value("cipher_suites", reason));
                    }
                }
            }
            provider.cipher_suites.retain(|suite| suite.tls13().is_some());
            provider.cipher_suites.extend(chosen);
        }
        if !file.curve_preferences.is_empty() {
            let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
            for wanted in &file.curve_preferences {
                let group = match wanted.as_str() {
                    "X25519" => Some(NamedGroup::X25519),
                    "CurveP256" => Some(NamedGroup::secp256r1),
                    "CurveP384" => Some(NamedGroup::secp384r1),
                    _ => None,
                };
                match provider.kx_groups.iter().find(|known| Some(known.name()) == group) {
                    Some(known) => chosen.push(*known),
                    None => {
                        return Err(self.value(
                            "curve_preferences",
                            format!("there is no {wanted}; there are X25519, CurveP256 and CurveP384"),
                        ));
                    }
                }
            }
            provider.kx_groups = chosen;
        }
        Ok(provider)
    }

    fn rate(&self, file: &RateFile) -> Result<Option<Rate>, WebConfigError> {
        let interval = Duration::try_from(file.interval)
            .map_err(|_| self.value("rate_limit: interval", "is negative; 0s turns the limit off"))?;
        if interval.is_zero() {
            return Ok(None);
        }
        let Some(ahead) = file.burst.checked_sub(1).and_then(|further| interval.checked_mul(further)) else {
            return Err(self.value("rate_limit: burst", "lets nothing through; it is at least 1"));
        };
        Ok(Some(Rate { interval, ahead, full: Mutex::default() }))
    }

    fn headers(&self, headers: &BTreeMap<String, String>) -> Result<HeaderMap, WebConfigError> {
        // Those that exporter-toolkit allows, with the values it allows.
        const ALLOWED: [(&str, &[&str]); 5] = [
            ("Content-Security-Policy", &[]),
            ("Strict-Transport-Security", &[]),
            ("X-Content-Type-Options", &["nosniff"]),
            ("X-Frame-Options", &["deny", "sameorigin"]),
            ("X-XSS-Protection", &[]),
        ];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let key = format!("headers: {name}");
            let Some((_, values)) = ALLOWED.iter().find(|(allowed, _)| allowed == name) else {
                let names = ALLOWED.map(|(name, _)| name).join(", ");
                return Err(self.value(&key, format!("cannot be set; there are {names}")));
            };
            if value.is_empty() {
                continue;
            }
            if !values.is_empty() && !values.contains(&value.as_str()) {
                return Err(self.value(&key, format!("\"{value}\" is not one of {}", values.join(", "))));
            }
            let name = HeaderName::from_bytes(name.as_bytes()).expect("one of the names above");
            let value = HeaderValue::from_str(value)
                .map_err(|_| self.value(&key, "holds characters that no header can carry"))?;
            map.insert(name, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
