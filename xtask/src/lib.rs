//! The tasks of `cargo xtask`: they build, test and demonstrate Teiten.

pub mod alerts;
pub mod dashboards;
pub mod demo;
pub mod docs;
pub mod ebpf;
pub mod geoip;
pub mod history;
pub mod licenses;
pub mod lint;
pub mod package;
pub mod release;
pub mod report;
pub mod run;
pub mod test;
pub mod toolchain;

/// All packages with all of the report: one build for every task.
pub const WORKSPACE: [&str; 3] = ["--workspace", "--features", "report/pdf,packaging/report"];
