//! Whether archive and ledger say the same.

use super::keep::{Dropped, Tally};
use super::place::ArchivePlace;
use super::scan::{ArchiveExtent, RowFilter, ScanError, each_file, files, scan, steadily, unread};
use super::schema::{CLASSES, column};
use crate::ledger::{ArchivedDay, ArchivedLedger, Verification};
use jiff::civil::Date;
use sensor_common::{Slot, Transport};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

/// What the archive has of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ArchivedSums {
    packets: u64,
    ports: BTreeMap<Slot, u64>,
    services: BTreeMap<Slot, u64>,
    /// Accesses by country, without those whose source could not be kept.
    countries: BTreeMap<String, u64>,
}

impl ArchivedSums {
    fn merge(&mut self, more: Self) {
        self.packets += more.packets;
        for (mine, theirs) in [(&mut self.ports, more.ports), (&mut self.services, more.services)] {
            for (slot, packets) in theirs {
                *mine.entry(slot).or_default() += packets;
            }
        }
        for (country, packets) in more.countries {
            *self.countries.entry(country).or_default() += packets;
        }
    }
}

/// Compares the archive of a ledger, in this directory, with the ledger as `read` reads it; what differs is a
/// failure. Files of other ledgers are left alone.
///
/// # Errors
///
/// Nothing was archived and there is no archive, or it cannot be read.
pub fn verify<E: From<ScanError>>(
    root: &Path,
    read: impl Fn() -> Result<Option<ArchivedLedger>, E>,
    verification: &mut Verification,
) -> Result<(), E> {
    // Files may be merged with later ones between the two reads.
    for _ in 0..20 {
        let Some(ledger) = read()? else { return Ok(()) };
        match steadily(root, || sums(root, &ledger)) {
            Ok(Some((archive, dropped))) => {
                compare(&ledger, &archive, &dropped, verification);
                return Ok(());
            }
            Ok(None) => {}
            Err(ScanError::Missing { .. }) if ledger.days.values().any(|day| day.archived > 0) => {
                for (day, ArchivedDay { archived, .. }) in
                    ledger.days.iter().filter(|(_, day)| day.archived > 0)
                {
                    verification.compare(*day, "the archive that was written is there", false, || {
                        format!(
                            "there is none in {}, and {archived} packets were written into it; --archive-dir names \
                             another directory",
                            root.display()
                        )
                    });
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ScanError::Restless { path: root.to_owned() }.into())
}

type Days<T> = BTreeMap<Date, T>;
/// What the archive has, and what its bounds dropped.
type HeldAndDropped = (Days<ArchivedSums>, Days<Dropped>);

/// What the archive has by day, and what its bounds dropped; `None` when it has later commits among others.
fn sums(root: &Path, ledger: &ArchivedLedger) -> Result<Option<HeldAndDropped>, ScanError> {
    let extent = ArchiveExtent {
        days: Date::MIN..=Date::MAX,
        // It may have had several names.
        sensor: None,
        committed: Some((ledger.identity, ledger.commits)),
    };
    let mut files = files(root, &extent)?;
    files.retain(|found| found.name.ledger == ledger.identity);
    if files.iter().any(|found| found.name.last > ledger.commits) {
        return Ok(None);
    }
    let mut days: Days<ArchivedSums> = BTreeMap::new();
    for (day, more) in each_file(&files, |found, table| {
        let mut sums = ArchivedSums::default();
        let columns = [column::TRANSPORT, column::PORT, column::CLASS, column::PACKETS, column::COUNTRY];
        scan(table, &RowFilter::default(), &columns, |page| {
            for &row in page.rows {
                let transport = page.text(column::TRANSPORT, row).and_then(Transport::from_name);
                let port = page.number(column::PORT, row).unwrap_or(0) as u16;
                let slot = Slot::new(transport.unwrap_or(Transport::Other), port);
                let packets = page.number(column::PACKETS, row).unwrap_or(0) as u64;
                sums.packets += packets;
                if page.text(column::CLASS, row) == Some(CLASSES[1]) {
                    *sums.services.entry(slot).or_default() += packets;
                    continue;
                }
                *sums.ports.entry(slot).or_default() += packets;
                if let Some(country) = page.text(column::COUNTRY, row) {
                    match sums.countries.get_mut(country) {
                        Some(sum) => *sum += packets,
                        None => drop(sums.countries.insert(country.to_owned(), packets)),
                    }
                }
            }
        })?;
        Ok((found.day, sums))
    })? {
        days.entry(day).or_default().merge(more);
    }
    let work = ArchivePlace::new(root, "").work(ledger.identity);
    let tally = Tally::read(&work).map_err(|error| unread(&work, error))?;
    Ok(Some((days, tally.days)))
}

fn compare(
    ledger: &ArchivedLedger,
    archive: &Days<ArchivedSums>,
    dropped: &Days<Dropped>,
    verification: &mut Verification,
) {
    for (day, archive) in archive.iter().filter(|(day, _)| !ledger.days.contains_key(day)) {
        // The ledger keeps its days for a shorter time.
        let is_forgotten = ledger.days.keys().next().is_none_or(|first| day < first);
        verification.compare(*day, "the archive has only days of the ledger", is_forgotten, || {
            format!("{} packets of a day that the ledger does not have", archive.packets)
        });
    }
    let none = ArchivedSums::default();
    for (day, counted) in &ledger.days {
        let of_archive = archive.get(day).unwrap_or(&none);
        let ArchivedDay { archived, lost, ports, services, countries } = counted;
        let dropped = dropped.get(day).map_or(0, |dropped| dropped.packets);
        if *archived == 0 && of_archive.packets == 0 {
            continue;
        }
        verification.compare(
            *day,
            "packets in the archive + dropped by its bounds = packets written into it",
            of_archive.packets + dropped == *archived,
            || format!("{} + {dropped} against {archived}", of_archive.packets),
        );
        let all: u64 = ports.values().chain(services.values()).sum();
        // What it lacks for a reason: it could not be written, was dropped, or the archive was off.
        let lacks = all.saturating_sub(archived - (*archived).min(dropped));
        let reason = match (*lost, dropped) {
            (0, 0) => "while the archive was off",
            (0, _) => "dropped by its bounds",
            _ => "lost to it",
        };
        for (what, in_archive, in_ledger) in [
            ("accesses by port", &of_archive.ports, ports),
            ("service accesses by port", &of_archive.services, services),
        ] {
            by(verification, *day, what, in_archive, in_ledger, lacks, reason);
        }
        by(verification, *day, "accesses by country", &of_archive.countries, countries, lacks, reason);
    }
}

/// Compares sums by port or country: nowhere does the archive have more, and it lacks no more than it may.
fn by<K: Ord + Display>(
    verification: &mut Verification,
    day: Date,
    what: &str,
    archive: &BTreeMap<K, u64>,
    ledger: &BTreeMap<K, u64>,
    lacks: u64,
    reason: &str,
) {
    const SHOWN: usize = 5;
    let mut missing = 0;
    let (mut more, mut fewer) = (Vec::new(), Vec::new());
    for (key, in_ledger) in ledger {
        let in_archive = archive.get(key).copied().unwrap_or(0);
        missing += in_ledger.saturating_sub(in_archive);
        let found = format!("{key}: {in_archive} in the archive, {in_ledger} in the ledger");
        if in_archive > *in_ledger {
            more.push(found);
        } else if in_archive < *in_ledger {
            fewer.push(found);
        }
    }
    let unknown = archive.iter().filter(|(key, _)| !ledger.contains_key(key));
    more.extend(unknown.map(|(key, found)| format!("{key}: {found} in the archive, none in the ledger")));
    let mut differing = more.clone();
    if missing > lacks {
        differing.extend(fewer);
    }
    let holds = differing.is_empty();
    let identity = if lacks == 0 {
        format!("{what}: archive = ledger")
    } else {
        format!("{what}: archive + at most {lacks} {reason} = ledger")
    };
    verification.compare(day, &identity, holds, || {
        let rest = differing.len().saturating_sub(SHOWN);
        differing.truncate(SHOWN);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        format!("{}{rest}", differing.join("; "))
    });
}
