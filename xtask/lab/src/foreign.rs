//! Debian's packages of any architecture, downloaded and unpacked. Nothing of this machine changes.

use crate::command;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An apt of its own, with this machine's sources, for an empty system of one architecture.
#[derive(Debug)]
pub struct Apt {
    architecture: &'static str,
    directory: PathBuf,
}

impl Apt {
    /// For Debian's `architecture` (`arm64`), with its indexes below `directory`, fetched now.
    ///
    /// # Errors
    ///
    /// There is no apt-get here, or the mirrors of its sources have nothing for that architecture.
    pub fn new(architecture: &'static str, directory: &Path) -> Result<Self> {
        ensure!(crate::apt::is_here(), "Debian's packages are fetched by apt-get, and there is none here");
        for made in ["lists/partial", "cache/archives/partial"] {
            let made = directory.join(made);
            fs::create_dir_all(&made).with_context(|| format!("create {}", made.display()))?;
        }
        let status = directory.join("status");
        fs::write(&status, "").with_context(|| format!("write {}", status.display()))?;
        let apt = Self { architecture, directory: directory.to_owned() };
        command::output(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// `program` of apt, for that architecture.
    pub fn command(&self, program: &str) -> Command {
        let (own, architecture) = (self.directory.display(), self.architecture);
        let mut command = Command::new(program);
        for option in [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures::={architecture}"),
            // The indexes lie in the project, which the user `_apt` need not be able to read.
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::State::Lists={own}/lists"),
            format!("Dir::State::Status={own}/status"),
            format!("Dir::Cache={own}/cache"),
            // Those of the installed system.
            "Debug::NoLocking=true".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.arg("-q");
        command
    }

    /// Downloads `packages` alone to the directory `to`.
    ///
    /// # Errors
    ///
    /// A package is not known, or cannot be fetched.
    pub fn download(&self, packages: &[&str], to: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
        command::output(self.command("apt-get").arg("download").args(packages).current_dir(to))?;
        archives(to)
    }

    /// Downloads to the directory `to` everything that an empty system needs for `packages`: names, or paths of
    /// archives, which are not copied. The names of packages that are needed by nothing end with `-`.
    ///
    /// # Errors
    ///
    /// A dependency cannot be satisfied, or fetched.
    pub fn download_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<Vec<PathBuf>> {
        let partial = to.join("partial");
        fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
        let mut install = self.command("apt-get");
        install.args(["-y", "--no-install-recommends", "--download-only"]);
        install.arg("-o").arg(format!("Dir::Cache::Archives={}", to.display()));
        command::output(install.arg("install").args(packages))?;
        archives(to)
    }
}

/// The packages in a directory.
fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}

/// Unpacks packages below `root`, without running anything of theirs.
///
/// # Errors
///
/// dpkg fails.
pub fn unpack(archives: &[PathBuf], root: &Path) -> Result<()> {
    archives.iter().try_for_each(|archive| {
        command::output(Command::new("dpkg").arg("-x").arg(archive).arg(root)).map(drop)
    })
}
