//! The laboratory of Teiten's tests, demonstration and benchmarks: networks of their own, a sensor in
//! them, traffic of which it is known what it must count as, other kernels, and running programs.

pub mod apt;
pub mod build;
pub mod command;
pub mod conversation;
pub mod debian;
pub mod foreign;
pub mod machine;
pub mod netns;
pub mod scrape;
pub mod sensor;
pub mod sudo;
pub mod target;
pub mod traffic;
pub mod wait;
