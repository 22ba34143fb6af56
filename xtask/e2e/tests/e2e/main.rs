//! Teiten from end to end: real programs, networks of their own, Debian's kernels, Prometheus. Most of it
//! needs root. One module: `cargo test --workspace --test e2e kill::`.

#[macro_use]
mod common;

mod archive;
mod bench;
mod days;
mod demo;
mod duplex;
mod egress;
mod exact;
mod faults;
mod fleet;
mod flood;
mod flows;
mod groups;
mod kernels;
mod kill;
mod learned;
mod life;
mod lists;
mod memory;
mod networks;
mod packaging;
mod prometheus;
mod reload;
mod replay_both_ways;
mod samples;
mod scanners;
mod shared;
mod sight;
mod start;
