//! A program for 64-bit Arm, built on another architecture.
//!
//! The standard library of the target is the installed toolchain's where it has one (`rustup target add`), and
//! otherwise that of Debian's rustc-web for arm64, unpacked below `target`; nothing of the host changes. C code is
//! compiled by Debian's cross compiler.

use super::Architecture;
use anyhow::{Context as _, Result, ensure};
use lab::{apt, build, command};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Debian's compiler and what cargo calls it by.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Builds `teiten` and returns its path.
pub(super) fn program() -> Result<PathBuf> {
    let target = Architecture::Arm64.target();
    let missing: &[&str] = if command::find(LINKER).is_none() {
        &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
    } else {
        &[]
    };
    apt::install(missing, "building for arm64")?;
    let mut build = command::cargo();
    build.args(["build", "--locked", "--release", "--package", "sensor-user", "--bin", "teiten"]);
    build.args(["--features", "parquet", "--target", target]);
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    if !has_standard_library(target)? {
        let sysroot = debian_sysroot(target)?;
        build.env("RUSTC", DEBIAN_RUSTC);
        let flags = format!("--sysroot={}", sysroot.display());
        build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
    }
    command::run(&mut build)?;
    Ok(build::target_directory()?.join(target).join("release/teiten"))
}

/// Whether the toolchain in use has the standard library of `target`.
fn has_standard_library(target: &str) -> Result<bool> {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "target-libdir", "--target", target]).current_dir(command::root());
    Ok(Path::new(command::output(&mut ask)?.trim()).is_dir())
}

/// The sysroot with Debian's standard library for arm64, of the version of Debian's compiler here.
fn debian_sysroot(target: &str) -> Result<PathBuf> {
    let missing: &[&str] = if Path::new(DEBIAN_RUSTC).exists() { &[] } else { &["rustc-web"] };
    apt::install(missing, "building for arm64; `rustup target add aarch64-unknown-linux-gnu` does as well")?;
    let version = command::output(Command::new(DEBIAN_RUSTC).arg("--version"))?;
    let number = version.split_whitespace().nth(1).context("read the version of Debian's rustc")?;
    let directory = build::target_directory()?.join("package/arm64").join(number);
    let sysroot = directory.join("sysroot/usr");
    let library = sysroot.join("lib/rustlib").join(target).join("lib");
    if !library.is_dir() {
        unpack_standard_library(&directory)?;
        ensure!(library.is_dir(), "Debian's packages for arm64 have no {}", library.display());
    }
    Ok(sysroot)
}

/// Downloads the packages of the standard library with an apt of its own, which knows arm64, and unpacks them.
fn unpack_standard_library(directory: &Path) -> Result<()> {
    let packages = directory.join("packages");
    for made in ["lists/partial", "cache/archives/partial", "packages"] {
        let made = directory.join(made);
        fs::create_dir_all(&made).with_context(|| format!("create {}", made.display()))?;
    }
    let apt_get = |arguments: &[&str]| {
        let mut apt_get = Command::new("apt-get");
        for option in [
            "APT::Architectures::=arm64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::State::Lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
        ] {
            apt_get.args(["-o", &option]);
        }
        apt_get.args(["-o", "APT::Architectures::=amd64"]).args(arguments).current_dir(&packages);
        command::run(&mut apt_get)
    };
    apt_get(&["-q", "update"])?;
    let version = command::output(Command::new("dpkg-query").args([
        "--show",
        "--showformat",
        "${source:Upstream-Version}",
        "rustc-web",
    ]))?;
    let series: Vec<&str> = version.splitn(3, '.').take(2).collect();
    let library = format!("libstd-rust-web-{}:arm64", series.join("."));
    apt_get(&["-q", "download", "libstd-rust-web-dev:arm64", &library])?;
    for entry in fs::read_dir(&packages).context("read the downloaded packages")? {
        let package = entry?.path();
        command::run(Command::new("dpkg").arg("-x").arg(package).arg(directory.join("sysroot")))?;
    }
    Ok(())
}
