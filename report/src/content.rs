//! The report as a document: the figures of the monthly reports of 2005 and 2010, in their order.

mod figures;
mod numbers;
mod observation;
mod rankings;
mod story;

use crate::data::{Data, Days, PERIODS, Sums};
use crate::document::{Block, Chart, Column, Document, Figure, Form, Line, Table};
use crate::events::{self, Event};
use crate::input::Input;
use crate::notes::{Notes, Place};
use crate::palette::Style;
use crate::period::Unit;
use crate::words::{self, Lang, Text};
use jiff::civil::Date;
use sensor_counters::{Country, PortLabel, Tally};
use sensor_user::counters::port_names::PortTable;
use std::collections::BTreeMap;

pub(crate) use numbers::{Number, headline};

/// Ports and regions that are drawn by name; the others are one series.
const PORTS: usize = 10;
const COUNTRIES: usize = 8;
/// Ports that are compared with the period before and explained.
const RANKED: usize = 15;

/// What a report is made from.
pub(crate) struct Source {
    pub(crate) origin: Text,
    pub(crate) limits: Vec<Text>,
}

impl Source {
    /// Of an input, with the names that the report has for its sensors.
    pub(crate) fn of(input: &dyn Input, names: &[Option<&str>]) -> Self {
        Self { origin: input.origin(), limits: input.limits(names) }
    }
}

/// How a report is written.
pub(crate) struct Manner {
    pub(crate) lang: Lang,
    /// Name of the observation, as in the title.
    pub(crate) centre: String,
    /// The day on which it is written.
    pub(crate) today: Date,
}

/// Writes the document.
pub(crate) struct Writer<'a> {
    data: &'a Data,
    manner: &'a Manner,
    notes: &'a Notes,
    events: Vec<Event>,
    explanations: PortTable,
    blocks: Vec<Block>,
    section: usize,
    figure: usize,
    table: usize,
}

/// The amount of a tally.
type Pick = fn(&Tally) -> u64;

const ACCESSES: Pick = |tally| tally.accesses;
const SOURCES: Pick = |tally| tally.sources;

/// The document of `data`.
pub(crate) fn write(data: &Data, manner: &Manner, notes: &Notes, source: &Source) -> Document {
    let mut writer = Writer {
        data,
        manner,
        notes,
        events: events::find(data),
        explanations: PortTable::embedded().unwrap_or_default(),
        blocks: Vec::new(),
        section: 0,
        figure: 0,
        table: 0,
    };
    writer.story();
    if data.own().total.accesses > 0 {
        writer.ports();
        writer.regions();
        writer.groups();
        writer.services();
        writer.six_periods();
        writer.hours();
        writer.regions_by_port();
        writer.others();
        writer.rankings();
        writer.explanations();
    }
    writer.observation(source);
    writer.place(&Place::Contact);
    let lang = manner.lang;
    let period = lang.period(data.period);
    let title = match lang {
        Lang::En => format!("What {} observed in {period}", manner.centre),
        Lang::Ja => format!("{}での観測状況について", manner.centre),
    };
    Document {
        lang,
        title,
        subtitle: period,
        period: data.period.code(),
        date: manner.today,
        blocks: writer.blocks,
    }
}

/// The places at which this period's report takes notes.
pub(crate) fn places(data: &Data) -> Vec<Place> {
    let mut places = vec![Place::Intro, Place::Events];
    let ranked = events::ranking(&data.own().ports);
    places.extend(ranked.into_iter().take(RANKED).map(Place::Port));
    places.extend([Place::Observation, Place::Contact]);
    places
}

impl Writer<'_> {
    fn t<'a>(&self, en: &'a str, ja: &'a str) -> &'a str {
        self.manner.lang.t(en, ja)
    }

    fn lang(&self) -> Lang {
        self.manner.lang
    }

    fn heading(&mut self, en: &str, ja: &str) {
        self.section += 1;
        self.figure = 0;
        self.table = 0;
        let text = format!("{}. {}", self.section, self.t(en, ja));
        self.blocks.push(Block::Heading(1, text));
    }

    fn subheading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(2, text.to_owned()));
    }

    fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph(text.into()));
    }

    fn remark(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Remark(text.into()));
    }

    /// The number that the next figure of this section gets.
    fn next_figure(&self, ahead: usize) -> String {
        format!("{}-{}", self.section, self.figure + ahead)
    }

    fn figure(&mut self, name: &str, caption: &str, chart: Chart) {
        self.figure += 1;
        self.blocks.push(Block::Figure(Figure {
            number: format!("{}-{}", self.section, self.figure),
            name: name.to_owned(),
            caption: caption.to_owned(),
            chart,
        }));
    }

    fn table(&mut self, name: &str, caption: &str, columns: Vec<Column>, rows: Vec<Vec<String>>) {
        self.table += 1;
        let caption = format!(
            "{}{}-{}{}{caption}",
            self.t("Table ", "表"),
            self.section,
            self.table,
            self.t(": ", "：")
        );
        self.blocks.push(Block::Table(Table { name: name.to_owned(), caption, columns, rows }));
    }

    /// What the staff wrote for a place. Says whether it replaces what the program has.
    fn place(&mut self, place: &Place) -> bool {
        let Some(note) = self.notes.get(place) else { return false };
        self.blocks.push(Block::Notes(note.markdown.clone()));
        note.replaces
    }

    /// Whether the notes take the place of what the program says there.
    fn is_replaced(&self, place: &Place) -> bool {
        self.notes.get(place).is_some_and(|note| note.replaces)
    }

    fn other(&self) -> String {
        self.t("other", "その他").to_owned()
    }

    fn accesses(&self) -> &'static str {
        self.lang().t("Accesses", "アクセス数")
    }

    fn sources(&self) -> &'static str {
        self.lang().t("Cumulative sources", "延べ発信元数")
    }

    /// Names of the period's days on an axis.
    fn day_names(&self) -> Vec<String> {
        self.data
            .dates()
            .iter()
            .map(|day| match (self.data.period.unit, self.lang()) {
                (Unit::Month, _) => day.day().to_string(),
                (_, Lang::En) => day.strftime("%m-%d").to_string(),
                (_, Lang::Ja) => format!("{}/{}", day.month(), day.day()),
            })
            .collect()
    }

    /// Amounts by day: the largest by name, the sum of the others last.
    fn daily<K: Ord + Copy>(
        &self,
        amounts: &BTreeMap<K, Days>,
        pick: Pick,
        ranked: &[K],
        show: &dyn Fn(K) -> (String, Style),
    ) -> Chart {
        let count = self.data.dates().len();
        let observed: Vec<bool> = (0..count).map(|day| self.data.was_observed(day)).collect();
        let line = |days: &dyn Fn(usize) -> u64| -> Vec<Option<u64>> {
            (0..count).map(|day| observed[day].then(|| days(day))).collect()
        };
        let amount = |days: &Days, day: usize| days.get(day).map_or(0, pick);
        let mut series: Vec<Line> = ranked
            .iter()
            .map(|key| {
                let (name, style) = show(*key);
                Line { name, style, values: line(&|day| amount(&amounts[key], day)) }
            })
            .collect();
        let rest = line(&|day| {
            amounts.iter().filter(|(key, _)| !ranked.contains(key)).map(|(_, days)| amount(days, day)).sum()
        });
        if rest.iter().flatten().any(|value| *value > 0) {
            series.push(Line { name: self.other(), style: Style::OTHERS, values: rest });
        }
        Chart {
            form: Form::Daily,
            axis: self.t("Day", "日").to_owned(),
            categories: self.day_names(),
            unit: String::new(),
            series,
        }
    }

    fn pie<K: Ord + Copy>(
        &self,
        amounts: &BTreeMap<K, Tally>,
        pick: Pick,
        ranked: &[K],
        show: &dyn Fn(K) -> (String, Style),
    ) -> Chart {
        let mut series: Vec<Line> = ranked
            .iter()
            .map(|key| {
                let (name, style) = show(*key);
                Line { name, style, values: vec![Some(pick(&amounts[key]))] }
            })
            .collect();
        let rest: u64 =
            amounts.iter().filter(|(key, _)| !ranked.contains(key)).map(|(_, tally)| pick(tally)).sum();
        if rest > 0 {
            series.push(Line { name: self.other(), style: Style::OTHERS, values: vec![Some(rest)] });
        }
        Chart {
            form: Form::Pie,
            axis: String::new(),
            categories: vec![self.lang().period(self.data.period)],
            unit: String::new(),
            series,
        }
    }

    /// The shares of each of the six periods.
    fn shares<K: Ord + Copy>(
        &self,
        of: fn(&Sums) -> &BTreeMap<K, Tally>,
        pick: Pick,
        limit: usize,
        named: fn(&K) -> bool,
        show: &dyn Fn(K) -> (String, Style),
    ) -> Chart {
        let mut all: BTreeMap<K, Tally> = BTreeMap::new();
        for sums in &self.data.sums {
            for (key, tally) in of(sums) {
                *all.entry(*key).or_default() += *tally;
            }
        }
        let ranked = ranked(&all, pick, limit, named);
        let values = |value: &dyn Fn(&Sums) -> u64| -> Vec<Option<u64>> {
            self.data.sums.iter().map(|sums| (sums.observed() > 0).then(|| value(sums))).collect()
        };
        let mut series: Vec<Line> = ranked
            .iter()
            .map(|key| {
                let (name, style) = show(*key);
                Line { name, style, values: values(&|sums| of(sums).get(key).map_or(0, pick)) }
            })
            .collect();
        series.push(Line {
            name: self.other(),
            style: Style::OTHERS,
            values: values(&|sums| {
                of(sums).iter().filter(|(key, _)| !ranked.contains(key)).map(|(_, tally)| pick(tally)).sum()
            }),
        });
        Chart {
            form: Form::Shares,
            axis: self.period_word().to_owned(),
            categories: self.ticks(),
            unit: String::new(),
            series,
        }
    }

    /// The periods on an axis.
    fn ticks(&self) -> Vec<String> {
        self.data.sums.iter().map(|sums| self.lang().tick(sums.period)).collect()
    }

    fn period_word(&self) -> &'static str {
        match self.data.period.unit {
            Unit::Month => self.lang().t("Month", "月"),
            Unit::Quarter => self.lang().t("Quarter", "四半期"),
            Unit::Year => self.lang().t("Year", "年"),
        }
    }

    fn country(&self, country: Country) -> (String, Style) {
        (self.lang().country(country), Style::country(country))
    }
}

/// A port as a series.
fn port(label: PortLabel) -> (String, Style) {
    (words::port(label), Style::port(label))
}

/// Ports of their own: what is left of a transport has no place among them.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a filter of map keys")]
fn is_own(label: &PortLabel) -> bool {
    matches!(label, PortLabel::Own(_))
}

/// Countries that the database knows.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a filter of map keys")]
fn is_country(country: &Country) -> bool {
    *country != Country::UNKNOWN
}

/// Days added up.
fn sums<K: Ord + Copy>(days: &BTreeMap<K, Days>) -> BTreeMap<K, Tally> {
    days.iter()
        .map(|(key, days)| {
            let mut sum = Tally::default();
            for tally in days {
                sum += *tally;
            }
            (*key, sum)
        })
        .collect()
}

/// The largest, the largest first; of equal ones the one that is first by its key.
fn ranked<K: Ord + Copy>(
    amounts: &BTreeMap<K, Tally>,
    pick: Pick,
    limit: usize,
    named: fn(&K) -> bool,
) -> Vec<K> {
    let mut keys: Vec<(K, u64)> = amounts
        .iter()
        .filter(|(key, tally)| named(key) && pick(tally) > 0)
        .map(|(key, tally)| (*key, pick(tally)))
        .collect();
    keys.sort_by_key(|(key, amount)| (std::cmp::Reverse(*amount), *key));
    keys.truncate(limit);
    keys.into_iter().map(|(key, _)| key).collect()
}

/// The periods before the own one that were observed.
fn observed_before(data: &Data) -> usize {
    data.sums[..PERIODS - 1].iter().filter(|sums| sums.observed() > 0).count()
}
