//! The daemon, built from these sources.

use crate::command;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// What the daemon is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// To be looked at: what it depends on is built already, along with xtask.
    Development,
    /// To be installed.
    Release,
}

/// Builds the daemon and returns the path of its executable.
///
/// # Errors
///
/// The build fails.
pub fn daemon(profile: Profile) -> Result<PathBuf> {
    let mut build = command::cargo();
    build.args(["build", "--locked", "--package", "sensor-user", "--bin", "teiten"]);
    let directory = match profile {
        Profile::Development => "debug",
        Profile::Release => {
            // As packages have it.
            build.args(["--release", "--features", "parquet"]);
            "release"
        }
    };
    command::run(&mut build)?;
    Ok(target_directory()?.join(directory).join("teiten"))
}

/// The directory that cargo builds in.
///
/// # Errors
///
/// `cargo metadata` fails.
pub fn target_directory() -> Result<PathBuf> {
    let mut query = command::cargo();
    query.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&command::output(&mut query)?)?;
    let directory =
        metadata["target_directory"].as_str().context("read target_directory of cargo metadata")?;
    Ok(directory.into())
}
