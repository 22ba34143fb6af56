//! The archive's directory: what is in it, and changes of it that are there whole or not at all, whatever
//! ends the process or the machine.

use super::name::{self, FileName, WORK, encoded};
use jiff::civil::Date;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The archive of one sensor. Several sensors may share a directory.
#[derive(Clone, Debug)]
pub(super) struct ArchivePlace {
    root: PathBuf,
    /// As part of a path.
    sensor: String,
}

/// Files of one day.
pub(super) type DayFiles = BTreeMap<Date, Vec<FileName>>;

/// Makes a directory for its owner and group alone: it holds addresses of remote hosts, which are personal
/// data in many countries.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path)
}

/// A new file for its owner and group alone. A file of the name is emptied, a link is refused.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes the names in a directory permanent.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Names in a directory; none where there is none, or a file of its name.
pub(super) fn entries(path: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(path) {
        Ok(entries) => {
            // No name of the archive's is other than UTF-8.
            entries
                .map(|entry| Ok(entry?.file_name().into_string().ok()))
                .filter_map(Result::transpose)
                .collect()
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Removes what may be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl ArchivePlace {
    pub(super) fn new(root: &Path, sensor: &str) -> Self {
        Self { root: root.to_owned(), sensor: encoded(sensor) }
    }

    /// That of each sensor that has files of a day there.
    pub(super) fn all(root: &Path, day: Date) -> io::Result<Vec<Self>> {
        let entries = entries(&name::day_dir(root, day))?;
        let sensors = entries.iter().filter_map(|entry| entry.strip_prefix("sensor="));
        Ok(sensors.map(|sensor| Self { root: root.to_owned(), sensor: sensor.to_owned() }).collect())
    }

    /// The archive's directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The sensor's directory of a day.
    pub(super) fn dir(&self, day: Date) -> PathBuf {
        name::sensor_dir(&self.root, day, &self.sensor)
    }

    /// What belongs to one ledger and to no day: nothing that reads the archive looks there.
    pub(super) fn work(&self, ledger: u64) -> PathBuf {
        self.root.join(WORK).join(format!("{ledger:016x}"))
    }

    /// The days that the archive has, of any sensor, ascending.
    pub(super) fn days(root: &Path) -> io::Result<Vec<Date>> {
        let mut days: Vec<Date> = entries(root)?.iter().filter_map(|entry| name::day_of(entry)).collect();
        days.sort_unstable();
        Ok(days)
    }

    /// The sensor's files of a day, the ones included whose rows others hold.
    pub(super) fn files(&self, day: Date) -> io::Result<Vec<FileName>> {
        Ok(entries(&self.dir(day))?.iter().filter_map(|entry| FileName::parse(entry)).collect())
    }

    /// The sensor's files of all days.
    pub(super) fn all_files(&self) -> io::Result<DayFiles> {
        let mut all = DayFiles::new();
        for day in Self::days(&self.root)? {
            let files = self.files(day)?;
            if !files.is_empty() {
                all.insert(day, files);
            }
        }
        Ok(all)
    }

    /// Makes the sensor's directory of a day, permanently.
    pub(super) fn make(&self, day: Date) -> io::Result<PathBuf> {
        let directory = self.dir(day);
        if !directory.is_dir() {
            make_dir(&directory)?;
            sync_dir(&name::day_dir(&self.root, day))?;
            sync_dir(&self.root)?;
        }
        Ok(directory)
    }

    /// Gives a finished file its name, permanently. Another of that name is replaced.
    pub(super) fn publish(&self, finished: &Path, day: Date, name: FileName) -> io::Result<()> {
        let directory = self.make(day)?;
        fs::rename(finished, directory.join(name.to_string()))?;
        sync_dir(&directory)
    }

    /// Removes a file, if it is there; permanently.
    pub(super) fn retract(&self, day: Date, name: FileName) -> io::Result<()> {
        let directory = self.dir(day);
        match fs::remove_file(directory.join(name.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_dir(&directory),
        }
    }

    /// Puts `finished` in the place of the files whose rows it holds: who lists the directory finds it or
    /// them, never both and never none of them. `swap` is a path on the same file system that is free.
    pub(super) fn replace(&self, finished: &Path, swap: &Path, day: Date, name: FileName) -> io::Result<()> {
        let directory = self.dir(day);
        remove(swap)?;
        make_dir(swap)?;
        // As the one that it takes the place of, also where someone has opened that for a group.
        fs::set_permissions(swap, fs::metadata(&directory)?.permissions())?;
        let exchange = || {
            for entry in entries(&directory)? {
                if FileName::parse(&entry).is_none_or(|other| !name.covers(&other) && other != name) {
                    fs::hard_link(directory.join(&entry), swap.join(&entry))?;
                }
            }
            fs::rename(finished, swap.join(name.to_string()))?;
            sync_dir(swap)?;
            Ok(renameat2(AT_FDCWD, swap, AT_FDCWD, &directory, RenameFlags::RENAME_EXCHANGE)?)
        };
        exchange().inspect_err(|_: &io::Error| {
            // For another way to put it there.
            let _ = fs::rename(swap.join(name.to_string()), finished);
            let _ = remove(swap);
        })?;
        if let Some(parent) = directory.parent() {
            sync_dir(parent)?;
        }
        remove(swap)
    }

    /// The same where directories cannot be exchanged: in between, who does not read the names finds rows
    /// twice.
    pub(super) fn replace_one_by_one(&self, finished: &Path, day: Date, name: FileName) -> io::Result<()> {
        self.publish(finished, day, name)?;
        for other in self.files(day)?.into_iter().filter(|other| name.covers(other)) {
            self.retract(day, other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use std::os::unix::fs::PermissionsExt as _;

    const DAY: Date = date(2026, 11, 29);

    fn name(first: u64, last: u64) -> FileName {
        FileName { hour: 1, ledger: 7, first, last }
    }

    fn put(place: &ArchivePlace, name: FileName, text: &str) {
        let part = place.root().join("part");
        fs::write(&part, text).unwrap();
        place.publish(&part, DAY, name).unwrap();
    }

    fn texts(place: &ArchivePlace) -> BTreeMap<String, String> {
        let directory = place.dir(DAY);
        let text = |entry: &String| fs::read_to_string(directory.join(entry)).unwrap();
        entries(&directory).unwrap().into_iter().map(|entry| (entry.clone(), text(&entry))).collect()
    }

    #[test]
    fn directories_and_files_are_for_owner_and_group_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = ArchivePlace::new(&root.path().join("archive"), "../tokyo");
        let directory = place.make(DAY).unwrap();
        assert!(directory.ends_with("archive/day=2026-11-29/sensor=..%2Ftokyo"), "{directory:?}");
        drop(new_file(&directory.join("file")).unwrap());
        for path in [place.root().to_owned(), directory.clone(), directory.join("file")] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o027, 0, "{path:?}");
        }
        std::os::unix::fs::symlink("elsewhere", directory.join("link")).unwrap();
        assert!(new_file(&directory.join("link")).is_err());
    }

    #[test]
    fn a_file_takes_the_place_of_those_it_covers_and_leaves_others() {
        for exchanges in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let place = ArchivePlace::new(root.path(), "tokyo");
            for at in 1..=4 {
                put(&place, name(at, at), &at.to_string());
            }
            fs::write(place.dir(DAY).join("readme"), "mine").unwrap();
            let (finished, swap) = (root.path().join("merged"), root.path().join("swap"));
            fs::write(&finished, "1 to 3").unwrap();
            if exchanges {
                place.replace(&finished, &swap, DAY, name(1, 3)).unwrap();
            } else {
                place.replace_one_by_one(&finished, DAY, name(1, 3)).unwrap();
            }
            let expected = [
                (name(1, 3).to_string(), "1 to 3"),
                (name(4, 4).to_string(), "4"),
                ("readme".to_owned(), "mine"),
            ];
            assert_eq!(texts(&place), expected.map(|(name, text)| (name, text.to_owned())).into());
            assert!(!swap.exists() && !finished.exists());
            assert_eq!(place.all_files().unwrap()[&DAY].len(), 2);
        }
    }
}
