//! `cargo xtask run`: the daemon from these sources.

use crate::{command, sudo};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Builds `teiten` as the user and becomes `teiten run ARGUMENTS`, as root.
///
/// # Errors
///
/// The build fails, there is no way to become root, or the program cannot be started. Otherwise this
/// process is the daemon and its exit status is this command's.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let teiten = build(Profile::Release)?;
    let mut daemon = Command::new(&teiten);
    daemon.arg("run").args(arguments);
    if !only_asks(arguments) {
        daemon = sudo::as_root(daemon, "attaching a program to an interface")?;
    }
    eprintln!("$ {}", command::line(&daemon));
    Err(daemon.exec()).with_context(|| format!("start {}", teiten.display()))
}

/// What the daemon is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// To be looked at: what it depends on is built already, along with xtask.
    Development,
    /// To be installed.
    Release,
}

/// Builds the daemon, and tells where it lies.
///
/// # Errors
///
/// The build fails.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let mut build = command::cargo();
    build.args(["build", "--locked", "--package", "sensor-user", "--bin", "teiten"]);
    let directory = match profile {
        Profile::Development => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    command::run(&mut build)?;
    Ok(target_directory()?.join(directory).join("teiten"))
}

/// Where cargo builds, wherever it was told to.
///
/// # Errors
///
/// cargo does not tell.
pub fn target_directory() -> Result<PathBuf> {
    let mut query = command::cargo();
    query.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&command::output(&mut query)?)?;
    let directory =
        metadata["target_directory"].as_str().context("read target_directory of cargo metadata")?;
    Ok(directory.into())
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
