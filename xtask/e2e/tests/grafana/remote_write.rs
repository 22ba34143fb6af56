//! Prometheus with the committed remote-write configuration in front of a real `VictoriaMetrics`.

use std::process::{Child, Command, Stdio};

use lab::target;
use lab::wait::{PATIENCE, poll};
use serde_json::Value;
use xtask::dashboards;
use xtask::history::prometheus::{Server, free_port, get};

/// A sensor's exposition in the form of `/metrics`.
const METRICS: &str = "# TYPE teiten_accesses_total counter
teiten_accesses_total{transport=\"tcp\",port=\"445\"} 7
# TYPE teiten_observation_seconds_total counter
teiten_observation_seconds_total 60
# TYPE teiten_sensor_info gauge
teiten_sensor_info{timezone=\"Asia/Tokyo\",interface=\"eth0\",xdp_mode=\"native\"} 1
";

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value(port: u16, query: &str) -> Option<String> {
    let (_, body) = get(port, &format!("/api/v1/query?query={query}")).ok()?;
    let answer: Value = serde_json::from_str(&body).ok()?;
    Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
}

#[test]
fn victoriametrics_receives_samples_and_recorded_series() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = free_port().expect("a port");
    let spawned = Command::new("victoria-metrics")
        .arg(format!("-httpListenAddr=127.0.0.1:{engine}"))
        .arg("-search.latencyOffset=1s")
        .arg(format!("-storageDataPath={}", directory.path().join("engine").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _engine = match spawned {
        Ok(child) => Ends(child),
        Err(error) => {
            eprintln!("skipped: victoria-metrics cannot be run: {error}");
            return;
        }
    };
    let target = target::serve(METRICS.to_owned());

    // The committed rules, evaluated every two seconds so that no one waits for the minute.
    let rules = directory.path().join("rules");
    std::fs::create_dir(&rules).expect("a directory");
    for file in std::fs::read_dir(dashboards::directory().join("prometheus/rules")).expect("the rules") {
        let file = file.expect("a rule file");
        let text = std::fs::read_to_string(file.path()).expect("a rule file");
        std::fs::write(rules.join(file.file_name()), text.replace("interval: 1m\n", "interval: 2s\n"))
            .expect("a copy");
    }
    let committed = dashboards::directory().join("prometheus").canonicalize().expect("the configuration");
    let read = |name: &str| std::fs::read_to_string(committed.join(name)).expect("a committed file");
    let remote = read("remote-write/victoriametrics.yml");
    let remote = &remote[remote.find("remote_write:").expect("remote_write")..];
    let config = read("prometheus.yml")
        .replace("rules/*.yml", &format!("{}/*.yml", rules.display()))
        .replace("127.0.0.1:9477", &format!("127.0.0.1:{target}"))
        .replace("scrape_interval: 30s", "scrape_interval: 2s")
        .replace("scrape_timeout: 10s", "scrape_timeout: 2s")
        + &remote.replace("127.0.0.1:8428", &format!("127.0.0.1:{engine}"));
    let _server = Server::start(directory.path(), &config).expect("prometheus");

    // VictoriaMetrics shows what it has after half a minute unless configured otherwise.
    let accesses = "teiten_accesses_total%7Bjob=%22teiten%22,sensor=%22sensor-01%22,port=%22445%22%7D";
    let offset = "sensor:teiten_utc_offset:seconds";
    let expected = [(accesses, "7"), (offset, "32400")];
    let is_there = |(query, expected): &(&str, &str)| value(engine, query).as_deref() == Some(expected);
    let came = poll(3 * PATIENCE, || expected.iter().all(is_there).then_some(()));
    assert!(came.is_some(), "{:?}", expected.map(|(query, _)| value(engine, query)));
}
