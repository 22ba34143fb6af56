//! Reading the archive: which files count, and their pages with only the columns that are asked for.

use super::name::{self, FileName, without_covered};
use super::place::{ArchivePlace, entries};
use super::schema::{CLASSES, FIELDS, column};
use jiff::civil::Date;
use sensor_columns::{Dictionary, ReadError, Table, Texts};
use sensor_common::Slot;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why the archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is none.
    #[error(
        "there is no archive in {}; `teiten run --archive-dir DIR` writes one, `archive-dir = \"DIR\"` in the \
         configuration too",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// This user may not read it.
    #[error(
        "not allowed to read the archive {}; run the command as root (`sudo teiten …`) or as the daemon's user",
        path.display()
    )]
    NotAllowed {
        /// Its directory.
        path: PathBuf,
    },
    /// A directory cannot be read.
    #[error("read the archive {}", path.display())]
    List {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read {} of the archive", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ReadError,
    },
    /// Files were merged again and again meanwhile.
    #[error("the archive {} changed whenever it was read; try again", path.display())]
    Restless {
        /// Its directory.
        path: PathBuf,
    },
}

impl ScanError {
    /// Whether a file had gone that was there when the directory was listed: its rows are in another one.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Read { source: ReadError::Io(error), .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A file that counts.
#[derive(Clone, Debug)]
pub(super) struct FoundFile {
    pub(super) day: Date,
    pub(super) name: FileName,
    pub(super) path: PathBuf,
}

/// What of an archive is read.
#[derive(Clone, Debug)]
pub struct ArchiveExtent {
    /// Local days.
    pub days: RangeInclusive<Date>,
    /// The sensor; `None`: all.
    pub sensor: Option<String>,
    /// Identity and commits of a ledger: what it has not committed does not count.
    pub committed: Option<(u64, u64)>,
}

/// The days of an archive, ascending.
///
/// # Errors
///
/// There is no archive, or it cannot be read.
pub fn days(root: &Path) -> Result<Vec<Date>, ScanError> {
    match std::fs::metadata(root).and_then(|_| ArchivePlace::days(root)) {
        Ok(days) => Ok(days),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ScanError::Missing { path: root.to_owned() })
        }
        Err(error) => Err(unread(root, error)),
    }
}

/// A directory of the archive cannot be read.
pub(super) fn unread(directory: &Path, source: io::Error) -> ScanError {
    let path = directory.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ScanError::NotAllowed { path },
        _ => ScanError::List { path, source },
    }
}

/// The files of an extent.
pub(super) fn files(root: &Path, extent: &ArchiveExtent) -> Result<Vec<FoundFile>, ScanError> {
    let sensor = extent.sensor.as_deref().map(name::encoded);
    let mut found = Vec::new();
    for day in days(root)?.into_iter().filter(|day| extent.days.contains(day)) {
        let of_day = name::day_dir(root, day);
        for entry in entries(&of_day).map_err(|error| unread(&of_day, error))? {
            let Some(of) = entry.strip_prefix("sensor=") else { continue };
            if sensor.as_deref().is_some_and(|sensor| sensor != of) {
                continue;
            }
            let directory = of_day.join(&entry);
            let names = entries(&directory).map_err(|error| unread(&directory, error))?;
            let (names, _) = without_covered(names.iter().filter_map(|name| FileName::parse(name)));
            let is_committed = |name: &FileName| {
                extent
                    .committed
                    .is_none_or(|(ledger, commits)| name.ledger != ledger || name.first <= commits)
            };
            let names = names.into_iter().filter(is_committed);
            found.extend(names.map(|name| FoundFile { day, name, path: directory.join(name.to_string()) }));
        }
    }
    Ok(found)
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct RowFilter {
    /// Those of services instead of those of accesses; `None`: both.
    pub services: Option<bool>,
    /// Of this port.
    pub port: Option<Slot>,
    /// Of this country's label.
    pub country: Option<String>,
    /// Of this network.
    pub asn: Option<u32>,
    /// Of this source list's label.
    pub list: Option<String>,
}

/// One condition: which codes of a column are wanted.
struct ColumnFilter {
    column: usize,
    wanted: Vec<bool>,
}

impl RowFilter {
    /// The columns that it needs.
    fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        columns.extend(self.services.map(|_| column::CLASS));
        if self.port.is_some() {
            columns.extend([column::TRANSPORT, column::PORT]);
        }
        columns.extend(self.country.as_ref().map(|_| column::COUNTRY));
        columns.extend(self.asn.map(|_| column::ASN));
        columns.extend(self.list.as_ref().map(|_| column::LIST));
        columns
    }

    fn wanted(&self, at: usize, dictionary: &Dictionary) -> Vec<bool> {
        let text = |text: &str| dictionary.texts().iter().map(|it| **it == *text).collect();
        let number = |number: i64| dictionary.numbers().iter().map(|it| *it == number).collect();
        match at {
            column::CLASS => text(CLASSES[usize::from(self.services.unwrap_or_default())]),
            column::TRANSPORT => text(self.port.map_or("", |slot| slot.transport().name())),
            column::PORT => number(self.port.map_or(-1, |slot| slot.port().into())),
            column::COUNTRY => text(self.country.as_deref().unwrap_or_default()),
            column::ASN => number(self.asn.map_or(-1, i64::from)),
            _ => text(self.list.as_deref().unwrap_or_default()),
        }
    }
}

/// One page: the rows that are wanted, and the columns that were asked for.
pub(super) struct Page<'a> {
    texts: &'a Texts,
    columns: &'a [usize],
    codes: &'a [Vec<u32>],
    dictionaries: &'a [Dictionary],
    /// Places of the wanted rows, ascending.
    pub(super) rows: &'a [u32],
}

impl Page<'_> {
    pub(super) fn source(&self, row: u32) -> Option<&[u8]> {
        self.texts.get(row as usize)
    }

    fn code(&self, column: usize, row: u32) -> Option<(&Dictionary, usize)> {
        let at = self.columns.iter().position(|it| *it == column)?;
        let code = self.codes[at][row as usize];
        (code != u32::MAX).then(|| (&self.dictionaries[at], code as usize))
    }

    pub(super) fn number(&self, column: usize, row: u32) -> Option<i64> {
        self.code(column, row).map(|(dictionary, code)| dictionary.numbers()[code])
    }

    pub(super) fn text(&self, column: usize, row: u32) -> Option<&str> {
        self.code(column, row).map(|(dictionary, code)| &*dictionary.texts()[code])
    }
}

/// Calls `each` with every page of a file that has rows that are wanted. `columns` are those with
/// dictionaries; the source is there anyway.
pub(super) fn scan(
    table: &Table,
    filter: &RowFilter,
    columns: &[usize],
    mut each: impl FnMut(&Page<'_>),
) -> Result<(), ReadError> {
    let filters = filter.columns();
    let mut all: Vec<usize> = columns.to_vec();
    all.extend(filters.iter().filter(|column| !columns.contains(column)));
    let (mut texts, mut codes) = (Texts::default(), vec![Vec::new(); all.len()]);
    let mut rows = Vec::new();
    'groups: for group in 0..table.groups().len() {
        let mut pages = Vec::with_capacity(all.len());
        for &column in &all {
            pages.push(table.column(group, &FIELDS[column])?);
        }
        let dictionaries: Vec<Dictionary> = pages.iter().map(|pages| pages.dictionary().clone()).collect();
        let mut conditions = Vec::with_capacity(filters.len());
        for &column in &filters {
            let at = all.iter().position(|it| *it == column).unwrap_or_default();
            let wanted = filter.wanted(column, &dictionaries[at]);
            // The dictionary tells already that the group has none.
            if !wanted.contains(&true) {
                continue 'groups;
            }
            conditions.push(ColumnFilter { column: at, wanted });
        }
        let mut sources = table.column(group, &FIELDS[column::SOURCE])?;
        loop {
            sources.next_texts(&mut texts)?;
            for (pages, codes) in pages.iter_mut().zip(&mut codes) {
                pages.next_codes(codes)?;
                if codes.len() != texts.rows() {
                    return Err(ReadError::Damaged("pages of different rows"));
                }
            }
            if texts.rows() == 0 {
                break;
            }
            rows.clear();
            rows.extend(0..texts.rows() as u32);
            for ColumnFilter { column, wanted } in &conditions {
                let codes = &codes[*column];
                rows.retain(|row| wanted.get(codes[*row as usize] as usize).copied().unwrap_or_default());
            }
            if !rows.is_empty() {
                each(&Page {
                    texts: &texts,
                    columns: &all,
                    codes: &codes,
                    dictionaries: &dictionaries,
                    rows: &rows,
                });
            }
        }
    }
    Ok(())
}

/// Works on each file, on all processors; results come in the order of the files.
pub(super) fn each_file<T: Send>(
    files: &[FoundFile],
    work: impl Fn(&FoundFile, &Table) -> Result<T, ReadError> + Sync,
) -> Result<Vec<T>, ScanError> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut results = Vec::new();
        while let Some((at, found)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            files.get(at).map(|found| (at, found))
        } {
            let result = File::open(&found.path)
                .map_err(ReadError::from)
                .and_then(Table::open)
                .and_then(|table| work(found, &table))
                .map_err(|source| ScanError::Read { path: found.path.clone(), source });
            results.push((at, result));
        }
        results
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
    let mut results = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut results = worker();
        for thread in threads {
            results.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Attempts of a read that files are merged under.
const ATTEMPTS: usize = 20;

/// Reads until no file is gone that was there in the beginning.
pub(super) fn steadily<T>(root: &Path, read: impl Fn() -> Result<T, ScanError>) -> Result<T, ScanError> {
    for _ in 0..ATTEMPTS {
        match read() {
            Err(error) if error.is_gone() => {}
            read => return read,
        }
    }
    Err(ScanError::Restless { path: root.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_may_not_be_read_is_named_with_the_way_out() {
        let directory = Path::new("/a/day=2010-07-08/sensor=one");
        let denied = unread(directory, io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(denied.contains("/a/day=2010-07-08/sensor=one; run the command as root"), "{denied}");
        let other = unread(directory, io::Error::other("out of luck"));
        assert!(matches!(&other, ScanError::List { path, .. } if path == directory), "{other}");
    }

    /// A loop of links is an error that root gets, too.
    #[test]
    fn a_directory_that_cannot_be_read_is_named_and_not_the_root() {
        let root = tempfile::tempdir().unwrap();
        let day = name::day_dir(root.path(), jiff::civil::date(2010, 7, 8));
        let sensor = day.join("sensor=one");
        std::fs::create_dir_all(&sensor).unwrap();
        let looped = day.join("sensor=two");
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        let extent = ArchiveExtent { days: Date::MIN..=Date::MAX, sensor: None, committed: None };
        let error = files(root.path(), &extent).unwrap_err();
        assert!(matches!(&error, ScanError::List { path, .. } if *path == looped), "{error}");
    }
}
