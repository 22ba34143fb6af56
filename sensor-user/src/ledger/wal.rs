//! The write-ahead log, looked at before `SQLite` does.
//!
//! `SQLite` reads a log up to the first frame that is not as it should be and takes that for its end.
//! After a crash that is right; when the disk has damaged a frame in the midst, commits are dropped
//! without a word. This tells the one from the other, by the format that
//! <https://www.sqlite.org/fileformat2.html#walformat> describes.

use crate::system::regular_file;
use std::fmt;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Its last bit tells the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;
/// Smallest and largest page of a database.
const PAGES: std::ops::RangeInclusive<u32> = 512..=65_536;
/// The page of a ledger, for a log whose header does not say.
const PAGE: u32 = 4096;
/// Damage that is one must stand this long at the same place: a frame that a daemon is writing at this
/// moment looks like it.
const SETTLE: Duration = Duration::from_millis(50);
/// How often a log is read again at most, until two readings agree.
const READINGS: usize = 20;

/// A write-ahead log that is damaged before its last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// The log.
    pub log: PathBuf,
    /// Where the header or frame begins that is not as it was written.
    pub byte: u64,
    /// Commits in and after it, which `SQLite` drops without a word.
    pub commits: u64,
    /// Whether nothing follows the damaged commit: a power failure while it was written leaves the same.
    pub is_last: bool,
}

impl fmt::Display for LogDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, byte, commits, is_last } = self;
        let plural = if *commits == 1 { "" } else { "s" };
        write!(f, "write-ahead log {} is damaged at byte {byte}: {commits} commit{plural} ", log.display())?;
        f.write_str("from there on cannot be read back and will be missing after the next start")?;
        if *is_last { f.write_str(" (or power failed during that last commit)") } else { Ok(()) }
    }
}

/// Looks for damage in a log, which a daemon may be writing; none is found where there is no log.
///
/// # Errors
///
/// The log is not a regular file, or cannot be read.
pub(super) fn inspect(log: &Path) -> io::Result<Option<LogDamage>> {
    let mut found = inspect_once(log)?;
    for _ in 1..READINGS {
        let Some(before) = &found else { return Ok(None) };
        std::thread::sleep(SETTLE);
        let again = inspect_once(log)?;
        if again.as_ref().is_some_and(|again| again.byte == before.byte) {
            return Ok(again);
        }
        found = again;
    }
    // A log that is rewritten faster than it can be read has a daemon that writes it well.
    Ok(None)
}

fn inspect_once(log: &Path) -> io::Result<Option<LogDamage>> {
    let mut file = match regular_file::open(log) {
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
    let is_page = page.is_power_of_two() && PAGES.contains(&page);
    let mut sum = Checksum { big_endian: word(&header, 0) & 1 == 1, state: [0, 0] };
    sum.add(&header[..24]);
    let sound =
        is_page && word(&header, 0) & !1 == MAGIC && sum.state == [word(&header, 24), word(&header, 28)];
    let page = if is_page { page } else { PAGE };
    let size = FRAME_HEADER as u64 + u64::from(page);
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    // Of a header that is damaged the first frame knows the salt.
    let mut salt = sound.then(|| [word(&header, 16), word(&header, 20)]);
    let mut bad = (!sound).then_some(0);
    let (mut commits, mut last_commit, mut last) = (0, 0, 0);
    let mut index: u64 = 0;
    while fill(&mut file, &mut frame)? {
        let own = [word(&frame, 8), word(&frame, 12)];
        let mut of_this_round = own == *salt.get_or_insert(own);
        if bad.is_none() {
            let mut next = sum.clone();
            next.add(&frame[..8]);
            next.add(&frame[FRAME_HEADER..]);
            let chained = next.state == [word(&frame, 16), word(&frame, 20)];
            sum = next;
            if !(chained && of_this_round) {
                // What follows is of an earlier round, unless it is this frame that was damaged. No other
                // salt fits into the chain, which does not cover it.
                bad = Some(index);
                of_this_round |= chained;
            }
        }
        if bad.is_some() && of_this_round {
            last = index;
            if word(&frame, 4) != 0 {
                commits += 1;
                last_commit = index;
            }
        }
        index += 1;
    }
    Ok(bad.filter(|_| commits > 0).map(|index| LogDamage {
        log: log.to_owned(),
        byte: if sound { HEADER as u64 + index * size } else { 0 },
        commits,
        is_last: sound && commits == 1 && last == last_commit,
    }))
}

/// The log's checksum: two sums that feed each other.
#[derive(Clone)]
struct Checksum {
    big_endian: bool,
    state: [u32; 2],
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("four bytes");
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let [mut first, mut second] = self.state;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(number(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(number(&pair[4..])).wrapping_add(first);
        }
        self.state = [first, second];
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Whether there was enough to fill `bytes`.
fn fill(file: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
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

    /// A database with five commits in its log, which stays there, and the log's bytes.
    fn log(directory: &Path) -> Vec<u8> {
        let connection = Connection::open(directory.join("db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)").unwrap();
        for n in 0..4 {
            connection.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        let bytes = fs::read(directory.join("db-wal")).unwrap();
        drop(connection);
        bytes
    }

    fn found(bytes: &[u8]) -> Option<(u64, u64)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let damage = inspect_once(file.path()).unwrap()?;
        Some((damage.byte, damage.commits))
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
    fn every_damaged_byte_is_found_with_what_it_costs() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let frame = FRAME_HEADER + word(&log, 8) as usize;
        for at in (0..HEADER).chain((HEADER..log.len()).step_by(37)) {
            let mut damaged = log.clone();
            damaged[at] ^= 0x04;
            if at < HEADER {
                assert_eq!(found(&damaged), Some((0, 5)), "byte {at}");
                continue;
            }
            let (index, within) = ((at - HEADER) / frame, (at - HEADER) % frame);
            // The first commit makes the table and has two frames, each other has one.
            let commits = 5 - (index as u64).saturating_sub(1);
            let byte = (HEADER + index * frame) as u64;
            let Some((found, lost)) = found(&damaged) else { panic!("byte {at}") };
            assert_eq!(found, byte, "byte {at}");
            // A damaged mark of a commit may make none of one, or one of none.
            let may_differ = (4..8).contains(&within);
            assert!(lost == commits || may_differ && lost.abs_diff(commits) == 1, "byte {at}: {lost}");
        }
    }

    #[test]
    fn a_damaged_salt_of_the_last_frame_is_no_earlier_round() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let frame = FRAME_HEADER + word(&log, 8) as usize;
        let mut damaged = log.clone();
        let last = log.len() - frame;
        damaged[last + 9] ^= 0x80;
        assert_eq!(found(&damaged), Some((last as u64, 1)));
    }

    #[test]
    fn only_damage_that_nothing_follows_may_be_a_power_failure() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let frame = FRAME_HEADER + word(&log, 8) as usize;
        let said = |at: usize| {
            let mut damaged = log.clone();
            damaged[at] ^= 0x80;
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), damaged).unwrap();
            inspect(file.path()).unwrap().unwrap().to_string()
        };
        let last = said(log.len() - 9);
        assert!(
            last.contains(": 1 commit from there on") && last.ends_with("during that last commit)"),
            "{last}"
        );
        let earlier = said(log.len() - frame - 9);
        assert!(earlier.contains(": 2 commits from there on") && !earlier.contains("power"), "{earlier}");
    }

    #[test]
    fn what_is_no_file_is_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(inspect(&fifo).unwrap_err().to_string(), "not a regular file");
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

    #[test]
    fn a_log_that_is_being_written_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 20; CREATE TABLE t (n)")
            .unwrap();
        let log = directory.path().join("db-wal");
        let readings = std::thread::scope(|scope| {
            let reading = scope.spawn(|| (0..40).map(|_| inspect(&log).unwrap()).collect::<Vec<_>>());
            while !reading.is_finished() {
                writer.execute("INSERT INTO t VALUES (zeroblob(9000))", []).unwrap();
            }
            reading.join().unwrap()
        });
        assert!(readings.iter().all(Option::is_none), "{readings:?}");
    }
}
