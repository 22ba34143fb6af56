//! `cargo xtask docs`: the generated parts of the pages in `docs/`, and `THIRD-PARTY.md`.

use crate::WORKSPACE;
use crate::licenses;
use anyhow::Result;
use lab::command;

/// Writes them, or with `check` fails when one is not current.
///
/// # Errors
///
/// The generator of pages, which is a test of `sensor-user`, cannot be built or fails, or the licences of the
/// crates cannot be read.
pub fn generate(check: bool) -> Result<()> {
    licenses::generate(check)?;
    let mut test = command::cargo();
    test.args(["test", "--locked"]).args(WORKSPACE).args(["--test", "reference"]);
    if !check {
        test.env("TEITEN_WRITE_DOCS", "1");
    }
    command::run(&mut test)
}
