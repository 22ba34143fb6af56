//! The last tables: what is ranked, and what the ports are.

use super::{RANKED, Writer};
use crate::document::Column;
use crate::events;
use crate::notes::Place;
use crate::words::{self, Lang, number};
use sensor_common::Slot;
use sensor_counters::{PortLabel, Tally};

impl Writer<'_> {
    /// Section 5: ranks, and the busiest ports of each sensor.
    pub(super) fn rankings(&mut self) {
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
    pub(super) fn explanations(&mut self) {
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
