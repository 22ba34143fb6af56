//! Targets whose label `sensor` is not what it should be, in a real Prometheus with the committed
//! configuration and alert rules.

use std::collections::BTreeSet;
use std::process::Command;

use lab::target;
use lab::wait::{PATIENCE, poll};
use serde_json::Value;
use xtask::dashboards;
use xtask::history::prometheus::{Server, get};

/// What a sensor of that name with that ledger says of itself.
fn sensor(name: &str, ledger: &str, accesses: u32) -> u16 {
    target::serve(format!(
        "# TYPE teiten_up gauge
teiten_up 1
# TYPE teiten_accesses_total counter
teiten_accesses_total{{transport=\"tcp\",port=\"445\"}} {accesses}
# TYPE teiten_sensor_info gauge
teiten_sensor_info{{sensor=\"{name}\",timezone=\"Asia/Tokyo\",interface=\"eth0\",xdp_mode=\"native\"}} 1
# TYPE teiten_ledger_info gauge
teiten_ledger_info{{ledger=\"{ledger}\"}} 1
"
    ))
}

/// Name and sensor of each alert about sensors that fires.
fn firing(port: u16) -> BTreeSet<(String, String)> {
    let query = "ALERTS%7Balertstate=%22firing%22,alertname=~%22TeitenSensor.*%22%7D";
    let Ok((_, body)) = get(port, &format!("/api/v1/query?query={query}")) else { return BTreeSet::new() };
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let label = |series: &Value, name: &str| series["metric"][name].as_str().unwrap_or_default().to_owned();
    let series = answer["data"]["result"].as_array().map_or(&[][..], Vec::as_slice);
    series.iter().map(|series| (label(series, "alertname"), label(series, "sensor"))).collect()
}

#[test]
fn two_machines_of_one_label_and_labels_that_are_not_the_name_page() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: prometheus is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // The committed rules, without the minutes.
    let committed = dashboards::directory().join("prometheus").canonicalize().expect("the configuration");
    let rules = std::fs::read_to_string(committed.join("rules/teiten-alerts.yml")).expect("the rules");
    let rules = rules.replace("interval: 1m\n", "interval: 1s\n").replace("for: 30m\n", "for: 3s\n");
    std::fs::write(directory.path().join("alerts.yml"), rules).expect("a copy");
    let labelled = |port: u16, label: &str| {
        format!("      - targets: [\"127.0.0.1:{port}\"]\n        labels: {{ {label} }}\n")
    };
    let targets = [
        labelled(sensor("alone", "1a", 10), "sensor: alone"),
        labelled(sensor("pair", "2a", 240), "sensor: pair"),
        labelled(sensor("pair", "2b", 168), "sensor: pair"),
        labelled(sensor("own-name", "3a", 10), "sensor: target-name"),
        labelled(sensor("unlabelled", "4a", 10), "site: here"),
    ];
    let config = std::fs::read_to_string(committed.join("prometheus.yml")).expect("the configuration");
    let config = config
        .replace("rules/*.yml", "alerts.yml")
        .replace(
            "      - targets: [\"127.0.0.1:9477\"]\n        labels:\n          sensor: sensor-01\n",
            &targets.concat(),
        )
        .replace("scrape_interval: 30s", "scrape_interval: 1s")
        .replace("scrape_timeout: 10s", "scrape_timeout: 1s");
    let server = Server::start(directory.path(), &config).expect("prometheus");
    let expected = [
        ("TeitenSensorShared", "pair"),
        ("TeitenSensorName", "target-name"),
        // Only the sensor's own name is there.
        ("TeitenSensorName", "unlabelled"),
    ];
    let expected: BTreeSet<_> =
        expected.map(|(alert, sensor)| (alert.to_owned(), sensor.to_owned())).into_iter().collect();
    let came = poll(2 * PATIENCE, || (firing(server.port) == expected).then_some(()));
    assert!(came.is_some(), "{:?}", firing(server.port));
    // That it holds is of the same evaluation: every target was scraped, and none but these fires.
    let up = server.instant("count(up{job=\"teiten\"} == 1)", jiff::Timestamp::now().as_second() as f64);
    assert_eq!(up.expect("an answer")[0]["value"][1], "5");
}
