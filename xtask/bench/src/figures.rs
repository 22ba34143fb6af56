//! Measured figures: rounds, tables of them, targets, and their three shapes: for a terminal, as
//! Markdown, as JSON.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use std::fmt::{self, Write as _};

/// What a number counts, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Packets per second.
    PacketsPerSecond,
    /// Operations per second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Hundredths of one core.
    PercentOfCore,
    /// Per cent.
    Percent,
    /// One figure divided by another.
    Ratio,
    /// Things.
    Count,
}

impl Unit {
    /// A value with its unit, to three significant digits.
    fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (size, name) = steps.iter().rev().find(|(size, _)| value.abs() >= *size).unwrap_or(&steps[0]);
            format!("{}{name}", digits(value / size))
        };
        match self {
            Self::Nanoseconds => scaled(&[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")]),
            Self::Milliseconds => scaled(&[(1.0, " ms"), (1e3, " s")]),
            Self::Seconds => scaled(&[(1.0, " s")]),
            Self::PacketsPerSecond | Self::PerSecond => scaled(&[(1.0, "/s"), (1e3, " k/s"), (1e6, " M/s")]),
            Self::Bytes => {
                scaled(&[(1.0, " B"), (1024.0, " KiB"), (1_048_576.0, " MiB"), (1_073_741_824.0, " GiB")])
            }
            Self::BytesPerSecond => scaled(&[(1.0, " B/s"), (1e3, " kB/s"), (1e6, " MB/s"), (1e9, " GB/s")]),
            Self::PercentOfCore | Self::Percent => format!("{} %", digits(value)),
            Self::Ratio => format!("{} ×", digits(value)),
            Self::Count => thousands(value),
        }
    }
}

fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The same thing measured again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounds {
    values: Vec<f64>,
    unit: Unit,
}

impl Rounds {
    /// None yet.
    pub const fn new(unit: Unit) -> Self {
        Self { values: Vec::new(), unit }
    }

    /// These.
    pub fn of(unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        Self { values: values.into_iter().collect(), unit }
    }

    /// One more.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The values, in the order of the rounds.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The middle one; of an even number, the mean of the two in the middle. NaN when there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The greatest.
    pub fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Round by round divided by `other`: what the machine did to a round, it did to both.
    #[must_use]
    pub fn per(&self, other: &Self) -> Self {
        Self::of(Unit::Ratio, self.values.iter().zip(&other.values).map(|(own, other)| own / other))
    }

    /// Round by round without `other`.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        Self::of(self.unit, self.values.iter().zip(&other.values).map(|(own, other)| own - other))
    }
}

/// `median (min … max)`.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value| self.unit.show(value);
        match self.values.len() {
            0 => f.write_str("—"),
            1 => f.write_str(&show(self.values[0])),
            _ => write!(f, "{} ({} … {})", show(self.median()), show(self.min()), show(self.max())),
        }
    }
}

impl Serialize for Rounds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rounds = serializer.serialize_struct("Rounds", 5)?;
        rounds.serialize_field("unit", &self.unit)?;
        rounds.serialize_field("median", &self.median())?;
        rounds.serialize_field("min", &self.min())?;
        rounds.serialize_field("max", &self.max())?;
        rounds.serialize_field("rounds", &self.values)?;
        rounds.end()
    }
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A figure.
    Measured(Rounds),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Measured(rounds) => rounds.fmt(f),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Rounds> for Cell {
    fn from(rounds: Rounds) -> Self {
        Self::Measured(rounds)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Text(thousands(count as f64))
    }
}

/// A table of figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How that was measured.
    pub about: String,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows yet.
    pub fn new(title: &str, about: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.to_owned(), about: about.to_owned(), columns, rows: Vec::new() }
    }

    /// One more row, with a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column of `{}`", self.title);
        self.rows.push(cells);
    }

    fn texts(&self) -> Vec<Vec<String>> {
        std::iter::once(self.columns.clone())
            .chain(self.rows.iter().map(|row| row.iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn has_rows(&self) -> Option<&Self> {
        (!self.rows.is_empty()).then_some(self)
    }

    /// With a rule below the head and `between` columns.
    fn write(&self, out: &mut String, begin: &str, between: &str, end: &str, rule: char) {
        let rows = self.texts();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |out: &mut String, cells: Vec<String>| {
            let _ = writeln!(out, "{begin}{}{end}", cells.join(between));
        };
        for (nth, row) in rows.iter().enumerate() {
            let pad = |(text, width): (&String, &usize)| format!("{text:width$}");
            line(out, row.iter().zip(&widths).map(pad).collect());
            if nth == 0 {
                line(out, widths.iter().map(|width| rule.to_string().repeat(*width)).collect());
            }
        }
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// A figure that was promised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// Of what.
    pub what: String,
    /// Between which bounds.
    pub bound: Bound,
    /// The figure of each round.
    pub measured: Rounds,
}

impl Target {
    /// Whether the median is where it should be.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured.median() <= most,
            Bound::AtLeast(least) => self.measured.median() >= least,
        }
    }
}

/// Everything that a run measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// When, of what, on what.
    pub machine: Vec<(String, String)>,
    /// The tables, in the order of measuring.
    pub tables: Vec<Table>,
    /// The targets of what was measured.
    pub targets: Vec<Target>,
    /// What could not be measured here, and why.
    pub left_out: Vec<String>,
}

impl Results {
    /// Notes a target.
    pub fn target(&mut self, what: &str, bound: Bound, measured: Rounds) {
        self.targets.push(Target { what: what.to_owned(), bound, measured });
    }

    fn targets_table(&self) -> Table {
        let mut table = Table::new("Targets", "", &["what", "wanted", "measured", ""]);
        for target in &self.targets {
            let (word, bound) = match target.bound {
                Bound::AtMost(bound) => ("at most", bound),
                Bound::AtLeast(bound) => ("at least", bound),
            };
            table.row([
                target.what.as_str().into(),
                format!("{word} {}", target.measured.unit.show(bound)).into(),
                target.measured.clone().into(),
                if target.is_met() { "met" } else { "missed" }.into(),
            ]);
        }
        table
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for (what, value) in &self.machine {
            let _ = writeln!(out, "{what}: {value}");
        }
        let targets = self.targets_table();
        for table in self.tables.iter().chain(targets.has_rows()) {
            let _ = writeln!(out, "\n{}", table.title);
            table.write(&mut out, "  ", "  ", "", '-');
        }
        for reason in &self.left_out {
            let _ = writeln!(out, "\nleft out: {reason}");
        }
        out
    }

    /// As Markdown, below a heading of the second level each.
    pub fn to_markdown(&self) -> String {
        let mut out = String::from("## Machine\n\n");
        for (what, value) in &self.machine {
            let _ = writeln!(out, "- {what}: {value}");
        }
        let targets = self.targets_table();
        for table in targets.has_rows().into_iter().chain(&self.tables) {
            let _ = write!(out, "\n## {}\n\n", table.title);
            if !table.about.is_empty() {
                let _ = write!(out, "{}\n\n", table.about);
            }
            table.write(&mut out, "| ", " | ", " |", '-');
        }
        if !self.left_out.is_empty() {
            out.push_str("\n## Left out\n\n");
            for reason in &self.left_out {
                let _ = writeln!(out, "- {reason}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_ratios_are_of_the_same_round() {
        let own = Rounds::of(Unit::Nanoseconds, [30.0, 10.0, 20.0]);
        let other = Rounds::of(Unit::Nanoseconds, [15.0, 10.0, 5.0]);
        assert_eq!(format!("{:?}", [own.median(), own.min(), own.max()]), "[20.0, 10.0, 30.0]");
        assert_eq!(own.per(&other).values(), [2.0, 1.0, 4.0]);
        assert_eq!(own.less(&other).values(), [15.0, 0.0, 15.0]);
        assert_eq!(Rounds::of(Unit::Ratio, [1.0, 2.0, 3.0, 10.0]).median().to_string(), "2.5");
        assert!(Rounds::new(Unit::Ratio).median().is_nan());
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let show = |unit: Unit, value| unit.show(value);
        assert_eq!(show(Unit::Nanoseconds, 17.26), "17.3 ns");
        assert_eq!(show(Unit::Nanoseconds, 1_726.0), "1.73 µs");
        assert_eq!(show(Unit::PacketsPerSecond, 5_800_000.0), "5.80 M/s");
        assert_eq!(show(Unit::Bytes, 64.0 * 1024.0 * 1024.0), "64.0 MiB");
        assert_eq!(show(Unit::Ratio, 0.651), "0.651 ×");
        assert_eq!(show(Unit::Count, 1_048_576.0), "1,048,576");
        assert_eq!(
            Rounds::of(Unit::Milliseconds, [3.0, 1.0, 2.0]).to_string(),
            "2.00 ms (1.00 ms … 3.00 ms)"
        );
    }

    #[test]
    fn results_have_three_shapes_and_targets_say_whether_they_are_met() {
        let mut table = Table::new("Cost", "Per packet.", &["program", "time"]);
        table.row(["empty".into(), Rounds::of(Unit::Nanoseconds, [4.0]).into()]);
        let mut results = Results { machine: vec![("CPUs".into(), "2".into())], ..Results::default() };
        results.tables.push(table);
        results.target("ratio", Bound::AtMost(2.5), Rounds::of(Unit::Ratio, [2.4, 2.6, 2.6]));
        results.target("rate", Bound::AtLeast(2.5), Rounds::of(Unit::Ratio, [2.6]));
        assert_eq!(
            results.to_markdown(),
            "## Machine\n\n- CPUs: 2\n\n## Targets\n\n\
             | what  | wanted          | measured                 |        |\n\
             | ----- | --------------- | ------------------------ | ------ |\n\
             | ratio | at most 2.50 ×  | 2.60 × (2.40 × … 2.60 ×) | missed |\n\
             | rate  | at least 2.50 × | 2.60 ×                   | met    |\n\
             \n## Cost\n\nPer packet.\n\n\
             | program | time    |\n| ------- | ------- |\n| empty   | 4.00 ns |\n"
        );
        assert!(
            results
                .to_text()
                .contains("\nCost\n  program  time   \n  -------  -------\n  empty    4.00 ns\n")
        );
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(json["tables"][0]["rows"][0][1]["median"], 4.0);
        assert_eq!(json["targets"][0]["bound"]["at_most"], 2.5);
        assert_eq!(json["targets"][0]["measured"]["unit"], "ratio");
    }
}
