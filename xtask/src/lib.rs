//! Builds, tests, demonstrates and measures Teiten: the library behind `cargo xtask`.

pub mod apt;
pub mod bench;
pub mod command;
pub mod dashboards;
pub mod demo;
pub mod docs;
pub mod ebpf;
pub mod geoip;
pub mod history;
pub mod lint;
pub mod machine;
pub mod netns;
pub mod origin;
pub mod report;
pub mod run;
pub mod sudo;
pub mod test;
pub mod toolchain;
pub mod traffic;
