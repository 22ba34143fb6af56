//! The few things that need root, when the user is not.
//!
//! Everything is built as the user; only what needs root goes through sudo, after saying why.

use crate::command;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::Command;

/// Whether this process is root already.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Words to put before a command so that it runs as root; none when this process is root.
///
/// Without a terminal no one could type a password, so sudo then gets the option not to ask.
///
/// # Errors
///
/// Not root and no sudo: the error tells what is needed for `why`.
pub fn prefix(why: &str) -> Result<Vec<OsString>> {
    if is_root() {
        return Ok(Vec::new());
    }
    let Some(sudo) = command::find("sudo") else {
        bail!("{why} needs root, and sudo is not installed: run this command as root");
    };
    eprintln!("sudo: {why} needs root");
    Ok(words(sudo, std::io::stdin().is_terminal()))
}

fn words(sudo: PathBuf, can_ask: bool) -> Vec<OsString> {
    let mut words = vec![sudo.into_os_string()];
    if !can_ask {
        words.push("-n".into());
    }
    words.push("--".into());
    words
}

/// `command` as root: itself when this process is root, otherwise through sudo, with the working
/// directory and the environment variables that were set on it.
///
/// # Errors
///
/// As [`prefix`].
pub fn as_root(command: Command, why: &str) -> Result<Command> {
    let words = prefix(why)?;
    Ok(match words.split_first() {
        None => command,
        Some((sudo, options)) => through(Command::new(sudo), options, &command),
    })
}

/// sudo drops most variables, so those set on `inner` are handed over on the command line of env(1).
fn through(mut sudo: Command, options: &[OsString], inner: &Command) -> Command {
    sudo.args(options).arg("env");
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            let mut assignment = name.to_owned();
            assignment.push("=");
            assignment.push(value);
            sudo.arg(assignment);
        }
    }
    sudo.arg(inner.get_program()).args(inner.get_args());
    if let Some(directory) = inner.get_current_dir() {
        sudo.current_dir(directory);
    }
    sudo
}

/// Makes sure that later commands through sudo need no password.
///
/// # Errors
///
/// As [`prefix`], or sudo refuses; the error says for what it was asked.
pub fn authenticate(why: &str) -> Result<()> {
    let words = prefix(why)?;
    if let Some(sudo) = words.first() {
        let mut command = Command::new(sudo);
        if std::io::stdin().is_terminal() {
            command.arg("-v");
        } else {
            command.args(["-n", "true"]);
        }
        let status = command.status().with_context(|| format!("start {}", sudo.to_string_lossy()))?;
        if !status.success() {
            bail!(
                "{why} needs root, and sudo refused: run this command as root or where sudo can ask for the password"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_directory_survive_sudo() {
        let mut inner = Command::new("/bin/teiten");
        inner.args(["run", "--interface", "veth 0"]).env("TEITEN_LOG_LEVEL", "debug").current_dir("/");
        let outer = through(Command::new("sudo"), &words("sudo".into(), false)[1..], &inner);
        assert_eq!(
            command::line(&outer),
            "sudo -n -- env TEITEN_LOG_LEVEL=debug /bin/teiten run --interface 'veth 0'"
        );
        assert_eq!(outer.get_current_dir(), Some(std::path::Path::new("/")));
    }

    #[test]
    fn sudo_may_ask_on_a_terminal_only() {
        assert_eq!(words("sudo".into(), true), ["sudo", "--"]);
        assert_eq!(words("sudo".into(), false), ["sudo", "-n", "--"]);
    }
}
