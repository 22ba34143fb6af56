//! Months of history for the demo's Prometheus, made while the demo runs.

use super::prometheus::Prometheus;
use anyhow::{Context as _, Result, ensure};
use lab::netns;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the history may take to be made and found.
const PATIENCE: Duration = Duration::from_mins(10);

/// The process that makes the history, and its children; killed when dropped.
#[derive(Debug)]
pub(super) struct Making {
    child: Child,
}

impl Making {
    /// Has the model of the last six months put into the data directory of a running Prometheus, at
    /// a low priority: the sensor's counts come first.
    pub(super) fn start(data: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let child = netns::bound_command("nice")
            .args(["-n", "10"])
            .arg(program)
            .args(["history", "--report", "recent", "--into"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start making the history")?;
        Ok(Self { child })
    }
}

impl Making {
    /// Waits until `prometheus` serves the history; `false` when a signal came before.
    pub(super) fn wait(&mut self, prometheus: &Prometheus, interrupted: &AtomicBool) -> Result<bool> {
        let since = Instant::now();
        let mut is_made = false;
        while !interrupted.load(Ordering::Relaxed) {
            if !is_made && let Some(status) = self.child.try_wait().context("wait for the history")? {
                ensure!(status.success(), "making the model history failed: {status}");
                is_made = true;
            }
            if is_made && prometheus.has_history()? {
                return Ok(true);
            }
            ensure!(since.elapsed() < PATIENCE, "the model history was not there within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(false)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // It leads a group of its own and is not yet waited for, so the number is its own.
        let group = Pid::from_raw(self.child.id() as i32);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        // Its children write until they have ended too, and the directory is about to be removed.
        let since = Instant::now();
        while killpg(group, None).is_ok() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
