//! `cargo xtask lint`: formatting and lints.

use crate::command;
use crate::report::{Outcome, Report};
use anyhow::{Result, bail};

/// Crates outside the workspace, which cargo does not format along with it.
const OUTSIDE: [&str; 2] = ["sensor-ebpf/Cargo.toml", "sensor-common/fuzz/Cargo.toml"];

/// Checks formatting and lints, or mends what can be mended.
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
        bail!("not clean; `cargo xtask lint --fix` mends formatting and what clippy can mend");
    }
    Ok(())
}

/// The steps, as part of a larger report.
pub fn steps(report: &mut Report) {
    report.step("format", || format(true).into());
    report.step("lints", || Outcome::from(clippy(&[])));
}

fn mend() -> Result<()> {
    clippy(&["--fix", "--allow-dirty", "--allow-staged"])?;
    format(false)
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
