//! The sensors themselves: what could be mistaken for a trend.

use serde_json::{Value, json};

use super::colors;
use super::common::lists_daily;
use super::panels::{Language, Layout, Order, Panel, Run, by_name};
use super::queries::{
    ACCESSES, CLASSES, HOSTS, LIST_ACCESSES, OBSERVED, OVERFLOW, SENSOR, SERVICE_ACCESSES, SERVICE_SOURCES,
    SOURCES, TO, all_sized, by_sensor_daily, named,
};
use super::site::Site;

/// Why a sensor is blind, in the order in which one hides another; the colour says how it differs from
/// what was configured (orange) or from what the line gives (red).
const REASONS: [(&str, &str, &str, &str); 7] = [
    ("silent", "nothing arrives", "受信なし", "orange"),
    ("unreadable", "unreadable frames", "解釈できないフレーム", "orange"),
    ("wrong_interface", "wrong interface", "経路と異なるインターフェース", "orange"),
    ("no_address", "no address", "アドレスなし", "red"),
    ("no_carrier", "no carrier", "キャリアなし", "red"),
    ("link_down", "link down", "リンクダウン", "red"),
    ("detached", "detached", "プログラム未接続", "red"),
];

/// 0 for a sensor that observes, the place of its reason in [`REASONS`] from 1 on for one that is blind, and
/// one more for one that does not say why it is not up.
fn state(raw: impl Fn(&str) -> String) -> String {
    let reasons: Vec<String> = REASONS
        .iter()
        .enumerate()
        .map(|(index, (reason, ..))| {
            let blind = raw("teiten_blind").replacen('}', &format!(",reason=\"{reason}\"}}"), 1);
            format!("{} * ({blind} == 1)", index + 1)
        })
        .collect();
    format!(
        "max by (sensor) ({}) or max by (sensor) ({} * ({} == bool 0))",
        reasons.join(" or "),
        REASONS.len() + 1,
        raw("teiten_up")
    )
}

fn reasons(l: Language) -> Value {
    let mut options = json!({});
    for (index, (reason, en, ja, _)) in REASONS.iter().enumerate() {
        options[reason] = json!({ "text": l.t(en, ja), "index": index });
    }
    json!([{ "type": "value", "options": options }])
}

/// Names of classes where they are not English.
fn classes(l: Language) -> Vec<Value> {
    let names: &[(&str, &str)] = match l {
        Language::English => &[],
        Language::Japanese => &[
            ("non_ip", "IP以外"),
            ("malformed", "不正な形式"),
            ("fragment", "後続フラグメント"),
            ("other_destination", "宛先が対象外"),
            ("excluded", "除外した発信元"),
            ("service", "提供サービス"),
            ("solicited", "自ホスト発の通信への応答"),
            ("backscatter", "バックスキャッタ"),
            ("access", "アクセス"),
            ("other", "その他"),
        ],
    };
    names.iter().map(|(class, name)| by_name(class, &[("displayName", json!(name))])).collect()
}

fn states(l: Language) -> Value {
    let mut options = json!({
        "0": { "text": l.t("observing", "観測中"), "color": "green", "index": 0 },
        (REASONS.len() + 1).to_string(): { "text": l.t("not observing", "停止"), "color": "dark-red", "index": REASONS.len() + 1 },
    });
    for (index, (_, en, ja, color)) in REASONS.iter().enumerate() {
        options[(index + 1).to_string()] = json!({ "text": l.t(en, ja), "color": color, "index": index + 1 });
    }
    json!([{ "type": "value", "options": options }])
}

/// As many lines as a reader can distinguish.
const LINES: usize = 10;

/// Lines of the sensors whose `most` is the largest.
fn largest(expression: &str, most: &str) -> String {
    format!("({expression}) and on (sensor) topk({LINES}, {most})")
}

pub(super) fn panels(l: Language, site: &Site) -> Vec<Value> {
    let other = l.t("other", "その他");
    let mut layout = Layout::new();
    let raw = |metric: &str| format!("{metric}{{{},{SENSOR}}}", site.matcher());
    let in_range = |metric: &str| format!("{}[${{__range_s}}s] {TO}", raw(metric));
    layout.row(l.t("Now", "現在の状態"));
    layout.add(
        6,
        10,
        Panel::stat(
            l.t("Sensors observing", "観測中の観測点"),
            l.t("Sensors that count and can see their line.", "計数しており、回線が見えている観測点の数。"),
            // Zero too when no sensor can be reached.
            &format!(
                "sum(max by (sensor) ({}) unless on (sensor) {} == 1) or vector(0)",
                raw("teiten_up"),
                raw("teiten_blind")
            ),
        )
        .now()
        .thresholds(&[(Value::Null, "red"), (json!(1), "green")]),
    );
    layout.add(18, 10, Panel::new("state-timeline", l.t("Observing", "観測状態"), l.t("Whether the sensor can see its line, and if not, why. Gaps are scrapes that failed.", "回線が見えているか、見えない場合はその理由。途切れは収集の失敗を示す。"))
        .query(Run::Range, &state(raw), "{{sensor}}")
        .defaults(json!({ "mappings": states(l) }))
        .thresholds(&[(Value::Null, "green"), (json!(1), "red")])
        .options(json!({ "mergeValues": true, "showValue": "never", "alignValue": "left", "rowHeight": 0.8, "perPage": 20,
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] }, "tooltip": { "mode": "single", "sort": "none" } })));
    layout.add(24, 6, Panel::table(l.t("Blind time by reason", "見えなかった時間（理由別）"), l.t("How long each sensor could not see its line during the time range.", "期間中に各観測点の回線が見えなかった時間。"))
        .query(Run::Table, &format!("sum by (sensor, reason) (count_over_time(({} == 1)[${{__range_s}}s:5m])) * 300", raw("teiten_blind")), "")
        .transform("organize", json!({
            "excludeByName": { "Time": true },
            "indexByName": { "sensor": 0, "reason": 1, "Value": 2 },
            "renameByName": { "sensor": l.t("Sensor", "観測点"), "reason": l.t("Reason", "理由"), "Value": l.t("Time", "時間") },
        }))
        .overrides([
            by_name(l.t("Time", "時間"), &[("unit", json!("dthms"))]),
            by_name(l.t("Reason", "理由"), &[("mappings", reasons(l))]),
        ]));
    layout.add(24, 12, Panel::table(l.t("Versions and settings", "バージョンと設定"), l.t("What runs on each sensor.", "各観測点の構成。"))
        .query(Run::Table, &format!("max by (sensor, version, revision) ({})", raw("teiten_build_info")), "")
        .query(Run::Table, &format!("max by (sensor, timezone, interface, xdp_mode) ({})", raw("teiten_sensor_info")), "")
        .query(Run::Table, &format!("sum by (sensor) ({})", raw("teiten_monitored_addresses")), "")
        .merged("sensor", Order::Rising)
        .transform("organize", json!({
            "excludeByName": { "Time": true, "Value #A": true, "Value #B": true },
            "indexByName": { "sensor": 0, "version": 1, "revision": 2, "interface": 3, "xdp_mode": 4, "timezone": 5, "Value #C": 6 },
            "renameByName": { "sensor": l.t("Sensor", "観測点"), "version": l.t("Version", "バージョン"), "revision": l.t("Revision", "リビジョン"), "interface": l.t("Interface", "インターフェース"), "xdp_mode": "XDP", "timezone": l.t("Time zone", "タイムゾーン"), "Value #C": l.t("Monitored addresses", "観測アドレス数") },
        })));
    layout.row(l.t("Coverage: what could be mistaken for a trend", "観測範囲：傾向と誤認し得るもの"));
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Observed share of each day", "各日の観測率"),
            l.t(
                "Time during which the sensor could see its line, of 24 hours; finished days only, and the ten sensors that \
                 observed least. A day of 23 hours has 96 %.",
                "24時間のうち回線が見えていた時間の割合。終了した日のみ、観測時間の最も短い10観測点。23時間の日は96%となる。",
            ),
        )
        .query(
            Run::Daily,
            &largest(
                &format!("clamp_max({} / 86400, 1)", OBSERVED.finished_daily("sensor", "")),
                &format!("-{}", OBSERVED.total("sensor", "")),
            ),
            "{{sensor}}",
        )
        .defaults(json!({ "custom": { "lineInterpolation": "stepAfter", "axisSoftMax": 1 } }))
        .share(),
    );
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Monitored addresses", "観測アドレス数"),
            l.t(
                "Size of the observed space, of the ten sensors on which it changed most; a change is no trend of the Internet.",
                "観測対象のアドレス数（変化の大きい10観測点）。この変化は傾向ではない。",
            ),
        )
        .query(
            Run::Range,
            &largest(
                &format!("sum by (sensor, family) ({})", raw("teiten_monitored_addresses")),
                &format!(
                    "max by (sensor) (max_over_time({addresses}) - min_over_time({addresses}))",
                    addresses = in_range("teiten_monitored_addresses")
                ),
            ),
            "{{sensor}} {{family}}",
        ),
    );
    layout.add(
        12,
        8,
        Panel::daily_bars(
            l.t("Accesses by sensor, daily", "観測点別アクセス数（日別）"),
            l.t("A sensor that is missing shows here as a gap.", "観測点の欠測はここに現れる。"),
            &by_sensor_daily(ACCESSES, "", other),
            "{{name}}",
        )
        .colored([colors::other(other)]),
    );
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Cumulative sources and unique hosts, daily", "延べ発信元数とユニークホスト数（日別）"),
            l.t(
                "Two different numbers: a source counts once for each port, a host once for a day.",
                "別の数値である。発信元はポートごと、ホストは1日に1回数える。",
            ),
        )
        .defaults(json!({ "custom": { "lineInterpolation": "stepAfter" } }))
        .query(Run::Daily, &SOURCES.daily("", ""), l.t("Cumulative sources", "延べ発信元数"))
        .query(Run::Daily, &HOSTS.daily("", ""), l.t("Unique hosts", "ユニークホスト数")),
    );
    layout.add(
        12,
        8,
        lists_daily(
            l,
            l.t("Accesses by source list, daily", "発信元リスト別アクセス数（日別）"),
            l.t(
                "A list that a sensor lacks, or that has changed, is no trend.",
                "観測点にないリストや、リストの変更による変化は傾向ではない。",
            ),
            (ACCESSES, LIST_ACCESSES),
            "",
        ),
    );
    layout.add(12, 8, Panel::table(l.t("Source lists in use", "使用中の発信元リスト"), l.t("How many addresses and prefixes each list has, and when its file was changed.", "各リストのアドレスとプレフィックスの数と、ファイルの更新からの経過日数。"))
        .query(Run::Table, &format!("max by (sensor, list) ({})", raw("teiten_source_list_prefixes")), "")
        .query(Run::Table, &format!("floor((time() - max by (sensor, list) ({})) / 86400)", raw("teiten_source_list_modified_timestamp_seconds")), "")
        .now()
        .merged("sensor", Order::Rising)
        .transform("organize", json!({
            "excludeByName": { "Time": true },
            "indexByName": { "sensor": 0, "list": 1, "Value #A": 2, "Value #B": 3 },
            "renameByName": { "sensor": l.t("Sensor", "観測点"), "list": l.t("List", "リスト"), "Value #A": l.t("Prefixes", "プレフィックス数"), "Value #B": l.t("Age in days", "経過日数") },
        }))
        .empty(l.t("No source lists (--source-list)", "発信元リストなし（--source-list）")));
    layout.row(l.t("Services that sensors really offer", "観測点が実際に提供するサービス"));
    let services = "sensor, transport, port";
    layout.add(
        12,
        8,
        Panel::daily_bars(
            l.t("Accesses to services, daily", "サービスへのアクセス数（日別）"),
            l.t(
                "Such as 22/tcp for maintenance (--service); they are in no other figure.",
                "メンテナンス用の22/tcpなど（--service）。他の図には含まれない。",
            ),
            &named(&all_sized(
                &SERVICE_ACCESSES.daily(services, ""),
                &SERVICE_ACCESSES.total(services, ""),
                services,
                None,
            )),
            "{{sensor}} {{name}}",
        )
        .empty(l.t(
            "No data in this range; services are declared by --service",
            "この期間のデータなし（提供サービスは --service で宣言）",
        )),
    );
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Accesses per source of services, daily", "サービスの発信元1か所あたりのアクセス数（日別）"),
            l.t(
                "From 100 on, with 1,000 accesses and three times the usual, passwords are being guessed: \
                 TeitenServiceBruteForce.",
                "100以上で、アクセス数が1,000以上かつ通常の3倍以上なら、パスワードの総当たり攻撃とみられる（TeitenServiceBruteForce）。",
            ),
        )
        .query(
            Run::Daily,
            &named(&format!(
                "{} / ({} > 0)",
                SERVICE_ACCESSES.daily(services, ""),
                SERVICE_SOURCES.daily(services, "")
            )),
            "{{sensor}} {{name}}",
        )
        .empty(l.t("No data in this range; services are declared by --service", "この期間のデータなし（提供サービスは --service で宣言）"))
        .unit("locale", 1)
        .defaults(json!({ "custom": { "lineInterpolation": "stepAfter" } })),
    );
    layout.row(l.t("Packets, loss and drain", "パケットと損失、集計"));
    layout.add(
        12,
        8,
        Panel::daily_bars(
            l.t("Packets by class, daily", "種別ごとのパケット数（日別）"),
            l.t("Every packet that the program saw, once.", "プログラムが見た全パケットの分類。"),
            &all_sized(&CLASSES.daily("class", ""), &CLASSES.total("class", ""), "class", None),
            "{{class}}",
        )
        .overrides(classes(l)),
    );
    layout.add(
        12,
        8,
        Panel::daily_bars(
            l.t("Sources not kept, daily", "記録できなかった発信元（日別）"),
            l.t(
                "Accesses counted by port whose source found no room; 0 is normal.",
                "ポート別には数えたが発信元を記録できなかったアクセス。通常は0。",
            ),
            &by_sensor_daily(OVERFLOW, "", other),
            "{{name}}",
        )
        .colored([colors::other(other)]),
    );
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Drain duration, 99th percentile", "集計時間（99パーセンタイル）"),
            l.t(
                "From the swap of the maps to the commit of the ledger; the ten slowest sensors.",
                "マップの切り替えから台帳への書き込みまでの時間（最も遅い10観測点）。",
            ),
        )
        .query(
            Run::Range,
            &largest(
                &format!(
                    "histogram_quantile(0.99, sum by (sensor, le) (rate({}[$__rate_interval])))",
                    raw("teiten_drain_duration_seconds_bucket")
                ),
                &format!(
                    "histogram_quantile(0.99, sum by (sensor, le) (rate({})))",
                    in_range("teiten_drain_duration_seconds_bucket")
                ),
            ),
            "{{sensor}}",
        )
        .seconds(),
    );
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Age of the last drain", "最後の集計からの経過時間"),
            l.t(
                "The ten sensors on which it was largest. Falls below 0 when the sensor's clock is ahead.",
                "最も長かった10観測点。観測点の時計が進んでいると負になる。",
            ),
        )
        .query(
            Run::Range,
            &largest(
                &format!("time() - max by (sensor) ({})", raw("teiten_last_drain_timestamp_seconds")),
                &format!(
                    "max_over_time(abs(time() - max by (sensor) ({}))[${{__range_s}}s:5m] {TO})",
                    raw("teiten_last_drain_timestamp_seconds")
                ),
            ),
            "{{sensor}}",
        )
        .seconds(),
    );
    layout.add(12, 8, Panel::new("bargauge", l.t("Age of the GeoIP database", "GeoIPデータベースの経過日数"), l.t("The twelve oldest. Regions drift as address blocks change hands.", "古い順に12観測点。アドレスの移転により地域の判定は徐々にずれる。"))
        .query(Run::Instant, &format!("sort_desc(topk(12, floor((time() - max by (sensor) ({})) / 86400)))", raw("teiten_geoip_build_timestamp_seconds")), "{{sensor}}").unit(l.t("suffix: days", "suffix:日"), 0)
        .now()
        .defaults(json!({ "min": 0 }))
        .thresholds(&[(Value::Null, "green"), (json!(90), "orange")])
        .options(json!({ "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto", "showUnfilled": true, "sizing": "auto",
            "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300,
            "reduceOptions": { "values": false, "calcs": ["lastNotNull"], "fields": "" },
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": [] } })));
    layout.add(
        12,
        8,
        Panel::lines(
            l.t("Scrape duration", "収集時間"),
            l.t(
                "How long Prometheus waits for each sensor; the ten slowest.",
                "Prometheusによる各観測点の収集にかかる時間（最も遅い10観測点）。",
            ),
        )
        .query(
            Run::Range,
            &largest(
                &format!("max by (sensor) ({})", raw("scrape_duration_seconds")),
                &format!(
                    "max by (sensor) (quantile_over_time(0.95, {}))",
                    in_range("scrape_duration_seconds")
                ),
            ),
            "{{sensor}}",
        )
        .seconds(),
    );
    layout.panels(l)
}
