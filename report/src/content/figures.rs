//! Figures and tables of ports, regions, hours, lists, networks and samples, in the order of the report.

use super::{ACCESSES, COUNTRIES, PORTS, SOURCES, Writer, is_country, is_own, port, ranked, sums};
use crate::data::Sums;
use crate::document::{Chart, Column, Form, Line};
use crate::palette::Style;
use crate::period::Unit;
use crate::words::{self, Lang, number};
use sensor_common::Slot;
use sensor_counters::{Country, NetworkLabel, PortLabel, Tally};
use std::collections::BTreeMap;

impl Writer<'_> {
    /// Section 2: accesses by port.
    pub(super) fn ports(&mut self) {
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

    pub(super) fn regions(&mut self) {
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
    pub(super) fn groups(&mut self) {
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
    pub(super) fn services(&mut self) {
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
    pub(super) fn six_periods(&mut self) {
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
    pub(super) fn hours(&mut self) {
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
    pub(super) fn regions_by_port(&mut self) {
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
    pub(super) fn others(&mut self) {
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
}
