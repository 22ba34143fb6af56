//! `cargo xtask`: every task of the project, each with its own `--help`.
fn main() {}
