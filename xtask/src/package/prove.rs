//! Whether a package works on Debian's kernels of its architecture: installed by dpkg in an emulated machine, the
//! program counts a conversation exactly, and leaves nothing behind when the package is purged.

use super::Architecture;
use anyhow::{Context as _, Result, ensure};
use lab::build;
use lab::conversation::{self, COMMON, CONVERSE};
use lab::machine::{Flavour, Kernel};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Debian 12's, which follows conversations by clsact, and Debian 13's, by TCX.
const KERNELS: [(&str, &str); 2] = [("6.1", "clsact"), ("6.12", "tcx")];
/// For one kernel, under an emulator that has a slow machine for itself.
const PATIENCE: Duration = Duration::from_mins(15);

const INSTALL: &str = r#"
dpkg --install /packages/*.deb
echo "installed: $(dpkg-query --show --showformat '${Status} ${Architecture}' teiten)"
echo "user: $(id -un teiten)"
"#;

const PURGE: &str = r#"
rm -rf /state
dpkg --purge teiten
echo "left: $(find / -xdev -name '*teiten*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/packages/*' | tr '\n' ' ')"
"#;

/// Installs the sensor's package among `made`, and counts with it.
pub(super) fn run(made: &[PathBuf], architecture: Architecture) -> Result<()> {
    let is_sensor = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("teiten_") && path.extension().is_some_and(|extension| extension == "deb")
    };
    let package = made.iter().find(is_sensor).context("find the sensor's Debian package")?;
    let cache = build::target_directory()?.join("kernels");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let flavour = match architecture {
        Architecture::Amd64 => Flavour::Cloud,
        Architecture::Arm64 => Flavour::CloudArm64,
    };
    for (series, tracking) in KERNELS {
        let kernel = Kernel::of_series(series, flavour, &cache)?;
        let script = [INSTALL, COMMON, CONVERSE, PURGE].concat();
        let began = Instant::now();
        let printed = kernel.run_with_package(package, &script, &cache, PATIENCE)?;
        conversation::judge(&printed, tracking)?;
        let installed = format!("installed: install ok installed {}", architecture.name());
        for line in [installed.as_str(), "user: teiten", "left:"] {
            let is_there = printed.lines().any(|found| found.trim_end() == line);
            ensure!(is_there, "no line `{line}` in\n{printed}");
        }
        println!(
            "{} on Linux {series}: 12 accesses and 13 solicited packets, each counted once; {} s",
            package.file_name().unwrap_or_default().display(),
            began.elapsed().as_secs()
        );
    }
    Ok(())
}
