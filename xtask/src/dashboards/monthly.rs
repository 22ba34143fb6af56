//! The monthly report: every figure of the reports, in their order.

use serde_json::{Value, json};

use super::colors;
use super::common::{
    COUNTRIES, PORTS, bars_and_line, by_country_daily, by_port_daily, explanation_table, lists_daily,
    no_data_by_list, regions,
};
use super::panels::{Language, Layout, Order, Panel, Run, by_name, label_variable};
use super::queries::{
    self, ACCESSES, COUNTRY_ACCESSES, COUNTRY_SOURCES, Counter, GROUP_ACCESSES, LIST_ACCESSES, PORT,
    PORT_ACCESSES, PORT_COUNTRY_ACCESSES, PORT_HOUR_ACCESSES, PORT_LIST_ACCESSES, PORT_SOURCES,
    SERVICE_ACCESSES, SOURCES, country, named, top_countries, top_ports, top_sorted,
};

pub(super) fn variables(l: Language) -> Vec<Value> {
    vec![
        label_variable(
            "transport",
            l.t("Featured transport", "注目ポートの種別"),
            r#"teiten_accesses_total{sensor=~"$sensor"}, transport"#,
            false,
            "udp",
        ),
        label_variable(
            "port",
            l.t("Featured port", "注目ポート"),
            r#"teiten_port_country_accesses_total{sensor=~"$sensor",transport="$transport"}, port"#,
            false,
            "5060",
        ),
        label_variable(
            "group",
            l.t("Port group", "ポートグループ"),
            r#"teiten_group_accesses_total{sensor=~"$sensor"}, group"#,
            false,
            "messenger",
        ),
    ]
}

pub(super) fn panels(l: Language) -> Vec<Value> {
    let other = l.t("other", "その他");
    let mut layout = Layout::new();
    overview(l, &mut layout);
    this_month(l, other, &mut layout);
    six_months(l, other, &mut layout);
    hours_and_regions(l, other, &mut layout);
    explanations(l, &mut layout);
    layout.panels(l)
}

fn overview(l: Language, layout: &mut Layout) {
    layout.row(
        l.t("1. What every connected computer is exposed to", "1. 一般のインターネット利用者の皆さんへ"),
    );
    let accesses = ACCESSES.total("", "");
    let sources = SOURCES.total("", "");
    layout.add(
        4,
        4,
        Panel::stat(
            l.t("Accesses", "アクセス総数"),
            l.t(
                "Unsolicited accesses on the finished days of the range, all chosen sensors.",
                "期間内の終了した日の、期待しない（一方的な）アクセスの総数（選択した全観測点）。",
            ),
            &accesses,
        ),
    );
    layout.add(
        4,
        4,
        Panel::stat(
            l.t("Accesses without lists", "リスト外のアクセス数"),
            l.t(
                "The same without sources that a source list (--source-list) holds, such as research scanners; all accesses \
                 where there are no lists.",
                "発信元リスト（--source-list。調査目的のスキャナなど）にある発信元を除いたアクセス数。リストがない場合は総数と同じ。",
            ),
            &queries::unlisted(&accesses, &LIST_ACCESSES.total("", queries::LISTED), ""),
        ),
    );
    layout.add(4, 4, Panel::stat(
        l.t("Cumulative sources", "延べ発信元数"),
        l.t("Sources of all sensors added up; the same source counts once for a day, sensor and port.", "各観測点にアクセスしてきた発信元の単純な合計。同一発信元から同一の観測日・観測点・ポートへの複数のアクセスは1とする。"),
        &sources,
    ));
    layout.add(
        4,
        4,
        Panel::stat(
            l.t("Accesses per sensor and day", "1観測点・1日あたりのアクセス数"),
            l.t(
                "Accesses divided by the days that the sensors observed, rounded half up.",
                "アクセス総数を各観測点の観測日数の合計で割り、四捨五入した値。",
            ),
            &queries::per_sensor_day(ACCESSES),
        ),
    );
    layout.add(
        4,
        4,
        Panel::stat(
            l.t("Sources per sensor and day", "1観測点・1日あたりの発信元数"),
            l.t(
                "Cumulative sources divided by the days that the sensors observed, rounded half up.",
                "延べ発信元数を各観測点の観測日数の合計で割り、四捨五入した値。",
            ),
            &queries::per_sensor_day(SOURCES),
        ),
    );
    layout.add(
        4,
        4,
        Panel::stat(
            l.t("Accesses per source", "発信元1か所あたりのアクセス数"),
            l.t("Accesses divided by cumulative sources.", "アクセス総数を延べ発信元数で割った値。"),
            &format!("{accesses} / {sources}"),
        )
        .unit("locale", 1),
    );

    layout.add(12, 9, accesses_and_sources_by_month(l));
    let (this, last) = (l.t("this month", "今月"), l.t("last month", "先月"));
    let top = top_ports(PORT_ACCESSES, 15);
    let period = |expression: &str, name: &str| {
        format!(r#"label_replace({expression} and on ({PORT}) {top}, "period", "{name}", "", "")"#)
    };
    layout.add(
        12,
        9,
        Panel::bars(
            l.t(
                "Accesses by port, this month against last month",
                "宛先（ポート種類）別アクセス数の比較（今月と先月）",
            ),
            l.t(
                "The busiest ports of the range, beside the month before it; figure 1-2 of 2010-07.",
                "期間内の上位ポートと、その前月の値。2010年7月の図1-2に相当する。",
            ),
            &named(&format!(
                "{} or {}",
                period(&PORT_ACCESSES.total(PORT, ""), this),
                period(&PORT_ACCESSES.last_month(PORT), last)
            )),
            ("name", "period"),
            "none",
        )
        .transform("sortBy", json!({ "sort": [{ "field": this, "desc": true }] }))
        .transform("organize", json!({ "excludeByName": {}, "indexByName": { "name\\period": 0, last: 1, this: 2 }, "renameByName": {} }))
        .overrides([
            by_name(last, &[("color", json!({ "mode": "fixed", "fixedColor": "#aec7e8" }))]),
            by_name(this, &[("color", json!({ "mode": "fixed", "fixedColor": "#1f77b4" }))]),
        ])
        .options(json!({ "xTickLabelRotation": -45 })),
    );

    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("$port/$transport by region", "$port/$transport 発信元地域別アクセス数の変化"),
            l.t(
                "One port by region of the source; figure 1-3 of 2010-07.",
                "1つのポートへのアクセスの発信元地域別の変化。2010年7月の図1-3に相当する。",
            ),
            &by_country_daily(
                PORT_COUNTRY_ACCESSES,
                r#"transport="$transport",port="$port""#,
                l.t("other", "その他"),
            ),
            "{{name}}",
        )
        .empty(l.t(
            "No data by region in this range; feature ports have it (--feature)",
            "この期間の地域別データなし（--feature のポートにある）",
        ))
        .colored(regions(l)),
    );
    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("Port group $group by region", "ポートグループ $group の発信元地域別アクセス数の変化"),
            l.t(
                "One port group by region of the source; figure 2.4.1 of 2005-11.",
                "1つのポートグループへのアクセスの発信元地域別の変化。2005年11月の図2.4.1に相当する。",
            ),
            &by_country_daily(GROUP_ACCESSES, r#"group="$group""#, l.t("other", "その他")),
            "{{name}}",
        )
        .empty(l.t(
            "No data of this group in this range; groups are declared by --port-group",
            "この期間のデータなし（ポートグループは --port-group で宣言）",
        ))
        .colored(regions(l)),
    );
}

/// Bars and a line over the months. Their axis is a number with a name for each month, since a time
/// series would be cut to the one month that is chosen.
fn accesses_and_sources_by_month(l: Language) -> Panel {
    let (accesses, sources, month) =
        (l.t("Accesses", "アクセス数"), l.t("Sources", "発信元数"), l.t("Month", "月"));
    let names: serde_json::Map<_, _> = (MONTHS.0 * 12..(MONTHS.1 + 1) * 12)
        .enumerate()
        .map(|(index, number)| {
            let text = format!("{}-{:02}", number / 12, number % 12 + 1);
            (number.to_string(), json!({ "text": text, "index": index }))
        })
        .collect();
    let nameless = json!({ "type": "range", "options": { "from": null, "to": null, "result": { "text": " ", "index": names.len() } } });
    Panel::new(
        "trend",
        l.t(
            "Accesses and sources per sensor and day, six months",
            "1観測点・1日あたりの平均アクセス数と発信元数（6か月）",
        ),
        l.t(
            "The month of the range and the five before it; figure 1 of 2005-11, 1-1 of 2010-07.",
            "表示中の月とその前の5か月。2005年11月の図1、2010年7月の図1-1に相当する。",
        ),
    )
    .query(Run::Table, &queries::per_sensor_day_six_months(ACCESSES), "")
    .query(Run::Table, &queries::per_sensor_day_six_months(SOURCES), "")
    .query(Run::Table, &queries::month_numbers(), "")
    .merged("Value #C", Order::Rising)
    .transform(
        "organize",
        json!({
            "excludeByName": { "Time": true, "month": true },
            "indexByName": { "Value #C": 0, "Value #A": 1, "Value #B": 2 },
            "renameByName": { "Value #A": accesses, "Value #B": sources, "Value #C": month },
        }),
    )
    .defaults(json!({ "custom": { "axisSoftMin": 0, "lineWidth": 2, "fillOpacity": 0, "showPoints": "always", "pointSize": 8 } }))
    .options(json!({
        "xField": month,
        "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
        "tooltip": { "mode": "multi", "sort": "none" },
    }))
    .overrides(bars_and_line(accesses, sources, 0))
    .overrides([by_name(month, &[("mappings", json!([{ "type": "value", "options": names }, nameless]))])])
}

/// Years whose months the axis can name.
const MONTHS: (i32, i32) = (2005, 2040);

fn this_month(l: Language, other: &str, layout: &mut Layout) {
    layout.row(l.t("2. The month", "2. 一方的なアクセス状況"));
    let drill = l.t("Show this port", "このポートを見る");
    let port_uid = format!("teiten-port-{}", l.code());
    let port_link = "var-transport=${__field.labels.transport}&var-port=${__field.labels.port}";
    let all_ports = l.t("Show all ports", "全ポートを見る");
    let port_ranking = super::port::ranking(l);
    let region_uid = format!("teiten-region-{}", l.code());
    let region_link = "var-country=${__field.labels.country}";
    for (counter, title, figure) in [
        (
            PORT_ACCESSES,
            l.t("Accesses by port, daily", "1日あたりの宛先（ポート種類）別アクセス数の遷移"),
            l.t(
                "All chosen sensors; figures 2.1.1 of 2005-11 and 2-1 of 2010-07.",
                "選択した全観測点。2005年11月の図2.1.1、2010年7月の図2-1に相当する。",
            ),
        ),
        (
            PORT_SOURCES,
            l.t("Sources by port, daily", "1日あたりの宛先（ポート種類）別発信元数の遷移"),
            l.t(
                "All chosen sensors; figures 2.1.2 of 2005-11 and 2-2 of 2010-07.",
                "選択した全観測点。2005年11月の図2.1.2、2010年7月の図2-2に相当する。",
            ),
        ),
    ] {
        layout.add(
            24,
            10,
            Panel::daily_bars(title, figure, &by_port_daily(counter, "", other), "{{name}}")
                .colored(colors::ports(other))
                .link(drill, &port_uid, port_link)
                .link_of(other, all_ports, &port_uid, &port_ranking),
        );
    }
    for (counter, title, figure) in [
        (PORT_ACCESSES, l.t("Share of accesses by port", "宛先（ポート種類）別アクセス数の比率"), l.t("Of all accesses, in whole percents, rounded half up, so they need not add up to 100; figures 2.2.1 and 4.2.1 of 2005-11, 2-3 of 2010-07.", "全アクセスに占める比率。小数点第一位を四捨五入しているため、合計が100%にならない場合がある。2005年11月の図2.2.1と4.2.1、2010年7月の図2-3に相当する。")),
        (PORT_SOURCES, l.t("Share of sources by port", "宛先（ポート種類）別発信元数の比率"), l.t("Of all cumulative sources, in whole percents, rounded half up; figures 2.2.2 of 2005-11 and 2-4 of 2010-07.", "全ての延べ発信元数に占める比率（四捨五入）。2005年11月の図2.2.2、2010年7月の図2-4に相当する。")),
    ] {
        let expression = top_sorted(&counter.total(PORT, ""), &top_ports(counter, PORTS), PORT, "", &|e| named(e), other);
        layout.add(12, 10, Panel::pie(title, figure, &expression).colored(colors::ports(other)).link(drill, &port_uid, port_link).link_of(other, all_ports, &port_uid, &port_ranking));
    }
    layout.add(11, 13, ranks_against_last_month(l));
    layout.add(13, 13, ranks_by_sensor(l));
    layout.add(
        13,
        13,
        lists_daily(
            l,
            l.t("Accesses by source list, daily", "1日あたりの発信元リスト別アクセス数の遷移"),
            l.t(
                "By the list (--source-list) that holds the source; below, what is left without lists.",
                "発信元を含むリスト（--source-list）別のアクセス数。下段はリスト外の発信元からのアクセス。",
            ),
            (ACCESSES, LIST_ACCESSES),
            "",
        ),
    );
    layout.add(11, 13, ports_without_lists(l));
    let drill = l.t("Show this region", "この地域を見る");
    let all_regions = l.t("Show all regions", "全地域を見る");
    let region_ranking = super::region::ranking(l);
    for (counter, daily, daily_figure, share, share_figure) in [
        (
            COUNTRY_ACCESSES,
            l.t("Accesses by region, daily", "1日あたりの発信元地域別アクセス数の遷移"),
            l.t(
                "All chosen sensors; figures 2.3.1 of 2005-11 and 2-5 of 2010-07.",
                "選択した全観測点。2005年11月の図2.3.1、2010年7月の図2-5に相当する。",
            ),
            l.t("Share of accesses by region", "発信元地域別アクセス数の比率"),
            l.t(
                "Of all accesses, in whole percents, rounded half up; figures 4.2.2 of 2005-11 and 2-6 of 2010-07.",
                "全アクセスに占める比率（四捨五入）。2005年11月の図4.2.2、2010年7月の図2-6に相当する。",
            ),
        ),
        (
            COUNTRY_SOURCES,
            l.t("Sources by region, daily", "1日あたりの発信元地域別発信元数の遷移"),
            l.t(
                "All chosen sensors; figures 2.3.2 of 2005-11 and 2-7 of 2010-07.",
                "選択した全観測点。2005年11月の図2.3.2、2010年7月の図2-7に相当する。",
            ),
            l.t("Share of sources by region", "発信元地域別発信元数の比率"),
            l.t(
                "Of all cumulative sources, in whole percents, rounded half up; figure 2-8 of 2010-07.",
                "全ての延べ発信元数に占める比率（四捨五入）。2010年7月の図2-8に相当する。",
            ),
        ),
    ] {
        layout.add(
            16,
            10,
            Panel::daily_bars(daily, daily_figure, &by_country_daily(counter, "", other), "{{name}}")
                .colored(regions(l))
                .link(drill, &region_uid, region_link)
                .link_of(other, all_regions, &region_uid, &region_ranking),
        );
        let expression = top_sorted(
            &counter.total("country", ""),
            &top_countries(counter, COUNTRIES),
            "country",
            "",
            &country,
            other,
        );
        layout.add(
            8,
            10,
            Panel::pie(share, share_figure, &expression)
                .colored(regions(l))
                .link(drill, &region_uid, region_link)
                .link_of(other, all_regions, &region_uid, &region_ranking),
        );
    }
    layout.add(12, 9, Panel::daily_bars(
        l.t("Excluded services, daily", "観測から除外したサービスへのアクセス数"),
        l.t("Accesses to services that a sensor really offers, such as 22/tcp for maintenance; they are in no other figure. Figure 2.5.1 of 2005-11.", "観測点で実際に動作しているサービス（メンテナンス用の22/tcpなど）へのアクセス。他の図には含まれない。2005年11月の図2.5.1に相当する。"),
        &named(&queries::all_sized(
            &SERVICE_ACCESSES.daily("sensor, transport, port", ""),
            &SERVICE_ACCESSES.total("sensor, transport, port", ""),
            "sensor, transport, port",
            None,
        )),
        "{{sensor}} {{name}}",
    )
    .empty(l.t("No data in this range; services are declared by --service", "この期間のデータなし（提供サービスは --service で宣言）")));
    layout.add(12, 9, Panel::text(
        l.t("What the packets say", "パケットの内容"),
        l.t("Texts of packets; section 2.4 of 2005-11.", "パケットに含まれる文字列。2005年11月の2.4節に相当する。"),
        l.t(
            "Metrics carry no packet contents. The texts that the report quotes for 102x/103x udp are in the ledger of a sensor that runs with `--samples 1026-1039/udp`, for as long as its days are kept. On the sensor's host this shows each content once, with hosts, addresses and long numbers masked as the report does:\n\n```\nteiten samples --port 1026-1039/udp\n```\n\n`teiten replay --samples 1026-1039/udp udp.pcap` shows the same of a capture; docs/samples.md says what is kept. The printed report has a table of them. The messages of 2005 claimed a broken registry and named a site to \"repair\" it (Windows Messenger service, MS03-043).",
            "メトリクスにはパケットの内容は含まれない。報告書が引用する102x/103x udpの本文は、`--samples 1026-1039/udp` を付けて動作する観測点の台帳に、日々の記録と同じ期間だけ保存される。観測点のホストで次を実行すると、内容ごとに1件が、ホスト名、アドレス、長い番号を報告書と同様に伏せて表示される。\n\n```\nteiten samples --port 1026-1039/udp\n```\n\nキャプチャからは `teiten replay --samples 1026-1039/udp udp.pcap` で同じ結果が得られる。保存される内容は docs/samples.md を参照。印刷用の報告書には一覧表が載る。2005年のメッセージは「レジストリが壊れている」と称し、「修復」のためのサイトへ誘導していた（Windows Messengerサービス、MS03-043）。",
        ),
    ));
}

/// How many places a table of ranks has, and to which place the rank of last month is said.
const RANKS: (usize, usize) = (10, 20);

fn ranks_against_last_month(l: Language) -> Panel {
    let amount = |counter: Counter| counter.total(PORT, r#"port!="other""#);
    let accesses = format!("topk({}, {})", RANKS.0, amount(PORT_ACCESSES));
    let of = |expression: &str| named(&format!("(({expression}) and on ({PORT}) {accesses})"));
    let last_month = format!(
        r#"({} unless on (port) label_replace(vector(0), "port", "other", "", ""))"#,
        PORT_ACCESSES.last_month(PORT)
    );
    // What has no amount of last month; nothing where last month has none at all.
    let known = |expression: &str, none: usize| {
        named(&format!(
            "({expression} and on ({PORT}) {accesses} or {accesses} * 0 + {none} and on () sum({last_month}))"
        ))
    };
    let text = json!({ "text": l.t("below 20", "21位以下"), "index": 0 });
    let below = json!([{ "type": "value", "options": { (RANKS.1 + 1).to_string(): text } }]);
    let (this_month, amount_last) =
        (l.t("Accesses", "アクセス数"), l.t("Accesses last month", "先月のアクセス数"));
    let (rank, last, port) =
        (l.t("Rank", "順位"), l.t("Last month", "先月の順位"), l.t("Port", "ポート種類"));
    Panel::table(
        l.t("Ranks of ports, against last month", "宛先（ポート種類）の順位（先月との比較）"),
        l.t(
            "The ten busiest ports of the range, and their ranks by the accesses of the month before it, to the twentieth.",
            "期間内のアクセス数の上位10ポートと、その前月の順位（20位まで）。",
        ),
    )
    .query(Run::Table, &of(&queries::ranks(&amount(PORT_ACCESSES), "", PORT, RANKS.0)), "")
    .query(Run::Table, &known(&queries::ranks(&last_month, "", PORT, RANKS.1), RANKS.1 + 1), "")
    .query(Run::Table, &named(&accesses), "")
    .query(Run::Table, &known(&last_month, 0), "")
    .merged("Value #A", Order::Rising)
    .transform(
        "organize",
        json!({
            "excludeByName": { "Time": true, "transport": true, "port": true },
            "indexByName": { "Value #A": 0, "Value #B": 1, "name": 2, "Value #C": 3, "Value #D": 4 },
            "renameByName": {
                "Value #A": rank, "Value #B": last, "name": port,
                "Value #C": this_month, "Value #D": amount_last,
            },
        }),
    )
    .overrides([
        by_name(rank, &[("custom.width", json!(55))]),
        by_name(last, &[("custom.width", json!(100)), ("mappings", below)]),
        by_name(port, &[("custom.width", json!(95))]),
        by_name(this_month, &[("custom.width", json!(90))]),
        by_name(amount_last, &[("custom.minWidth", json!(165))]),
    ])
}

/// The busiest of the ports that are counted by source list, as they are without sources of lists.
fn ports_without_lists(l: Language) -> Panel {
    let counted = PORT_LIST_ACCESSES.total(PORT, "");
    let whole = format!("({} and on ({PORT}) {counted})", PORT_ACCESSES.total(PORT, ""));
    let without = queries::unlisted(&whole, &PORT_LIST_ACCESSES.total(PORT, queries::LISTED), PORT);
    let top = format!("topk({}, {without})", RANKS.0);
    let all = format!("({whole} and on ({PORT}) {top})");
    let (port, all_accesses) = (l.t("Port", "ポート種類"), l.t("All accesses", "総数"));
    let (unlisted, share) = (l.t("Without lists", "リスト外"), l.t("Share of lists", "リストの比率"));
    Panel::table(
        l.t("The ten busiest ports without lists", "リスト外のアクセス数の上位10ポート"),
        l.t(
            "Feature ports by their accesses from sources that no source list (--source-list) holds, and what part of all \
             their accesses the sources of lists sent.",
            "注目ポートの、発信元リスト（--source-list）にない発信元からのアクセス数の順位と、総数に占めるリストの発信元の比率。",
        ),
    )
    .query(Run::Table, &named(&top), "")
    .query(Run::Table, &named(&all), "")
    .query(Run::Table, &named(&format!("(1 - {top} / ({all} > 0))")), "")
    .merged("Value #A", Order::Falling)
    .transform(
        "organize",
        json!({
            "excludeByName": { "Time": true, "transport": true, "port": true },
            "indexByName": { "name": 0, "Value #A": 1, "Value #B": 2, "Value #C": 3 },
            "renameByName": { "name": port, "Value #A": unlisted, "Value #B": all_accesses, "Value #C": share },
        }),
    )
    .empty(no_data_by_list(l))
    .overrides([by_name(share, &[("unit", json!("percentunit")), ("decimals", json!(0))])])
}

/// The ranks of each sensor's busiest ports, side by side.
fn ranks_by_sensor(l: Language) -> Panel {
    let matchers = r#"port!="other""#;
    let ranks = queries::ranks(
        &PORT_ACCESSES.total("sensor, transport, port", matchers),
        "sensor",
        "sensor, transport, port",
        RANKS.0,
    );
    let port = l.t("Port", "ポート種類");
    Panel::table(
        l.t("The ten busiest ports of each sensor", "観測点別の上位10ポート"),
        l.t(
            "A column is a sensor, a number the port's rank there by accesses; ports are in the order of the accesses of \
             all sensors.",
            "列は観測点、数値はその観測点でのアクセス数の順位。ポートは全観測点のアクセス数の順。",
        ),
    )
    .query(Run::Table, &named(&queries::sized(&format!("({ranks})"), &PORT_ACCESSES.total(PORT, matchers), PORT)), "")
    // Columns and rows are in the order of their first appearance.
    .transform("sortBy", json!({ "sort": [{ "field": "sensor", "desc": false }] }))
    .transform("sortBy", json!({ "sort": [{ "field": "by_size", "desc": false }] }))
    .transform("groupingToMatrix", json!({ "columnField": "sensor", "rowField": "name", "valueField": "Value", "emptyValue": "null" }))
    .transform("organize", json!({ "excludeByName": {}, "indexByName": {}, "renameByName": { "name\\sensor": port } }))
    .defaults(json!({ "custom": { "align": "center", "minWidth": 90 } }))
    .overrides([by_name(port, &[("custom.width", json!(100)), ("custom.align", json!("left"))])])
}

fn six_months(l: Language, other: &str, layout: &mut Layout) {
    layout.row(l.t("3. Six months", "3. 統計情報（6か月）"));
    let sorted = json!({ "sort": [{ "field": "month\\name", "desc": false }] });
    for (counter, whole, title, figure) in [
        (
            PORT_ACCESSES,
            ACCESSES,
            l.t("Share of accesses by port, six months", "宛先（ポート種類）別アクセス数の比率（6か月）"),
            l.t(
                "Of all accesses of each month; figures 3.1.1 of 2005-11 and 3-1 of 2010-07.",
                "各月の全アクセスに占める比率。2005年11月の図3.1.1、2010年7月の図3-1に相当する。",
            ),
        ),
        (
            PORT_SOURCES,
            SOURCES,
            l.t("Share of sources by port, six months", "宛先（ポート種類）別発信元数の比率（6か月）"),
            l.t(
                "Of all cumulative sources of each month; figures 3.1.2 of 2005-11 and 3-2 of 2010-07.",
                "各月の全ての延べ発信元数に占める比率。2005年11月の図3.1.2、2010年7月の図3-2に相当する。",
            ),
        ),
    ] {
        let months = counter.six_months_shares(PORT, whole);
        let rank = format!(
            "topk({PORTS}, {} unless on (port) label_replace(vector(0), \"port\", \"other\", \"\", \"\"))",
            counter.six_months_sum(PORT)
        );
        let expression = top_sorted(&months, &rank, PORT, "month", &|e| named(e), other);
        layout.add(
            12,
            10,
            Panel::bars(title, figure, &expression, ("month", "name"), "normal")
                .shares_of_whole()
                .transform("sortBy", sorted.clone())
                .colored(colors::ports(other)),
        );
    }
    for (counter, whole, title, figure) in [
        (
            COUNTRY_ACCESSES,
            ACCESSES,
            l.t("Share of accesses by region, six months", "発信元地域別アクセス数の比率（6か月）"),
            l.t(
                "Of all accesses of each month; figures 3.2.1 of 2005-11 and 3-3 of 2010-07.",
                "各月の全アクセスに占める比率。2005年11月の図3.2.1、2010年7月の図3-3に相当する。",
            ),
        ),
        (
            COUNTRY_SOURCES,
            SOURCES,
            l.t("Share of sources by region, six months", "発信元地域別発信元数の比率（6か月）"),
            l.t(
                "Of all cumulative sources of each month; figures 3.2.2 of 2005-11 and 3-4 of 2010-07.",
                "各月の全ての延べ発信元数に占める比率。2005年11月の図3.2.2、2010年7月の図3-4に相当する。",
            ),
        ),
    ] {
        let months = counter.six_months_shares("country", whole);
        let rank = format!("topk({COUNTRIES}, {})", counter.six_months_sum("country"));
        let expression = top_sorted(&months, &rank, "country", "month", &country, other);
        layout.add(
            12,
            10,
            Panel::bars(title, figure, &expression, ("month", "name"), "normal")
                .shares_of_whole()
                .transform("sortBy", sorted.clone())
                .colored(regions(l)),
        );
    }
}

fn hours_and_regions(l: Language, other: &str, layout: &mut Layout) {
    layout.row(l.t("4. Hour of day, and regions by port", "4. その他の統計情報"));
    let sorted = json!({ "sort": [{ "field": "hour\\name", "desc": false }] });
    // Ports are ranked by their own counter, which has far fewer series than ports by hour.
    let ranked = |amount: &str, ports: &str| {
        let rank = format!(
            "topk({PORTS}, {ports} unless on (port) label_replace(vector(0), \"port\", \"other\", \"\", \"\"))"
        );
        queries::top_by_name(amount, ports, &rank, "hour", other)
    };
    let six = PORT_HOUR_ACCESSES.six_months_sum("transport, port, hour");
    let month = PORT_HOUR_ACCESSES.total("transport, port, hour", "");
    for (amount, ports, title, figure) in [
        (
            six,
            PORT_ACCESSES.six_months_sum(PORT),
            l.t("Accesses by hour of day, six months", "時間帯別アクセス数（6か月）"),
            l.t(
                "Local hours of the sensors; figure 4.1.1 of 2005-11.",
                "観測点の現地時刻による。2005年11月の図4.1.1に相当する。",
            ),
        ),
        (
            month,
            PORT_ACCESSES.total(PORT, ""),
            l.t("Accesses by hour of day, this month", "時間帯別アクセス数（今月）"),
            l.t(
                "Local hours of the sensors; figure 4.1.2 of 2005-11.",
                "観測点の現地時刻による。2005年11月の図4.1.2に相当する。",
            ),
        ),
    ] {
        layout.add(
            12,
            10,
            Panel::bars(title, figure, &ranked(&amount, &ports), ("hour", "name"), "normal")
                .transform("sortBy", sorted.clone())
                .colored(colors::ports(other)),
        );
    }
    let countries = top_countries(COUNTRY_ACCESSES, COUNTRIES);
    let ports = format!("topk({PORTS}, {})", PORT_COUNTRY_ACCESSES.total(PORT, ""));
    let detail = format!(
        "(sum by (country, {PORT}) ({}) and on (country) {countries} and on ({PORT}) {ports})",
        PORT_COUNTRY_ACCESSES.total("country, transport, port", "")
    );
    let whole = COUNTRY_ACCESSES.total("country", "");
    let rest = format!("(({whole} and on (country) {countries}) - on (country) sum by (country) {detail})");
    let share = format!("({detail} / on (country) group_left () {whole})");
    // Columns are ports by size, rows are regions by size.
    let regions_of = |shares: &str| {
        format!(
            r#"label_join({shares} * on (country) group_left (region_size) count_values by (country) ("region_size", 999999999999999 - {countries}), "by_size", " ", "by_size", "region_size")"#
        )
    };
    layout.add(
        24,
        11,
        Panel::bars(
            l.t("Share of ports for each region", "発信元地域毎の宛先（ポート種類）別アクセス数の比率"),
            l.t(
                "What each of the busiest regions sends to, of all its accesses; figure 4.2.3 of 2005-11.",
                "上位の発信元地域ごとの、その全アクセスに占める宛先の内訳。2005年11月の図4.2.3に相当する。",
            ),
            &regions_of(&format!(
                "({} or {})",
                named(&queries::sized(&share, &ports, PORT)),
                queries::named_other(&format!("({rest} / on (country) {whole})"), other)
            )),
            ("country", "name"),
            "normal",
        )
        .shares_of_whole()
        .options(json!({ "orientation": "horizontal" }))
        .colored(colors::ports(other))
        .overrides([by_name(
            "country\\name",
            &[("mappings", json!([{ "type": "value", "options": super::region::mapping(l) }]))],
        )]),
    );
}

fn explanations(l: Language, layout: &mut Layout) {
    layout.row(l.t("5. What the busy ports are known for", "5. 補足説明"));
    layout.add(24, 17, explanation_table(l, &top_ports(PORT_ACCESSES, 15)));
}
