//! Follows the files of source lists and of the ASN database, which are replaced while the daemon runs.

use super::asn::{AsnDatabase, AsnError};
use super::lists::{ListError, Lists, SourceList};
use crate::system::follow::{Files, Followed, ReadFault, Stamp, stamp_of};
use std::io;
use std::path::PathBuf;

/// The files of all lists.
#[derive(Debug)]
pub struct ListFiles {
    lists: Vec<SourceList>,
    /// The stamps of what was read last, whether or not that failed; `None` when nothing was.
    tried: Option<Vec<Option<Stamp>>>,
}

impl ListFiles {
    /// These lists, which were not read yet.
    pub fn new(lists: Vec<SourceList>) -> Self {
        Self { lists, tried: None }
    }

    fn stamps(lists: &[SourceList]) -> Vec<Option<Stamp>> {
        lists.iter().map(|list| stamp_of(&list.path)).collect()
    }
}

impl Files for ListFiles {
    type Value = Lists;
    type Error = ListError;
    /// The first of the lists.
    type Name = SourceList;
    const THREAD: &'static str = "lists";

    fn name(&self) -> SourceList {
        self.lists.first().cloned().unwrap_or_default()
    }

    fn news(&mut self) -> Result<Option<Lists>, ListError> {
        // Before the files are read: a change during the read is found at the next look.
        let stamps = Self::stamps(&self.lists);
        if self.tried.as_ref() == Some(&stamps) {
            return Ok(None);
        }
        self.tried = Some(stamps);
        Lists::load(&self.lists).map(Some)
    }

    fn silent(name: &SourceList, seconds: u64) -> ListError {
        ListError::of(name, ReadFault::Silent { seconds }.into())
    }

    fn no_thread(name: &SourceList, error: io::Error) -> ListError {
        ListError::of(name, error.into())
    }
}

/// Lists that are read again when one of their files changes: all of them or none, so that no access is
/// judged by one list of before and another of after.
pub type ListWatcher = Followed<ListFiles>;

impl ListWatcher {
    /// Loads the lists.
    ///
    /// # Errors
    ///
    /// As [`Lists::load`].
    pub fn open(lists: Vec<SourceList>) -> Result<Self, ListError> {
        let tried = Some(ListFiles::stamps(&lists));
        let current = Lists::load(&lists)?;
        let files = (!lists.is_empty()).then_some(ListFiles { lists, tried });
        Self::new(current, files)
    }
}

/// The file of an ASN database, or none.
#[derive(Debug)]
pub struct AsnFiles {
    path: Option<PathBuf>,
    /// The stamp of what was read last, whether or not that failed, in a list of one; `None` when nothing was.
    tried: Option<[Option<Stamp>; 1]>,
}

impl AsnFiles {
    /// The database of this path, which was not read yet; `None` for none.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, tried: None }
    }

    fn stamp(path: Option<&PathBuf>) -> Option<Stamp> {
        path.and_then(|path| stamp_of(path))
    }
}

impl Files for AsnFiles {
    type Value = AsnDatabase;
    type Error = AsnError;
    type Name = PathBuf;
    const THREAD: &'static str = "asn";

    fn name(&self) -> PathBuf {
        self.path.clone().unwrap_or_default()
    }

    fn news(&mut self) -> Result<Option<AsnDatabase>, AsnError> {
        // Before the file is read: a change during the read is found at the next look.
        let stamp = Self::stamp(self.path.as_ref());
        if self.tried == Some([stamp]) {
            return Ok(None);
        }
        self.tried = Some([stamp]);
        AsnDatabase::open(self.path.as_deref()).map(Some)
    }

    fn silent(name: &PathBuf, seconds: u64) -> AsnError {
        AsnError { path: name.clone(), reason: ReadFault::Silent { seconds }.into() }
    }

    fn no_thread(name: &PathBuf, error: io::Error) -> AsnError {
        AsnError { path: name.clone(), reason: error.into() }
    }
}

/// An ASN database that is read again when its file changes.
pub type AsnWatcher = Followed<AsnFiles>;

impl AsnWatcher {
    /// Loads the file's database, or none, which never changes.
    ///
    /// # Errors
    ///
    /// As [`AsnDatabase::load`].
    pub fn open(path: Option<PathBuf>) -> Result<Self, AsnError> {
        let tried = Some([AsnFiles::stamp(path.as_ref())]);
        let current = AsnDatabase::open(path.as_deref())?;
        let files = path.map(|path| AsnFiles { path: Some(path), tried });
        Self::new(current, files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::follow::Look;
    use std::path::Path;
    use std::sync::Arc;

    fn list(name: &str, path: &Path) -> SourceList {
        SourceList { name: name.to_owned(), path: path.to_owned() }
    }

    /// The place of an address given as text.
    fn place(watcher: &ListWatcher, address: &str) -> u16 {
        watcher.current().v4(address.parse::<std::net::Ipv4Addr>().unwrap().into())
    }

    #[test]
    fn changed_files_are_taken_over_and_bad_ones_leave_all_lists_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let replace = |name: &str, text: &str| {
            std::fs::write(path("new"), text).unwrap();
            std::fs::rename(path("new"), path(name)).unwrap();
        };
        replace("a", "192.0.2.0/24\n");
        replace("b", "192.0.2.0/23\n");
        let lists = vec![list("first", &path("a")), list("second", &path("b"))];
        let mut watcher = ListWatcher::open(lists.clone()).unwrap();
        let before = Arc::clone(watcher.current());
        assert_eq!(watcher.look_and_wait(), Look::Unchanged);
        assert_eq!((place(&watcher, "192.0.2.1"), place(&watcher, "192.0.3.1")), (1, 2));

        replace("a", "198.51.100.0/24\n");
        assert_eq!(watcher.look_and_wait(), Look::Reloaded);
        assert_eq!((place(&watcher, "192.0.2.1"), place(&watcher, "198.51.100.9")), (2, 1));
        assert_eq!(before.v4(0xc000_0201), 1, "a fold that holds the old ones ends with them");

        // A download that failed: an empty file, and one that is a page.
        replace("a", "");
        assert_eq!(watcher.look_and_wait(), Look::Failed);
        assert!(watcher.fault().unwrap().to_string().contains("source list `first`"));
        replace("b", "<html>");
        assert_eq!(watcher.look_and_wait(), Look::Failed);
        assert_eq!(watcher.look_and_wait(), Look::Unchanged, "one state of the files is tried once");
        assert_eq!((place(&watcher, "192.0.2.1"), place(&watcher, "198.51.100.9")), (2, 1));

        replace("a", "203.0.113.7\n");
        replace("b", "192.0.2.0/23\n");
        assert_eq!(watcher.look_and_wait(), Look::Reloaded);
        assert!(watcher.fault().is_none());
        assert_eq!((place(&watcher, "203.0.113.7"), place(&watcher, "198.51.100.9")), (1, 0));

        // Other lists, in another order.
        watcher.follow(ListFiles::new(lists.into_iter().rev().collect())).unwrap();
        assert_eq!(watcher.look_and_wait(), Look::Reloaded);
        assert_eq!(watcher.current().names(), ["second", "first"]);
        assert_eq!(place(&watcher, "203.0.113.7"), 2);
        watcher.follow(ListFiles::new(Vec::new())).unwrap();
        assert_eq!(watcher.look_and_wait(), Look::Reloaded);
        assert_eq!(place(&watcher, "203.0.113.7"), 0);
        assert_eq!(watcher.look_and_wait(), Look::Unchanged);
    }

    #[test]
    fn an_asn_database_is_read_again_when_its_file_changes_and_stays_when_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("asn.csv");
        let replace = |text: &str| {
            std::fs::write(directory.path().join("new"), text).unwrap();
            std::fs::rename(directory.path().join("new"), &path).unwrap();
        };
        let number = |watcher: &AsnWatcher| {
            let database = watcher.current();
            let place = database.v4(0x0102_0304);
            place.checked_sub(1).map(|at| database.networks()[at as usize].number)
        };
        replace("1.0.0.0,1.255.255.255,64500,One\n");
        let mut watcher = AsnWatcher::open(Some(path.clone())).unwrap();
        assert_eq!((watcher.look_and_wait(), number(&watcher)), (Look::Unchanged, Some(64_500)));
        replace("1.0.0.0,1.255.255.255,64501,Two\n");
        assert_eq!((watcher.look_and_wait(), number(&watcher)), (Look::Reloaded, Some(64_501)));
        replace("1.0.0.0,1.255.255.255,JP\n");
        assert_eq!((watcher.look_and_wait(), number(&watcher)), (Look::Failed, Some(64_501)));
        assert_eq!(
            crate::error_chain(watcher.fault().unwrap()),
            format!("cannot use the ASN database `{}`: line 1 is not `first,last,asn,name`", path.display())
        );
        assert_eq!(watcher.look_and_wait(), Look::Unchanged, "one state of the file is tried once");
        watcher.follow(AsnFiles::new(None)).unwrap();
        assert_eq!((watcher.look_and_wait(), number(&watcher)), (Look::Reloaded, None));
        assert!(watcher.fault().is_none());
        assert_eq!(AsnWatcher::open(None).unwrap().look_and_wait(), Look::Unchanged);
    }
}
