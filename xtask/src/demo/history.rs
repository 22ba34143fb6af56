//! Months of history for the demo's Prometheus, made beside the demo.

use anyhow::{Context as _, Result};
use lab::netns;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

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
