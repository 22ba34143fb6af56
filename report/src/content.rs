//! The report as a document: the figures of the monthly reports of 2005 and 2010, in their order.

mod numbers;
mod observation;
mod story;

use crate::data::{Data, Days, PERIODS, Sums};
use crate::document::{Block, Chart, Column, Document, Figure, Form, Line, Table};
use crate::events::{self, Event};
use crate::input::Input;
use crate::notes::{Notes, Place};
use crate::palette::Style;
use crate::period::Unit;
use crate::words::{self, Lang, Text, number};
use jiff::civil::Date;
use sensor_common::Slot;
use sensor_counters::{Country, NetworkLabel, PortLabel, Tally};
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

    /// Section 2: accesses by port.
    fn ports(&mut self) {
        let period = self.lang().period(self.data.period);
        self.heading(
            &format!("Unsolicited accesses in {period}"),
            &format!("{period}の一方的なアクセス状況"),
        );
        let (daily, shares) = (self.next_figure(1), self.next_figure(3));
        self.subheading(self.t("By destination port", "宛先（ポート種類）別のアクセス状況"));
        self.paragraph(match self.lang() {
            Lang::En => format!(
                "Figure {daily} and the one after it show accesses and cumulative sources by port day by day; figure \
                 {shares} and the one after it show their shares. Percentages are rounded half up to whole percent, so \
                 they need not add up to 100."
            ),
            Lang::Ja => format!(
                "宛先（ポート種類）別のアクセス数と発信元数の日ごとの推移を図{daily}以下に、比率を図{shares}以下に示します。\
                 なお、比率の数字は小数点第一位を四捨五入していますので、合計が100%ちょうどにならない場合があります。"
            ),
        });
        let sensors = self.data.own().sensors();
        let data = self.data;
        for (pick, unit, name, en, ja) in [
            (
                ACCESSES,
                self.accesses(),
                "ports-daily-accesses",
                "Accesses by port, daily",
                "1日あたりの宛先（ポート種類）別アクセス数の遷移",
            ),
            (
                SOURCES,
                self.sources(),
                "ports-daily-sources",
                "Cumulative sources by port, daily",
                "1日あたりの宛先（ポート種類）別発信元数の遷移",
            ),
        ] {
            let ranked = ranked(&data.own().ports, pick, PORTS, is_own);
            let chart = self.daily(&data.ports, pick, &ranked, &port);
            let caption = self.of_sensors(en, ja, sensors);
            self.figure(name, &caption, Chart { unit: unit.to_owned(), ..chart });
        }
        for (pick, unit, name, en, ja) in [
            (
                ACCESSES,
                self.accesses(),
                "ports-share-accesses",
                "Share of accesses by port",
                "宛先（ポート種類）別アクセス数の比率",
            ),
            (
                SOURCES,
                self.sources(),
                "ports-share-sources",
                "Share of cumulative sources by port",
                "宛先（ポート種類）別発信元数の比率",
            ),
        ] {
            let ranked = ranked(&data.own().ports, pick, PORTS, is_own);
            let chart = self.pie(&data.own().ports, pick, &ranked, &port);
            let axis = self.t("Port", "ポート種類").to_owned();
            let caption = self.t(en, ja).to_owned();
            self.figure(name, &caption, Chart { unit: unit.to_owned(), axis, ..chart });
        }
    }

    /// A caption that says of how many sensors.
    fn of_sensors(&self, en: &str, ja: &str, sensors: usize) -> String {
        match self.lang() {
            Lang::En => format!("{en} ({sensors} {})", if sensors == 1 { "sensor" } else { "sensors" }),
            Lang::Ja => format!("{ja}（{sensors}観測点）"),
        }
    }

    fn regions(&mut self) {
        self.subheading(self.t("By region of the source", "発信元地域別のアクセス状況"));
        let data = self.data;
        let sensors = data.own().sensors();
        for (pick, unit, daily, en, ja, share, share_en, share_ja) in [
            (
                ACCESSES,
                self.accesses(),
                "regions-daily-accesses",
                "Accesses by region of the source, daily",
                "1日あたりの発信元地域別アクセス数の遷移",
                "regions-share-accesses",
                "Share of accesses by region of the source",
                "発信元地域別アクセス数の比率",
            ),
            (
                SOURCES,
                self.sources(),
                "regions-daily-sources",
                "Cumulative sources by region, daily",
                "1日あたりの発信元地域別発信元数の遷移",
                "regions-share-sources",
                "Share of cumulative sources by region",
                "発信元地域別発信元数の比率",
            ),
        ] {
            let ranked = ranked(&data.own().countries, pick, COUNTRIES, is_country);
            let chart = self.daily(&data.countries, pick, &ranked, &|it| self.country(it));
            let caption = self.of_sensors(en, ja, sensors);
            self.figure(daily, &caption, Chart { unit: unit.to_owned(), ..chart });
            let chart = self.pie(&data.own().countries, pick, &ranked, &|it| self.country(it));
            let axis = self.t("Region", "地域").to_owned();
            let caption = self.t(share_en, share_ja).to_owned();
            self.figure(share, &caption, Chart { unit: unit.to_owned(), axis, ..chart });
        }
    }

    /// Port groups by region.
    fn groups(&mut self) {
        let data = self.data;
        for (group, countries) in &data.groups {
            let sums: BTreeMap<Country, Tally> = sums(countries);
            if sums.values().all(|tally| tally.accesses == 0) {
                continue;
            }
            let ranked = ranked(&sums, ACCESSES, COUNTRIES, is_country);
            let chart = self.daily(countries, ACCESSES, &ranked, &|it| self.country(it));
            let caption = match self.lang() {
                Lang::En => format!("Port group {group} by region of the source, daily"),
                Lang::Ja => format!("ポートグループ{group} 発信元地域別アクセス数の変化"),
            };
            let unit = self.accesses().to_owned();
            self.figure(&format!("group-{group}"), &caption, Chart { unit, ..chart });
        }
    }

    /// Services that sensors really offer.
    fn services(&mut self) {
        let data = self.data;
        if data.services.values().flatten().all(|tally| tally.accesses == 0) {
            return;
        }
        self.subheading(self.t("Excluded services", "観測から除外したサービス"));
        let sensors: std::collections::BTreeSet<usize> =
            data.services.keys().map(|(sensor, _)| *sensor).collect();
        let count = sensors.len();
        self.paragraph(match self.lang() {
            Lang::En => format!(
                "{} really {} the services of figure {}. Accesses to them are aimed at that one host, so they are in \
                 no other figure.",
                if count == 1 { "One sensor".to_owned() } else { format!("{count} sensors") },
                if count == 1 { "offers" } else { "offer" },
                self.next_figure(1)
            ),
            Lang::Ja => format!(
                "観測点のうち{count}箇所では、図{}のサービスを実際に動作させています。これらへのアクセスは特定の\
                 コンピュータに対するものとして、他の図の観測データから除外しています。",
                self.next_figure(1)
            ),
        });
        let totals: BTreeMap<(usize, Slot), Tally> = sums(&data.services);
        let ranked = ranked(&totals, ACCESSES, PORTS, |_| true);
        let chart = self.daily(&data.services, ACCESSES, &ranked, &|(sensor, slot)| {
            let name = format!("{} {}", data.sensors[sensor].name, words::slot_name(slot));
            (name, Style::port(PortLabel::Own(slot)))
        });
        let unit = self.accesses().to_owned();
        let caption = self
            .t(
                "Accesses to excluded services, daily",
                "観測から除外したサービスへのアクセス状況（アクセス数）",
            )
            .to_owned();
        self.figure("services-daily-accesses", &caption, Chart { unit, ..chart });
    }

    /// From the first of the six periods to the last.
    fn span(&self) -> String {
        let (from, to) = (self.data.sums[0].period, self.data.period);
        match self.lang() {
            Lang::En => format!("{} to {}", from.code(), to.code()),
            Lang::Ja => format!("{}～{}", self.lang().period(from), self.lang().period(to)),
        }
    }

    fn with_span(&self, caption: &str) -> String {
        match self.lang() {
            Lang::En => format!("{caption}, {}", self.span()),
            Lang::Ja => format!("{caption}（{}）", self.span()),
        }
    }

    /// Section 3: shares over six periods.
    fn six_periods(&mut self) {
        let title = match self.data.period.unit {
            Unit::Month => "Statistics of six months",
            Unit::Quarter => "Statistics of six quarters",
            Unit::Year => "Statistics of six years",
        };
        self.heading(title, "統計情報");
        let span = self.span();
        self.paragraph(match self.lang() {
            Lang::En => format!("The shares of ports and regions, {span}."),
            Lang::Ja => format!("{span}の宛先（ポート種類）別、発信元地域別の比率を示します。"),
        });
        for (pick, unit, ports, ports_en, ports_ja) in [
            (
                ACCESSES,
                self.accesses(),
                "six-ports-accesses",
                "Share of accesses by port",
                "宛先（ポート種類）別アクセス数の比率",
            ),
            (
                SOURCES,
                self.sources(),
                "six-ports-sources",
                "Share of cumulative sources by port",
                "宛先（ポート種類）別発信元数の比率",
            ),
        ] {
            let chart = self.shares(|sums| &sums.ports, pick, PORTS, is_own, &port);
            let caption = self.with_span(self.t(ports_en, ports_ja));
            self.figure(ports, &caption, Chart { unit: unit.to_owned(), ..chart });
        }
        for (pick, unit, name, en, ja) in [
            (
                ACCESSES,
                self.accesses(),
                "six-regions-accesses",
                "Share of accesses by region",
                "発信元地域別アクセス数の比率",
            ),
            (
                SOURCES,
                self.sources(),
                "six-regions-sources",
                "Share of cumulative sources by region",
                "発信元地域別発信元数の比率",
            ),
        ] {
            let chart =
                self.shares(|sums| &sums.countries, pick, COUNTRIES, is_country, &|it| self.country(it));
            let caption = self.with_span(self.t(en, ja));
            self.figure(name, &caption, Chart { unit: unit.to_owned(), ..chart });
        }
    }

    /// Section 4: hours of the day.
    fn hours(&mut self) {
        self.heading("Other statistics", "その他の統計情報");
        self.subheading(self.t("By hour of the day", "時間帯統計"));
        let all: Vec<&Sums> = self.data.sums.iter().collect();
        let own = self.lang().tick(self.data.period);
        for (name, sums, when) in [("hours-six", all, self.span()), ("hours-own", vec![self.data.own()], own)]
        {
            let mut ports: BTreeMap<PortLabel, Tally> = BTreeMap::new();
            let mut hours: BTreeMap<(PortLabel, u8), u64> = BTreeMap::new();
            for one in sums {
                for (label, tally) in &one.ports {
                    *ports.entry(*label).or_default() += *tally;
                }
                for (key, amount) in &one.hours {
                    *hours.entry(*key).or_default() += amount;
                }
            }
            let known: std::collections::BTreeSet<PortLabel> =
                hours.keys().map(|(label, _)| *label).collect();
            let mut ranked = ranked(&ports, ACCESSES, PORTS, is_own);
            ranked.retain(|label| known.contains(label));
            let values = |of: &dyn Fn(PortLabel) -> bool| -> Vec<Option<u64>> {
                (0..24)
                    .map(|hour| {
                        Some(
                            hours
                                .iter()
                                .filter(|((label, at), _)| *at == hour && of(*label))
                                .map(|it| it.1)
                                .sum(),
                        )
                    })
                    .collect()
            };
            let mut series: Vec<Line> = ranked
                .iter()
                .map(|label| {
                    let (name, style) = port(*label);
                    Line { name, style, values: values(&|other| other == *label) }
                })
                .collect();
            let rest = values(&|label| !ranked.contains(&label));
            series.push(Line { name: self.other(), style: Style::OTHERS, values: rest });
            let chart = Chart {
                form: Form::Hours,
                axis: self.t("Hour, local", "時（観測点の現地時刻）").to_owned(),
                categories: (0..24).map(|hour| hour.to_string()).collect(),
                unit: self.accesses().to_owned(),
                series,
            };
            let caption = match self.lang() {
                Lang::En => format!("Accesses by hour of the day and port, {when}"),
                Lang::Ja => format!("{when}の宛先（ポート種類）別アクセス数の時間帯統計"),
            };
            self.figure(name, &caption, chart);
        }
    }

    /// For each region, the share of each port.
    fn regions_by_port(&mut self) {
        let data = self.data;
        if data.port_countries.is_empty() {
            return;
        }
        self.subheading(self.t("Ports of each region", "発信元地域別統計"));
        let countries = ranked(&data.own().countries, ACCESSES, COUNTRIES, is_country);
        let mut by_port: BTreeMap<Slot, Tally> = BTreeMap::new();
        let mut cells: BTreeMap<(Slot, Country), u64> = BTreeMap::new();
        for (slot, regions) in &data.port_countries {
            for (country, tally) in sums(regions) {
                *by_port.entry(*slot).or_default() += tally;
                cells.insert((*slot, country), tally.accesses);
            }
        }
        let ports = ranked(&by_port, ACCESSES, PORTS, |_| true);
        let cell = |slot: Slot, country: Country| cells.get(&(slot, country)).copied().unwrap_or(0);
        let mut series: Vec<Line> = ports
            .iter()
            .map(|slot| Line {
                name: words::slot_name(*slot),
                style: Style::port(PortLabel::Own(*slot)),
                values: countries.iter().map(|country| Some(cell(*slot, *country))).collect(),
            })
            .collect();
        series.push(Line {
            name: self.other(),
            style: Style::OTHERS,
            values: countries
                .iter()
                .map(|country| {
                    let named: u64 = ports.iter().map(|slot| cell(*slot, *country)).sum();
                    Some(data.own().countries[country].accesses.saturating_sub(named))
                })
                .collect(),
        });
        let chart = Chart {
            form: Form::ShareRows,
            axis: self.t("Region", "地域").to_owned(),
            categories: countries.iter().map(|country| self.lang().country(*country)).collect(),
            unit: self.accesses().to_owned(),
            series,
        };
        let caption = self
            .t(
                "Share of accesses by port, for each region",
                "発信元地域毎の宛先（ポート種類）別アクセス数の比率",
            )
            .to_owned();
        self.figure("regions-ports-accesses", &caption, chart);
    }

    /// A table of what the accesses come from, as shares of all of them.
    fn origins(&mut self, name: &str, caption: &str, what: &str, rows: Vec<(String, Tally)>) {
        let total = self.data.own().total;
        let share = |part, whole| format!("{}%", words::percent(part, whole).unwrap_or(0));
        let rows = rows
            .into_iter()
            .map(|(label, Tally { accesses, sources })| {
                vec![
                    label,
                    number(accesses),
                    share(accesses, total.accesses),
                    number(sources),
                    share(sources, total.sources),
                ]
            })
            .collect();
        let percent = self.t("Percent", "比率");
        let columns = vec![
            Column::text(what),
            Column::number(self.accesses()),
            Column::number(percent),
            Column::number(self.sources()),
            Column::number(percent),
        ];
        self.table(name, caption, columns, rows);
    }

    /// With and without the sources of lists, when the sensors have any.
    fn lists(&mut self) {
        let data = self.data;
        let mut lists: Vec<(&String, Tally)> = data
            .lists
            .iter()
            .map(|(list, tally)| (list, *tally))
            .filter(|(list, _)| *list != "none")
            .collect();
        if lists.is_empty() {
            return;
        }
        lists.sort_by_key(|(list, tally)| (std::cmp::Reverse(tally.accesses), *list));
        let mut rows = vec![(self.t("all", "全体").to_owned(), data.own().total)];
        rows.extend(lists.into_iter().map(|(list, tally)| (list.clone(), tally)));
        let rest = data.lists.get("none").copied().unwrap_or_default();
        rows.push((self.t("without lists", "リスト外").to_owned(), rest));
        let caption = self
            .t(
                "Accesses by the source list that holds the source, and without all lists",
                "発信元リスト別アクセス数とリストを除いたアクセス数",
            )
            .to_owned();
        let what = self.t("Source list", "発信元リスト");
        self.origins("lists", &caption, what, rows);
    }

    /// The busiest networks, when the sensors have an ASN database.
    fn networks(&mut self) {
        let data = self.data;
        let is_known = |label: &NetworkLabel| matches!(label, NetworkLabel::Own(_));
        if !data.networks.keys().any(is_known) {
            return;
        }
        let mut known: Vec<(&NetworkLabel, Tally)> = data
            .networks
            .iter()
            .map(|(label, tally)| (label, *tally))
            .filter(|(label, _)| is_known(label))
            .collect();
        known.sort_by_key(|(label, tally)| (std::cmp::Reverse(tally.accesses), (*label).clone()));
        let rows = known
            .into_iter()
            .take(PORTS)
            .map(|(label, tally)| (format!("{} (AS{})", label.name(), label.asn()), tally))
            .collect();
        let caption = self
            .t(
                "Busiest networks (autonomous systems) of the sources",
                "アクセス数の多い発信元ネットワーク（AS）",
            )
            .to_owned();
        let what = self.t("Network", "ネットワーク");
        self.origins("networks", &caption, what, rows);
    }

    /// Scanners' tools and answers to what the sensors never sent.
    fn others(&mut self) {
        let data = self.data;
        self.lists();
        self.networks();
        let total: u64 = data.tools.values().sum();
        if total > 0 {
            let mut tools: Vec<_> = data.tools.iter().filter(|(_, amount)| **amount > 0).collect();
            tools.sort_by_key(|(tool, amount)| (std::cmp::Reverse(**amount), **tool));
            let rows = tools
                .into_iter()
                .map(|(tool, amount)| {
                    let percent = words::percent(*amount, total).unwrap_or(0);
                    vec![tool.name().to_owned(), number(*amount), format!("{percent}%")]
                })
                .collect();
            let columns = vec![
                Column::text(self.t("Tool", "ツール")),
                Column::number(self.accesses()),
                Column::number(self.t("Percent", "比率")),
            ];
            let caption = self
                .t(
                    "TCP SYN accesses by the scanner whose fingerprint they carry",
                    "スキャンツール別のTCP SYNアクセス数",
                )
                .to_owned();
            self.table("tools", &caption, columns, rows);
        }
        let mut answers: Vec<_> = data.backscatter.iter().filter(|(_, amount)| **amount > 0).collect();
        answers.sort_by_key(|(label, amount)| (std::cmp::Reverse(**amount), **label));
        if !answers.is_empty() {
            let rows = answers
                .into_iter()
                .take(PORTS)
                .map(|(label, amount)| vec![words::port(*label), number(*amount)])
                .collect();
            let columns = vec![
                Column::text(self.t("Answered from", "応答元ポート")),
                Column::number(self.t("Packets", "パケット数")),
            ];
            let caption = self
                .t(
                    "Backscatter: answers to something that the sensors never sent, no accesses",
                    "バックスキャッタ（観測点が送信していないものへの応答。アクセスには含まれない）",
                )
                .to_owned();
            self.table("backscatter", &caption, columns, rows);
        }
        self.samples();
    }

    /// What packets said, when the sensors have kept samples.
    fn samples(&mut self) {
        let mut contents: BTreeMap<(Slot, &str), (u64, u64, &str)> = BTreeMap::new();
        for sample in &self.data.samples {
            let content = contents.entry((sample.slot, &sample.id)).or_insert((0, 0, &sample.text));
            content.0 += sample.packets;
            content.1 += sample.sources;
        }
        if contents.is_empty() {
            return;
        }
        let mut contents: Vec<_> = contents.into_iter().collect();
        contents.sort_by_key(|((slot, id), (packets, ..))| (std::cmp::Reverse(*packets), *slot, *id));
        let rows = contents
            .into_iter()
            .take(PORTS)
            .map(|((slot, _), (packets, sources, text))| {
                vec![words::slot_name(slot), number(packets), number(sources), text.to_owned()]
            })
            .collect();
        let columns = vec![
            Column::text(self.t("Port", "ポート種類")),
            Column::number(self.t("Packets", "パケット数")),
            Column::number(self.sources()),
            Column::text(self.t("Content", "内容")),
        ];
        let caption = self
            .t(
                "What packets to sampled ports said; hosts, addresses and long numbers are replaced by ***",
                "記録対象ポート宛パケットの内容（ホスト名、アドレス、長い番号は***に置換）",
            )
            .to_owned();
        self.table("samples", &caption, columns, rows);
    }

    /// Section 5: ranks, and the busiest ports of each sensor.
    fn rankings(&mut self) {
        self.heading("Rankings", "順位");
        let data = self.data;
        let (own, last) = (data.own(), data.last());
        let before = events::ranking(&last.ports);
        let rows = events::ranking(&own.ports)
            .into_iter()
            .take(RANKED)
            .enumerate()
            .map(|(at, slot)| {
                let tally = own.ports[&PortLabel::Own(slot)];
                let then = last.ports.get(&PortLabel::Own(slot)).map_or(0, |tally| tally.accesses);
                let rank = before.iter().position(|other| *other == slot);
                let percent = words::percent(tally.accesses, own.total.accesses).unwrap_or(0);
                vec![
                    (at + 1).to_string(),
                    words::slot_name(slot),
                    number(tally.accesses),
                    format!("{percent}%"),
                    number(tally.sources),
                    rank.map_or_else(|| "–".to_owned(), |rank| (rank + 1).to_string()),
                    if last.observed() > 0 { number(then) } else { "–".to_owned() },
                ]
            })
            .collect();
        let columns = vec![
            Column::number(self.t("Rank", "順位")),
            Column::text(self.t("Port", "ポート種類")),
            Column::number(self.accesses()),
            Column::number(self.t("Percent", "比率")),
            Column::number(self.sources()),
            Column::number(self.t("Rank before", "前期の順位")),
            Column::number(self.t("Accesses before", "前期のアクセス数")),
        ];
        let caption = self.t("The busiest ports", "アクセス数の多い宛先（ポート種類）").to_owned();
        self.table("ranking", &caption, columns, rows);
        let rows = data
            .sensors
            .iter()
            .zip(&data.sensor_ports)
            .map(|(sensor, ports)| {
                let mut total = Tally::default();
                for tally in ports.values() {
                    total += *tally;
                }
                let busiest: Vec<String> = events::ranking(ports)
                    .into_iter()
                    .take(10)
                    .map(|slot| {
                        format!(
                            "{}\u{a0}{}",
                            words::slot_name(slot),
                            number(ports[&PortLabel::Own(slot)].accesses)
                        )
                    })
                    .collect();
                vec![
                    sensor.name.clone(),
                    number(total.accesses),
                    number(total.sources),
                    busiest.join(self.t(", ", "、")),
                ]
            })
            .collect();
        let columns = vec![
            Column::text(self.t("Sensor", "観測点")),
            Column::number(self.accesses()),
            Column::number(self.sources()),
            Column::text(self.t("Ten busiest ports, with accesses", "アクセス数の多い10ポートとアクセス数")),
        ];
        let caption =
            self.t("The busiest ports of each sensor", "観測点ごとのアクセス数の多いポート").to_owned();
        self.table("sensors", &caption, columns, rows);
    }

    /// Section 6: what the ranked ports are known for.
    fn explanations(&mut self) {
        self.heading("Explanations", "補足説明");
        let period = self.lang().period(self.data.period);
        self.paragraph(match self.lang() {
            Lang::En => format!("What the ports with many accesses in {period} are known for."),
            Lang::Ja => {
                format!("以下に、{period}にアクセス数の多かった宛先（ポート種類）の解説を行います。")
            }
        });
        let ranked: Vec<Slot> = events::ranking(&self.data.own().ports).into_iter().take(RANKED).collect();
        let rows: Vec<Vec<String>> = ranked
            .iter()
            .filter(|slot| !self.is_replaced(&Place::Port(**slot)))
            .map(|slot| {
                let known = self.explanations.get(*slot);
                vec![
                    words::slot_name(*slot),
                    known.map_or_else(|| "–".to_owned(), |known| known.name.clone()),
                    known.map_or_else(
                        || {
                            self.t(
                                "No use of this port is known here.",
                                "このポートの用途は登録されていない。",
                            )
                            .to_owned()
                        },
                        |known| self.t(&known.en, &known.ja).to_owned(),
                    ),
                ]
            })
            .collect();
        let columns = vec![
            Column::text(self.t("Port", "ポート種類")),
            Column::text(self.t("Service", "サービス")),
            Column::text(self.t("Explanation", "解説")),
        ];
        let caption = self.t("Explanation of ports", "宛先（ポート種類）の解説").to_owned();
        self.table("explanations", &caption, columns, rows);
        for slot in ranked {
            if self.notes.get(&Place::Port(slot)).is_some() {
                self.subheading(&words::slot_name(slot));
                self.place(&Place::Port(slot));
            }
        }
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
