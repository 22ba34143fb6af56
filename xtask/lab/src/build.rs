//! The programs, built from these sources.

use crate::command;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the daemon is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// To be looked at: what it depends on is built already, along with xtask.
    Development,
    /// To be installed.
    Release,
}

/// A program as it is packaged.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Of the executable.
    pub name: &'static str,
    /// Also the name of its directory.
    package: &'static str,
    features: &'static str,
}

/// The daemon and its commands.
pub const TEITEN: Program = Program { name: "teiten", package: "sensor-user", features: "parquet" };
/// The report of a month.
pub const REPORT: Program = Program { name: "teiten-report", package: "report", features: "pdf" };

impl Program {
    /// A cargo that builds it with its features, for development.
    pub fn build(&self) -> Command {
        let mut build = command::cargo();
        build.args(["build", "--locked", "--package", self.package, "--bin", self.name]);
        build.args(self.features());
        build
    }

    /// Cargo's option of the features that it is packaged with.
    pub fn features(&self) -> Vec<&'static str> {
        if self.features.is_empty() { Vec::new() } else { vec!["--features", self.features] }
    }

    /// The path of its manifest in the project.
    pub fn manifest(&self) -> PathBuf {
        Path::new(self.package).join("Cargo.toml")
    }
}

/// Builds a program for release and returns the path of its executable.
///
/// # Errors
///
/// The build fails.
pub fn release(program: &Program) -> Result<PathBuf> {
    command::run(program.build().arg("--release"))?;
    Ok(target_directory()?.join("release").join(program.name))
}

/// Builds the daemon and returns the path of its executable.
///
/// # Errors
///
/// The build fails.
pub fn daemon(profile: Profile) -> Result<PathBuf> {
    if profile == Profile::Release {
        return release(&TEITEN);
    }
    let mut build = command::cargo();
    build.args(["build", "--locked", "--package", TEITEN.package, "--bin", TEITEN.name]);
    command::run(&mut build)?;
    Ok(target_directory()?.join("debug").join(TEITEN.name))
}

/// Builds `teiten-report` without the typesetter and returns the path of its executable.
///
/// # Errors
///
/// The build fails.
pub fn report() -> Result<PathBuf> {
    let mut build = command::cargo();
    command::run(build.args(["build", "--locked", "--package", "report"]))?;
    Ok(target_directory()?.join("debug/teiten-report"))
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
