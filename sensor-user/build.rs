//! Finds the BPF object to embed, and refuses one that was built from other sources than these.
//!
//! Sets for the crate, at compile time:
//! - `TEITEN_BPF_OBJECT_PATH`: the object's absolute path; that of the environment variable
//!   `TEITEN_BPF_OBJECT` when it is set (to test an object that is not committed), else the committed
//!   one's,
//! - `TEITEN_REVISION`: git's short revision of the sources, or `unknown`.

use bpf_origin as origin;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.parent().expect("the crate lies in the workspace");
    println!("cargo::rustc-env=TEITEN_REVISION={}", revision(root).as_deref().unwrap_or("unknown"));
    match object(root) {
        Ok(path) => {
            println!("cargo::rustc-env=TEITEN_BPF_OBJECT_PATH={}", path.display());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

/// The object to embed, or why there is none and what to do about it.
fn object(root: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=TEITEN_BPF_OBJECT");
    if let Some(given) = env::var_os("TEITEN_BPF_OBJECT").filter(|path| !path.is_empty()) {
        println!("cargo::rerun-if-changed={}", Path::new(&given).display());
        return Path::new(&given)
            .canonicalize()
            .map_err(|error| format!("TEITEN_BPF_OBJECT={}: {error}", Path::new(&given).display()));
    }
    for path in origin::SOURCES.iter().chain(&[origin::OBJECT, origin::ORIGIN]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    match origin::stale(root) {
        Ok(None) => Ok(root.join(origin::OBJECT)),
        Ok(Some(reason)) => Err(format!("{reason}; run `{}`", origin::COMMAND)),
        Err(error) => Err(format!("check the BPF object: {error}")),
    }
}

/// The revision of these sources; `None` when they are not a git checkout of their own, or git is
/// not there.
fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Unpacked inside another project's checkout, that project's revision would say nothing.
    if !git(&["rev-parse", "--show-cdup"])?.is_empty() {
        return None;
    }
    // Both change with every commit and every checkout.
    for file in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
