//! The page on how it was observed.

use super::{Source, Writer};
use crate::document::{Block, Column};
use crate::notes::Place;
use crate::period::Unit;
use crate::words::{self, Lang, number};
use jiff::ToSpan as _;
use jiff::civil::Date;

/// Unobserved parts of a day that are named: a hundredth of it.
const GAP: f64 = 0.01;

impl Writer<'_> {
    pub(super) fn observation(&mut self, source: &Source) {
        self.heading("How it was observed", "観測の方法");
        self.sensors();
        self.coverage();
        if self.data.own().observed() > 0 {
            self.loss();
        }
        self.definitions();
        self.made_from(source);
        self.place(&Place::Observation);
    }

    fn sensors(&mut self) {
        let data = self.data;
        let rows = data
            .sensors
            .iter()
            .enumerate()
            .map(|(index, sensor)| {
                let zone =
                    sensor.timezone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("–").to_owned();
                let days = data.own().observed[index] as f64 / 86_400e9;
                let addresses = sensor.addresses.map_or_else(
                    || "–".to_owned(),
                    |[v4, v6]| match (v4, v6) {
                        (v4, 0) => format!("IPv4 {}", number(v4)),
                        (0, v6) => format!("IPv6 {}", number(v6)),
                        (v4, v6) => format!("IPv4 {}, IPv6 {}", number(v4), number(v6)),
                    },
                );
                let or_dash = |text: String| if text.is_empty() { "–".to_owned() } else { text };
                let built: Vec<String> = sensor.geoip.iter().map(ToString::to_string).collect();
                vec![
                    sensor.name.clone(),
                    zone,
                    format!("{days:.2}"),
                    or_dash(self.gaps(index)),
                    addresses,
                    or_dash(sensor.versions.join(", ")),
                    or_dash(built.join(", ")),
                ]
            })
            .collect();
        let columns = vec![
            Column::text(self.t("Sensor", "観測点")),
            Column::text(self.t("Time zone", "タイムゾーン")),
            Column::number(self.t("Observed days", "観測日数")),
            Column::text(self.t("Not observed", "観測していない時間")),
            Column::text(self.t("Addresses", "アドレス数")),
            Column::text(self.t("Program", "プログラムの版")),
            Column::text(self.t("Country database", "国データベースの作成日")),
        ];
        let caption = self.t("Sensors in this period", "当期間の観測点").to_owned();
        self.table("observation", &caption, columns, rows);
    }

    /// What of the finished days a sensor did not observe: `5 to 9 July; 3.2 h on 12 July`.
    fn gaps(&self, sensor: usize) -> String {
        let data = self.data;
        let mut parts: Vec<String> = Vec::new();
        let mut run: Option<(Date, Date)> = None;
        let flush = |run: &mut Option<(Date, Date)>, parts: &mut Vec<String>| {
            if let Some((first, last)) = run.take() {
                parts.push(self.lang().days(first, last));
            }
        };
        for (at, day) in data.dates().into_iter().enumerate() {
            if day > *data.days.end() {
                break;
            }
            let length = data.length(sensor, day) as f64;
            let observed = data.observed[sensor][data.offset + at] as f64 / 1e9;
            if observed <= 0.0 {
                run = Some(run.map_or((day, day), |(first, _)| (first, day)));
                continue;
            }
            flush(&mut run, &mut parts);
            if observed < length * (1.0 - GAP) {
                let hours = (length - observed) / 3600.0;
                let day = self.lang().day(day);
                parts.push(match self.lang() {
                    Lang::En => format!("{hours:.1} h on {day}"),
                    Lang::Ja => format!("{day}に{hours:.1}時間"),
                });
            }
        }
        flush(&mut run, &mut parts);
        // A long list tells less than its sum.
        if parts.len() > 6 {
            let rest = parts.split_off(5).len();
            parts.push(match self.lang() {
                Lang::En => format!("and on {rest} more days"),
                Lang::Ja => format!("ほか{rest}日"),
            });
        }
        parts.join(self.t("; ", "、"))
    }

    /// The six periods: how much was observed in each, and which sensors came and went.
    fn coverage(&mut self) {
        let data = self.data;
        let today = self.manner.today;
        let rows = data
            .sums
            .iter()
            .map(|sums| {
                let days = sums.observed() as f64 / 86_400e9;
                let calendar = (sums.period.last().min(today - 1.day()) - sums.period.first).get_days() + 1;
                vec![
                    self.lang().tick(sums.period),
                    sums.sensors().to_string(),
                    calendar.max(0).to_string(),
                    format!("{days:.2}"),
                    number(sums.total.accesses),
                    number(sums.total.sources),
                    sums.per_sensor_day(sums.total.accesses).map_or_else(|| "–".to_owned(), number),
                    sums.per_sensor_day(sums.total.sources).map_or_else(|| "–".to_owned(), number),
                ]
            })
            .collect();
        let columns = vec![
            Column::text(self.period_word()),
            Column::number(self.t("Sensors", "観測点数")),
            Column::number(self.t("Days", "日数")),
            Column::number(self.t("Observed days, all sensors", "全観測点の観測日数")),
            Column::number(self.accesses()),
            Column::number(self.sources()),
            Column::number(self.t("Accesses per sensor and day", "1観測点・1日あたりのアクセス数")),
            Column::number(self.t("Sources per sensor and day", "1観測点・1日あたりの発信元数")),
        ];
        let caption = match self.data.period.unit {
            Unit::Month => self.t("Six months of observation", "6か月の観測"),
            Unit::Quarter => self.t("Six quarters of observation", "6四半期の観測"),
            Unit::Year => self.t("Six years of observation", "6年の観測"),
        }
        .to_owned();
        self.table("periods", &caption, columns, rows);
        let mut changes = Vec::new();
        for pair in data.sums.windows(2) {
            let [before, after] = pair else { continue };
            let names = |came: bool| -> Vec<String> {
                data.sensors
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| {
                        let (was, is) = (before.observed[*at] > 0, after.observed[*at] > 0);
                        if came { is && !was } else { was && !is }
                    })
                    .map(|(_, sensor)| sensor.name.clone())
                    .collect()
            };
            let tick = self.lang().tick(after.period);
            for came in [true, false] {
                let names = names(came);
                // Before the first observation at all there is no change.
                if names.is_empty() || (came && before.observed() == 0) {
                    continue;
                }
                let names = self.lang().list(&names);
                changes.push(match (self.lang(), came) {
                    (Lang::En, true) => {
                        format!("{tick}: also observed by {names}, not in the period before.")
                    }
                    (Lang::En, false) => format!("{tick}: not observed by {names}, as in the period before."),
                    (Lang::Ja, true) => format!("{tick}から{names}が加わった。"),
                    (Lang::Ja, false) => format!("{tick}は{names}による観測がない。"),
                });
            }
        }
        for sensor in &data.sensors {
            if sensor.versions.len() > 1 {
                let versions = sensor.versions.join(", ");
                changes.push(match self.lang() {
                    Lang::En => format!("{} ran several versions of the program: {versions}.", sensor.name),
                    Lang::Ja => format!("{}ではプログラムの版が変わった（{versions}）。", sensor.name),
                });
            }
        }
        if !changes.is_empty() {
            self.blocks.push(Block::Items(changes));
            return;
        }
        let observed = data.sums.iter().filter(|sums| sums.observed() > 0).count();
        if observed == data.sums.len() {
            self.paragraph(self.t(
                "The same sensors observed in all of these periods.",
                "これらの期間を通じて、観測点に変更はない。",
            ));
        } else if observed > 1 {
            self.paragraph(self.t(
                "The same sensors observed in all of these periods that have observations.",
                "観測のある期間を通じて、観測点に変更はない。",
            ));
        }
    }

    /// What was lost, and whether every access is in a region.
    fn loss(&mut self) {
        let data = self.data;
        let regions: u64 = data.own().countries.values().map(|tally| tally.accesses).sum();
        let total = data.own().total.accesses;
        let mut text = if data.overflow == 0 && regions == total {
            self.t(
                "The source of every access was kept, so regions add up to all accesses.",
                "すべてのアクセスの発信元が記録されており、発信元地域別の合計はアクセス総数に等しい。",
            )
            .to_owned()
        } else {
            let missing = number(total.saturating_sub(regions));
            match self.lang() {
                Lang::En => format!(
                    "{missing} of {} accesses are in no region, because their source could not be kept.",
                    number(total)
                ),
                Lang::Ja => format!(
                    "アクセス総数{}件のうち{missing}件は発信元を記録できず、発信元地域別の図に含まれない。",
                    number(total)
                ),
            }
        };
        if data.set_overflow > 0 {
            let count = number(data.set_overflow);
            text += self.lang().gap();
            text += &match self.lang() {
                Lang::En => format!(
                    "{count} sources came when the day's sets were full: their accesses are counted, they themselves are not."
                ),
                Lang::Ja => format!(
                    "1日の発信元の集合が満杯であったため、{count}の発信元は延べ発信元数に含まれない（アクセス数には含まれる）。"
                ),
            };
        }
        self.paragraph(text);
        let packets: u64 = data.packets.values().sum();
        if packets > 0 {
            let mut classes: Vec<_> = data.packets.iter().filter(|(_, amount)| **amount > 0).collect();
            classes.sort_by_key(|(class, amount)| (std::cmp::Reverse(**amount), class.name()));
            let rows = classes
                .into_iter()
                .map(|(class, amount)| {
                    let percent = words::percent(*amount, packets).unwrap_or(0);
                    vec![class.name().to_owned(), number(*amount), format!("{percent}%")]
                })
                .collect();
            let columns = vec![
                Column::text(self.t("Class", "分類")),
                Column::number(self.t("Packets", "パケット数")),
                Column::number(self.t("Percent", "比率")),
            ];
            let caption = self
                .t("All packets that the sensors saw, by class", "観測点が受信した全パケットの分類")
                .to_owned();
            self.table("classes", &caption, columns, rows);
        }
    }

    fn definitions(&mut self) {
        let hosts = number(self.data.hosts);
        let items = [
            self.t(
                "Access: one unsolicited packet that tries to start something: a TCP segment with neither ACK nor RST, a \
                 UDP datagram that answers nothing that the host sent, or an ICMP request.",
                "アクセス：何かを始めようとする、期待しない（一方的な）1パケット。ACKもRSTもないTCPセグメント、ホストの送信に対する応答ではない\
                 UDPデータグラム、ICMPの要求。",
            )
            .to_owned(),
            self.t(
                "Cumulative sources: source addresses, each once for an observation day, sensor and port, added up.",
                "延べ発信元数：発信元アドレスを、観測日・観測点・ポートごとに1として合計した数。",
            )
            .to_owned(),
            match self.lang() {
                Lang::En => format!(
                    "Unique hosts: source addresses, each once for an observation day and sensor, whatever the port: {hosts} \
                     in this period. Another number than cumulative sources."
                ),
                Lang::Ja => format!(
                    "ユニークホスト数：発信元アドレスを、ポートによらず観測日・観測点ごとに1として合計した数。当期間は{hosts}。延べ発信元数とは異なる。"
                ),
            },
            self.t(
                "Per sensor and day: a total divided by the observed time of all sensors in days of 86,400 seconds, rounded \
                 half up. A sensor that was missing does not lower it.",
                "1観測点・1日あたり：合計を、全観測点の観測時間を86,400秒を1日として数えた日数で割り、四捨五入した数。欠測は平均を下げない。",
            )
            .to_owned(),
            self.t(
                "Region: the country of the source address by a country database. It says where an address is registered \
                 or used, not who sent the packet.",
                "発信元地域：国データベースによる発信元アドレスの国。アドレスの登録・利用地域であり、送信者を示すものではない。",
            )
            .to_owned(),
            self.t(
                "Observation day and hour: local time of each sensor.",
                "観測日・時間帯：各観測点の現地時刻による。",
            )
            .to_owned(),
            self.t(
                "What happened is found by the rules of the alerts on daily data: a port's days are compared with the \
                 median of the 28 days before on the same sensor.",
                "特徴的な変化は、警報と同じ規則を日ごとのデータに適用して検出した。各ポートの1日を、同じ観測点の直前28日間の中央値と比較する。",
            )
            .to_owned(),
        ];
        self.subheading(self.t("What the numbers are", "数値の定義"));
        self.blocks.push(Block::Items(items.to_vec()));
    }

    fn made_from(&mut self, source: &Source) {
        let mut items = vec![match self.lang() {
            Lang::En => format!("Made from {}.", source.origin.of(Lang::En)),
            Lang::Ja => format!("作成元：{}。", source.origin.of(Lang::Ja)),
        }];
        items.extend(source.limits.iter().map(|limit| limit.of(self.lang()).to_owned()));
        let (version, today) = (env!("CARGO_PKG_VERSION"), self.manner.today);
        items.push(match self.lang() {
            Lang::En => format!("Written by teiten-report {version} with the days before {today}."),
            Lang::Ja => format!("teiten-report {version}により、{today}より前の日について作成。"),
        });
        self.subheading(self.t("How this report was made", "本報告の作成"));
        self.blocks.push(Block::Items(items));
    }
}
