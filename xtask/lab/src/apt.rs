//! Debian's packages.

use crate::{command, sudo};
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// As root: installs the packages named as arguments. Services of theirs (Prometheus, sshd) are not
/// started, by Debian's own means for that; an index that lags behind the mirror is fetched again.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"; }
known() { for package; do apt-cache show "$package" >/dev/null 2>&1 || return 1; done; }
known "$@" || apt-get update
install "$@" || { apt-get update && install "$@"; }
"#;

/// Whether this machine has Debian's package manager.
pub fn is_here() -> bool {
    command::find("apt-get").is_some() && command::find("dpkg").is_some()
}

/// Installs `packages`, and nothing when there are none.
///
/// # Errors
///
/// No apt-get here, no root, or apt-get fails; the error names the packages.
pub fn install(packages: &[&str], why: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let named = packages.join(" ");
    if !is_here() {
        bail!(
            "{why} needs what Debian packages as {named}, and there is no apt-get here: install it by hand"
        );
    }
    let why = format!("installing Debian's {named} ({why})");
    eprintln!("{why}");
    let mut shell = Command::new("sh");
    shell.args(["-ec", INSTALL, "install"]).args(packages).current_dir("/");
    let mut shell = sudo::as_root(shell, &why)?;
    let status = shell
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("start {}", shell.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{why} failed: {status}; see above, then `apt-get install --no-install-recommends {named}`");
    }
    Ok(())
}
