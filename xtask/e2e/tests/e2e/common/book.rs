//! What was sent, by local day and hour, and what the ledger says of it.

use super::{assert_same, ledger};
use jiff::civil::Date;
use lab::sensor::Lab;
use lab::traffic::{Class, Expectation};
use std::collections::BTreeMap;

/// What was sent, by local day and hour.
#[derive(Debug, Default)]
pub(crate) struct Book(BTreeMap<(Date, u8), Expectation>);

impl Book {
    /// Enters what was sent in an hour of a day.
    pub(crate) fn enter(&mut self, hour: (Date, u8), sent: &Expectation) {
        self.0.entry(hour).or_default().merge(sent.clone());
    }

    /// Everything of each day: there a source counts once for each port, however many hours it came in.
    pub(crate) fn days(&self) -> BTreeMap<Date, Expectation> {
        let mut days = BTreeMap::<Date, Expectation>::new();
        for ((day, _), sent) in &self.0 {
            days.entry(*day).or_default().merge(sent.clone());
        }
        days
    }

    /// All packets.
    pub(crate) fn packets(&self) -> u64 {
        self.0.values().map(Expectation::total).sum()
    }

    /// Compares everything that a ledger keeps by day with what was sent on it.
    pub(crate) fn assert_is_in(&self, ledger: &Table) {
        let days = self.days();
        let by_day = |rows: &dyn Fn(&Expectation) -> Vec<(String, u64)>| {
            let of_day = |(day, sent): (&Date, &Expectation)| {
                rows(sent)
                    .into_iter()
                    .map(|(what, count)| ((day.to_string(), what), count))
                    .collect::<Vec<_>>()
            };
            days.iter().flat_map(of_day).collect::<BTreeMap<_, _>>()
        };
        let ports = |counts: &BTreeMap<lab::traffic::Port, u64>| {
            counts.iter().map(|(port, count)| (port.to_string(), *count)).collect::<Vec<_>>()
        };
        let sums = ledger.sums("port", "accesses", Row::port);
        assert_same("accesses by day and port", sums, by_day(&|sent| ports(&sent.accesses)));
        let sums = ledger.sums("port", "sources", Row::port);
        assert_same("sources by day and port", sums, by_day(&|sent| ports(&sent.sources_by_port())));
        let sums = ledger.sums("backscatter", "value", Row::port);
        assert_same("backscatter by day and port", sums, by_day(&|sent| ports(&sent.backscatter)));
        let sums = ledger.sums("packets", "value", |row| row.get("name").to_owned());
        let classes = |value: fn(&Expectation, Class) -> u64| {
            by_day(&move |sent| {
                Class::ALL.map(|class| (class.label().to_owned(), value(sent, class))).to_vec()
            })
        };
        assert_same("packets by day and class", sums, classes(Expectation::packets));
        let sums = ledger.sums("bytes", "value", |row| row.get("name").to_owned());
        assert_same("bytes by day and class", sums, classes(Expectation::bytes));
        let sums = ledger.sums("hosts", "value", |_| String::new());
        assert_same("hosts by day", sums, by_day(&|sent| vec![(String::new(), sent.hosts.len() as u64)]));
        let sums = ledger.sums("port_hour", "accesses", |row| row.get("hour").to_owned());
        let hours = self.0.iter().map(|((day, hour), sent)| {
            ((day.to_string(), format!("{hour:02}")), sent.packets(Class::Access))
        });
        assert_same("accesses by day and hour", sums, hours.collect());
    }
}

/// The day tables of a ledger, as `teiten ledger export` writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) Vec<Row>);

/// One row, by the names of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) BTreeMap<String, String>);

impl Row {
    /// The value of a column; empty when it has none.
    pub(crate) fn get(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    fn port(&self) -> String {
        format!("{}/{}", self.get("port"), self.get("transport"))
    }
}

impl Table {
    /// Exports the ledger of `lab` and reads it; the daemon may still run.
    pub(crate) fn export(lab: &Lab) -> Self {
        Self::parse(&ledger(lab, &["export", "--format", "csv"]))
    }

    /// Reads CSV as RFC 4180 describes it.
    pub(crate) fn parse(csv: &str) -> Self {
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let rows = reader.deserialize().map(|row| Row(row.unwrap()));
        Self(rows.collect())
    }

    /// The sums of `value` over the rows of `kind`, by day and `what`.
    pub(crate) fn sums(
        &self,
        kind: &str,
        value: &str,
        what: impl Fn(&Row) -> String,
    ) -> BTreeMap<(String, String), u64> {
        let mut sums = BTreeMap::new();
        for row in self.0.iter().filter(|row| row.get("kind") == kind) {
            *sums.entry((row.get("day").to_owned(), what(row))).or_default() +=
                row.get(value).parse::<u64>().unwrap();
        }
        sums
    }
}
