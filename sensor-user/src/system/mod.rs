//! What the process needs of the system it runs on: clock, log, memory, rights, files.

pub mod clock;
pub mod condition;
mod error;
pub mod follow;
pub mod logging;
pub mod memory;
pub mod output;
pub(crate) mod regular_file;
pub mod rights;
pub mod terminal;
pub mod trusted;
pub mod whole_file;

pub use error::error_chain;
