use super::follow::LOOK_AGAIN;
use super::*;
use crate::exposition::Exposition;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;

/// A directory with a certificate `server.crt`, its key `server.key`, and `web.yml` as given.
fn directory(yaml: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_certificate(directory.path());
    fs::write(directory.path().join("web.yml"), yaml).unwrap();
    directory
}

fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["sensor.example".to_owned()]).unwrap();
    fs::write(directory.join("server.crt"), made.cert.pem()).unwrap();
    fs::write(directory.join("server.key"), made.signing_key.serialize_pem()).unwrap();
}

fn load(directory: &TempDir) -> Result<Security, WebConfigError> {
    Security::load(Some(&directory.path().join("web.yml")), Instant::now())
}

/// The message without the path of the file, which is another one each time.
fn complaint(yaml: &str) -> String {
    let directory = directory(yaml);
    let error = load(&directory).unwrap_err().to_string();
    error.replace(&format!("{}/", directory.path().display()), "")
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

#[test]
fn exporter_toolkits_own_example_is_understood() {
    let yaml = format!(
        "{TLS}http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
         basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n"
    );
    let directory = directory(&yaml);
    let loaded = load(&directory).unwrap().state.borrow().clone();
    let tls = loaded.tls.as_ref().unwrap();
    assert_eq!(tls.config.alpn_protocols, [b"http/1.1"]);
    assert!(!loaded.users.is_empty());
    assert_eq!(loaded.headers["x-frame-options"], "deny");
}

#[test]
fn an_empty_file_asks_for_nothing() {
    for yaml in ["", "# nothing\n", "{}", "basic_auth_users:\n"] {
        let directory = directory(yaml);
        let loaded = load(&directory).unwrap().state.borrow().clone();
        assert!(loaded.tls.is_none() && loaded.users.is_empty(), "{yaml:?}");
    }
}

#[test]
fn unknown_keys_are_named() {
    let message = complaint(&format!("{TLS}  cert_fil: server.crt\n"));
    assert!(message.starts_with("web.yml: tls_server_config: unknown field `cert_fil`"), "{message}");
    let message = complaint("basic_auth_user:\n  alice: x\n");
    assert!(message.starts_with("web.yml: unknown field `basic_auth_user`"), "{message}");
}

#[test]
fn each_mistake_is_named_with_the_way_out() {
    let tls = |more: &str| format!("{TLS}  {more}\n");
    let ca = "client_ca_file: server.crt\n  client_auth_type: RequireAndVerifyClientCert\n  ";
    for (yaml, message) in [
        (
            "tls_server_config:\n  key_file: server.key\n".to_owned(),
            "web.yml: tls_server_config: names no cert_file (or cert)",
        ),
        (
            "tls_server_config:\n  cert_file: server.crt\n".to_owned(),
            "web.yml: tls_server_config: names no key_file (or key)",
        ),
        (tls("cert: x"), "web.yml: cert: given together with cert_file; keep one of them"),
        (
            "tls_server_config:\n  cert_file: gone.crt\n  key_file: server.key\n".to_owned(),
            "read cert_file gone.crt",
        ),
        (
            "tls_server_config:\n  cert_file: web.yml\n  key_file: server.key\n".to_owned(),
            "web.yml: cert_file: no usable PEM",
        ),
        (
            tls("client_auth_type: RequireAnyClientCert"),
            "web.yml: client_auth_type: RequireAnyClientCert does not verify certificates; \
             RequireAndVerifyClientCert does",
        ),
        (
            tls("client_auth_type: Require"),
            "web.yml: client_auth_type: there is no Require; there are NoClientCert, \
             VerifyClientCertIfGiven and RequireAndVerifyClientCert",
        ),
        (
            tls("client_auth_type: RequireAndVerifyClientCert"),
            "web.yml: client_auth_type: RequireAndVerifyClientCert needs client_ca_file",
        ),
        (
            tls("client_ca_file: server.crt"),
            "web.yml: client_ca_file: is of no use without client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            tls("client_allowed_sans: [a.example]"),
            "web.yml: client_allowed_sans: is of no use without client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            tls(&format!("{ca}client_allowed_sans: [a@b.example]")),
            "web.yml: client_allowed_sans: a@b.example: e-mail names are not compared; \
             use a DNS name, an IP address or a URI",
        ),
        (
            tls("min_version: TLS10"),
            "web.yml: min_version: TLS 1.0 and 1.1 are deprecated (RFC 8996) and not spoken; use TLS12",
        ),
        (tls("min_version: TLS13\n  max_version: TLS12"), "web.yml: min_version: is above max_version"),
        (
            tls("curve_preferences: [CurveP521]"),
            "web.yml: curve_preferences: there is no CurveP521; there are X25519, CurveP256 and CurveP384",
        ),
        (
            "http_server_config:\n  headers:\n    Server: x\n".to_owned(),
            "web.yml: headers: Server: cannot be set; there are Content-Security-Policy, \
             Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n".to_owned(),
            "web.yml: headers: X-Frame-Options: \"allow\" is not one of deny, sameorigin",
        ),
    ] {
        assert_eq!(complaint(&yaml), message, "{yaml}");
    }
    assert!(
        complaint("basic_auth_users:\n  bob: secret\n").starts_with("web.yml: basic_auth_users: bob: not a")
    );
    assert!(
        complaint(&tls("cipher_suites: [RC4]"))
            .starts_with("web.yml: cipher_suites: there is no RC4; there are ")
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = directory(TLS);
    let other = tempfile::tempdir().unwrap();
    write_certificate(other.path());
    fs::copy(other.path().join("server.key"), directory.path().join("server.key")).unwrap();
    let error = load(&directory).unwrap_err();
    assert!(matches!(error, WebConfigError::Tls { .. }), "{error}");
}

#[test]
fn suites_and_curves_are_cut_down_to_the_ones_named() {
    let directory = directory(&format!(
        "{TLS}  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
         curve_preferences: [CurveP384, X25519]\n"
    ));
    let loaded = load(&directory).unwrap().state.borrow().clone();
    let provider = loaded.tls.as_ref().unwrap().config.crypto_provider().clone();
    let tls12: Vec<_> = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).collect();
    assert_eq!(tls12.len(), 1);
    assert_eq!(tls12[0].suite(), rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups, [NamedGroup::secp384r1, NamedGroup::X25519]);
}

#[tokio::test]
async fn a_changed_file_is_taken_up_within_a_second_and_a_broken_one_is_not() {
    let directory = directory("basic_auth_users:\n");
    let exposition = Arc::new(Exposition::new(Duration::ZERO, BTreeSet::new()).unwrap());
    let failures = || {
        let text = String::from_utf8(exposition.render(Instant::now()).unwrap().text).unwrap();
        text.contains("teiten_reload_failures_total{what=\"web\"} 1\n")
    };
    let security = Arc::new(load(&directory).unwrap());
    let begun = security.due.lock().unwrap().checked_sub(LOOK_AGAIN).unwrap();
    let at = async |seconds| security.current(begun + Duration::from_secs(seconds), &exposition).await;
    let file = directory.path().join("web.yml");

    fs::write(&file, TLS).unwrap();
    assert!(at(0).await.tls.is_none(), "not looked at again yet");
    assert!(at(1).await.tls.is_some());

    fs::write(&file, "nonsense: [").unwrap();
    assert!(at(2).await.tls.is_some(), "what was read before stays");
    assert!(failures());
    assert!(at(3).await.tls.is_some());

    // A renewed certificate alone is a change too.
    fs::write(&file, TLS).unwrap();
    let before = at(4).await;
    write_certificate(directory.path());
    assert!(!Arc::ptr_eq(&before, &at(5).await));
}

#[test]
fn a_rate_limit_lets_a_burst_through_and_then_one_each_interval() {
    let directory = directory("rate_limit:\n  interval: 10s\n  burst: 3\n");
    let loaded = load(&directory).unwrap().state.borrow().clone();
    let rate = loaded.rate.as_ref().unwrap();
    let begun = Instant::now();
    let admitted = |seconds: &[u64]| {
        seconds.iter().map(|&at| rate.admits(begun + Duration::from_secs(at))).collect::<Vec<_>>()
    };
    assert_eq!(admitted(&[0, 0, 0, 0]), [true, true, true, false]);
    assert_eq!(admitted(&[9, 10, 10, 20]), [false, true, false, true]);
    // After a rest, the whole burst again.
    assert_eq!(admitted(&[100, 100, 100, 100]), [true, true, true, false]);

    // exporter-toolkit documents a bare 0 as the default.
    for off in ["{}", "{interval: 0}", "{interval: 0, burst: 0}", "{interval: 0s}", "{interval: \"0\"}"] {
        let directory = self::directory(&format!("rate_limit: {off}\n"));
        assert!(load(&directory).unwrap().state.borrow().rate.is_none(), "{off}");
    }
    assert_eq!(
        complaint("rate_limit: {interval: 5, burst: 1}\n"),
        "web.yml: rate_limit: interval: 5 has no unit; write it as 1s or 100ms, or 0 for no limit"
    );
}

#[test]
fn what_stands_there_twice_is_an_error_and_neither_wins() {
    let twice = complaint("basic_auth_users:\n  alice: x\n  bob: y\n  alice: z\n");
    assert!(twice.contains("duplicate entry for \"alice\"; keep one"), "{twice}");
    let twice = complaint(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Frame-Options: sameorigin\n",
    );
    assert!(twice.contains("duplicate entry for \"X-Frame-Options\""), "{twice}");
}

#[test]
fn a_file_that_would_take_long_to_read_is_refused_at_once() {
    for nested in ["[".repeat(200_000), "basic_auth_users: ".to_owned() + &"{a: ".repeat(100_000)] {
        let message = complaint(&nested);
        assert!(message.starts_with("web.yml: nested too deep: more than 1,000 brackets"), "{message}");
    }
    let message = complaint(&"- ".repeat(200_000));
    assert!(message.starts_with("web.yml: nested too deep: more than 32 list markers"), "{message}");

    let directory = directory(&"# nothing\n".repeat(200_000));
    let message = crate::error_chain(&load(&directory).unwrap_err());
    assert!(message.ends_with("larger than 1048576 bytes"), "{message}");
}

#[test]
fn a_file_that_never_ends_is_not_waited_for() {
    let directory = directory("");
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&fifo, Path::new("/dev/zero"), directory.path()] {
        let message = crate::error_chain(&Security::load(Some(path), Instant::now()).unwrap_err());
        assert!(message.ends_with("not a regular file"), "{message}");
    }
    fs::write(directory.path().join("web.yml"), TLS.replace("server.crt", "fifo")).unwrap();
    let message = crate::error_chain(&load(&directory).unwrap_err());
    assert!(message.contains("read cert_file") && message.contains("not a regular file"), "{message}");
}

#[test]
fn a_renewed_certificate_changes_no_terms_and_another_authority_does() {
    let directory = directory(TLS);
    let mutual = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
    let loaded = |yaml: &str| {
        fs::write(directory.path().join("web.yml"), yaml).unwrap();
        load(&directory).unwrap().state.borrow().clone()
    };
    let authority =
        || fs::copy(directory.path().join("server.crt"), directory.path().join("ca.crt")).unwrap();
    authority();
    let (plain, tls, required) = (loaded(""), loaded(TLS), loaded(&mutual));
    assert_ne!(plain.terms(), tls.terms());
    assert_ne!(tls.terms(), required.terms());
    write_certificate(directory.path());
    assert_eq!(loaded(&mutual).terms(), required.terms(), "only the server's own is another");
    authority();
    assert_ne!(loaded(&mutual).terms(), required.terms());
}
