//! The code that Teiten's kernel and user side share: how a packet is parsed ([`mod@parse`]), what
//! class it falls into ([`classify`]), which conversation it belongs to ([`flow`]), which scanner made
//! it ([`tool`]), and the layout of the counters in memory that both sides map ([`layout`]).
//!
//! Everything here is `no_std`, free of allocation and of panics, and small enough for the BPF
//! verifier, so the program in the kernel, `teiten replay`, the unit tests and the fuzzer run the
//! same code.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "the BPF verifier follows no call into this crate, and LLVM leaves calls where it may choose"
)]

pub mod branchless;
pub mod classify;
pub mod extensions;
pub mod flow;
pub mod frame;
pub mod layout;
pub mod link;
pub mod parse;
pub mod port;
pub mod recent;
pub mod tool;

pub use classify::{Class, Conversation, Flaw, Verdict, World, judge};
pub use frame::{Frame, Unparsed};
pub use link::LinkProtocol;
pub use parse::{Address, AddressBytes, Headers, Link, Packet, parse};
pub use port::{Slot, Transport};
pub use tool::{Marks, Syn, Tool};
