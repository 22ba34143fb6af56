//! Any bytes through the parser, on both kinds of link; run by `cargo xtask test`, or for longer by
//! `cargo fuzz run parse` in `sensor-common`.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;
use sensor_common::Link;

fuzz_target!(|bytes: &[u8]| {
    properties::check(bytes, Link::Ethernet);
    properties::check(bytes, Link::Ip);
});
