//! `cargo xtask run`: the daemon from these sources.

use anyhow::{Context as _, Result};
use lab::build::{self, Profile};
use lab::{command, sudo};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Builds `teiten` as the user and becomes `teiten run ARGUMENTS`, as root.
///
/// # Errors
///
/// The build fails, there is no way to become root, or the program cannot be started. Otherwise this
/// process is the daemon and its exit status is this command's.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let teiten = build::daemon(Profile::Release)?;
    let mut daemon = Command::new(&teiten);
    daemon.arg("run").args(arguments);
    if !only_asks(arguments) {
        daemon = sudo::as_root(daemon, "attaching a program to an interface")?;
    }
    eprintln!("$ {}", command::line(&daemon));
    Err(daemon.exec()).with_context(|| format!("start {}", teiten.display()))
}

/// Help and version need no root.
fn only_asks(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| ["-h", "--help", "-V", "--version"].iter().any(|asks| argument == asks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_needs_no_root() {
        assert!(only_asks(&["--interface".into(), "eth0".into(), "--help".into()]));
        assert!(!only_asks(&["--interface".into(), "eth0".into()]));
    }
}
