//! The committed Alertmanager configuration: accepted by amtool, and what a real Alertmanager sends with it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use lab::wait::{PATIENCE, poll};
use xtask::dashboards;
use xtask::history::prometheus::{free_port, get};

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Listens on loopback and hands each connection to `receive`; the port, and what it received.
fn listen(receive: fn(TcpStream, &Sender<String>)) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || receive(stream, &sender));
        }
    });
    (port, receiver)
}

/// One HTTP request; its body.
fn http(mut stream: TcpStream, bodies: &Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .expect("an answer");
    let _ = bodies.send(String::from_utf8(body).expect("UTF-8"));
}

/// One SMTP session; each mail, its body decoded.
fn smtp(mut stream: TcpStream, mails: &Sender<String>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines().map_while(Result::ok);
    stream.write_all(b"220 here\r\n").expect("a greeting");
    while let Some(line) = lines.next() {
        let answer = match line.split(' ').next().unwrap_or_default() {
            "DATA" => {
                stream.write_all(b"354 send it\r\n").expect("an answer");
                let mail: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                let mail = mail.join("\n");
                let (headers, body) = mail.split_once("\n\n").expect("headers");
                let _ = mails.send(format!("{headers}\n\n{}", quoted_printable(body)));
                "250 kept"
            }
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn quoted_printable(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.filter(|_| byte == b'=').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn amtool_accepts_the_configuration() {
    let file = dashboards::directory().join("prometheus/alertmanager.yml");
    match Command::new("amtool").arg("check-config").arg(file).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("skipped: amtool cannot be run: {error}"),
    }
}

#[test]
fn one_event_is_one_message_in_both_languages() {
    let (webhook, pages) = listen(http);
    let (mail, mails) = listen(smtp);
    let port = free_port().expect("a port");
    let committed = dashboards::directory().join("prometheus");
    let directory = tempfile::tempdir().expect("a directory");
    let config = std::fs::read_to_string(committed.join("alertmanager.yml")).expect("the configuration");
    let config = config
        .replace("127.0.0.1:25\n", &format!("127.0.0.1:{mail}\n"))
        .replace("127.0.0.1:9095", &format!("127.0.0.1:{webhook}"))
        .replace("group_wait: 1m\n", "group_wait: 4s\n")
        .replace("group_wait: 30s\n", "group_wait: 4s\n")
        .replace("group_interval: 10m\n", "group_interval: 2s\n");
    std::fs::write(directory.path().join("alertmanager.yml"), config).expect("a copy");
    std::fs::copy(committed.join("teiten.tmpl"), directory.path().join("teiten.tmpl")).expect("a copy");
    let spawned = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", directory.path().join("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _alertmanager = match spawned {
        Ok(child) => Ends(child),
        Err(error) => {
            eprintln!("skipped: prometheus-alertmanager cannot be run: {error}");
            return;
        }
    };
    let ready = poll(PATIENCE, || get(port, "/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()));
    assert!(ready.is_some(), "Alertmanager is not ready");

    let fire = |name: &str, labels: &[&str], summary: &str, summary_ja: &str| {
        let output = Command::new("amtool")
            .arg(format!("--alertmanager.url=http://127.0.0.1:{port}"))
            .args(["alert", "add", name])
            .args(labels)
            .arg(format!("--annotation=summary={summary}"))
            .arg(format!("--annotation=summary_ja={summary_ja}"))
            .arg("--annotation=dashboard=https://grafana.example.net/d/teiten-port-en?var-port=5060&from=1&to=now")
            .arg(format!("--annotation=runbook_url=https://docs.example.net/runbooks.md#{}", name.to_lowercase()))
            .output()
            .expect("amtool");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    fire("TeitenSensorDown", &["sensor=s9", "severity=critical"], "sensor s9 is down", "観測点 s9 は停止");
    fire("TeitenSensorBlind", &["sensor=s9", "severity=critical"], "sensor s9 is blind", "回線なし");
    fire("TeitenObservationGap", &["sensor=s9", "severity=warning"], "sensor s9 has a gap", "欠落");
    for sensor in ["s1", "s2", "s3"] {
        let label = format!("sensor={sensor}");
        let labels = ["transport=udp", "port=5060", "severity=warning", &label];
        fire(
            "TeitenPortSpikeOnOneSensor",
            &labels,
            &format!("5060/udp on {sensor}"),
            &format!("観測点 {sensor} のみ"),
        );
    }

    let page = pages.recv_timeout(PATIENCE).expect("a page");
    assert!(page.contains("\"TeitenSensorDown\"") && !page.contains("TeitenSensorBlind"), "{page}");
    let mut received =
        [mails.recv_timeout(PATIENCE).expect("a mail"), mails.recv_timeout(PATIENCE).expect("two mails")];
    received.sort_by_key(|mail| mail.contains("5060/udp"));
    let [down, spike] = received;
    assert!(down.contains("Subject: [critical] sensor s9 is down"), "{down}");
    assert!(down.contains("観測点 s9 は停止") && down.contains("runbooks.md#teitensensordown"), "{down}");
    assert!(spike.contains("Subject: [warning] 3 TeitenPortSpikeOnOneSensor 5060/udp"), "{spike}");
    for sensor in ["s1", "s2", "s3"] {
        assert!(spike.contains(&format!("5060/udp on {sensor}")), "{spike}");
        assert!(spike.contains(&format!("観測点 {sensor} のみ")), "{spike}");
    }
    assert!(spike.contains("/d/teiten-port-en?var-port=5060&from=1&to=now"), "{spike}");
    assert!(spike.contains("/d/teiten-port-ja?var-port=5060&from=1&to=now"), "{spike}");
    // Blind and gap would have come with them; two more intervals bring nothing.
    let more = mails.recv_timeout(Duration::from_secs(6));
    assert!(more.is_err() && pages.try_recv().is_err(), "{more:?}");
}
