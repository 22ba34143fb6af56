//! `cargo xtask lint`: formatting, lints, links and words of the pages, names and arrows of the modules, and
//! dashboards that are as they are generated.

mod links;
mod modules;
mod runbooks;
mod words;

use crate::WORKSPACE;
use crate::dashboards::{self, DashboardsArgs};
use crate::licenses;
use crate::report::{Outcome, Report};
use anyhow::{Context as _, Result, bail};
use lab::command;
use std::process::Command;

/// Crates outside the workspace, which cargo does not format along with it.
const OUTSIDE: [&str; 2] = ["sensor-ebpf/Cargo.toml", "sensor-common/fuzz/Cargo.toml"];

/// Checks everything, after applying automatic fixes with `fix`.
///
/// # Errors
///
/// Something is not as it should be; what, was printed.
pub fn run(fix: bool) -> Result<()> {
    if fix {
        apply_fixes()?;
    }
    let mut report = Report::default();
    steps(&mut report);
    println!("\n{report}");
    if !report.is_good() {
        bail!("not clean; `cargo xtask lint --fix` fixes formatting, dashboards and what clippy can fix");
    }
    Ok(())
}

/// The steps, as part of a larger report.
pub fn steps(report: &mut Report) {
    report.step("format", || format(true).into());
    report.step("lints", || clippy(&EVERYTHING, &[]).into());
    report.step("lints without features", || clippy(&DEFAULT_BUILD, &[]).into());
    report.step("dashboards", || dashboards(true).into());
    report.step("links", || links::check().into());
    report.step("runbooks", || runbooks::check().into());
    report.step("words", || words::check().into());
    report.step("modules", || modules::check().into());
    report.step("licences", || licenses::generate(true).into());
    // It takes minutes to install, and what it finds changes with its database: it belongs to a release.
    if command::find("cargo-deny").is_some() {
        report.step("dependencies", dependencies);
    }
}

fn apply_fixes() -> Result<()> {
    clippy(&EVERYTHING, &["--fix", "--allow-dirty", "--allow-staged"])?;
    format(false)?;
    dashboards(false)
}

fn dashboards(check: bool) -> Result<()> {
    dashboards::generate(&DashboardsArgs { check, ..DashboardsArgs::default() })
}

/// The files of the repository that match any of these patterns.
fn tracked(patterns: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    // The sources may belong to another user than the one who checks them.
    git.args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(patterns);
    let listed = command::output(git.current_dir(command::root()))?;
    // One that was deleted and not yet committed is listed too.
    Ok(listed.lines().filter(|name| command::root().join(name).exists()).map(str::to_owned).collect())
}

/// The text of a file of the repository.
fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(command::root().join(name)).with_context(|| format!("read {name}"))
}

fn format(check: bool) -> Result<()> {
    let check: &[&str] = if check { &["--check"] } else { &[] };
    command::run(command::cargo().args(["fmt", "--all"]).args(check))?;
    for manifest in OUTSIDE {
        command::run(command::cargo().args(["fmt", "--manifest-path", manifest]).args(check))?;
    }
    Ok(())
}

/// What `deny.toml` says of licences, duplicates and sources, and, where its database can be fetched, what
/// `RustSec` knows of the crates.
pub(crate) fn dependencies() -> Outcome {
    let deny = |arguments: &[&str]| {
        let mut deny = command::cargo();
        deny.arg("deny").args(arguments);
        deny
    };
    let report = ["--manifest-path", "report/Cargo.toml", "--config", "report/deny.toml", "check"];
    for config in [&["check"][..], &report] {
        let checks = ["licenses", "bans", "sources"];
        if let Err(error) = command::run(&mut deny(&[&["--offline"], config, &checks].concat())) {
            return Outcome::Failed(format!("{error:#}"));
        }
    }
    if command::output(&mut deny(&["fetch", "db"])).is_err() {
        return Outcome::Passed("advisories not asked: their database cannot be fetched".into());
    }
    command::run(&mut deny(&["check", "advisories"]))
        .and_then(|()| command::run(&mut deny(&[&report[..], &["advisories"]].concat())))
        .into()
}

/// All packages. The tests of all of them ask for the features that packages of the sensor have.
const EVERYTHING: [&str; 3] = WORKSPACE;
/// The sensor as `cargo build` makes it.
const DEFAULT_BUILD: [&str; 2] = ["--package", "sensor-user"];

fn clippy(packages: &[&str], arguments: &[&str]) -> Result<()> {
    command::run(
        command::cargo()
            .args(["clippy", "--locked"])
            .args(packages)
            .arg("--all-targets")
            .args(arguments)
            .args(["--", "-D", "warnings"]),
    )
}
