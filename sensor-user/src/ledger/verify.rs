//! Proof of the identities, day by day.

use super::aside::Aside;
use super::commits::LostCommits;
use super::error::LedgerError;
use super::growth;
use super::moment::{day_number, day_of_number};
use super::samples;
use super::seal::{self, Seal};
use super::sets::HOSTS;
use super::store;
use super::wal::LogDamage;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sensor_common::layout::SERVICE_BIT;
use sensor_common::{Class, Slot, Transport};
use sensor_counters::{COUNTERS, Series};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// `damage` is of the write-ahead log, by which some commits are missing from what is checked.
pub(super) fn verify(
    connection: &Connection,
    path: &Path,
    damage: Option<&LogDamage>,
) -> Result<Verification, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "verifying", error);
    // One snapshot, while a daemon may keep writing.
    let snapshot = connection.unchecked_transaction().map_err(fail)?;
    let mut verification = Verification::default();
    verification.check(None, "the write-ahead log can be read to its last commit", damage.is_none(), || {
        damage.map_or_else(String::new, ToString::to_string)
    });
    structure(&snapshot, &mut verification).map_err(fail)?;
    let names = SeriesNames::read(&snapshot, &mut verification).map_err(fail)?;
    let rebuilt = rebuilt_day(&snapshot).map_err(fail)?;
    let mut kept = ByKind::new();
    let mut days = snapshot.prepare("SELECT day FROM day ORDER BY day").map_err(fail)?;
    for number in days.query_map([], |row| row.get::<_, i64>(0)).map_err(fail)? {
        let number = number.map_err(fail)?;
        verification.days += 1;
        let day = Sums::of_day(&snapshot, number, &names).map_err(fail)?;
        identities(Some(number), &day, &mut verification);
        day.within(number, &mut verification);
        samples_of(&snapshot, number, &day, &mut verification).map_err(fail)?;
        // Detail that began again misses what the bands know.
        if rebuilt != Some(number) {
            day.breadth(number, &mut verification);
        }
        add_all(&mut kept, &day.by_kind);
        sealed(
            &mut verification,
            Some(number),
            "every number of the day is as it was counted",
            seal::of_day(&snapshot, number),
            seal::stored(&snapshot, "SELECT seal FROM day WHERE day = ?1", [number]),
        )
        .map_err(fail)?;
    }
    whole(&snapshot, kept, &names, &mut verification).map_err(fail)?;
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
    /// Checks that the state directory keeps nothing that proves that this ledger lost commits.
    pub fn none_lost(&mut self, aside: &[Aside]) {
        let lost: Vec<_> =
            aside.iter().filter(|it| it.lost_commits()).map(|it| it.path.display().to_string()).collect();
        self.check(None, "no commits were lost before", lost.is_empty(), || lost.join(", "));
    }

    /// Checks what holds between a day of the ledger and of something beside it.
    pub fn compare(&mut self, day: Date, identity: &str, holds: bool, found: impl FnOnce() -> String) {
        self.check(Some(day_number(day)), identity, holds, found);
    }

    /// Checks that the ledger has every commit that was made.
    pub(super) fn none_missing(&mut self, lost: Option<LostCommits>) {
        self.check(None, "the ledger has every commit that was made", lost.is_none(), || {
            lost.map_or_else(String::new, |lost| lost.to_string())
        });
    }

    fn check(&mut self, day: Option<i64>, identity: &str, holds: bool, found: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            let day = day.map(|number| day_of_number(number).unwrap_or(Date::ZERO));
            self.failures.push(Failure { day, identity: identity.to_owned(), found: found() });
        }
    }

    fn equal<T: PartialEq + fmt::Debug>(&mut self, day: Option<i64>, identity: &str, left: &T, right: &T) {
        self.check(day, identity, left == right, || format!("{left:?} against {right:?}"));
    }

    fn at_most(&mut self, day: i64, identity: &str, left: i128, right: i128) {
        self.check(Some(day), identity, left <= right, || format!("{left} against {right}"));
    }
}

/// The two numbers of series, as they are in the file, so wide that no sum overflows.
type Wide = [i128; 2];
/// Sums by kind of series.
type ByKind = BTreeMap<String, Wide>;

fn add(sum: &mut Wide, value: Wide) {
    *sum = [sum[0] + value[0], sum[1] + value[1]];
}

fn add_all(sums: &mut ByKind, more: &ByKind) {
    for (kind, value) in more {
        add(sums.entry(kind.clone()).or_default(), *value);
    }
}

fn wide(row: &Row<'_>, at: usize) -> rusqlite::Result<Wide> {
    Ok([row.get::<_, i64>(at)?.into(), row.get::<_, i64>(at + 1)?.into()])
}

/// Checks the structure of the file.
fn structure(snapshot: &Connection, verification: &mut Verification) -> rusqlite::Result<()> {
    let structure: Vec<String> = snapshot
        .prepare("PRAGMA integrity_check(10)")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    verification.check(None, "the file's structure is sound", structure == ["ok"], || structure.join("; "));
    let mixed = growth::mixed_blocks(snapshot)?;
    verification.equal(None, "blocks of ids with series of several kinds = 0", &mixed, &0);
    Ok(())
}

/// What the series are.
struct SeriesNames {
    series: HashMap<i64, Series>,
    /// Their values.
    counters: Sums,
}

impl SeriesNames {
    fn read(snapshot: &Connection, verification: &mut Verification) -> rusqlite::Result<Self> {
        let mut names = Self { series: HashMap::new(), counters: Sums::default() };
        let mut statement = snapshot.prepare("SELECT id, kind, labels, first, second FROM series")?;
        let mut rows = statement.query([])?;
        let mut unknown = 0;
        while let Some(row) = rows.next()? {
            let (kind, labels) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
            match Series::parse(kind, labels) {
                Some(series) => {
                    names.counters.add(&series, wide(row, 3)?);
                    names.series.insert(row.get(0)?, series);
                }
                None => unknown += 1,
            }
        }
        verification.equal(None, "series whose labels name nothing = 0", &unknown, &0);
        Ok(names)
    }
}

/// What series hold, or grew by on a day.
#[derive(Default)]
struct Sums {
    by_kind: ByKind,
    by_class: BTreeMap<Class, i128>,
    feature_ports: HashMap<Slot, Wide>,
    /// The same ports by source list.
    listed_ports: HashMap<Slot, Wide>,
    /// Exact, of a day.
    ports: HashMap<Slot, Wide>,
    backscatter: i128,
    /// By network, exact, of a day.
    networks: Wide,
    /// Hosts and accesses over all bands, of a day.
    breadth: Wide,
    to_tcp: i128,
    /// Numbers below zero, and rows of series that are not there.
    negative: u64,
    lost: u64,
}

impl Sums {
    fn add(&mut self, series: &Series, value: Wide) {
        match self.by_kind.get_mut(series.kind()) {
            Some(sum) => add(sum, value),
            None => drop(self.by_kind.insert(series.kind().to_owned(), value)),
        }
        match series {
            Series::Packets(class) => *self.by_class.entry(*class).or_default() += value[0],
            Series::PortCountry(slot, _) => add(self.feature_ports.entry(*slot).or_default(), value),
            Series::PortList(slot, _) => add(self.listed_ports.entry(*slot).or_default(), value),
            _ => {}
        }
    }

    fn of_day(snapshot: &Connection, day: i64, names: &SeriesNames) -> rusqlite::Result<Self> {
        let mut sums = Self::default();
        let mut grown: HashMap<i64, Wide> = HashMap::new();
        let mut statement = snapshot.prepare_cached(
            "SELECT series, first, second FROM hour JOIN hour_series ON hour_series.hour = hour.start
             WHERE day = ?1",
        )?;
        let mut rows = statement.query([day])?;
        while let Some(row) = rows.next()? {
            let value = wide(row, 1)?;
            sums.negative += u64::from(value.iter().any(|number| *number < 0));
            add(grown.entry(row.get(0)?).or_default(), value);
        }
        for (id, value) in grown {
            match names.series.get(&id) {
                Some(series) => sums.add(series, value),
                None => sums.lost += 1,
            }
        }
        let mut statement =
            snapshot.prepare_cached("SELECT slot, accesses, sources FROM day_port WHERE day = ?1")?;
        let mut rows = statement.query([day])?;
        while let Some(row) = rows.next()? {
            let (slot, value) = (row.get::<_, i64>(0)?, wide(row, 1)?);
            sums.negative += u64::from(value.iter().any(|number| *number < 0));
            match u32::try_from(slot).ok().and_then(Slot::from_index) {
                Some(slot) => {
                    if slot.transport() == Transport::Tcp {
                        sums.to_tcp += value[0];
                    }
                    sums.ports.insert(slot, value);
                }
                None => sums.lost += 1,
            }
        }
        for (table, columns, sum) in [
            ("day_asn", "accesses, sources", &mut sums.networks),
            ("day_breadth", "hosts, accesses", &mut sums.breadth),
        ] {
            let mut statement =
                snapshot.prepare_cached(&format!("SELECT {columns} FROM {table} WHERE day = ?1"))?;
            let mut rows = statement.query([day])?;
            while let Some(row) = rows.next()? {
                let value = wide(row, 0)?;
                sums.negative += u64::from(value.iter().any(|number| *number < 0));
                add(sum, value);
            }
        }
        let mut statement = snapshot.prepare_cached("SELECT packets FROM day_backscatter WHERE day = ?1")?;
        for packets in statement.query_map([day], |row| row.get::<_, i64>(0))? {
            let packets = packets?;
            sums.negative += u64::from(packets < 0);
            sums.backscatter += i128::from(packets);
        }
        Ok(sums)
    }

    fn kind(&self, kind: &str) -> Wide {
        self.by_kind.get(kind).copied().unwrap_or_default()
    }

    fn class(&self, class: Class) -> i128 {
        self.by_class.get(&class).copied().unwrap_or_default()
    }

    fn by_port(&self) -> Wide {
        let mut sum = Wide::default();
        self.ports.values().for_each(|value| add(&mut sum, *value));
        sum
    }

    /// What holds of the hosts by how many ports they reached.
    fn breadth(&self, day: i64, verification: &mut Verification) {
        let some = Some(day);
        let [hosts, accesses] = self.breadth;
        verification.equal(some, "hosts = hosts by breadth", &self.kind("hosts")[0], &hosts);
        verification.equal(
            some,
            "accesses by country = accesses by breadth",
            &self.kind("country")[0],
            &accesses,
        );
    }

    /// What holds within a day.
    fn within(&self, day: i64, verification: &mut Verification) {
        let some = Some(day);
        let [accesses, sources] = self.by_port();
        verification.equal(
            some,
            "what counters of kind port grew by hour by hour = the day's ports",
            &self.kind("port"),
            &[accesses, sources],
        );
        verification.equal(
            some,
            "what counters of kind backscatter grew by hour by hour = the day's ports that answered",
            &self.kind("backscatter")[0],
            &self.backscatter,
        );
        verification.equal(
            some,
            "what counters of kind asn grew by hour by hour = the day's networks",
            &self.kind("asn"),
            &self.networks,
        );
        verification.equal(some, "numbers below zero = 0", &self.negative, &0);
        verification.equal(some, "numbers of series or ports that do not exist = 0", &self.lost, &0);
        for (identity, left, right) in [
            (
                "service accesses <= packets of class service",
                self.kind("service")[0],
                self.class(Class::Service),
            ),
            (
                "service accesses without a source <= service accesses",
                self.kind("service_overflow")[0],
                self.kind("service")[0],
            ),
            (
                "assumed accesses <= packets of class access",
                self.kind("assumed")[0],
                self.class(Class::Access),
            ),
            ("accesses by tool <= accesses to tcp", self.kind("tool")[0], self.to_tcp),
            (
                "accesses by country and tool <= accesses by tool",
                self.kind("country_tool")[0],
                self.kind("tool")[0],
            ),
            (
                "accesses by port and tool <= accesses by tool",
                self.kind("port_tool")[0],
                self.kind("tool")[0],
            ),
            (
                "hosts <= cumulative sources + sources beyond the sets",
                self.kind("hosts")[0],
                sources + self.kind("set_overflow")[0],
            ),
        ] {
            verification.at_most(day, identity, left, right);
        }
        for (place, what) in [(0, "accesses"), (1, "sources")] {
            // Drains without lists count no port by list.
            let by_country = |slot| self.feature_ports.get(slot).copied().unwrap_or_default()[place];
            let wrong = self.listed_ports.iter().filter(|(slot, sum)| sum[place] > by_country(slot)).count();
            let identity =
                format!("feature ports whose source lists have more {what} than their countries = 0");
            verification.equal(some, &identity, &wrong, &0);
            let port = |slot| self.ports.get(slot).copied().unwrap_or_default()[place];
            let wrong = self.feature_ports.iter().filter(|(slot, sum)| sum[place] > port(slot)).count();
            let identity = format!("feature ports whose countries have more {what} than the port = 0");
            verification.equal(some, &identity, &wrong, &0);
        }
    }
}

/// What packets held, against what was counted of them.
fn samples_of(
    snapshot: &Connection,
    day: i64,
    counted: &Sums,
    verification: &mut Verification,
) -> rusqlite::Result<()> {
    let [_, kept, rest, wrong] = samples::sums(snapshot, day)?;
    verification.equal(Some(day), "samples that do not match their checksum = 0", &wrong, &0);
    // Detail that began again misses what the samples know.
    let rebuilt: Option<i64> =
        snapshot.query_row("SELECT rebuilt_day FROM state", [], |row| row.get(0)).optional()?.flatten();
    if rebuilt != Some(day) {
        let identity = "packets of samples and of the rest = packets whose content was looked at";
        verification.equal(Some(day), identity, &(kept + rest), &counted.kind("samples")[0]);
    }
    Ok(())
}

/// What holds on each day, and for all counters.
fn identities(day: Option<i64>, sums: &Sums, verification: &mut Verification) {
    // Of a day by every port, for which `within` proves that it is the same.
    let [accesses, sources] = if day.is_some() { sums.by_port() } else { sums.kind("port") };
    let backscatter = if day.is_some() { sums.backscatter } else { sums.kind("backscatter")[0] };
    for (identity, left, right) in [
        ("accesses by port = packets of class access", accesses, sums.class(Class::Access)),
        (
            "accesses by port = accesses by country + overflow",
            accesses,
            sums.kind("country")[0] + sums.kind("overflow")[0],
        ),
        ("sources by port = sources by country", sources, sums.kind("country")[1]),
        (
            "accesses by port = accesses by source list + overflow",
            accesses,
            sums.kind("list")[0] + sums.kind("overflow")[0],
        ),
        ("sources by port = sources by source list", sources, sums.kind("list")[1]),
        (
            "accesses by port = accesses by network + overflow",
            accesses,
            sums.kind("asn")[0] + sums.kind("overflow")[0],
        ),
        ("sources by port = sources by network", sources, sums.kind("asn")[1]),
        ("hosts = hosts by source list", sums.kind("hosts")[0], sums.kind("list_hosts")[0]),
        ("accesses by hour = accesses by port", sums.kind("port_hour")[0], accesses),
        ("backscatter by port = packets of class backscatter", backscatter, sums.class(Class::Backscatter)),
        ("unread frames by kind = packets of class non_ip", sums.kind("unread")[0], sums.class(Class::NonIp)),
        (
            "malformed packets by reason = packets of class malformed",
            sums.kind("malformed")[0],
            sums.class(Class::Malformed),
        ),
    ] {
        verification.equal(day, identity, &left, &right);
    }
}

/// The counters against all days and what is carried.
fn whole(
    snapshot: &Connection,
    mut kept: ByKind,
    names: &SeriesNames,
    verification: &mut Verification,
) -> rusqlite::Result<()> {
    let mut statement = snapshot.prepare("SELECT kind, first, second FROM carried")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        add(kept.entry(row.get(0)?).or_default(), wide(row, 1)?);
    }
    let counters = &names.counters;
    let kinds: BTreeSet<&String> = counters.by_kind.keys().chain(kept.keys()).collect();
    let known = COUNTERS.iter().map(|counter| counter.kind);
    for kind in known.chain(kinds.into_iter().map(String::as_str)).collect::<BTreeSet<_>>() {
        let identity = format!("counters of kind {kind} = their days + what is carried");
        let kept = kept.get(kind).copied().unwrap_or_default();
        verification.equal(None, &identity, &counters.kind(kind), &kept);
    }
    identities(None, counters, verification);
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
        "state row matches its checksum",
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

/// The day whose detail began again because the file was lost.
fn rebuilt_day(snapshot: &Connection) -> rusqlite::Result<Option<i64>> {
    let day = snapshot.query_row("SELECT rebuilt_day FROM state", [], |row| row.get(0)).optional()?;
    Ok(day.flatten())
}

/// The source sets that are kept against the day's numbers.
fn sets(snapshot: &Connection, path: &Path, verification: &mut Verification) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "verifying", error);
    // Detail that began again misses what the sets know.
    let rebuilt = rebuilt_day(snapshot).map_err(fail)?;
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
        let counted =
            day.sets.count().map_err(|source| LedgerError::Sets { path: path.to_owned(), source })?;
        let len = |key| counted.get(&key).copied().unwrap_or(0);
        let of_ports = counted.iter().filter(|(key, _)| *key & SERVICE_BIT == 0);
        let members: u128 = of_ports.map(|(_, members)| u128::from(*members)).sum();
        let wrong = day.ports.iter().find(|(slot, tally)| len(slot.index()) != tally.sources);
        verification.check(Some(number), "each port's sources = members of its set", wrong.is_none(), || {
            wrong.map_or(String::new(), |(slot, tally)| {
                format!("{slot}: {} against {}", tally.sources, len(slot.index()))
            })
        });
        let sources: u128 = day.ports.values().map(|tally| u128::from(tally.sources)).sum();
        verification.check(Some(number), "sources = members of all sets", sources == members, || {
            format!("{sources} against {members}")
        });
        let hosts = len(HOSTS);
        verification.check(
            Some(number),
            "hosts = members of the set of hosts",
            hosts == day.totals.hosts,
            || format!("{} against {hosts}", day.totals.hosts),
        );
    }
    Ok(())
}
