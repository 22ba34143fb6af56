//! Follows a database file that is replaced while the daemon runs.

use super::{GeoIp, GeoIpError, MAX_OCTETS, Origin, Reason};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What tells one state of a file from another: device, inode, size, and the times of the last
/// change of content and of inode, each in seconds and nanoseconds.
type Stamp = [u64; 7];

fn stamp(metadata: &Metadata) -> Stamp {
    [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ]
}

/// The whole file, and its state, which was the same before and after.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Reason> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file").into());
    }
    if before.size() > MAX_OCTETS {
        return Err(Reason::TooLarge { octets: before.size() });
    }
    let mut octets = Vec::with_capacity(before.size() as usize);
    file.by_ref().take(MAX_OCTETS).read_to_end(&mut octets)?;
    let after = stamp(&file.metadata()?);
    if after != stamp(&before) || octets.len() as u64 != before.size() {
        return Err(Reason::Changing);
    }
    Ok((octets, after))
}

/// A database that is read again when its file changes; what cannot be read does not replace what
/// could.
#[derive(Debug)]
pub struct Watcher {
    current: Arc<GeoIp>,
    /// The file, unless the database is the embedded one.
    path: Option<PathBuf>,
    /// The state of the file that was last tried; `None` when there was no file.
    tried: Option<Stamp>,
}

impl Watcher {
    /// Loads the file's database, or the embedded one, which never changes.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::load`].
    pub fn open(path: Option<PathBuf>) -> Result<Self, GeoIpError> {
        match path {
            None => Ok(Self { current: Arc::new(GeoIp::embedded()?), path: None, tried: None }),
            Some(path) => {
                let origin = Origin::File(path.clone());
                match read(&path) {
                    Ok((octets, stamp)) => {
                        let current = Arc::new(GeoIp::from_octets(octets, origin)?);
                        Ok(Self { current, path: Some(path), tried: Some(stamp) })
                    }
                    Err(reason) => Err(GeoIpError { origin, reason }),
                }
            }
        }
    }

    /// The database in use.
    pub fn current(&self) -> &Arc<GeoIp> {
        &self.current
    }

    /// Reads the file again if it is not what was read last, and tells whether there is a new
    /// database. Asks the file system only, so it can be called at every drain.
    ///
    /// # Errors
    ///
    /// The new file is missing or not good; [`Watcher::current`] stays, and the same state of the
    /// file is not tried, nor told, again.
    pub fn reload_if_changed(&mut self) -> Result<bool, GeoIpError> {
        let Some(path) = &self.path else { return Ok(false) };
        let found = std::fs::metadata(path);
        let state = found.as_ref().ok().map(stamp);
        if state == self.tried {
            return Ok(false);
        }
        self.tried = state;
        let origin = Origin::File(path.clone());
        let new = match found.map_err(Reason::from).and_then(|_| read(path)) {
            Ok((octets, stamp)) => {
                self.tried = Some(stamp);
                GeoIp::from_octets(octets, origin)?
            }
            Err(reason) => return Err(GeoIpError { origin, reason }),
        };
        self.current = Arc::new(new);
        Ok(true)
    }
}
