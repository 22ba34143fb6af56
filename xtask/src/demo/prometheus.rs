//! A Prometheus that scrapes the demo's sensor, where one is installed.

use super::scrape;
use crate::netns;
use anyhow::{Context as _, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A running Prometheus; killed when dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Prometheus {
    /// Starts `program` with its files in `directory`, scraping the sensor at `target`.
    pub(super) fn start(program: &Path, directory: &Path, target: SocketAddr, sensor: &str) -> Result<Self> {
        let directory = directory.join("prometheus");
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let config = directory.join("prometheus.yml");
        fs::write(&config, configuration(target, sensor))
            .with_context(|| format!("write {}", config.display()))?;
        let log = fs::File::create(directory.join("log")).context("make Prometheus' log")?;
        // Freed again for Prometheus to take.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|free| free.local_addr())
            .context("find a port")?;
        let child = netns::bound_command(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share Prometheus' log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut prometheus = Self { child, address };
        prometheus.wait_ready()?;
        Ok(prometheus)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let since = Instant::now();
        while !scrape::get_here(self.address, "/-/ready").is_ok_and(|answer| answer.status == 200) {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("prometheus ended with {status}");
            }
            anyhow::ensure!(
                since.elapsed() < Duration::from_secs(30),
                "prometheus was not ready within 30 s"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The value of the instant query `expression`, which must have one.
    pub(super) fn query(&self, expression: &str) -> Result<f64> {
        let encoded: String = expression
            .bytes()
            .map(|octet| {
                if octet.is_ascii_alphanumeric() {
                    char::from(octet).to_string()
                } else {
                    format!("%{octet:02X}")
                }
            })
            .collect();
        let answer = scrape::get_here(self.address, &format!("/api/v1/query?query={encoded}"))?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer.body).context("read Prometheus' answer")?;
        answer["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("Prometheus has no value for {expression}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As the contract says: job `teiten`, and the sensor's name as a label of the target.
fn configuration(target: SocketAddr, sensor: &str) -> String {
    format!(
        "global:\n  scrape_interval: 5s\nscrape_configs:\n  - job_name: teiten\n    static_configs:\n      \
         - targets: ['{target}']\n        labels:\n          sensor: {sensor}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_job_and_sensor() {
        assert_eq!(
            configuration("127.0.0.1:9477".parse().unwrap(), "demo"),
            "\
global:
  scrape_interval: 5s
scrape_configs:
  - job_name: teiten
    static_configs:
      - targets: ['127.0.0.1:9477']
        labels:
          sensor: demo
"
        );
    }
}
