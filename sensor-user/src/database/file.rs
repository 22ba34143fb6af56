//! Reading database files, which may be replaced or overwritten at any time.

use super::{DatabaseFault, MAX_BYTES};
use crate::system::follow::{ReadFault, Stamp, stamp, stamp_of};
use crate::system::regular_file;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The state of a database's file and of its IPv6 file; `None` for one that cannot be found.
pub(crate) type FileStates = [Option<Stamp>; 2];

/// The state of the files now.
pub(crate) fn state(path: &Path) -> FileStates {
    [path, &of_ipv6(path)].map(stamp_of)
}

/// The file with the IPv6 ranges of a text database: `geoip6` for `geoip`.
pub(crate) fn of_ipv6(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push("6");
    name.into()
}

/// The whole file, which did not change during the read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DatabaseFault> {
    let mut file = regular_file::open(path)?;
    let before = file.metadata()?;
    if before.size() > MAX_BYTES {
        return Err(DatabaseFault::TooLarge { bytes: before.size() });
    }
    let mut bytes = Vec::with_capacity(before.size() as usize);
    file.by_ref().take(MAX_BYTES).read_to_end(&mut bytes)?;
    if stamp(&file.metadata()?) != stamp(&before) || bytes.len() as u64 != before.size() {
        return Err(ReadFault::Changing.into());
    }
    Ok(bytes)
}

/// As [`read`]; `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, DatabaseFault> {
    match read(path) {
        Err(DatabaseFault::Read(ReadFault::Io(error))) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
