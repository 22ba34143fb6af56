//! Captures of frames that a test has made.

use std::fs;
use std::path::Path;

/// Writes frames, each with its second since the epoch, as a capture of Ethernet in the pcap format.
pub(crate) fn write(path: &Path, frames: &[(u32, Vec<u8>)]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (second, frame) in frames {
        for word in [*second, 0, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}
