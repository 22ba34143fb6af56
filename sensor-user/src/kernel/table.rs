//! The source table: what the logs could not take.

use super::sys;
use sensor_common::layout::SourceKey;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Deleted in one call at most.
const CHUNK: usize = 16_384;

/// A source table's map.
#[derive(Debug)]
pub(super) struct SourceTable {
    map: OwnedFd,
}

/// A key as the kernel stores it, in words.
type RawKey = [u32; size_of::<SourceKey>() / 4];

/// What one source sent to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableEntry {
    /// Source address, IPv4 mapped into IPv6, network byte order.
    pub src: [u8; 16],
    /// As in a record.
    pub target: u32,
    /// Packets.
    pub packets: u64,
}

fn generation_of(key: &RawKey) -> u32 {
    key[5]
}

impl SourceTable {
    pub(super) fn new(map: OwnedFd) -> Self {
        Self { map }
    }

    /// All entries that `generation` counted.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` returns.
    pub(super) fn read(&self, generation: u64, entries: &mut Vec<TableEntry>) -> io::Result<()> {
        sys::for_each_entry(self.map.as_fd(), |key: &RawKey, packets: &u64| {
            if generation_of(key) == generation as u32 {
                let mut src = [0; 16];
                for (bytes, word) in src.chunks_exact_mut(4).zip(key) {
                    bytes.copy_from_slice(&word.to_ne_bytes());
                }
                entries.push(TableEntry { src, target: key[4], packets: *packets });
            }
        })
    }

    /// Deletes every entry whose generation `keep` does not want.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` returns.
    pub(super) fn retain(&self, keep: impl Fn(u32) -> bool) -> io::Result<()> {
        let mut gone: Vec<RawKey> = Vec::new();
        sys::for_each_entry(self.map.as_fd(), |key: &RawKey, _: &u64| {
            if !keep(generation_of(key)) {
                gone.push(*key);
            }
        })?;
        gone.chunks(CHUNK).try_for_each(|keys| sys::delete_all(self.map.as_fd(), keys))
    }
}
