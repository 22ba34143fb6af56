//! A Grafana with the committed dashboards, where one is installed.

use super::ports;
use crate::dashboards;
use anyhow::{Context as _, Result};
use lab::{command, netns};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A running Grafana; killed when dropped.
#[derive(Debug)]
pub(super) struct Grafana {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Grafana {
    /// Starts the installed Grafana, if any, on the committed provisioning, reading from `prometheus`.
    /// Every user of this host can read, none can change anything.
    pub(super) fn start(directory: &Path, prometheus: SocketAddr, port: u16) -> Result<Option<Self>> {
        let Some(program) = command::find("grafana").or_else(|| command::find("grafana-server")) else {
            return Ok(None);
        };
        let directory = directory.join("grafana");
        provision(&directory.join("provisioning"), prometheus)?;
        let address = ports::near(port, "Grafana")?;
        let log = fs::File::create(directory.join("log")).context("make Grafana's log")?;
        let mut grafana = netns::bound_command(&program);
        if program.ends_with("grafana") {
            grafana.arg("server");
        }
        if let Some(home) = home(&program) {
            grafana.arg("--homepath").arg(home);
        }
        let child = grafana
            .env("GF_PATHS_PROVISIONING", directory.join("provisioning"))
            .env("GF_PATHS_DATA", directory.join("data"))
            .env("GF_PATHS_LOGS", directory.join("logs"))
            .env("GF_PATHS_PLUGINS", directory.join("plugins"))
            .env("GF_SERVER_HTTP_ADDR", address.ip().to_string())
            .env("GF_SERVER_HTTP_PORT", address.port().to_string())
            .env("GF_AUTH_ANONYMOUS_ENABLED", "true")
            .env("GF_AUTH_ANONYMOUS_ORG_ROLE", "Viewer")
            .env("GF_ANALYTICS_REPORTING_ENABLED", "false")
            .env("GF_ANALYTICS_CHECK_FOR_UPDATES", "false")
            .env("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false")
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share Grafana's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Some(Self { child, address }))
    }
}

impl Drop for Grafana {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Grafana keeps its own files: beside the program, or where the packages put them.
fn home(program: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    let beside = program.parent()?.parent()?.to_owned();
    [beside, PathBuf::from("/usr/share/grafana")]
        .into_iter()
        .find(|home| home.join("conf/defaults.ini").exists())
}

/// The committed provisioning, with this demo's Prometheus and this checkout's dashboards.
fn provision(directory: &Path, prometheus: SocketAddr) -> Result<()> {
    let committed = dashboards::directory().canonicalize().context("find the dashboards")?;
    for (name, from, to) in [
        ("datasources/teiten.yml", "http://127.0.0.1:9090".to_owned(), format!("http://{prometheus}")),
        (
            "dashboards/teiten.yml",
            "/var/lib/grafana/dashboards/teiten".to_owned(),
            committed.join("dashboards").display().to_string(),
        ),
    ] {
        let text =
            fs::read_to_string(committed.join("provisioning").join(name)).context("read the provisioning")?;
        anyhow::ensure!(text.contains(&from), "{name} does not name {from}");
        let file = directory.join(name);
        fs::create_dir_all(file.parent().context("a file has a directory")?).context("make a directory")?;
        fs::write(&file, text.replace(&from, &to)).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_provisioning_is_given_the_demos_addresses() {
        let directory = tempfile::tempdir().unwrap();
        provision(directory.path(), "127.0.0.1:19090".parse().unwrap()).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("datasources/teiten.yml").contains("url: http://127.0.0.1:19090\n"));
        let provider = read("dashboards/teiten.yml");
        let path = provider.lines().find_map(|line| line.trim().strip_prefix("path: ")).unwrap();
        assert!(Path::new(path).join("teiten-monthly.en.json").exists());
    }
}
