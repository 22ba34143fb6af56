//! Follows database files that are replaced while the daemon runs.

use super::{DatabaseOrigin, GeoIp, GeoIpError};
use crate::database::file::{self, FileStates};
use crate::system::follow::{Files, Followed, ReadFault};
use std::io;
use std::path::PathBuf;

/// The files of a database, or the embedded one.
#[derive(Debug)]
pub struct DatabaseFiles {
    path: Option<PathBuf>,
    /// The state that was read last, whether or not that failed; `None` when nothing was.
    tried: Option<FileStates>,
}

impl DatabaseFiles {
    /// The database of this path, which was not read yet; `None` for the embedded one.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, tried: None }
    }
}

impl Files for DatabaseFiles {
    type Value = GeoIp;
    type Error = GeoIpError;
    type Name = DatabaseOrigin;
    const THREAD: &'static str = "geoip";

    fn name(&self) -> DatabaseOrigin {
        self.path.clone().map_or(DatabaseOrigin::Embedded, DatabaseOrigin::File)
    }

    fn news(&mut self) -> Result<Option<GeoIp>, GeoIpError> {
        // Before the files are read: a change during the read is found at the next look.
        let state = self.path.as_deref().map(file::state).unwrap_or_default();
        if self.tried == Some(state) {
            return Ok(None);
        }
        self.tried = Some(state);
        GeoIp::open(self.path.as_deref()).map(Some)
    }

    fn silent(name: &DatabaseOrigin, seconds: u64) -> GeoIpError {
        GeoIpError { origin: name.clone(), reason: ReadFault::Silent { seconds }.into() }
    }

    fn no_thread(name: &DatabaseOrigin, error: io::Error) -> GeoIpError {
        GeoIpError { origin: name.clone(), reason: error.into() }
    }
}

/// A database that is read again when its files change.
pub type Watcher = Followed<DatabaseFiles>;

impl Watcher {
    /// Loads the file's database, or the embedded one, which never changes.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::load`].
    pub fn open(path: Option<PathBuf>) -> Result<Self, GeoIpError> {
        let tried = path.as_deref().map(file::state);
        let current = GeoIp::open(path.as_deref())?;
        let files = path.map(|path| DatabaseFiles { path: Some(path), tried });
        Self::new(current, files)
    }
}
