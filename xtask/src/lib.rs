//! Builds, tests, demonstrates and measures Teiten: the library behind `cargo xtask`.
