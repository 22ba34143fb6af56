//! `cargo xtask lint`: formatting, lints, and dashboards that are as they are generated.

use crate::dashboards;
use crate::report::Report;
use anyhow::{Result, bail};
use lab::command;

/// Crates outside the workspace, which cargo does not format along with it.
const OUTSIDE: [&str; 2] = ["sensor-ebpf/Cargo.toml", "sensor-common/fuzz/Cargo.toml"];

/// Checks formatting, lints and dashboards, or mends what can be mended.
///
/// # Errors
///
/// Something is not as it should be; what, was printed.
pub fn run(fix: bool) -> Result<()> {
    if fix {
        mend()?;
    }
    let mut report = Report::default();
    steps(&mut report);
    println!("\n{report}");
    if !report.is_good() {
        bail!("not clean; `cargo xtask lint --fix` mends formatting, dashboards and what clippy can mend");
    }
    Ok(())
}

/// The steps, as part of a larger report.
pub fn steps(report: &mut Report) {
    report.step("format", || format(true).into());
    report.step("lints", || clippy(&[]).into());
    report.step("dashboards", || dashboards::generate(true).into());
}

fn mend() -> Result<()> {
    clippy(&["--fix", "--allow-dirty", "--allow-staged"])?;
    format(false)?;
    dashboards::generate(false)
}

fn format(check: bool) -> Result<()> {
    let check: &[&str] = if check { &["--check"] } else { &[] };
    command::run(command::cargo().args(["fmt", "--all"]).args(check))?;
    for manifest in OUTSIDE {
        command::run(command::cargo().args(["fmt", "--manifest-path", manifest]).args(check))?;
    }
    Ok(())
}

fn clippy(arguments: &[&str]) -> Result<()> {
    command::run(
        command::cargo()
            .args(["clippy", "--locked", "--workspace", "--all-targets"])
            .args(arguments)
            .args(["--", "-D", "warnings"]),
    )
}
