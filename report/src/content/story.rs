//! Section 1: the headline, six periods, this period against the last, and what happened.

use super::{ACCESSES, COUNTRIES, RANKED, Writer, is_country, observed_before, ranked, sums};
use crate::document::{Block, Chart, Form, Line};
use crate::events::{self, Event, Rise, Subject};
use crate::notes::Place;
use crate::palette::Style;
use crate::words::{self, Lang, decimal, number};
use sensor_common::Slot;
use sensor_counters::{Country, PortLabel, Tally};
use std::collections::BTreeMap;

impl Writer<'_> {
    pub(super) fn story(&mut self) {
        self.heading("What every connected computer is exposed to", "一般のインターネット利用者の皆さんへ");
        let data = self.data;
        if data.own().observed() == 0 && data.own().total.accesses == 0 {
            self.nothing_observed();
            self.place(&Place::Intro);
            return;
        }
        self.not_over();
        if !self.is_replaced(&Place::Intro) {
            self.headline();
        }
        self.place(&Place::Intro);
        self.six_means();
        self.against_last();
        if !self.is_replaced(&Place::Events) {
            let sentences: Vec<String> = self.events.iter().map(|event| self.sentence(event)).collect();
            if !sentences.is_empty() {
                self.blocks.push(Block::Items(sentences));
            }
        }
        self.place(&Place::Events);
        self.featured();
    }

    fn nothing_observed(&mut self) {
        let period = self.lang().period(self.data.period);
        if self.data.days.is_empty() {
            let today = self.manner.today;
            self.paragraph(match self.lang() {
                Lang::En => format!("On {today} no day of {period} is over. There are no figures to show."),
                Lang::Ja => {
                    format!(
                        "{today}の時点で、{period}には終了した日がありません。そのため、図表は掲載しません。"
                    )
                }
            });
            return;
        }
        self.paragraph(match self.lang() {
            Lang::En => format!("No sensor observed anything in {period}. There are no figures to show."),
            Lang::Ja => format!("{period}に観測を行った観測点はありません。そのため、図表は掲載しません。"),
        });
    }

    /// Says so when the period is not over.
    fn not_over(&mut self) {
        let data = self.data;
        let (end, last) = (*data.days.end(), data.period.last());
        if end >= last {
            return;
        }
        let (period, end) = (self.lang().period(data.period), self.lang().day(end));
        self.paragraph(match self.lang() {
            Lang::En => format!("{period} is not over. This report has its days up to {end}."),
            Lang::Ja => format!("{period}はまだ終わっていません。本報告は{end}までの観測によるものです。"),
        });
    }

    fn headline(&mut self) {
        let own = self.data.own();
        let (accesses, sources) = (number(own.total.accesses), number(own.total.sources));
        let per_day = own.per_sensor_day(own.total.accesses).zip(own.per_sensor_day(own.total.sources));
        let period = self.lang().period(self.data.period);
        let (sensors, figure) = (own.sensors(), self.next_figure(1));
        let each = decimal(own.total.accesses, own.total.sources);
        let centre = &self.manner.centre;
        let text = match self.lang() {
            Lang::En => {
                let sensors = if sensors == 1 { "1 sensor".to_owned() } else { format!("{sensors} sensors") };
                let mut text = format!(
                    "In {period}, {centre} counted {accesses} unsolicited accesses on {sensors}, from {sources} \
                     cumulative sources*."
                );
                if let Some((accesses, sources)) = per_day {
                    text += &format!(
                        " On average, one sensor received {} accesses from {} sources a day (figure {figure})",
                        number(accesses),
                        number(sources)
                    );
                    text += &each.map_or_else(
                        || ".".to_owned(),
                        |each| format!(": {each} accesses from each source."),
                    );
                }
                text
            }
            Lang::Ja => {
                let mut text = format!(
                    "{centre}によると、{period}の期待しない（一方的な）アクセスの総数は{sensors}観測点で{accesses}件、延べ発信元数※は\
                     {sources}箇所ありました。"
                );
                if let Some((accesses, sources)) = per_day {
                    text += &format!(
                        "平均すると、1観測点につき1日あたり{}の発信元から{}件のアクセスがあったこととなります（図{figure}参照）。",
                        number(sources),
                        number(accesses)
                    );
                    text +=
                        &each.map_or_else(String::new, |each| format!("発信元1箇所あたりでは{each}件です。"));
                }
                text
            }
        };
        self.paragraph(text);
        self.remark(self.t(
            "* Cumulative sources: the sources of every sensor simply added up. The same source counts once for an \
             observation day, sensor and port, however often it came.",
            "※ 延べ発信元数：各観測点にアクセスしてきた発信元を単純に足した数のことを、便宜上、延べ発信元数とする。ただし、同一発信元から\
             同一の観測日・観測点・ポートに複数アクセスがあった場合は、発信元数を1としてカウントする。",
        ));
        self.paragraph(self.t(
            "The sensors are connected like ordinary computers, so other computers on the Internet can expect about as \
             many unsolicited accesses.",
            "各観測点の環境は、インターネットを利用される一般的な接続環境と同一なので、インターネットを利用される皆さんの環境へも\
             同じくらいの一方的なアクセスがあると考えられます。",
        ));
    }

    /// Figure 1-1, with how the period compares with the last.
    fn six_means(&mut self) {
        let data = self.data;
        let figure = self.next_figure(1);
        let compared = self.compared();
        let (first, last) = (self.lang().tick(data.sums[0].period), self.lang().tick(data.period));
        let missing = data.sums.len() - 1 - observed_before(data);
        let mut text = match self.lang() {
            Lang::En => {
                format!("Figure {figure} shows the means for each sensor and day of {first} to {last}.")
            }
            Lang::Ja => format!(
                "{first}～{last}の1観測点・1日あたりの平均アクセス数とそれらのアクセスの平均発信元数を図{figure}に示します。"
            ),
        };
        text += self.lang().gap();
        text += &compared;
        if missing > 0 {
            let names: Vec<String> = data
                .sums
                .chunk_by(|one, next| (one.observed() == 0) == (next.observed() == 0))
                .filter(|periods| periods[0].observed() == 0)
                .flat_map(|periods| self.ticks_of(periods))
                .collect();
            let names = self.lang().list(&names);
            text += self.lang().gap();
            text += &match self.lang() {
                Lang::En => format!("There are no observations of {names}."),
                Lang::Ja => format!("{names}の観測データはありません。"),
            };
        }
        self.paragraph(text);
        let values = |of: fn(&crate::data::Sums) -> u64| -> Vec<Option<u64>> {
            data.sums.iter().map(|sums| sums.per_sensor_day(of(sums))).collect()
        };
        let chart = Chart {
            form: Form::BarsAndLine,
            axis: self.period_word().to_owned(),
            categories: self.ticks(),
            unit: self.t("per sensor and day", "1観測点・1日あたり").to_owned(),
            series: vec![
                Line {
                    name: self.accesses().to_owned(),
                    style: Style::NOW,
                    values: values(|sums| sums.total.accesses),
                },
                Line {
                    name: self.t("Sources", "発信元数").to_owned(),
                    style: Style::LINE,
                    values: values(|sums| sums.total.sources),
                },
            ],
        };
        let caption = self
            .t(
                "Mean unsolicited accesses and sources, per sensor and day",
                "1観測点・1日あたりの期待しない（一方的な）平均アクセス数と発信元数",
            )
            .to_owned();
        self.figure("six-means", &caption, chart);
    }

    /// The names of consecutive periods; of more than two only those of the first and the last.
    fn ticks_of(&self, periods: &[crate::data::Sums]) -> Vec<String> {
        let tick = |sums: &crate::data::Sums| self.lang().tick(sums.period);
        match periods {
            [first, .., last] if periods.len() > 2 => vec![match self.lang() {
                Lang::En => format!("{} to {}", tick(first), tick(last)),
                Lang::Ja => format!("{}～{}", tick(first), tick(last)),
            }],
            few => few.iter().map(tick).collect(),
        }
    }

    /// The period against the last one, and which ports made the difference.
    fn compared(&self) -> String {
        let (own, last) = (self.data.own(), self.data.last());
        let name = self.lang().tick(last.period);
        let (Some(now), Some(then)) =
            (own.per_sensor_day(own.total.accesses), last.per_sensor_day(last.total.accesses))
        else {
            return match self.lang() {
                Lang::En => format!("With {name} it cannot be compared."),
                Lang::Ja => format!("{name}とは比較できません。"),
            };
        };
        let change = now.abs_diff(then);
        let percent = words::percent(change, then);
        let percent_text = percent.map_or_else(String::new, |it| match self.lang() {
            Lang::En => format!(" by {it}%"),
            Lang::Ja => format!("{it}%"),
        });
        let (now_text, then_text) = (number(now), number(then));
        let mut text = match (self.lang(), now.cmp(&then)) {
            (Lang::En, _) if percent.is_some_and(|it| it < 3) => {
                format!("Accesses stayed at the level of {name}: {now_text} after {then_text}.")
            }
            (Lang::Ja, _) if percent.is_some_and(|it| it < 3) => {
                format!(
                    "期待しない（一方的な）アクセスは、{name}とほぼ同じ水準でした（{then_text}件から{now_text}件）。"
                )
            }
            (Lang::En, order) => format!(
                "Against {name}, accesses {}{percent_text}, from {then_text} to {now_text}.",
                if order.is_lt() { "fell" } else { "rose" }
            ),
            (Lang::Ja, order) => format!(
                "期待しない（一方的な）アクセスは、{name}と比べて{percent_text}{}しました。1観測点・1日あたり{then_text}件から{now_text}件と\
                 なっています。",
                if order.is_lt() { "減少" } else { "増加" }
            ),
        };
        let mut differences: Vec<(Slot, i64)> = Vec::new();
        let mut ports: Vec<Slot> = events::ranking(&own.ports).into_iter().take(RANKED).collect();
        ports.extend(events::ranking(&last.ports).into_iter().take(RANKED));
        ports.sort_unstable();
        ports.dedup();
        for slot in ports {
            let mean = |sums: &crate::data::Sums| {
                sums.per_sensor_day(sums.ports.get(&PortLabel::Own(slot)).map_or(0, |tally| tally.accesses))
            };
            if let (Some(now), Some(then)) = (mean(own), mean(last)) {
                differences.push((slot, now as i64 - then as i64));
            }
        }
        differences.retain(|(_, by)| by.unsigned_abs() >= (then / 100).max(1));
        differences.sort_by_key(|(slot, by)| (std::cmp::Reverse(by.unsigned_abs()), *slot));
        differences.truncate(3);
        if !differences.is_empty() {
            let names: Vec<String> = differences
                .iter()
                .map(|(slot, by)| {
                    let sign = if *by < 0 { '−' } else { '+' };
                    match self.lang() {
                        Lang::En => {
                            format!("{} ({sign}{})", words::slot_name(*slot), number(by.unsigned_abs()))
                        }
                        Lang::Ja => {
                            format!("{}（{sign}{}件）", words::slot_name(*slot), number(by.unsigned_abs()))
                        }
                    }
                })
                .collect();
            text += self.lang().gap();
            text += &match self.lang() {
                Lang::En => format!(
                    "The ports that changed most, in accesses per sensor and day: {}.",
                    self.lang().list(&names)
                ),
                Lang::Ja => {
                    format!(
                        "1観測点・1日あたりの変化が大きかったポートは、{}です。",
                        self.lang().list(&names)
                    )
                }
            };
        }
        text
    }

    /// Figure 1-2.
    fn against_last(&mut self) {
        let data = self.data;
        let (own, last) = (data.own(), data.last());
        if last.observed() == 0 {
            return;
        }
        let ports: Vec<Slot> = events::ranking(&own.ports).into_iter().take(RANKED).collect();
        let values = |sums: &crate::data::Sums| -> Vec<Option<u64>> {
            ports
                .iter()
                .map(|slot| Some(sums.ports.get(&PortLabel::Own(*slot)).map_or(0, |tally| tally.accesses)))
                .collect()
        };
        let (before, now) = (self.lang().tick(last.period), self.lang().tick(own.period));
        let chart = Chart {
            form: Form::Pairs,
            axis: self.t("Port", "ポート種類").to_owned(),
            categories: ports.iter().map(|slot| words::slot_name(*slot)).collect(),
            unit: self.accesses().to_owned(),
            series: vec![
                Line { name: before.clone(), style: Style::BEFORE, values: values(last) },
                Line { name: now.clone(), style: Style::NOW, values: values(own) },
            ],
        };
        let caption = match self.lang() {
            Lang::En => format!("Accesses by port, {before} and {now}"),
            Lang::Ja => format!("宛先（ポート種類）別アクセス数の比較（{before}／{now}）"),
        };
        let observed = [last, own].map(|sums| sums.observed() as f64);
        self.figure("ports-against-last", &caption, chart);
        // Totals of unequal observation do not compare by themselves.
        if (observed[0] / observed[1] - 1.0).abs() > 0.1 {
            let days = |at: usize| format!("{:.1}", observed[at] / 86_400e9);
            self.remark(match self.lang() {
                Lang::En => format!(
                    "The bars are totals. All sensors together observed {} days in {before} and {} days in {now}.",
                    days(0),
                    days(1)
                ),
                Lang::Ja => format!(
                    "棒は合計である。全観測点の観測日数の合計は、{before}が{}日、{now}が{}日である。",
                    days(0),
                    days(1)
                ),
            });
        }
    }

    /// Figure 1-3: the port that rose, or the busiest one, by region.
    fn featured(&mut self) {
        let data = self.data;
        // Of several, the one that came from most regions.
        let rises = self.events.iter().filter_map(|event| match event {
            Event::Spread(rise) => Some(((2, rise.regions.len(), rise.total.accesses), rise.port)),
            Event::Single(rise) => Some(((1, rise.regions.len(), rise.total.accesses), rise.port)),
            Event::New { port, regions, now, .. } => Some(((0, regions.len(), now.accesses), *port)),
            _ => None,
        });
        let rose = rises.max_by_key(|(size, _)| *size).map(|(_, port)| port);
        let busiest = events::ranking(&data.own().ports)
            .into_iter()
            .find(|slot| data.port_countries.contains_key(slot));
        let featured = rose.filter(|slot| data.port_countries.contains_key(slot)).or(busiest);
        let Some((slot, regions)) = featured.and_then(|slot| Some((slot, data.port_countries.get(&slot)?)))
        else {
            return;
        };
        let totals: BTreeMap<Country, Tally> = sums(regions);
        let ranked = ranked(&totals, ACCESSES, COUNTRIES, is_country);
        let chart = self.daily(regions, ACCESSES, &ranked, &|it| self.country(it));
        let name = words::slot_name(slot);
        let caption = match self.lang() {
            Lang::En => format!("{name}: accesses by region of the source, daily"),
            Lang::Ja => format!("{name} 発信元地域別アクセス数の変化"),
        };
        let unit = self.accesses().to_owned();
        self.figure("featured-port", &caption, Chart { unit, ..chart });
    }

    /// What happened, in words.
    fn sentence(&self, event: &Event) -> String {
        match event {
            Event::Spread(rise) => self.spread(rise),
            Event::Single(rise) => self.single(rise),
            Event::New { port, rank, now, before, sensors, regions } => {
                let name = words::slot_name(*port);
                let (accesses, sources) = (number(now.accesses), number(now.sources));
                let all = self.data.own().sensors();
                let last = self.lang().tick(self.data.last().period);
                let before = number(*before);
                let mut text = match self.lang() {
                    Lang::En => format!(
                        "{name} is new in the ranking, at place {rank}: {accesses} accesses from {sources} cumulative \
                         sources on {sensors} of {all} sensors, {before} accesses in {last}."
                    ),
                    Lang::Ja => format!(
                        "{name}が新たに{rank}位にランクされました。{all}観測点のうち{sensors}観測点で、延べ{sources}の発信元から{accesses}件の\
                         アクセスがありました（{last}は{before}件）。"
                    ),
                };
                text += &self.whence(regions);
                text
            }
            Event::Divergence { names, accesses, sources } => {
                let mut names: Vec<String> = names
                    .iter()
                    .map(|subject| match subject {
                        Subject::Port(slot) => words::slot_name(*slot),
                        Subject::Group(group) => group.clone(),
                    })
                    .collect();
                names.sort();
                let names = self.lang().list(&names);
                let [a, b, c, d] = [accesses[0], accesses[1], sources[0], sources[1]]
                    .map(|value| number(value.round() as u64));
                match self.lang() {
                    Lang::En => format!(
                        "{names}: accesses rose while sources fell. A day of all sensors had {a} accesses from {c} \
                         cumulative sources in the period before, and {b} from {d} in this one."
                    ),
                    Lang::Ja => format!(
                        "{names}では、発信元数が減少している一方でアクセス数が増加しました。全観測点の1日あたりで、前期の{c}の発信元から{a}件に対し、\
                         当期は{d}の発信元から{b}件でした。"
                    ),
                }
            }
            Event::Region { country, first, last, mean, normal } => {
                let name = self.lang().country(*country);
                let (mean, normal) = (number(mean.round() as u64), number(normal.round() as u64));
                let days = self.lang().days(*first, *last);
                match self.lang() {
                    Lang::En => format!(
                        "{name}: many more accesses from this region, {days}: {mean} a day on all sensors, {normal} on a \
                         normal day."
                    ),
                    Lang::Ja => format!(
                        "{days}に{name}からのアクセスが増加しました（全観測点で1日平均{mean}件、通常は{normal}件）。"
                    ),
                }
            }
        }
    }

    fn spread(&self, rise: &Rise) -> String {
        let name = words::slot_name(rise.port);
        let (sensors, all) = (rise.sensors.len(), self.data.own().sensors());
        let (mean, normal) = (number(rise.mean.round() as u64), number(rise.normal.round() as u64));
        let sources = number(rise.total.sources);
        let when = self.when(rise);
        let mut text = match self.lang() {
            Lang::En => {
                format!(
                    "{name}: {when} many more accesses on {sensors} of {all} sensors: {mean} a day on all sensors, {normal} \
                     on a normal day before, from {sources} cumulative sources."
                )
            }
            Lang::Ja => {
                format!(
                    "{name}へのアクセスが、{when}{all}観測点のうち{sensors}観測点で多く観測されました。全観測点の1日平均は{mean}件で（それまでの通常は\
                     {normal}件）、延べ発信元数は{sources}でした。"
                )
            }
        };
        text += &self.whence(&rise.regions);
        text += &self.place_in_ranking(rise);
        text
    }

    fn single(&self, rise: &Rise) -> String {
        let name = words::slot_name(rise.port);
        let sensor = rise.sensors.first().map_or("", |sensor| self.data.sensors[*sensor].name.as_str());
        let (accesses, sources) = (number(rise.total.accesses), number(rise.total.sources));
        let normal = number(rise.normal.round() as u64);
        let when = self.when(rise);
        let mut text = match self.lang() {
            Lang::En => {
                format!(
                    "{name}: {when} many accesses on one sensor only ({sensor}): {accesses} from {sources} cumulative \
                     sources; a normal day before had {normal} on all sensors."
                )
            }
            Lang::Ja => {
                format!(
                    "{name}へのアクセスが、{when}1つの観測点（{sensor}）のみで、延べ{sources}の発信元から{accesses}件観測されました（それまでの通常は\
                     全観測点で1日{normal}件）。"
                )
            }
        };
        text += &self.whence(&rise.regions);
        text += &self.place_in_ranking(rise);
        text
    }

    /// Its days, or the first of them when it lasts.
    fn when(&self, rise: &Rise) -> String {
        let days = self.lang().days(rise.first, rise.last);
        let first = self.lang().day(rise.first);
        match (self.lang(), rise.lasts) {
            (Lang::En, true) => format!("from {first}"),
            (Lang::En, false) => days,
            (Lang::Ja, true) => format!("{first}から"),
            (Lang::Ja, false) => format!("{days}に"),
        }
    }

    /// From how many regions, and the first of them.
    fn whence(&self, regions: &[(Country, u64)]) -> String {
        let known: Vec<&(Country, u64)> = regions.iter().filter(|(country, _)| is_country(country)).collect();
        let whole: u64 = regions.iter().map(|(_, amount)| amount).sum();
        let Some((country, amount)) = known.first() else { return String::new() };
        let (count, name) = (known.len(), self.lang().country(*country));
        let percent = words::percent(*amount, whole).unwrap_or(0);
        let text = match self.lang() {
            Lang::En if count == 1 => format!("They came from {name}."),
            Lang::En => format!("They came from {count} regions, {percent}% from {name}."),
            Lang::Ja if count == 1 => format!("発信元地域は{name}でした。"),
            Lang::Ja => format!("発信元は{count}の地域にわたり、最も多い{name}が{percent}%を占めました。"),
        };
        format!("{}{text}", self.lang().gap())
    }

    /// The port's place in the ranking, when it was further below in the period before.
    fn place_in_ranking(&self, rise: &Rise) -> String {
        let Some(rank) = rise.rank.filter(|rank| *rank <= RANKED) else { return String::new() };
        let before = events::ranking(&self.data.last().ports).iter().position(|slot| *slot == rise.port);
        if self.data.last().observed() == 0 || before.is_some_and(|at| at < RANKED) {
            return String::new();
        }
        let text = match self.lang() {
            Lang::En => format!("It is new in the ranking, at place {rank}."),
            Lang::Ja => format!("順位は新たに{rank}位となりました。"),
        };
        format!("{}{text}", self.lang().gap())
    }
}
