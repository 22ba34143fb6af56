//! A Prometheus that scrapes the demo's sensor, where one is installed.

use super::ports;
use crate::dashboards;
use anyhow::{Context as _, Result};
use lab::netns;
use lab::scrape;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A running Prometheus; killed when dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its data directory.
    pub(super) data: PathBuf,
}

impl Prometheus {
    /// Starts `program` with its files in `directory`, scraping the sensor at `target` and evaluating
    /// the committed rules, on `port` or a free one; does not wait for it.
    pub(super) fn start(
        program: &Path,
        directory: &Path,
        target: SocketAddr,
        sensor: &str,
        port: u16,
    ) -> Result<Self> {
        let directory = directory.join("prometheus");
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let config = directory.join("prometheus.yml");
        fs::write(&config, configuration(target, sensor))
            .with_context(|| format!("write {}", config.display()))?;
        let log = fs::File::create(directory.join("log")).context("make Prometheus' log")?;
        copy_rules(&directory.join("rules"))?;
        let data = directory.join("data");
        fs::create_dir(&data).with_context(|| format!("make {}", data.display()))?;
        let address = ports::near(port, "Prometheus")?;
        let child = netns::bound_command(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=400d")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share Prometheus' log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, address, data })
    }

    /// Waits until it answers.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
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

    /// Where its pages for people are. Debian's package has only the old ones, below `/classic`.
    pub(super) fn pages(&self) -> String {
        let has = |path| scrape::get_here(self.address, path).is_ok_and(|answer| answer.status == 200);
        let old = if !has("/alerts") && has("/classic/alerts") { "/classic" } else { "" };
        format!("http://{}{old}", self.address)
    }

    /// Whether it serves the model history from end to end. It finds blocks that were put into its directory within
    /// a minute. Sensors that have begun now have recorded days and months as well.
    pub(super) fn has_history(&self) -> Result<bool> {
        const BOTH_ENDS: &str = "count by (sensor) (count_over_time(sensor:teiten_observation_seconds:day[3d])) \
            and count by (sensor) (count_over_time(sensor:teiten_observation_seconds:day[30d] offset 130d))";
        let answer = self.answer(BOTH_ENDS)?;
        Ok(answer["data"]["result"].as_array().is_some_and(|sensors| !sensors.is_empty()))
    }

    /// The value of the instant query `expression`, which must have one.
    pub(super) fn query(&self, expression: &str) -> Result<f64> {
        let answer = self.answer(expression)?;
        answer["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("Prometheus has no value for {expression}"))
    }

    /// What it answers to the instant query `expression`.
    fn answer(&self, expression: &str) -> Result<serde_json::Value> {
        let encoded: String = expression
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        let answer = scrape::get_here(self.address, &format!("/api/v1/query?query={encoded}"))?;
        serde_json::from_str(&answer.body).context("read Prometheus' answer")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The committed rules, evaluated so often that a demo of minutes shows what they record.
fn copy_rules(directory: &Path) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
    for entry in fs::read_dir(dashboards::directory().join("prometheus/rules")).context("find the rules")? {
        let entry = entry?;
        let mut text =
            fs::read_to_string(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        for interval in ["1m", "5m", "10m"] {
            text = text.replace(&format!("\n    interval: {interval}\n"), "\n    interval: 15s\n");
        }
        fs::write(directory.join(entry.file_name()), text).context("copy the rules")?;
    }
    Ok(())
}

/// As docs/operating.md says: job `teiten`, and the sensor's name as a label of the target.
fn configuration(target: SocketAddr, sensor: &str) -> String {
    format!(
        "global:\n  scrape_interval: 5s\nrule_files: [rules/*.yml]\nscrape_configs:\n  - job_name: teiten\n    static_configs:\n      \
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
rule_files: [rules/*.yml]
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
