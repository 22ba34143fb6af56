//! Builds, tests, demonstrates and measures Teiten: the library behind `cargo xtask`.

pub mod demo;
pub mod netns;
pub mod traffic;
