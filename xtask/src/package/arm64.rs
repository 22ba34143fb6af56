//! A program for 64-bit Arm, built on another architecture.
//!
//! The standard library of the target is the installed toolchain's where it has one (`rustup target add`), and
//! otherwise that of Debian's rustc-web for arm64, unpacked below `target`; nothing of the host changes. C code is
//! compiled by Debian's cross compiler.

use super::Architecture;
use anyhow::{Context as _, Result, ensure};
use lab::build::Program;
use lab::foreign::{self, Apt};
use lab::{apt, build, command};
use std::path::{Path, PathBuf};
use std::process::Command;

const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Debian's compiler and what cargo calls it by.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Builds `program` and returns its path.
pub(super) fn build(program: &Program) -> Result<PathBuf> {
    let target = Architecture::Arm64.target();
    let missing: &[&str] = if command::find(LINKER).is_none() {
        &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
    } else {
        &[]
    };
    apt::install(missing, "building for arm64")?;
    let mut build = program.build();
    build.args(["--release", "--target", target]);
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    if !has_standard_library(target)? {
        let sysroot = debian_sysroot(target)?;
        build.env("RUSTC", DEBIAN_RUSTC);
        let flags = format!("--sysroot={}", sysroot.display());
        build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
    }
    command::run(&mut build)?;
    Ok(build::target_directory()?.join(target).join("release").join(program.name))
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

/// Downloads the packages of the standard library and unpacks them.
fn unpack_standard_library(directory: &Path) -> Result<()> {
    let version = command::output(Command::new("dpkg-query").args([
        "--show",
        "--showformat",
        "${source:Upstream-Version}",
        "rustc-web",
    ]))?;
    let series: Vec<&str> = version.splitn(3, '.').take(2).collect();
    let library = format!("libstd-rust-web-{}", series.join("."));
    let apt = Apt::new(Architecture::Arm64.name(), &directory.join("apt"))?;
    let packages = apt.download(&["libstd-rust-web-dev", &library], &directory.join("packages"))?;
    foreign::unpack(&packages, &directory.join("sysroot"))
}
