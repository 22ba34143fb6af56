//! Two real Prometheus servers of different pace on one real daemon, which is killed, restarted and
//! away meanwhile.

use crate::common::{calm_timezone, ledger, teiten};
use lab::scrape;
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WEB};
use lab::traffic::{Carry, Frames, Sender, packet};
use lab::wait::{PATIENCE, poll, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use xtask::history::prometheus::{Server, create_blocks};

/// One and a quarter of the slower pace, as the default of 75 s is of a minute.
const FLAGS: [&str; 8] =
    ["--interface", INTERFACE, "--series-hold", "5s", "--drain-interval", "1s", "--sensor-name", "lab"];

/// A Prometheus in the sensor's network; killed when dropped.
struct Prometheus<'a> {
    lab: &'a Lab,
    child: Child,
    address: SocketAddr,
}

impl<'a> Prometheus<'a> {
    fn start(lab: &'a Lab, pace: &str, port: u16) -> Self {
        let directory = lab.directory().join(format!("prometheus-{pace}"));
        std::fs::create_dir(&directory).unwrap();
        let config = directory.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: {pace}\n  scrape_timeout: {pace}\nscrape_configs:\n  - job_name: teiten\n    \
             static_configs:\n      - targets: ['{WEB}']\n        labels:\n          sensor: lab\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = lab.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("log")).unwrap());
        Self { lab, child: command.spawn().unwrap(), address }
    }

    /// The series of an instant query with their values; none while it starts.
    fn query(&self, expression: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let encoded: Vec<String> = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let encoded = encoded.concat();
        let path = format!("/api/v1/query?query={encoded}");
        let Ok(answer) = scrape::get(&self.lab.sensor, self.address, &path) else { return Vec::new() };
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        series(answer["data"]["result"].as_array().map_or(&[], Vec::as_slice))
    }

    /// Waits until the instant query has these values by port.
    fn wait_ports(&self, expression: &str, wanted: &[(&str, f64)]) {
        let mut found = Vec::new();
        let came = poll(PATIENCE, || {
            found = self.query(expression);
            let value = |port: &str| {
                found
                    .iter()
                    .find(|(labels, _)| labels.get("port").is_some_and(|it| it == port))
                    .map(|it| it.1)
            };
            wanted.iter().all(|(port, wanted)| value(port) == Some(*wanted)).then_some(())
        });
        assert!(came.is_some(), "{}, {expression}: {found:?} is not {wanted:?}", self.address);
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Labels without the target's address, which an export does not know, and values.
fn series(result: &[Value]) -> Vec<(BTreeMap<String, String>, f64)> {
    let one = |series: &Value| {
        let labels = series["metric"].as_object().unwrap().iter().filter(|(name, _)| *name != "instance");
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        (labels.collect(), series["value"][1].as_str().unwrap().parse().unwrap())
    };
    result.iter().map(one).collect()
}

fn start(lab: &Lab) -> Daemon {
    lab.start(teiten(), &[&FLAGS[..], &["--timezone", &calm_timezone()]].concat()).unwrap()
}

/// `count` UDP packets of one source to `port`.
fn send(sender: &mut Sender, port: u16, host: u8, count: usize) {
    let ip = packet::Ip::new(IpAddr::from([203, 0, 113, host]), IpAddr::from([198, 18, 0, 1]));
    let datagram = ip.packet(packet::protocol::UDP, &packet::udp(&ip, 4_000, port, b""));
    let frame = packet::ethernet(SENSOR_MAC, INTERNET_MAC, &[], packet::ethertype::IPV4, &datagram);
    let mut frames = Frames::default();
    (0..count).for_each(|_| frames.push(&frame));
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
}

#[test]
fn two_scrapers_see_all_that_was_sent_through_a_kill_and_an_absence_and_so_does_the_export() {
    needs_root!();
    needs_program!("prometheus");
    needs_program!("promtool");
    let lab = Lab::new(1500).unwrap();
    let mut daemon = start(&lab);
    let scrapers = [Prometheus::start(&lab, "1s", 9091), Prometheus::start(&lab, "4s", 9092)];
    for prometheus in &scrapers {
        wait_until(format!("a scrape by {}", prometheus.address), || !prometheus.query("up == 1").is_empty());
    }
    let mut sender = lab.sender().unwrap();
    // Held when the daemon is killed: it begins its hold again, at 0.
    send(&mut sender, 5_060, 1, 3);
    daemon.wait_counted(3, PATIENCE).unwrap();
    daemon.stop(Signal::SIGKILL).unwrap();
    // A single packet in all its life, and more for the other, while no one drains.
    send(&mut sender, 27_649, 2, 1);
    send(&mut sender, 5_060, 2, 2);
    daemon = start(&lab);
    let first = [("5060", 5.0), ("27649", 1.0)];
    for prometheus in &scrapers {
        prometheus.wait_ports("teiten_accesses_total", &first);
    }
    // A target that is down: what was shown continues, what is new is shown at 0 first.
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    send(&mut sender, 5_060, 1, 4);
    send(&mut sender, 1_434, 3, 7);
    for prometheus in &scrapers {
        let is_down = || !prometheus.query("up == 0").is_empty();
        wait_until(format!("what {} notices of the absence", prometheus.address), is_down);
    }
    let daemon = start(&lab);
    let sent = [("5060", 9.0), ("27649", 1.0), ("1434", 7.0)];
    for prometheus in &scrapers {
        prometheus.wait_ports("teiten_accesses_total", &sent);
        // As each saw it: nothing lost, nothing twice, and never down.
        let window = "[5m]";
        let metric = "teiten_accesses_total";
        let difference = format!("max_over_time({metric}{window}) - min_over_time({metric}{window})");
        prometheus.wait_ports(&difference, &sent);
        let sources = "teiten_sources_total";
        let difference = format!("max_over_time({sources}{window}) - min_over_time({sources}{window})");
        prometheus.wait_ports(&difference, &[("5060", 2.0), ("27649", 1.0), ("1434", 1.0)]);
        assert!(prometheus.query(&format!("resets({metric}{window}) > 0")).is_empty());
        for (port, sent) in sent {
            let increase = prometheus.query(&format!("increase({metric}{{port=\"{port}\"}}{window})"));
            // It extrapolates over the seconds that these series are old; it loses nothing.
            assert!(increase[0].1 >= sent && increase[0].1 < sent * 1.5, "{port}: {increase:?}");
        }
    }

    let wanted = "{__name__=~\"teiten_.+_total\",__name__!~\"teiten_(observation|bytes|http|render|flow|reload|drain).*\"}";
    // All that is held comes in the end, and the slower one sees it.
    wait_until("the end of the hold", || !scrapers[1].query("teiten_series_held == 0").is_empty());
    let mut live = scrapers[1].query(wanted);
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());

    let directory = lab.directory().join("exported");
    std::fs::create_dir_all(directory.join("data")).unwrap();
    let file = directory.join("ledger.om");
    // The hour in progress too: this server has no head that it would overlap.
    let now = jiff::Timestamp::now().as_second();
    let end = jiff::Timestamp::from_second(now + 3600 - now % 3600).unwrap();
    let export = ["export", "--format", "openmetrics", "--end", &end.to_string()];
    std::fs::write(&file, ledger(&lab, &export)).unwrap();
    create_blocks(&file, &directory.join("data")).unwrap();
    let server = Server::start(&directory, "").unwrap();
    // `last_over_time` keeps the names.
    let after = end.as_second() + 1;
    let exported = server.instant(&format!("last_over_time({wanted}[2d])"), after as f64).unwrap();
    let mut exported = series(&exported);
    for series in [&mut live, &mut exported] {
        series.sort_by(|a, b| a.0.cmp(&b.0));
    }
    assert!(live.len() > 20, "{live:?}");
    assert_eq!(live, exported);
}
