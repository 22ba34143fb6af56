//! What a package has beside the program and follows from its command line: man pages, shell completions, and a
//! configuration file with every key.

mod configuration;

use anyhow::{Context as _, Result};
use clap_complete::Shell;
use sensor_user::cli::Cli;
use std::fs;
use std::path::Path;

/// Writes the sensor's files below `root`, which becomes the root of a file system.
///
/// # Errors
///
/// A file cannot be written; the error names it.
pub fn write_all(root: &Path) -> Result<()> {
    pages_and_completions(&Cli::command_line(), root)?;
    write(&root.join("etc/teiten/teiten.toml"), configuration::file().as_bytes())
}

/// Writes the files of `teiten-report` below `root`.
///
/// # Errors
///
/// As [`write_all`].
#[cfg(feature = "report")]
pub fn write_report(root: &Path) -> Result<()> {
    pages_and_completions(&report::command_line(), root)
}

/// Writes a man page of each command, and completions where Debian looks for those of each shell.
fn pages_and_completions(command: &clap::Command, root: &Path) -> Result<()> {
    let pages = root.join("usr/share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("create {}", pages.display()))?;
    clap_mangen::generate_to(command.clone(), &pages)
        .with_context(|| format!("write man pages to {}", pages.display()))?;
    for (shell, path) in completions(command.get_name()) {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut text);
        write(&root.join(path), &text)?;
    }
    Ok(())
}

fn completions(program: &str) -> [(Shell, String); 3] {
    [
        (Shell::Bash, format!("usr/share/bash-completion/completions/{program}")),
        (Shell::Fish, format!("usr/share/fish/vendor_completions.d/{program}.fish")),
        (Shell::Zsh, format!("usr/share/zsh/vendor-completions/_{program}")),
    ]
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    fs::write(path, contents).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_man_page_and_is_completed() {
        let root = tempfile::tempdir().unwrap();
        write_all(root.path()).unwrap();
        for name in ["teiten", "teiten-run", "teiten-replay", "teiten-ledger", "teiten-ledger-export"] {
            let page = root.path().join(format!("usr/share/man/man1/{name}.1"));
            let text =
                fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        for (_, path) in completions("teiten") {
            let text = fs::read_to_string(root.path().join(&path)).unwrap();
            assert!(text.contains("exclude-source") && text.contains("detach"), "{path}");
        }
    }

    #[cfg(feature = "report")]
    #[test]
    fn the_report_has_a_man_page_and_is_completed() {
        let root = tempfile::tempdir().unwrap();
        write_report(root.path()).unwrap();
        let page = fs::read_to_string(root.path().join("usr/share/man/man1/teiten-report.1")).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("month"), "{page}");
        for (_, path) in completions("teiten-report") {
            let text = fs::read_to_string(root.path().join(&path)).unwrap();
            assert!(text.contains("quarter"), "{path}");
        }
    }
}
