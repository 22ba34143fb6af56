//! What a friendly client gets.

use crate::support::{Answer, Serving, accesses, config, large};
use flate2::read::GzDecoder;
use sensor_user::commands::status::{Endpoint, fetch};
use sensor_user::shown::Status;
use sensor_user::sight::{Blind, Reason};
use sensor_user::web::{Limits, WebConfig};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOLD: Duration = Duration::from_secs(75);

#[test]
fn metrics_are_prometheus_text_and_gzip_only_when_asked() {
    let serving = Serving::start(Duration::ZERO);
    serving.exposition.update(Arc::new(accesses(445, 3)));
    let plain = serving.get("/metrics");
    assert_eq!(plain.status, 200);
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(plain.headers["content-length"], plain.body.len().to_string());
    assert_eq!(plain.headers.get("content-encoding"), None);
    let line = "teiten_accesses_total{transport=\"tcp\",port=\"445\"} 3\n";
    assert!(plain.text().contains(line));

    let gzip =
        serving.ask("GET /metrics HTTP/1.1\r\nhost: s\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert_eq!(gzip.headers["vary"], "accept-encoding");
    let mut text = String::new();
    GzDecoder::new(&gzip.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains(line));
    assert!(gzip.body.len() < text.len() / 3);
}

#[test]
fn a_change_shows_in_the_very_next_scrape() {
    let serving = Serving::start(Duration::ZERO);
    for count in 1..5 {
        serving.exposition.update(Arc::new(accesses(445, count)));
        let line = format!("teiten_accesses_total{{transport=\"tcp\",port=\"445\"}} {count}\n");
        assert!(serving.get("/metrics").text().contains(&line), "{line}");
    }
}

#[test]
fn head_says_what_get_would_and_is_no_scrape() {
    let serving = Serving::start(HOLD);
    serving.exposition.update(Arc::new(accesses(445, 3)));
    let head = serving.ask("HEAD /metrics HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n");
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    assert!(head.headers["content-length"].parse::<usize>().unwrap() > 1_000);
    let later = || Instant::now() + HOLD;
    serving.until("it is gone", |serving| serving.metric("teiten_http_connections ") == 0.0);
    assert_eq!(serving.exposition.due(later()), []);

    serving.get("/metrics");
    serving.until("the scrape is noted", |serving| !serving.exposition.due(later()).is_empty());
}

#[test]
fn the_metrics_have_the_path_that_is_asked_for() {
    let moved = WebConfig { telemetry_path: "/x/metrics".to_owned(), ..config(&["127.0.0.1:0"]) };
    let serving = Serving::with(&moved, HOLD);
    assert!(serving.get("/x/metrics").text().contains("teiten_up "));
    assert_eq!(serving.get("/metrics").status, 404);
    assert!(serving.get("/").text().contains("href=\"/x/metrics\""));
    assert_eq!(serving.metric("teiten_http_requests_total{code=\"200\",handler=\"metrics\"} "), 1.0);

    let alone = WebConfig { telemetry_path: "/".to_owned(), ..config(&["127.0.0.1:0"]) };
    let serving = Serving::with(&alone, HOLD);
    assert!(serving.get("/").text().contains("teiten_up "));
    assert!(serving.get("/metrics").text().starts_with("not found; there are /, /-/healthy"));
}

#[test]
fn only_get_and_head_are_answered() {
    let serving = Serving::start(HOLD);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        for path in ["/metrics", "/", "/nowhere"] {
            let answer = serving.ask(&format!(
                "{method} {path} HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ));
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], "GET, HEAD");
        }
    }
    assert_eq!(serving.get("/nowhere").status, 404);
    assert_eq!(serving.get("/-/healthy").status, 200);
}

#[test]
fn ready_from_the_first_drain_until_three_intervals_without_one() {
    let serving = Serving::start(HOLD);
    let health = serving.exposition.health();
    assert_eq!(serving.get("/-/ready").status, 503);
    health.set_attached(true);
    health.set_current_for(Duration::from_hours(1));
    health.drained(Instant::now(), jiff::Timestamp::now(), Duration::from_millis(1));
    assert_eq!(serving.get("/-/ready").status, 200);
    let blind = |reason| vec![Blind::new(reason, Some("eth0"), "interface eth0 is set down", "set it up")];
    health.set_blind(blind(Reason::LinkDown));
    let answer = serving.get("/-/ready");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().starts_with("not ready: link_down: interface eth0 is set down; "),
        "{}",
        answer.text()
    );
    health.set_blind(blind(Reason::Silent));
    assert_eq!(serving.get("/-/ready").status, 200, "silence is a suspicion");
    health.set_current_for(Duration::ZERO);
    assert_eq!(serving.get("/-/ready").status, 503);
    assert_eq!(serving.get("/-/healthy").status, 200, "it is alive all the same");
}

#[test]
fn the_status_shows_what_the_hold_hides() {
    let serving = Serving::start(HOLD);
    serving.exposition.update(Arc::new(accesses(445, 3)));
    assert!(serving.get("/metrics").text().contains("teiten_country_accesses_total{country=\"JP\"} 0\n"));
    let answer = serving.get("/api/v1/status");
    assert_eq!(answer.headers["content-type"], "application/json");
    let status: Status = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status.total.countries[0].accesses, 3);
    assert!(status.identities.iter().all(|identity| identity.holds));

    // And `teiten status` reads it from there.
    let endpoint = Endpoint { address: serving.address().to_string(), ..Endpoint::default() };
    let (text, fetched) = fetch(&endpoint).unwrap();
    assert_eq!(fetched.total, status.total);
    assert!(text.starts_with('{'));
}

#[test]
fn the_landing_page_is_whole_by_itself_and_believes_no_name() {
    let serving = Serving::start(HOLD);
    serving.exposition.update(Arc::new(accesses(445, 543_415)));
    let answer = serving.get("/");
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let page = answer.text();
    assert!(page.contains("&lt;b&gt;tokyo &amp; &quot;1&quot;&lt;/b&gt;"), "{page}");
    assert!(!page.contains("<b>tokyo"), "{page}");
    assert!(page.contains("543,415") && page.contains("href=\"/metrics\""));
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"30\">"), "{page}");
    assert!(page.contains("Japan <span class=\"dim\">JP</span>"), "{page}");
    assert_eq!(answer.headers["content-language"], "en");
    assert_eq!(answer.headers["vary"], "accept-language");
    let japanese =
        serving.ask("GET / HTTP/1.1\r\nhost: s\r\naccept-language: ja,en;q=0.5\r\nconnection: close\r\n\r\n");
    assert_eq!(japanese.headers["content-language"], "ja");
    assert!(japanese.text().contains("日本 <span class=\"dim\">JP</span>"), "{}", japanese.text());
    for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
}

#[test]
fn a_scraper_keeps_its_connection() {
    let serving = Serving::start(HOLD);
    let mut stream = serving.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        let mut read = 0;
        while !answer[..read].ends_with(b"teiten is healthy\n") {
            let more = stream.read(&mut answer[read..]).unwrap();
            assert!(more > 0, "the connection was closed");
            read += more;
        }
        assert_eq!(Answer::parse(&answer[..read]).status, 200);
    }
}

#[test]
fn all_listen_addresses_are_served_ipv6_too() {
    let serving = Serving::with(&config(&["127.0.0.1:0", "[::1]:0"]), HOLD);
    assert_eq!(serving.addresses.len(), 2);
    for address in &serving.addresses {
        let endpoint = Endpoint { address: address.to_string(), ..Endpoint::default() };
        fetch(&endpoint).unwrap();
    }
}

#[test]
fn a_scrape_counts_when_the_answer_was_written_out_whole() {
    let serving = Serving::start(HOLD);
    serving.exposition.update(large());
    let later = || Instant::now() + HOLD;

    // Asks, reads a little, and goes away.
    let mut stream = serving.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    let mut little = [0; 1024];
    stream.read_exact(&mut little).unwrap();
    assert!(little.starts_with(b"HTTP/1.1 200 OK\r\n"));
    drop(stream);
    serving.until("it is gone", |serving| serving.metric("teiten_http_connections ") == 0.0);
    assert_eq!(serving.exposition.due(later()), []);

    assert_eq!(serving.get("/metrics").status, 200);
    serving.until("the scrape is noted", |serving| serving.exposition.due(later()).len() > 10_000);
}

#[test]
fn the_end_lets_answers_be_finished_and_waits_for_no_idle_connection() {
    let mut serving = Serving::start(Duration::ZERO);
    serving.exposition.update(large());
    // Idle connections and half a head do not hold it up.
    let _idle = serving.connect();
    let mut half = serving.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\nho").unwrap();
    let mut reader = serving.connect();
    reader.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    let mut first = [0; 1024];
    reader.read_exact(&mut first).unwrap();
    // The server ends while most of the answer is still to be sent.
    serving.begin_end();
    let mut all = first.to_vec();
    reader.read_to_end(&mut all).unwrap();
    let took = serving.end();
    assert!(took < Limits::default().stall, "{took:?}");
    let answer = Answer::parse(&all);
    assert_eq!(answer.body.len().to_string(), answer.headers["content-length"]);

    // A client that never reads does not hold it up either.
    let mut serving = Serving::start(Duration::ZERO);
    serving.exposition.update(large());
    let mut stalled = serving.connect();
    stalled.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    let took = serving.end();
    assert!(took < Limits::default().stall, "{took:?}");
}
