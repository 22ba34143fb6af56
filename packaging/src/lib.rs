//! What a package has beside the program and follows from its command line: man pages, shell completions, and a
//! configuration file with every key.

mod configuration;

use anyhow::{Context as _, Result};
use clap_complete::Shell;
use sensor_user::cli::Cli;
use std::fs;
use std::path::Path;

/// Where Debian looks for the completions of each shell, from the root of the file system.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions/teiten"),
    (Shell::Fish, "usr/share/fish/vendor_completions.d/teiten.fish"),
    (Shell::Zsh, "usr/share/zsh/vendor-completions/_teiten"),
];

/// Writes all files below `root`, which becomes the root of a file system.
///
/// # Errors
///
/// A file cannot be written; the error names it.
pub fn write_all(root: &Path) -> Result<()> {
    let pages = root.join("usr/share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("create {}", pages.display()))?;
    clap_mangen::generate_to(Cli::command_line(), &pages)
        .with_context(|| format!("write man pages to {}", pages.display()))?;
    for (shell, path) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command_line(), "teiten", &mut text);
        write(&root.join(path), &text)?;
    }
    write(&root.join("etc/teiten/teiten.toml"), configuration::file().as_bytes())
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
        for (_, path) in COMPLETIONS {
            let text = fs::read_to_string(root.path().join(path)).unwrap();
            assert!(text.contains("exclude-source") && text.contains("detach"), "{path}");
        }
    }
}
