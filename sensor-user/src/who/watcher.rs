//! Follows the files of source lists, which are replaced while the daemon runs.

use super::lists::{ListError, ListFault, Lists, SourceList};
use crate::system::follow::{Files, Followed, Stamp, stamp_of};
use std::io;

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
        ListError::of(name, ListFault::Silent { seconds })
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
}
