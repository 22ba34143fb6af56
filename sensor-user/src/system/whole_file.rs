//! Files that commands write where the user says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// More links than Linux follows lead in a circle, which opening reports as not found or looping.
const LINKS: usize = 40;

/// Writes a file whole or not at all: under another name beside it first, so that on a full disk, or when it is
/// interrupted, what had the name before is still there. A symbolic link stays, and the file that it names is
/// written; a device or a pipe is written in place, and so is what this process has open, by a name like
/// `/dev/stdout`, from where it is. A file that was there keeps its mode.
///
/// # Errors
///
/// The file cannot be made or written, or `write` fails.
pub fn write_file<E: From<io::Error>>(
    output: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    if let Some(open) = descriptor(output) {
        let mut file = BufWriter::new(open?);
        write(&mut file)?;
        return Ok(file.flush()?);
    }
    let (output, permissions) = match fs::metadata(output) {
        Ok(metadata) if metadata.is_file() => (output.canonicalize()?, Some(metadata.permissions())),
        Ok(_) => {
            let mut file = BufWriter::new(OpenOptions::new().write(true).open(output)?);
            write(&mut file)?;
            return Ok(file.flush()?);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (end_of_links(output), None),
        Err(error) => return Err(error.into()),
    };
    // What replaces a file that others must not read is never readable for them.
    let mode = if permissions.is_some() { 0o600 } else { 0o666 };
    let (part, file) = create_beside(&output, mode)?;
    let written = || {
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(fs::rename(&part, &output)?)
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Makes a new file beside `output`. What has its name already is another's or of a process that was killed, and
/// stays: then the name gets a number.
fn create_beside(output: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let Some(name) = output.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
    };
    let mut number = 0_u32;
    loop {
        let mut part = name.to_owned();
        part.push(match number {
            0 => format!(".{}.part", std::process::id()),
            _ => format!(".{}-{number}.part", std::process::id()),
        });
        let part = output.with_file_name(part);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&part) {
            Ok(file) => return Ok((part, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", part.display()))),
        }
    }
}

/// What this process has open, if `path` is its name among the descriptors of this process, or a link to that.
fn descriptor(path: &Path) -> Option<io::Result<File>> {
    let descriptors = Path::new("/proc/self/fd").canonicalize().ok()?;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (directory, name) = (path.parent()?, path.file_name()?);
        let number = name.to_str().and_then(|name| name.parse::<libc::c_int>().ok());
        if let Some(number) = number.filter(|_| directory.canonicalize().is_ok_and(|at| at == descriptors)) {
            // SAFETY: no memory is passed, and the kernel says when there is no such descriptor.
            let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
            return Some(match copy {
                0.. => {
                    // SAFETY: the kernel just made this descriptor, and no one else owns it.
                    Ok(unsafe { File::from_raw_fd(copy) })
                }
                _ => Err(io::Error::last_os_error()),
            });
        }
        path = directory.join(fs::read_link(&path).ok()?);
    }
    None
}

/// The file that a symbolic link would name if it were there; the path itself when it is no link.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        // An absolute target replaces the directory.
        path = path.parent().map_or_else(|| target.clone(), |directory| directory.join(&target));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn put(path: &Path, text: &str) -> io::Result<()> {
        write_file(path, |out| out.write_all(text.as_bytes()))
    }

    #[test]
    fn links_stay_and_files_keep_their_mode() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/file"), "old").unwrap();
        fs::set_permissions(at("d/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("d/file", at("link")).unwrap();
        symlink("d/later", at("dangling")).unwrap();
        put(&at("link"), "new").unwrap();
        put(&at("dangling"), "first").unwrap();
        for (link, file, text) in [("link", "d/file", "new"), ("dangling", "d/later", "first")] {
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            assert!(fs::symlink_metadata(at(file)).unwrap().is_file(), "{file}");
            assert_eq!(fs::read_to_string(at(file)).unwrap(), text);
        }
        assert_eq!(fs::metadata(at("d/file")).unwrap().permissions().mode() & 0o777, 0o640);
        let failed = write_file(&at("d/file"), |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read_to_string(at("d/file")).unwrap(), "new");
        assert_eq!(fs::read_dir(at("d")).unwrap().count(), 2);
    }

    #[test]
    fn a_pipe_is_written_in_place_also_by_a_link_that_names_no_path() {
        let directory = tempfile::tempdir().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let link = directory.path().join("link");
        symlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write)), &link).unwrap();
        put(&link, "to the pipe").unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "to the pipe");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_is_open_is_written_from_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"before ").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        put(Path::new(&format!("/dev/fd/{number}")), "by number ").unwrap();
        let link = directory.path().join("link");
        symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
        put(&link, "by link ").unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before by number by link after");
        let closed = put(Path::new("/dev/fd/1000000"), "").unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_file_of_the_other_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join(format!("file.{}.part", std::process::id()));
        fs::write(&part, "another's").unwrap();
        put(&directory.path().join("file"), "text").unwrap();
        assert_eq!(fs::read_to_string(&part).unwrap(), "another's");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
