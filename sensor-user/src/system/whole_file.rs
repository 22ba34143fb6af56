//! Files that commands write where the user says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes a file whole or not at all: under another name beside it first, so that on a full disk, or when it is
/// interrupted, what had the name before is still there. A symbolic link stays, and the file that it names is
/// written; a device or a pipe is written in place. A file that was there keeps its mode.
///
/// # Errors
///
/// The file cannot be made or written, or `write` fails.
pub fn write_file<E: From<io::Error>>(
    output: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
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

/// The file that a symbolic link would name if it were there; the path itself when it is no link.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // More links than Linux follows lead in a circle, which opening reports as not found or looping.
    for _ in 0..40 {
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
    fn a_file_of_the_other_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join(format!("file.{}.part", std::process::id()));
        fs::write(&part, "another's").unwrap();
        put(&directory.path().join("file"), "text").unwrap();
        assert_eq!(fs::read_to_string(&part).unwrap(), "another's");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
