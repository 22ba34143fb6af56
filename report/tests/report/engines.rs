//! Engines that speak Prometheus' HTTP API: with passwords and TLS, with faults, and of another make.

use super::{json, numbers, recorded, run, said};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xtask::history::prometheus::{Server, free_port, get, post};

const COMMON: [&str; 6] = ["--month", "2010-07", "--date", "2010-08-02", "--timezone", "Asia/Tokyo"];
/// bcrypt of `secret`.
const USERS: &str =
    "basic_auth_users:\n  alice: $2b$06$ASlMawx0NwDB4Lack8bLYe5dJaVaZOfFbbIarxCfyxzVocL00/jhC\n";

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, is_ready: impl Fn() -> bool) -> Option<Ends> {
    let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Ends(child),
        Err(error) => {
            eprintln!("skipped: {} cannot be run: {error}", command.get_program().display());
            return None;
        }
    };
    let since = Instant::now();
    while !is_ready() {
        assert!(since.elapsed() < Duration::from_mins(1), "{} is not ready", command.get_program().display());
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(child)
}

/// A Prometheus on the recorded series, with a web configuration.
fn prometheus(recorded: &Path, port: u16, more: &[String]) -> Option<Ends> {
    fs::write(recorded.join("prometheus.yml"), "").expect("a file");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", recorded.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", recorded.join("data").display()))
        .arg("--storage.tsdb.retention.time=100y")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(more);
    // With TLS or a password any answer says that it listens.
    start(&mut command, || get(port, "/-/ready").is_ok_and(|(status, _)| status != 503))
}

/// What the program says of an engine at this address.
fn fails(url: &str, more: &[&str]) -> String {
    let output = run(&[&COMMON[..], &["--format", "json", "--prometheus", url], more].concat());
    assert!(!output.status.success());
    said(&output)
}

#[test]
fn a_prometheus_with_tls_and_passwords() {
    let directory = tempfile::tempdir().expect("a directory");
    let (recorded, expected) = recorded(directory.path());
    let path = |name: &str| directory.path().join(name);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    fs::write(path("ca.crt"), authority.pem()).expect("a file");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    fs::write(path("server.crt"), params.signed_by(&key, &issuer).expect("a certificate").pem())
        .expect("a file");
    fs::write(path("server.key"), key.serialize_pem()).expect("a file");
    let tls = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
    fs::write(path("web.yml"), format!("{tls}{USERS}")).expect("a file");
    fs::write(path("password"), "secret\n").expect("a file");
    fs::write(path("wrong"), "wrong\n").expect("a file");
    let file = |name: &str| path(name).display().to_string();

    let port = free_port().expect("a port");
    let web = format!("--web.config.file={}", file("web.yml"));
    let Some(_server) = prometheus(&recorded, port, &[web]) else { return };
    let url = format!("https://localhost:{port}");
    let (ca, password, wrong) = (file("ca.crt"), file("password"), file("wrong"));
    let access = ["--prometheus", &url, "--ca", &ca, "--user", "alice", "--password-file", &password];
    assert_eq!(numbers(json(&[&COMMON[..], &access].concat())), expected);

    let no_password = fails(&url, &["--ca", &ca]);
    assert!(no_password.contains("401 Unauthorized; check --user with --password-file"), "{no_password}");
    let wrong = fails(&url, &["--ca", &ca, "--user", "alice", "--password-file", &wrong]);
    assert!(wrong.contains("401 Unauthorized"), "{wrong}");
    let bearer = fails(&url, &["--ca", &ca, "--bearer-token-file", &password]);
    assert!(bearer.contains("401 Unauthorized"), "{bearer}");
    let unknown = fails(&url, &["--user", "alice", "--password-file", &password]);
    assert!(unknown.contains("no connection by TLS") && unknown.contains("--ca FILE"), "{unknown}");
    let plain = fails(&format!("http://localhost:{port}"), &[]);
    assert!(plain.contains("give its address with https://"), "{plain}");
    for said in [&no_password, &unknown, &plain] {
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

/// A listener that answers each request in `answer`'s way, as a broken proxy would.
fn broken(answer: fn(&mut std::net::TcpStream)) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // All of the request, lest closing resets the connection.
            let mut request = vec![0; 65_536];
            let _ = stream.read(&mut request);
            answer(&mut stream);
        }
    });
    url
}

#[test]
fn an_engine_with_faults_is_named_with_a_way_out() {
    let error = broken(|stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\nConnection: close\r\n\r\nbroken",
        );
    });
    let error = fails(&error, &[]);
    assert!(error.contains("500 Internal Server Error \"broken\"") && error.contains("its log"), "{error}");
    let slow = broken(|_| std::thread::sleep(Duration::from_secs(5)));
    let since = Instant::now();
    let slow = fails(&slow, &["--timeout", "1"]);
    assert!(slow.contains("no answer within 1 s") && slow.contains("--timeout allows more"), "{slow}");
    assert!(since.elapsed() < Duration::from_secs(5));
    let partial = broken(|stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\nConnection: close\r\n\r\n{\"status\":\"success\",",
        );
    });
    let partial = fails(&partial, &[]);
    assert!(partial.contains("broke off") && partial.contains("run this again"), "{partial}");
    let cluster = broken(|stream| {
        let body = r#"{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}"#;
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    });
    let cluster = fails(&cluster, &[]);
    assert!(cluster.contains("a part of its storage does not answer"), "{cluster}");
    let page = broken(|stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>");
    });
    let page = fails(&page, &[]);
    assert!(page.contains("not that of Prometheus' HTTP API"), "{page}");
    for said in [&error, &slow, &partial, &cluster, &page] {
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }

    let directory = tempfile::tempdir().expect("a directory");
    let (recorded, _) = recorded(directory.path());
    let port = free_port().expect("a port");
    let Some(_server) = prometheus(&recorded, port, &["--query.max-samples=40".to_owned()]) else { return };
    let limited = fails(&format!("http://127.0.0.1:{port}"), &[]);
    assert!(limited.contains("raise its --query.max-samples"), "{limited}");
}

#[test]
fn victoriametrics_gives_the_same_report() {
    let directory = tempfile::tempdir().expect("a directory");
    let (recorded, expected) = recorded(directory.path());
    let port = free_port().expect("a port");
    let mut command = Command::new("victoria-metrics");
    command
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .args(["-search.latencyOffset=1s", "-retentionPeriod=100y"])
        .arg(format!("-storageDataPath={}", directory.path().join("engine").display()));
    let Some(_engine) = start(&mut command, || get(port, "/health").is_ok_and(|(status, _)| status == 200))
    else {
        return;
    };
    let lines = {
        let server = Server::start(&recorded, "").expect("prometheus");
        // The end of 2 August in Tokyo.
        let found = server.instant("{__name__=~\"sensor.*:day\"}[100d]", 1_280_761_200.0).expect("series");
        let mut lines = String::new();
        for series in found {
            let labels = series["metric"].as_object().expect("labels");
            let text: Vec<String> = labels
                .iter()
                .filter(|(name, _)| *name != "__name__")
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            for value in series["values"].as_array().expect("values") {
                let milliseconds = (value[0].as_f64().expect("a time") * 1000.0).round();
                let (name, amount) =
                    (labels["__name__"].as_str().expect("text"), value[1].as_str().expect("text"));
                let _ = writeln!(lines, "{name}{{{}}} {amount} {milliseconds}", text.join(","));
            }
        }
        lines
    };
    assert!(lines.lines().count() > 1000, "{}", lines.lines().count());
    let file = directory.path().join("lines");
    fs::write(&file, lines).expect("a file");
    let import = format!("http://127.0.0.1:{port}/api/v1/import/prometheus");
    let sent = Command::new("curl")
        .args(["-sS", "--fail", "--data-binary"])
        .arg(format!("@{}", file.display()))
        .arg(&import)
        .output();
    let sent = sent.expect("curl");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert!(post(port, "/internal/force_flush", &[]).is_ok_and(|(status, _)| status == 200));
    let url = format!("http://127.0.0.1:{port}");
    let report: Value = json(&[&COMMON[..], &["--prometheus", &url]].concat());
    assert_eq!(numbers(report), expected);
}
