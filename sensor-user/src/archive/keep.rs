//! How much the archive keeps, and what became of the rest.
//!
//! What goes is first moved, with one rename, to where nothing looks for it; then it is counted, and only then
//! removed. So it counts once, whatever ends the process in between.

use super::name::FileName;
use super::place::{ArchivePlace, entries, make_dir, new_file, remove, sync_dir};
use super::schema::key;
use crate::config::Keep;
use jiff::ToSpan as _;
use jiff::civil::Date;
use sensor_columns::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What bounds have dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets in those that this ledger had counted.
    pub packets: u64,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.packets += other.packets;
    }
}

/// What was dropped since the ledger began, by day, and what has been counted and may still be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) days: BTreeMap<Date, Dropped>,
    /// The name in [`dropping`] that is counted.
    counted: Option<String>,
}

/// Where what goes waits to be counted.
fn dropping(work: &Path) -> PathBuf {
    work.join("dropping")
}

impl Tally {
    fn path(work: &Path) -> PathBuf {
        work.join("dropped.json")
    }

    /// The tally of a ledger; an empty one where there is none.
    pub(super) fn read(work: &Path) -> io::Result<Self> {
        match fs::read(Self::path(work)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, work: &Path) -> io::Result<()> {
        let part = work.join("dropped.part");
        let mut file = new_file(&part)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&part, Self::path(work))?;
        sync_dir(work)
    }

    /// The sum over all days.
    pub(super) fn total(&self) -> Dropped {
        let mut total = Dropped::default();
        self.days.values().for_each(|day| total += *day);
        total
    }

    /// Counts and removes what waits for it.
    pub(super) fn finish(&mut self, work: &Path, ledger: u64) -> io::Result<()> {
        let waiting = dropping(work);
        for entry in entries(&waiting)? {
            let path = waiting.join(&entry);
            if self.counted.as_ref() != Some(&entry) {
                // The name begins with the day.
                if let Some(day) = entry.get(..10).and_then(|day| day.parse::<Date>().ok()) {
                    *self.days.entry(day).or_default() += count(&path, ledger)?;
                }
                self.counted = Some(entry);
                self.write(work)?;
            }
            remove(&path)?;
        }
        if self.counted.take().is_some() {
            self.write(work)?;
        }
        Ok(())
    }
}

/// What is in a file, or in a directory of files.
fn count(path: &Path, ledger: u64) -> io::Result<Dropped> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = entries(path)?.iter().map(|entry| path.join(entry)).collect();
    }
    let mut dropped = Dropped::default();
    for path in files {
        // Of a file that was dropped alone the day comes first.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = FileName::parse(name).or_else(|| FileName::parse(name.get(11..)?));
        let Some(name) = name else { continue };
        dropped.files += 1;
        dropped.bytes += fs::metadata(&path)?.len();
        if name.ledger == ledger {
            // What cannot be read has no packets.
            let table = File::open(&path).ok().and_then(|file| Table::open(file).ok());
            let packets = table.and_then(|table| table.metadata().get(key::PACKETS)?.parse::<u64>().ok());
            dropped.packets += packets.unwrap_or(0);
        }
    }
    Ok(dropped)
}

/// The files of a sensor with their sizes.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes(BTreeMap<Date, Vec<(FileName, u64)>>);

impl Sizes {
    pub(super) fn read(place: &ArchivePlace) -> io::Result<Self> {
        let mut sizes = Self::default();
        for day in ArchivePlace::days(place.root())? {
            sizes.refresh(place, day)?;
        }
        Ok(sizes)
    }

    /// Looks again at a day.
    pub(super) fn refresh(&mut self, place: &ArchivePlace, day: Date) -> io::Result<()> {
        self.0.remove(&day);
        let directory = place.dir(day);
        let mut files = Vec::new();
        for name in place.files(day)? {
            match fs::metadata(directory.join(name.to_string())) {
                Ok(metadata) => files.push((name, metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable_by_key(|(name, _)| (name.hour, name.first));
        if !files.is_empty() {
            self.0.insert(day, files);
        }
        Ok(())
    }

    pub(super) fn files(&self) -> u64 {
        self.0.values().map(|files| files.len() as u64).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().flatten().map(|(_, bytes)| bytes).sum()
    }
}

/// What goes: a whole day, or one file of it.
type Going = (Date, Option<FileName>);

/// What of the archive goes beyond the bounds, the oldest first. The last file stays.
fn beyond(keep: Keep, sizes: &Sizes, today: Date) -> Vec<Going> {
    let mut going = Vec::new();
    let mut left = sizes.0.clone();
    if let Some(days) = keep.days {
        let first = today.checked_sub((i64::from(days) - 1).days()).unwrap_or(Date::MIN);
        let kept = left.split_off(&first);
        going.extend(left.into_keys().map(|day| (day, None)));
        left = kept;
    }
    let Some(most) = keep.bytes else { return going };
    let mut bytes: u64 = left.values().flatten().map(|(_, bytes)| bytes).sum();
    while bytes > most {
        let is_last_day = left.len() == 1;
        let Some((&day, files)) = left.iter_mut().next() else { break };
        if !is_last_day {
            let files = left.remove(&day).unwrap_or_default();
            bytes -= files.iter().map(|(_, bytes)| bytes).sum::<u64>();
            going.push((day, None));
        } else if files.len() > 1 {
            let (name, size) = files.remove(0);
            bytes -= size;
            going.push((day, Some(name)));
        } else {
            break;
        }
    }
    going
}

/// Drops what is beyond the bounds.
pub(super) fn apply(
    keep: Keep,
    place: &ArchivePlace,
    ledger: u64,
    today: Date,
    sizes: &mut Sizes,
    tally: &mut Tally,
) -> io::Result<()> {
    let going = beyond(keep, sizes, today);
    if going.is_empty() {
        return Ok(());
    }
    let work = place.work(ledger);
    let waiting = dropping(&work);
    make_dir(&waiting)?;
    for (day, name) in going {
        let directory = place.dir(day);
        let (from, to) = match name {
            None => (directory, waiting.join(day.to_string())),
            Some(name) => (directory.join(name.to_string()), waiting.join(format!("{day}-{name}"))),
        };
        match fs::rename(&from, &to) {
            // Merged meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        if let Some(parent) = from.parent() {
            sync_dir(parent)?;
            if name.is_none() {
                // Only when no other sensor has files there.
                let _ = fs::remove_dir(parent);
            }
        }
        sync_dir(&waiting)?;
        tally.finish(&work, ledger)?;
        sizes.refresh(place, day)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn name(hour: u8, first: u64) -> FileName {
        FileName { hour, ledger: 7, first, last: first }
    }

    #[test]
    fn the_oldest_goes_first_and_the_last_file_stays() {
        let today = date(2026, 11, 29);
        let sizes = Sizes(BTreeMap::from([
            (date(2026, 11, 27), vec![(name(0, 1), 100), (name(1, 2), 100)]),
            (date(2026, 11, 28), vec![(name(0, 3), 100)]),
            (today, vec![(name(0, 4), 100), (name(1, 5), 100), (name(2, 6), 100)]),
        ]));
        let of = |days, bytes| beyond(Keep { days, bytes }, &sizes, today);
        assert_eq!(of(None, None), []);
        assert_eq!(of(Some(3), Some(600)), []);
        assert_eq!(of(Some(2), None), [(date(2026, 11, 27), None)]);
        assert_eq!(of(Some(1), None), [(date(2026, 11, 27), None), (date(2026, 11, 28), None)]);
        assert_eq!(of(None, Some(599)), [(date(2026, 11, 27), None)]);
        let all_but = |names: &[FileName]| {
            let days = [date(2026, 11, 27), date(2026, 11, 28)].map(|day| (day, None));
            days.into_iter().chain(names.iter().map(|name| (today, Some(*name)))).collect::<Vec<Going>>()
        };
        assert_eq!(of(None, Some(250)), all_but(&[name(0, 4)]));
        assert_eq!(of(Some(1), Some(0)), all_but(&[name(0, 4), name(1, 5)]));
    }

    /// Whatever step ends it.
    #[test]
    fn what_goes_is_counted_once() {
        let root = tempfile::tempdir().unwrap();
        let (place, today) = (ArchivePlace::new(root.path(), "tokyo"), date(2026, 11, 29));
        for (day, at) in [(date(2026, 11, 27), 1), (date(2026, 11, 28), 2), (today, 3)] {
            let part = root.path().join("part");
            fs::write(&part, [0; 10]).unwrap();
            place.publish(&part, day, name(0, at)).unwrap();
        }
        let work = place.work(7);
        let mut tally = Tally::default();
        let keep = Keep { days: Some(2), bytes: None };
        let mut sizes = Sizes::read(&place).unwrap();
        apply(keep, &place, 7, today, &mut sizes, &mut tally).unwrap();
        assert_eq!((sizes.files(), sizes.bytes()), (2, 20));
        let one = Dropped { files: 1, bytes: 10, packets: 0 };
        assert_eq!(tally.total(), one);
        assert_eq!(Tally::read(&work).unwrap(), tally);
        assert_eq!(ArchivePlace::days(root.path()).unwrap(), [date(2026, 11, 28), today]);

        // Ended after the rename: it is counted.
        fs::rename(place.dir(date(2026, 11, 28)), dropping(&work).join("2026-11-28")).unwrap();
        let mut tally = Tally::read(&work).unwrap();
        tally.finish(&work, 7).unwrap();
        assert_eq!(tally.total().files, 2);

        // Ended after it was counted: it goes.
        fs::create_dir(dropping(&work).join("2026-11-29")).unwrap();
        fs::write(dropping(&work).join("2026-11-29").join(name(0, 3).to_string()), [0; 10]).unwrap();
        let counted = Tally { counted: Some("2026-11-29".to_owned()), ..tally.clone() };
        counted.write(&work).unwrap();
        let mut read = Tally::read(&work).unwrap();
        read.finish(&work, 7).unwrap();
        assert_eq!((read.total().files, entries(&dropping(&work)).unwrap().len()), (2, 0));
        assert_eq!(Tally::read(&work).unwrap(), tally);
    }
}
