//! Writes the generated files of each package below the directory given. `cargo xtask package` runs it.

use anyhow::{Context as _, Result};
use std::path::PathBuf;

fn main() -> Result<()> {
    let root = std::env::args_os().nth(1).map(PathBuf::from).context("usage: packaging ROOT")?;
    packaging::write_all(&root.join("teiten"))?;
    #[cfg(feature = "report")]
    packaging::write_report(&root.join("teiten-report"))?;
    Ok(())
}
