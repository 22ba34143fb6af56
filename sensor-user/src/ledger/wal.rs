//! The write-ahead log, looked at before `SQLite` does.
//!
//! `SQLite` reads a log up to the first frame that is not as it should be and takes that for its end.
//! After a crash that is right; when the disk has damaged a frame in the midst, commits are dropped
//! without a word. This tells the one from the other, by the format that
//! <https://www.sqlite.org/fileformat2.html#walformat> describes.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Its last bit tells the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;
/// Largest page of a database.
const MAX_PAGE: u32 = 65_536;

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The header: `SQLite` takes the whole log for empty.
    Header,
    /// A frame, from 0, and how many commits are in it and behind it.
    Frame {
        /// Which.
        index: u64,
        /// How many commits are lost with it.
        commits: u64,
    },
}

/// Looks for damage in a log; none is found where there is no log.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn inspect(path: &Path) -> io::Result<Option<Damage>> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 20, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        // Begun and not written: nothing was committed.
        return Ok(None);
    }
    let page = word(&header, 8);
    let mut sum = Checksum { big_endian: word(&header, 0) & 1 == 1, state: [0, 0] };
    sum.add(&header[..24]);
    let sound = word(&header, 0) & !1 == MAGIC && sum.state == [word(&header, 24), word(&header, 28)];
    if !sound || !page.is_power_of_two() || page > MAX_PAGE {
        return Ok(Some(Damage::Header));
    }
    let salt = [word(&header, 16), word(&header, 20)];
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    let mut bad = None;
    let mut commits = 0;
    let mut index = 0;
    while fill(&mut file, &mut frame)? {
        if [word(&frame, 8), word(&frame, 12)] != salt {
            if bad.is_none() {
                // What follows is of an earlier round, unless it is the salt that was damaged.
                bad = Some(index);
            }
        } else if bad.is_none() {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            if sum.state != [word(&frame, 16), word(&frame, 20)] {
                bad = Some(index);
            }
        }
        let commit = word(&frame, 4) != 0 && [word(&frame, 8), word(&frame, 12)] == salt;
        commits += u64::from(bad.is_some() && commit);
        index += 1;
    }
    Ok(bad.filter(|_| commits > 0).map(|index| Damage::Frame { index, commits }))
}

/// The log's checksum: two sums that feed each other.
struct Checksum {
    big_endian: bool,
    state: [u32; 2],
}

impl Checksum {
    fn add(&mut self, octets: &[u8]) {
        let number = |octets: &[u8]| {
            let octets = octets.try_into().expect("four octets");
            if self.big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
        };
        let [mut first, mut second] = self.state;
        for pair in octets.chunks_exact(8) {
            first = first.wrapping_add(number(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(number(&pair[4..])).wrapping_add(first);
        }
        self.state = [first, second];
    }
}

fn word(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(octets[at..at + 4].try_into().expect("four octets"))
}

/// Whether there was enough to fill `octets`.
fn fill(file: &mut impl io::Read, octets: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(octets) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::fs;

    /// A database with five commits in its log, which stays there, and the log's octets.
    fn log(directory: &Path) -> Vec<u8> {
        let connection = Connection::open(directory.join("db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)").unwrap();
        for n in 0..4 {
            connection.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        let octets = fs::read(directory.join("db-wal")).unwrap();
        drop(connection);
        octets
    }

    fn found(octets: &[u8]) -> Option<Damage> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), octets).unwrap();
        inspect(file.path()).unwrap()
    }

    #[test]
    fn a_sound_log_and_one_that_was_cut_off_are_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        assert_eq!(inspect(&directory.path().join("none")).unwrap(), None);
        for end in (0..=log.len()).step_by(101).chain([log.len()]) {
            assert_eq!(found(&log[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn every_damaged_octet_before_the_last_frame_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let frame = FRAME_HEADER + word(&log, 8) as usize;
        let last = log.len() - frame;
        for at in (0..last).step_by(37) {
            let mut damaged = log.clone();
            damaged[at] ^= 0x04;
            let expected = if at < HEADER {
                Damage::Header
            } else {
                let index = (at - HEADER) / frame;
                // The first commit makes the table and has two frames, each other has one.
                let of_mark = (4..16).contains(&((at - HEADER) % frame));
                let commits = 5 - (index as u64).saturating_sub(1);
                if of_mark {
                    // Whether it was a commit, or of this round, is what was damaged.
                    assert!(matches!(found(&damaged), Some(Damage::Frame { .. })), "octet {at}");
                    continue;
                }
                Damage::Frame { index: index as u64, commits }
            };
            assert_eq!(found(&damaged), Some(expected), "octet {at}");
        }
    }

    #[test]
    fn frames_of_an_earlier_round_are_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)").unwrap();
        for n in 0..9 {
            connection.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        connection.execute("INSERT INTO t VALUES (10)", []).unwrap();
        assert_eq!(inspect(&directory.path().join("db-wal")).unwrap(), None);
    }
}
