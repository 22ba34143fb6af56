//! Ascending numbers, each with what is known of it, compressed: in memory, and beyond a bound on disk.
//!
//! What is added at once is a *run*: ascending entries, each as the difference to the one before in LEB128, in
//! chunks that are found by their first number. A run that is not much smaller than the one before it is merged
//! with it, so that runs are few and each entry is written again few times. Entries of the same number in
//! several runs add up.
//!
//! Questions come in ascending order, so that a question, or a merge, is one pass over each run.
//!
//! A run on disk is in a file without a name, so it is gone with the process, however that ends: it holds
//! nothing that cannot be made again. Each chunk has a CRC-32, which is checked whenever it is read.

use super::varint::{get, put};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes from which on a chunk in memory is complete. Finding one of its entries reads it to the end.
const CHUNK: usize = 2 << 10;
/// The same on disk.
const DISK_CHUNK: usize = 32 << 10;
/// Bytes that a chunk in memory takes beside its content: its place, its first number, the allocator's.
const CHUNK_COST: u64 = 40;
/// Bytes in memory of a chunk on disk.
const PLACE_COST: u64 = 24;
/// A run is merged with the one before it unless that has more than so many times its entries.
const STEP: u64 = 2;
/// Runs on disk from which on the next takes them in.
const FILES: usize = 8;

/// What is known of a number.
pub(super) trait Known: Copy + Default {
    /// Appends it.
    fn write(self, out: &mut Vec<u8>);
    /// Takes it from the begin of `at`.
    fn read(at: &mut &[u8]) -> Option<Self>;
    /// What two entries of a number say together.
    fn and(self, other: Self) -> Self;
}

/// A number that is there, and nothing more.
impl Known for () {
    fn write(self, _: &mut Vec<u8>) {}

    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }

    fn and(self, (): Self) {}
}

/// Ascending entries.
#[derive(Debug)]
struct Run<V> {
    /// The first number of each chunk.
    firsts: Vec<u64>,
    chunks: Chunks,
    entries: u64,
    /// In memory, or on disk.
    bytes: u64,
    known: PhantomData<V>,
}

#[derive(Debug)]
enum Chunks {
    Memory(Vec<Box<[u8]>>),
    Disk(File, Vec<DiskChunk>),
}

/// Where a chunk is in its file.
#[derive(Clone, Copy, Debug)]
struct DiskChunk {
    offset: u64,
    bytes: u32,
    crc: u32,
}

/// A chunk that is being written.
#[derive(Default)]
struct Writing {
    bytes: Vec<u8>,
    first: u64,
    last: u64,
    entries: u64,
}

impl Writing {
    #[inline]
    fn push<V: Known>(&mut self, (number, known): (u64, V)) {
        if self.entries == 0 {
            self.first = number;
        } else {
            debug_assert!(self.last < number, "{} before {number}", self.last);
            put(&mut self.bytes, number - self.last);
        }
        known.write(&mut self.bytes);
        self.last = number;
        self.entries += 1;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries = 0;
    }
}

/// Reads a chunk.
fn read<V: Known>(first: u64, mut bytes: &[u8], entries: &mut Vec<(u64, V)>) {
    entries.clear();
    let at = &mut bytes;
    let Some(known) = V::read(at) else { return };
    let mut number = first;
    entries.push((number, known));
    while let Some(step) = get(at) {
        let Some(known) = V::read(at) else { return };
        number = number.wrapping_add(step);
        entries.push((number, known));
    }
}

impl<V: Known> Run<V> {
    fn in_memory(entries: impl Iterator<Item = (u64, V)>) -> Self {
        let (mut firsts, mut chunks) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        let mut writing = Writing::default();
        let mut end = |writing: &mut Writing| {
            if writing.entries > 0 {
                firsts.push(writing.first);
                chunks.push(Box::<[u8]>::from(writing.bytes.as_slice()));
                bytes += writing.bytes.len() as u64 + CHUNK_COST;
                count += writing.entries;
                writing.clear();
            }
        };
        for entry in entries {
            writing.push(entry);
            if writing.bytes.len() >= CHUNK {
                end(&mut writing);
            }
        }
        end(&mut writing);
        firsts.shrink_to_fit();
        chunks.shrink_to_fit();
        Self { firsts, chunks: Chunks::Memory(chunks), entries: count, bytes, known: PhantomData }
    }

    /// Writes entries into a file without a name on the file system of `directory`, or on that of temporary files
    /// where this process may not write there.
    fn on_disk(entries: Union<'_, V>, directory: &Path) -> io::Result<Self> {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        let file = match tempfile::tempfile_in(directory) {
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                tempfile::tempfile()?
            }
            other => other?,
        };
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let (mut firsts, mut places) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        let mut writing = Writing::default();
        let mut end = |writing: &mut Writing| {
            if writing.entries > 0 {
                firsts.push(writing.first);
                let crc = crc32fast::hash(&writing.bytes);
                places.push(DiskChunk { offset: bytes, bytes: writing.bytes.len() as u32, crc });
                out.write_all(&writing.bytes)?;
                bytes += writing.bytes.len() as u64;
                count += writing.entries;
                writing.clear();
            }
            io::Result::Ok(())
        };
        for entry in entries {
            writing.push(entry?);
            if writing.bytes.len() >= DISK_CHUNK {
                end(&mut writing)?;
            }
        }
        end(&mut writing)?;
        out.flush()?;
        drop(out);
        Ok(Self { firsts, chunks: Chunks::Disk(file, places), entries: count, bytes, known: PhantomData })
    }

    /// Reads the chunk `nth`.
    ///
    /// # Errors
    ///
    /// It is on disk, and cannot be read or is not as it was written.
    fn read(&self, nth: usize, buffer: &mut Vec<u8>, entries: &mut Vec<(u64, V)>) -> io::Result<()> {
        match &self.chunks {
            Chunks::Memory(chunks) => read(self.firsts[nth], &chunks[nth], entries),
            Chunks::Disk(file, places) => {
                let DiskChunk { offset, bytes, crc } = places[nth];
                buffer.resize(bytes as usize, 0);
                file.read_exact_at(buffer, offset)?;
                if crc32fast::hash(buffer) != crc {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{bytes} bytes from byte {offset} on do not have their checksum"),
                    ));
                }
                read(self.firsts[nth], buffer, entries);
            }
        }
        Ok(())
    }

    /// The entries of a run in memory; each chunk is freed when it has been read.
    fn into_entries(self) -> impl Iterator<Item = (u64, V)> {
        let chunks = match self.chunks {
            Chunks::Memory(chunks) => chunks,
            Chunks::Disk(..) => Vec::new(),
        };
        let mut chunks = self.firsts.into_iter().zip(chunks);
        let mut entries = Vec::new();
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == entries.len() {
                let (first, bytes) = chunks.next()?;
                read(first, &bytes, &mut entries);
                at = 0;
            }
            at += 1;
            Some(entries[at - 1])
        })
    }
}

/// The entries of two ascending iterators, ascending; those of the same number add up.
pub(super) fn join<V: Known>(
    left: impl Iterator<Item = (u64, V)>,
    right: impl Iterator<Item = (u64, V)>,
) -> impl Iterator<Item = (u64, V)> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some((a, _)), Some((b, _))) if a < b => left.next(),
        (Some((a, _)), Some((b, _))) if a > b => right.next(),
        (Some(_), Some(_)) => {
            let ((number, known), (_, more)) = (left.next()?, right.next()?);
            Some((number, known.and(more)))
        }
        (Some(_), None) => left.next(),
        (None, _) => right.next(),
    })
}

/// All entries that were added.
#[derive(Debug)]
pub(super) struct Runs<V> {
    /// Each has more than [`STEP`] times the entries of the next.
    memory: Vec<Run<V>>,
    disk: Vec<Run<V>>,
}

impl<V> Default for Runs<V> {
    fn default() -> Self {
        Self { memory: Vec::new(), disk: Vec::new() }
    }
}

impl<V: Known> Runs<V> {
    /// Adds ascending entries.
    pub(super) fn add(&mut self, entries: impl Iterator<Item = (u64, V)>) {
        let mut run = Run::in_memory(entries);
        if run.entries == 0 {
            return;
        }
        while let Some(before) = self.memory.pop_if(|before| before.entries <= STEP * run.entries) {
            run = Run::in_memory(join(before.into_entries(), run.into_entries()));
        }
        self.memory.push(run);
    }

    /// Bytes in memory of what is not on disk.
    pub(super) fn in_memory(&self) -> u64 {
        self.memory.iter().map(|run| run.bytes).sum()
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> u64 {
        let places: u64 = self.disk.iter().map(|run| run.firsts.len() as u64 * PLACE_COST).sum();
        self.in_memory() + places
    }

    /// Bytes on disk.
    pub(super) fn disk(&self) -> u64 {
        self.disk.iter().map(|run| run.bytes).sum()
    }

    /// For questions in ascending order.
    pub(super) fn ascending(&self) -> Ascending<'_, V> {
        Ascending(self.disk.iter().chain(&self.memory).map(Cursor::new).collect())
    }

    /// Every entry, ascending, each number once.
    pub(super) fn iter(&self) -> Union<'_, V> {
        Union(self.ascending().0)
    }

    /// Moves what is in memory to a file on the file system of `directory`, together with what is in files when
    /// these are many.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or another one not be read; everything is where it was then.
    pub(super) fn spill(&mut self, directory: &Path) -> io::Result<()> {
        let takes_all = self.disk.len() >= FILES;
        let taken = if takes_all { self.disk.as_slice() } else { &[] };
        let run =
            Run::on_disk(Union(taken.iter().chain(&self.memory).map(Cursor::new).collect()), directory)?;
        if takes_all {
            self.disk.clear();
        }
        self.disk.push(run);
        self.memory.clear();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.disk.iter().filter_map(|run| match &run.chunks {
            Chunks::Disk(file, _) => Some(file),
            Chunks::Memory(_) => None,
        })
    }
}

/// A place in one run.
#[derive(Debug)]
struct Cursor<'a, V> {
    run: &'a Run<V>,
    /// Chunks that were read or passed over.
    passed: usize,
    /// Of the last chunk that was read.
    entries: Vec<(u64, V)>,
    /// The next of them.
    at: usize,
    buffer: Vec<u8>,
}

impl<'a, V: Known> Cursor<'a, V> {
    fn new(run: &'a Run<V>) -> Self {
        Self { run, passed: 0, entries: Vec::new(), at: 0, buffer: Vec::new() }
    }

    /// Goes to the first entry that is not below `number`, which is not below the one before, in its chunk.
    #[inline]
    fn seek(&mut self, number: u64) -> io::Result<Option<V>> {
        if self.run.firsts.get(self.passed).is_some_and(|first| *first <= number) {
            self.passed += below(&self.run.firsts[self.passed..], |first| *first <= number);
            self.at = 0;
            self.run.read(self.passed - 1, &mut self.buffer, &mut self.entries)?;
        }
        self.at += below(&self.entries[self.at..], |entry| entry.0 < number);
        Ok(self.entries.get(self.at).filter(|entry| entry.0 == number).map(|entry| entry.1))
    }

    /// The next entry, which stays the next.
    #[inline]
    fn peek(&mut self) -> io::Result<Option<(u64, V)>> {
        if self.at == self.entries.len() {
            if self.passed == self.run.firsts.len() {
                return Ok(None);
            }
            self.run.read(self.passed, &mut self.buffer, &mut self.entries)?;
            self.passed += 1;
            self.at = 0;
        }
        Ok(self.entries.get(self.at).copied())
    }
}

/// How many at the begin of `list` are as `is` says. Cheap when they are few.
#[inline]
fn below<T>(list: &[T], is: impl Fn(&T) -> bool) -> usize {
    let mut end = 1;
    while list.get(end - 1).is_some_and(&is) {
        end *= 2;
    }
    let begin = end / 2;
    begin + list[begin..list.len().min(end)].partition_point(is)
}

/// Answers questions in ascending order.
#[derive(Debug)]
pub(super) struct Ascending<'a, V>(Vec<Cursor<'a, V>>);

impl<V: Known> Ascending<'_, V> {
    /// What is known of `number`, which is not below the one before.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is damaged.
    #[inline]
    pub(super) fn get(&mut self, number: u64) -> io::Result<Option<V>> {
        let mut found: Option<V> = None;
        for cursor in &mut self.0 {
            if let Some(known) = cursor.seek(number)? {
                found = Some(found.map_or(known, |before| before.and(known)));
            }
        }
        Ok(found)
    }
}

/// Every entry of some runs, ascending, each number once.
#[derive(Debug)]
pub(super) struct Union<'a, V>(Vec<Cursor<'a, V>>);

impl<V: Known> Union<'_, V> {
    fn step(&mut self) -> io::Result<Option<(u64, V)>> {
        let mut least = None;
        for cursor in &mut self.0 {
            if let Some((number, _)) = cursor.peek()? {
                least = Some(least.map_or(number, |least: u64| least.min(number)));
            }
        }
        let Some(number) = least else { return Ok(None) };
        let mut found: Option<V> = None;
        for cursor in &mut self.0 {
            if let Some((_, known)) = cursor.peek()?.filter(|entry| entry.0 == number) {
                found = Some(found.map_or(known, |before| before.and(known)));
                cursor.at += 1;
            }
        }
        Ok(found.map(|known| (number, known)))
    }
}

impl<V: Known> Iterator for Union<'_, V> {
    type Item = io::Result<(u64, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Adds up.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Sum(u64);

    impl Known for Sum {
        fn write(self, out: &mut Vec<u8>) {
            put(out, self.0);
        }

        fn read(at: &mut &[u8]) -> Option<Self> {
            get(at).map(Self)
        }

        fn and(self, other: Self) -> Self {
            Self(self.0 + other.0)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Numbers from `begin` on, `step` apart.
        Add {
            begin: u64,
            step: u64,
            count: u64,
            sum: u64,
        },
        Spill,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let begin = prop_oneof![0..5000_u64, any::<u64>()];
        let step = prop_oneof![1..4_u64, 1..1_u64 << 33];
        let add = (begin, step, 1..3000_u64, 1..200_u64).prop_map(|(begin, step, count, sum)| Step::Add {
            begin,
            step,
            count,
            sum,
        });
        prop::collection::vec(prop_oneof![4 => add, 1 => Just(Step::Spill)], 1..16)
    }

    fn check(runs: &Runs<Sum>, model: &BTreeMap<u64, u64>, questions: &[u64]) {
        let entries = runs.iter().map(|entry| entry.map(|(number, Sum(sum))| (number, sum)));
        assert!(entries.map(Result::unwrap).eq(model.iter().map(|(number, sum)| (*number, *sum))));
        let mut known = runs.ascending();
        for question in questions {
            assert_eq!(known.get(*question).unwrap(), model.get(question).copied().map(Sum), "{question}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn they_hold_the_sums_of_what_was_added_in_memory_and_on_disk(
            steps in steps(), mut questions in prop::collection::vec(any::<u64>(), 0..20), every in 1..200_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut runs = Runs::<Sum>::default();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Add { begin, step, count, sum } => {
                        let numbers: Vec<u64> = (0..count).map_while(|nth| begin.checked_add(nth * step)).collect();
                        for number in &numbers {
                            *model.entry(*number).or_default() += sum;
                        }
                        runs.add(numbers.into_iter().map(|number| (number, Sum(sum))));
                    }
                    Step::Spill => {
                        runs.spill(directory.path()).unwrap();
                        prop_assert_eq!(runs.in_memory(), 0);
                    }
                }
                let each_smaller =
                    runs.memory.windows(2).all(|pair| pair[0].entries > STEP * pair[1].entries);
                prop_assert!(each_smaller);
                prop_assert!(runs.disk.len() <= FILES);
            }
            questions.extend(model.keys().step_by(every));
            questions.extend(model.keys().step_by(every).map(|number| number.saturating_add(1)));
            questions.sort_unstable();
            check(&runs, &model, &questions);
            prop_assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        }
    }

    #[test]
    fn many_files_become_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut runs = Runs::<Sum>::default();
        let mut model = BTreeMap::new();
        let mut most = 0;
        for fold in 0..3 * FILES as u64 {
            for number in (fold..90_000).step_by(7) {
                *model.entry(number).or_default() += 1;
            }
            runs.add((fold..90_000).step_by(7).map(|number| (number, Sum(1))));
            runs.spill(directory.path()).unwrap();
            most = most.max(runs.disk.len());
        }
        assert_eq!(most, FILES);
        check(&runs, &model, &(0..90_100).collect::<Vec<_>>());
    }

    #[test]
    fn each_altered_byte_on_disk_is_found_when_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut runs = Runs::<()>::default();
        runs.add((0..60_000).map(|number| (number * number, ())));
        runs.spill(directory.path()).unwrap();
        let bytes = runs.disk();
        let file = runs.files().next().unwrap().try_clone().unwrap();
        let read = |runs: &Runs<()>| runs.iter().collect::<io::Result<Vec<_>>>().map(|entries| entries.len());
        for at in (0..bytes).step_by(9973) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            assert_eq!(read(&runs).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        assert_eq!(read(&runs).unwrap(), 60_000);
        file.set_len(bytes / 2).unwrap();
        assert_eq!(read(&runs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // What cannot be read stays where it is, and so does what is in memory.
        runs.add(std::iter::once((7, ())));
        for _ in 0..FILES {
            let _ = runs.spill(directory.path());
        }
        assert_eq!(runs.ascending().get(7).unwrap(), Some(()));
    }
}
