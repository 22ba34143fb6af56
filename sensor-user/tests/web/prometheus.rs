//! A real Prometheus scrapes the server: what it then says of sparse series must be the truth.

use crate::support::Serving;
use sensor_common::{Slot, Transport};
use sensor_user::counters::totals::{PortLabel, Tally, Totals};
use sensor_user::exposition::Exposition;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Prometheus on loopback, ended with the test.
struct Prometheus {
    address: SocketAddr,
    process: Child,
    _data: TempDir,
}

impl Prometheus {
    /// With a job for each `(name, interval, target)`; `None` where it is not installed.
    fn start(jobs: &[(&str, &str, SocketAddr)]) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let jobs: Vec<_> = jobs
            .iter()
            .map(|(name, interval, target)| {
                format!(
                    "  - job_name: {name}\n    scrape_interval: {interval}\n    scrape_timeout: {interval}\n    \
                     static_configs:\n      - targets: ['{target}']\n"
                )
            })
            .collect();
        let config = data.path().join("prometheus.yml");
        fs::write(&config, format!("scrape_configs:\n{}", jobs.concat())).unwrap();
        // Free a moment ago, and no one else asks for it in between.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let spawned = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(process) => Some(Self { address, process, _data: data }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("prometheus is not installed: not asked");
                None
            }
            Err(error) => panic!("start prometheus: {error}"),
        }
    }

    /// The value of an instant query for each of its series, by job and port.
    fn query(&self, query: &str) -> BTreeMap<(String, String), f64> {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return BTreeMap::new() };
        let encoded: Vec<_> = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let encoded = encoded.concat();
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\nhost: prometheus\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let Some((_, body)) = answer.split_once("\r\n\r\n") else { return BTreeMap::new() };
        // While it starts, it says so in words.
        let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { return BTreeMap::new() };
        let Some(result) = body["data"]["result"].as_array() else { return BTreeMap::new() };
        result
            .iter()
            .map(|series| {
                let label = |name: &str| series["metric"][name].as_str().unwrap_or_default().to_owned();
                let value = series["value"][1].as_str().unwrap().parse().unwrap();
                ((label("job"), label("port")), value)
            })
            .collect()
    }

    fn until(&self, what: &str, query: &str, is_so: impl Fn(&BTreeMap<(String, String), f64>) -> bool) {
        let begun = Instant::now();
        loop {
            let answer = self.query(query);
            if is_so(&answer) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain until {what}: {answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A drain: what is due is persisted, the totals come, what was persisted is released.
fn drain(exposition: &Exposition, totals: &Totals) {
    let due = exposition.due(Instant::now());
    exposition.update(Arc::new(totals.clone()));
    exposition.release(&due);
}

fn count(totals: &mut Totals, port: u16, accesses: u64) {
    let tally = Tally { accesses, sources: 1 };
    *totals.ports.entry(PortLabel::Own(Slot::new(Transport::Tcp, port))).or_default() += tally;
}

#[test]
fn two_scrapers_of_different_pace_see_every_access_of_sparse_ports() {
    let held = Serving::start(Duration::from_secs(3));
    // The same numbers without the rule, to show what it is for.
    let bare = Serving::start(Duration::ZERO);
    let jobs = [
        ("fast", "500ms", held.address()),
        ("slow", "2s", held.address()),
        ("bare", "500ms", bare.address()),
    ];
    let Some(prometheus) = Prometheus::start(&jobs) else { return };
    prometheus.until("it scrapes", "up == 1", |up| up.len() == 3);

    let mut totals = Totals::default();
    let drain_for = |totals: &Totals, duration| {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            for serving in [&held, &bare] {
                drain(&serving.exposition, totals);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    // One packet in all its life; born at 3 and then silent; born and growing while still held.
    count(&mut totals, 23, 1);
    drain_for(&totals, Duration::from_secs(1));
    count(&mut totals, 445, 3);
    count(&mut totals, 8080, 5);
    drain_for(&totals, Duration::from_secs(1));
    count(&mut totals, 8080, 2);
    drain_for(&totals, Duration::from_secs(8));

    let latest = "teiten_accesses_total";
    prometheus.until("both have the last values", latest, |latest| {
        ["fast", "slow"].iter().all(|job| {
            [("23", 1.0), ("445", 3.0), ("8080", 7.0)]
                .iter()
                .all(|(port, value)| latest.get(&((*job).to_owned(), (*port).to_owned())) == Some(value))
        })
    });
    let of = |answer: &BTreeMap<(String, String), f64>, job: &str, port: &str| {
        answer[&(job.to_owned(), port.to_owned())]
    };
    // The difference of samples that exist, which is what increase() is made of.
    let difference = prometheus
        .query("max_over_time(teiten_accesses_total[2m]) - min_over_time(teiten_accesses_total[2m])");
    let increase = prometheus.query("increase(teiten_accesses_total[2m])");
    let resets = prometheus.query("resets(teiten_accesses_total[2m])");
    for job in ["fast", "slow"] {
        for (port, truth) in [("23", 1.0), ("445", 3.0), ("8080", 7.0)] {
            assert_eq!(of(&difference, job, port), truth, "{job}, {port}");
            // It extrapolates by at most half a scrape interval at each end, but it is there.
            let increase = of(&increase, job, port);
            assert!((truth..truth * 2.0).contains(&increase), "{job}, {port}: {increase}");
            assert_eq!(of(&resets, job, port), 0.0, "{job}, {port}");
        }
    }
    assert_eq!(of(&difference, "bare", "23"), 0.0, "born with its value, it is lost");
    assert_eq!(of(&difference, "bare", "445"), 0.0);
}
