//! Proof of the identities, day by day.

use super::aside::Aside;
use super::error::LedgerError;
use super::moment::{day_number, day_of_number};
use super::prune::DAY_TABLES;
use super::seal::{self, Seal};
use super::sets::HOSTS;
use super::store;
use super::wal::LogDamage;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _};
use sensor_common::layout::SERVICE_BIT;
use std::fmt;
use std::path::Path;

/// What [`super::Ledger::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Days that were checked.
    pub days: u64,
    /// Identities that were checked, over all days.
    pub checks: u64,
    /// What does not hold; empty when all is well.
    pub failures: Vec<Failure>,
}

/// One identity that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its day; `None` for the ledger as a whole.
    pub day: Option<Date>,
    /// The identity, in words.
    pub identity: String,
    /// What it says, and what was found.
    pub found: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.day {
            Some(day) => write!(f, "{day}: {}: {}", self.identity, self.found),
            None => write!(f, "ledger: {}: {}", self.identity, self.found),
        }
    }
}

/// Numbers of a day that must be equal: what they prove, and both sides.
const EQUAL: [(&str, &str, &str); 7] = [
    (
        "accesses by port = packets of class access",
        "SELECT sum(accesses) FROM day_port WHERE day = ?1",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'access'",
    ),
    (
        "accesses by port = accesses by country + overflow",
        "SELECT sum(accesses) FROM day_port WHERE day = ?1",
        "SELECT coalesce((SELECT sum(accesses) FROM day_country WHERE day = ?1), 0) + overflow FROM day WHERE day = ?1",
    ),
    (
        "sources by port = sources by country",
        "SELECT sum(sources) FROM day_port WHERE day = ?1",
        "SELECT sum(sources) FROM day_country WHERE day = ?1",
    ),
    (
        "accesses by hour = accesses by port",
        "SELECT sum(accesses) FROM day_port_hour WHERE day = ?1",
        "SELECT sum(accesses) FROM day_port WHERE day = ?1",
    ),
    (
        "backscatter by port = packets of class backscatter",
        "SELECT sum(packets) FROM day_backscatter WHERE day = ?1",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'backscatter'",
    ),
    (
        "unread frames by kind = packets of class non_ip",
        "SELECT sum(packets) FROM day_detail WHERE day = ?1 AND kind = 'unread'",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'non_ip'",
    ),
    (
        "malformed packets by reason = packets of class malformed",
        "SELECT sum(packets) FROM day_detail WHERE day = ?1 AND kind = 'malformed'",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'malformed'",
    ),
];

/// Numbers of a day of which the first must not be above the second.
const AT_MOST: [(&str, &str, &str); 6] = [
    (
        "service accesses <= packets of class service",
        "SELECT sum(accesses) FROM day_service WHERE day = ?1",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'service'",
    ),
    (
        "assumed accesses <= packets of class access",
        "SELECT sum(packets) FROM day_detail WHERE day = ?1 AND kind = 'assumed'",
        "SELECT sum(packets) FROM day_class WHERE day = ?1 AND class = 'access'",
    ),
    (
        "accesses by tool <= accesses to tcp",
        "SELECT sum(accesses) FROM day_tool WHERE day = ?1",
        "SELECT sum(accesses) FROM day_port WHERE day = ?1 AND slot < 65536",
    ),
    (
        "hosts <= cumulative sources + sources beyond the sets",
        "SELECT hosts FROM day WHERE day = ?1",
        "SELECT coalesce((SELECT sum(sources) FROM day_port WHERE day = ?1), 0) + set_overflow FROM day WHERE day = ?1",
    ),
    (
        "feature ports whose countries have more accesses than the port = 0",
        "SELECT count(*) FROM (SELECT slot, sum(accesses) AS n FROM day_port_country WHERE day = ?1 GROUP BY slot)
         AS by_country LEFT JOIN day_port ON day_port.day = ?1 AND day_port.slot = by_country.slot
         WHERE n > coalesce(day_port.accesses, 0)",
        "SELECT 0 * ?1",
    ),
    (
        "feature ports whose countries have more sources than the port = 0",
        "SELECT count(*) FROM (SELECT slot, sum(sources) AS n FROM day_port_country WHERE day = ?1 GROUP BY slot)
         AS by_country LEFT JOIN day_port ON day_port.day = ?1 AND day_port.slot = by_country.slot
         WHERE n > coalesce(day_port.sources, 0)",
        "SELECT 0 * ?1",
    ),
];

/// `damage` is of the write-ahead log, by which some commits are missing from what is checked.
pub(super) fn verify(
    connection: &Connection,
    path: &Path,
    damage: Option<&LogDamage>,
) -> Result<Verification, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "verifying", error);
    // One snapshot, while a daemon may go on writing.
    let snapshot = connection.unchecked_transaction().map_err(fail)?;
    let mut verification = Verification::default();
    verification.check(None, "the write-ahead log can be read to its last commit", damage.is_none(), || {
        damage.map_or_else(String::new, ToString::to_string)
    });
    whole(&snapshot, &mut verification).map_err(fail)?;
    let mut days = snapshot.prepare("SELECT day FROM day ORDER BY day").map_err(fail)?;
    for number in days.query_map([], |row| row.get::<_, i64>(0)).map_err(fail)? {
        let number = number.map_err(fail)?;
        verification.days += 1;
        day(&snapshot, number, &mut verification).map_err(fail)?;
        sealed(
            &mut verification,
            Some(number),
            "every number of the day is as it was counted",
            seal::of_day(&snapshot, number),
            seal::stored(&snapshot, "SELECT seal FROM day WHERE day = ?1", [number]),
        )
        .map_err(fail)?;
    }
    seals(&snapshot, &mut verification).map_err(fail)?;
    match store::load(&snapshot, path) {
        Ok(_) => {
            verification.check(None, "the counters have their checksum, the sets theirs", true, String::new);
        }
        Err(LedgerError::Corrupt { reason, .. }) => {
            verification.check(None, "the counters have their checksum, the sets theirs", false, || reason);
        }
        Err(error) => return Err(error),
    }
    sets(&snapshot, path, &mut verification)?;
    Ok(verification)
}

impl Verification {
    /// Checks that no copy of a damaged log lies aside, which tells of commits that this ledger lost. A
    /// ledger that was moved aside is another one.
    pub fn none_lost(&mut self, aside: &[Aside]) {
        let lost: Vec<_> =
            aside.iter().filter(|it| it.is_log).map(|it| it.path.display().to_string()).collect();
        self.check(None, "no commits were lost by a damaged write-ahead log", lost.is_empty(), || {
            lost.join(", ")
        });
    }

    fn check(&mut self, day: Option<i64>, identity: &str, holds: bool, found: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            let day = day.map(|number| day_of_number(number).unwrap_or(Date::ZERO));
            self.failures.push(Failure { day, identity: identity.to_owned(), found: found() });
        }
    }

    fn equal<T: PartialEq + fmt::Debug>(
        &mut self,
        day: Option<i64>,
        identity: &str,
        left: Option<T>,
        right: Option<T>,
    ) {
        self.check(day, identity, left.is_some() && left == right, || found(left, right));
    }
}

/// Checks over the whole file.
fn whole(snapshot: &Connection, verification: &mut Verification) -> rusqlite::Result<()> {
    let structure: Vec<String> = snapshot
        .prepare("PRAGMA integrity_check(10)")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    verification.check(None, "the file's structure is sound", structure == ["ok"], || structure.join("; "));
    for (kind, table, first, second) in DAY_TABLES {
        let identity = format!("counters of kind {kind} = their days + what is carried");
        let counters = pair(snapshot, "SELECT sum(first), sum(second) FROM series WHERE kind = ?1", [kind])?;
        let days = pair(snapshot, &format!("SELECT sum({first}), sum({second}) FROM {table}"), [])?;
        let carried = pair(snapshot, "SELECT first, second FROM carried WHERE kind = ?1", [kind])?;
        let kept = days.zip(carried).map(|(days, carried)| [days[0] + carried[0], days[1] + carried[1]]);
        verification.equal(None, &identity, counters, kept);
    }
    for (identity, left, right) in [
        (
            "accesses by port = packets of class access",
            "SELECT sum(first) FROM series WHERE kind = 'port'",
            "SELECT sum(first) FROM series WHERE kind = 'packets' AND labels = 'access'",
        ),
        (
            "unread frames by kind = packets of class non_ip",
            "SELECT sum(first) FROM series WHERE kind = 'unread'",
            "SELECT sum(first) FROM series WHERE kind = 'packets' AND labels = 'non_ip'",
        ),
        (
            "malformed packets by reason = packets of class malformed",
            "SELECT sum(first) FROM series WHERE kind = 'malformed'",
            "SELECT sum(first) FROM series WHERE kind = 'packets' AND labels = 'malformed'",
        ),
        (
            "accesses by port = accesses by country + overflow",
            "SELECT sum(first) FROM series WHERE kind = 'port'",
            "SELECT sum(first) FROM series WHERE kind IN ('country', 'overflow')",
        ),
        (
            "sources by port = sources by country",
            "SELECT sum(second) FROM series WHERE kind = 'port'",
            "SELECT sum(second) FROM series WHERE kind = 'country'",
        ),
    ] {
        verification.equal(None, identity, number(snapshot, left, [])?, number(snapshot, right, [])?);
    }
    Ok(())
}

/// Compares a seal with the one in the file.
fn sealed(
    verification: &mut Verification,
    day: Option<i64>,
    identity: &str,
    found: rusqlite::Result<Seal>,
    stored: rusqlite::Result<Option<Seal>>,
) -> rusqlite::Result<()> {
    let (found, stored) = (found?, stored?.unwrap_or_default());
    verification.check(day, identity, found == stored, || {
        format!("seal {:016x} against {:016x}", found.column(), stored.column())
    });
    Ok(())
}

/// Everything under a seal that is of no kept day.
fn seals(snapshot: &Connection, verification: &mut Verification) -> rusqlite::Result<()> {
    sealed(
        verification,
        None,
        "the series, and which may be shown, are as they came to be",
        seal::of_names(snapshot),
        seal::stored(snapshot, "SELECT names FROM state", []),
    )?;
    sealed(
        verification,
        None,
        "where the ledger stands is as the last fold left it",
        seal::of_state(snapshot),
        seal::stored(snapshot, "SELECT seal FROM state", []),
    )?;
    let mut days = snapshot.prepare("SELECT day FROM set_day ORDER BY day")?;
    for day in days.query_map([], |row| row.get::<_, i64>(0))? {
        let day = day?;
        sealed(
            verification,
            Some(day),
            "the source sets are as they grew",
            seal::of_sets(snapshot, day),
            seal::stored(snapshot, "SELECT seal FROM set_day WHERE day = ?1", [day]),
        )?;
    }
    Ok(())
}

fn day(snapshot: &Connection, day: i64, verification: &mut Verification) -> rusqlite::Result<()> {
    for (identity, left, right) in EQUAL {
        verification.equal(
            Some(day),
            identity,
            number(snapshot, left, [day])?,
            number(snapshot, right, [day])?,
        );
    }
    for (identity, left, right) in AT_MOST {
        let (left, right) = (number(snapshot, left, [day])?, number(snapshot, right, [day])?);
        let holds = left.zip(right).is_some_and(|(left, right)| left <= right);
        verification.check(Some(day), identity, holds, || found(left, right));
    }
    for (kind, table, first, second) in DAY_TABLES {
        let identity = format!("what counters of kind {kind} grew by hour by hour = the day's numbers");
        let hours = pair(
            snapshot,
            "SELECT sum(hour_series.first), sum(hour_series.second)
             FROM hour JOIN hour_series ON hour_series.hour = hour.start
             JOIN series ON series.id = hour_series.series WHERE series.kind = ?1 AND hour.day = ?2",
            (kind, day),
        )?;
        let sums = pair(
            snapshot,
            &format!("SELECT sum({first}), sum({second}) FROM {table} WHERE day = ?1"),
            [day],
        )?;
        verification.equal(Some(day), &identity, hours, sums);
        let negative = number(
            snapshot,
            &format!("SELECT count(*) FROM {table} WHERE day = ?1 AND ({first} < 0 OR {second} < 0)"),
            [day],
        )?;
        verification.equal(Some(day), &format!("negative numbers of kind {kind} = 0"), negative, Some(0));
    }
    Ok(())
}

/// The number that a query gives, 0 when it gives none; `None` when it is a sum that does not fit 64
/// bits, which no count reaches.
fn number(snapshot: &Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<Option<i128>> {
    let row = |row: &rusqlite::Row<'_>| row.get::<_, Option<i64>>(0);
    fitting(snapshot.prepare_cached(sql)?.query_row(values, row).optional())
        .map(|number| number.map(|number| i128::from(number.flatten().unwrap_or_default())))
}

/// As [`number`], with two columns.
fn pair(
    snapshot: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Option<[i128; 2]>> {
    let row = |row: &rusqlite::Row<'_>| Ok([row.get::<_, Option<i64>>(0)?, row.get(1)?]);
    fitting(snapshot.prepare_cached(sql)?.query_row(values, row).optional()).map(|pair| {
        pair.map(|pair| pair.unwrap_or_default().map(|number| i128::from(number.unwrap_or_default())))
    })
}

/// `None` for a sum that `SQLite` could not make in 64 bits.
fn fitting<T>(result: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(rusqlite::Error::SqliteFailure(_, Some(reason))) if reason == "integer overflow" => Ok(None),
        // An addition that does not fit becomes a floating-point number.
        Err(rusqlite::Error::InvalidColumnType(_, _, rusqlite::types::Type::Real)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What two sides of an identity are.
fn found<T: fmt::Debug>(left: Option<T>, right: Option<T>) -> String {
    let side = |side: Option<T>| side.map_or("more than 64 bits".to_owned(), |value| format!("{value:?}"));
    format!("{} against {}", side(left), side(right))
}

/// The source sets that are kept against the day's numbers.
fn sets(snapshot: &Connection, path: &Path, verification: &mut Verification) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "verifying", error);
    // Detail that began anew misses what the sets know.
    let rebuilt: Option<i64> = snapshot
        .query_row("SELECT rebuilt_day FROM state", [], |row| row.get(0))
        .optional()
        .map_err(fail)?
        .flatten();
    let mut days = snapshot
        .prepare("SELECT day FROM set_day JOIN day USING (day) WHERE day IS NOT ?1 ORDER BY day")
        .map_err(fail)?;
    for number in days.query_map([rebuilt], |row| row.get::<_, i64>(0)).map_err(fail)? {
        let number = number.map_err(fail)?;
        let Some(date) = day_of_number(number) else { continue };
        let (day, _) = match store::load_day(snapshot, path, date) {
            Err(LedgerError::Corrupt { reason, .. }) => {
                verification.check(Some(day_number(date)), "the source sets can be read", false, || reason);
                continue;
            }
            other => other?,
        };
        let keys = day.sets.keys();
        let members: u128 =
            keys.iter().filter(|key| *key & SERVICE_BIT == 0).map(|key| u128::from(day.sets.len(*key))).sum();
        let wrong = day.ports.iter().find(|(slot, tally)| day.sets.len(slot.index()) != tally.sources);
        verification.check(Some(number), "each port's sources = members of its set", wrong.is_none(), || {
            wrong.map_or(String::new(), |(slot, tally)| {
                format!("{slot}: {} against {}", tally.sources, day.sets.len(slot.index()))
            })
        });
        let sources: u128 = day.ports.values().map(|tally| u128::from(tally.sources)).sum();
        verification.check(Some(number), "sources = members of all sets", sources == members, || {
            format!("{sources} against {members}")
        });
        let hosts = day.sets.len(HOSTS);
        verification.check(
            Some(number),
            "hosts = members of the set of hosts",
            hosts == day.sums.hosts,
            || format!("{} against {hosts}", day.sums.hosts),
        );
    }
    Ok(())
}
