//! Regular files, read within a bound.
//!
//! A path from a configuration may name a FIFO, whose opening waits for a writer, or a device, which has no
//! end. So opening never waits, the type is checked before the first byte is read, and reading has a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file for reading, without waiting.
///
/// # Errors
///
/// It cannot be opened, or is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// The content of a regular file of at most `bound` bytes.
///
/// # Errors
///
/// As [`open`]; it cannot be read, or is larger.
pub(crate) fn read(path: &Path, bound: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more tells that there is more.
    open(path)?.take(bound + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bound {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bound} bytes")));
    }
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
///
/// As [`read`]; it is not UTF-8.
pub(crate) fn read_to_string(path: &Path, bound: u64) -> io::Result<String> {
    String::from_utf8(read(path, bound)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_bound_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_to_string(&file, 5).unwrap(), "12345");
        assert_eq!(read(&file, 4).unwrap_err().to_string(), "larger than 4 bytes");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 9).unwrap(), b"12345");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in [&fifo, Path::new("/dev/zero"), directory.path()] {
            assert_eq!(read(other, 9).unwrap_err().to_string(), "not a regular file", "{}", other.display());
        }
        assert_eq!(read(&directory.path().join("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(read_to_string(&file, 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
