//! `--web.config.file`: TLS, client certificates, basic authentication and response headers in the
//! format of Prometheus' exporter-toolkit. [`Security`] follows the files as they change.

mod follow;

pub(super) use follow::Security;

use super::auth::Users;
use crate::system::regular_file;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a file: a web configuration with all of the Internet's authorities in it has a quarter.
const MAX_FILE: u64 = 1024 * 1024;

/// Opening brackets of a web configuration.
const MAX_BRACKETS: usize = 1_000;

/// `-`, `?` and `:` at the beginning of one line; `-----BEGIN` has five.
const MAX_MARKERS: usize = 32;

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
    /// Nested so deep that reading it would take more than linear time.
    #[error("{path}: nested too deep: {what}; a web configuration has a few brackets and two levels of keys")]
    Nested {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
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
struct WebFile {
    tls_server_config: Option<TlsFile>,
    http_server_config: HttpFile,
    #[serde(deserialize_with = "each_once")]
    basic_auth_users: BTreeMap<String, String>,
    rate_limit: Option<RateFile>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateFile {
    interval: Interval,
    burst: u32,
}

/// A duration with its unit, or 0, which exporter-toolkit documents as the default.
#[derive(Deserialize)]
#[serde(untagged)]
enum Interval {
    Number(i64),
    Text(String),
}

impl Default for Interval {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    #[serde(deserialize_with = "each_once")]
    headers: BTreeMap<String, String>,
}

impl Default for HttpFile {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// A mapping in which no key comes twice; YAML writes an empty one as nothing.
fn each_once<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct EachOnce;
    impl<'de> serde::de::Visitor<'de> for EachOnce {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a mapping of names to strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if found.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!("duplicate entry for {key:?}; keep one")));
                }
                found.insert(key, value);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_any(EachOnce)
}

/// What the file asks for, ready for use.
#[derive(Debug, Default)]
pub(super) struct LoadedSecurity {
    pub(super) tls: Option<Tls>,
    pub(super) users: Users,
    pub(super) headers: HeaderMap,
    pub(super) rate: Option<Rate>,
}

impl LoadedSecurity {
    /// What a connection has to agree to; `None` without TLS. A connection that was opened under other
    /// terms is not to be used any more.
    pub(super) fn terms(&self) -> Option<&Terms> {
        self.tls.as_ref().map(|tls| &tls.terms)
    }
}

/// All that decides whether a client gets a TLS connection: everything but the server's own certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    file: TlsFile,
    authorities: Option<Vec<u8>>,
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
    terms: Terms,
}

impl Tls {
    /// Whether the client's certificate carries a name that is allowed. Whether a certificate is
    /// needed at all, the handshake has already decided.
    pub(super) fn allows(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        let allowed = &self.terms.file.client_allowed_sans;
        if allowed.is_empty() {
            return true;
        }
        let Some(certificate) = certificates.and_then(<[_]>::first) else { return false };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        allowed.iter().any(|allowed| match allowed.parse::<std::net::IpAddr>() {
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
    Ok(FileReader { path }.chain(&tls)?.into_iter().next())
}

/// What makes YAML nested, where there is so much of it that its parser would need quadratic time.
fn too_deep(text: &str) -> Option<&'static str> {
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_BRACKETS {
        return Some("more than 1,000 brackets");
    }
    let markers = |line: &str| {
        line.bytes()
            .take_while(|byte| matches!(byte, b' ' | b'-' | b'?' | b':'))
            .filter(|byte| *byte != b' ')
            .count()
    };
    if text.lines().any(|line| markers(line) > MAX_MARKERS) {
        return Some("more than 32 list markers on a line");
    }
    None
}

fn parse(path: &Path) -> Result<WebFile, WebConfigError> {
    let text = regular_file::read_to_string(path, MAX_FILE).map_err(|source| WebConfigError::Read {
        what: "--web.config.file",
        path: path.to_owned(),
        source,
    })?;
    if let Some(what) = too_deep(&text) {
        return Err(WebConfigError::Nested { path: path.to_owned(), what });
    }
    let form = |source| WebConfigError::Form { path: path.to_owned(), source };
    // An empty file asks for nothing.
    let file: Option<WebFile> = serde_yaml_ng::from_str(&text).map_err(form)?;
    Ok(file.unwrap_or_default())
}

impl WebFile {
    /// The files that it names; `path` is its own.
    fn named(&self, path: &Path) -> Vec<PathBuf> {
        let reader = FileReader { path };
        let Some(tls) = &self.tls_server_config else { return Vec::new() };
        let named = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
        named.into_iter().flatten().map(|file| reader.beside(file)).collect()
    }

    /// What it asks for, with the files that it names read; `path` is its own.
    fn load(self, path: &Path) -> Result<LoadedSecurity, WebConfigError> {
        let reader = FileReader { path };
        let tls = match &self.tls_server_config {
            Some(tls) => Some(reader.tls(tls, self.http_server_config.http2)?),
            None => None,
        };
        let users = Users::new(self.basic_auth_users)
            .map_err(|(user, reason)| reader.value(&format!("basic_auth_users: {user}"), reason))?;
        let headers = reader.headers(&self.http_server_config.headers)?;
        let rate = match &self.rate_limit {
            Some(rate) => reader.rate(rate)?,
            None => None,
        };
        Ok(LoadedSecurity { tls, users, headers, rate })
    }
}

/// PEM text, and where it was given.
struct Pem {
    path: PathBuf,
    key: &'static str,
    text: Vec<u8>,
}

struct FileReader<'a> {
    path: &'a Path,
}

impl FileReader<'_> {
    fn value(&self, key: &str, reason: impl Into<String>) -> WebConfigError {
        WebConfigError::Value { path: self.path.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    /// Relative names are meant from the file's directory.
    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// The PEM text in the file itself or in another; `None` when neither is named.
    fn text(
        &self,
        keys: [&'static str; 2],
        inline: Option<&String>,
        file: Option<&PathBuf>,
    ) -> Result<Option<Pem>, WebConfigError> {
        match (inline, file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(self.value(keys[0], format!("given together with {}; keep one of them", keys[1])))
            }
            (Some(text), None) => {
                Ok(Some(Pem { path: self.path.to_owned(), key: keys[0], text: text.clone().into_bytes() }))
            }
            (None, Some(file)) => {
                let path = self.beside(file);
                match regular_file::read(&path, MAX_FILE) {
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
        let authorities_text = authorities.as_ref().map(|pem| pem.text.clone());
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
        let file = TlsFile { cert: None, cert_file: None, key: None, key_file: None, ..file.clone() };
        Ok(Tls { config: Arc::new(config), terms: Terms { file, authorities: authorities_text } })
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
        let wrong = |reason: String| self.value("rate_limit: interval", reason);
        let interval: jiff::SignedDuration = match &file.interval {
            Interval::Number(0) => jiff::SignedDuration::ZERO,
            Interval::Number(number) => {
                return Err(wrong(format!(
                    "{number} has no unit; write it as 1s or 100ms, or 0 for no limit"
                )));
            }
            Interval::Text(text) if text == "0" => jiff::SignedDuration::ZERO,
            Interval::Text(text) => text.parse().map_err(|error: jiff::Error| wrong(error.to_string()))?,
        };
        let interval = Duration::try_from(interval)
            .map_err(|_| wrong("is negative; 0 turns the limit off".to_owned()))?;
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
