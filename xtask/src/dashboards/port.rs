//! One port, or one port group.

use serde_json::{Value, json};

use super::colors;
use super::common::{
    PORTS, accesses_and_sources, by_country_daily, by_port_daily, explanation_table, lists_daily, regions,
    tools_daily, tools_of,
};
use super::panels::{Language, Layout, Order, Panel, Run, by_name, label_variable};
use super::queries::{
    BACKSCATTER, GROUP_ACCESSES, GROUP_SOURCES, PORT, PORT_ACCESSES, PORT_COUNTRY_ACCESSES,
    PORT_COUNTRY_SOURCES, PORT_HOUR_ACCESSES, PORT_LIST_ACCESSES, PORT_SOURCES, PORT_TOOLS, SENSOR, TOOLS,
    by_sensor_daily, named, top_regions_of,
};

const ONE: &str = r#"transport="$transport",port="$port""#;

pub(super) fn variables(l: Language) -> Vec<Value> {
    vec![
        label_variable(
            "transport",
            l.t("Transport", "種別"),
            r#"teiten_accesses_total{sensor=~"$sensor"}, transport"#,
            false,
            "tcp",
        ),
        label_variable(
            "port",
            l.t("Port", "ポート"),
            r#"teiten_accesses_total{sensor=~"$sensor",transport="$transport"}, port"#,
            false,
            "445",
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
    let accesses = PORT_ACCESSES.total("", ONE);
    let sources = PORT_SOURCES.total("", ONE);
    layout.row("$port/$transport");
    layout.add(
        6,
        4,
        Panel::stat(
            l.t("Accesses", "アクセス数"),
            l.t(
                "Accesses to this port on the finished days of the range.",
                "期間内の終了した日の、このポートへのアクセス数。",
            ),
            &accesses,
        ),
    );
    layout.add(
        6,
        4,
        Panel::stat(
            l.t("Cumulative sources", "延べ発信元数"),
            l.t(
                "The same source counts once for a day and sensor.",
                "同一発信元から同一の観測日・観測点へのアクセスは1とする。",
            ),
            &sources,
        ),
    );
    layout.add(
        6,
        4,
        Panel::stat(
            l.t("Accesses per source", "発信元1か所あたりのアクセス数"),
            l.t(
                "A high number speaks for guessing passwords, 1 for a scan.",
                "大きい値はパスワード総当たり、1に近い値は探索を示唆する。",
            ),
            &format!("{accesses} / {sources}"),
        )
        .unit("locale", 1),
    );
    layout.add(
        6,
        4,
        Panel::stat(
            l.t("Sensors that saw it", "観測した観測点の数"),
            l.t(
                "Sensors with at least one access in the range.",
                "期間内に1件以上のアクセスがあった観測点の数。",
            ),
            &format!("count({} > 0)", PORT_ACCESSES.total("sensor", ONE)),
        ),
    );
    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("By region, daily", "発信元地域別アクセス数の変化"),
            l.t(
                "Accesses by region of the source; only ports with full detail have this.",
                "発信元地域別のアクセス数。詳細を記録するポートのみ。",
            ),
            &by_country_daily(PORT_COUNTRY_ACCESSES, ONE, other),
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
            l.t("By sensor, daily", "観測点別アクセス数の変化"),
            l.t(
                "Does the event show on several sensors or on one only?",
                "複数の観測点で観測されたか、1つの観測点だけか。",
            ),
            &by_sensor_daily(PORT_ACCESSES, ONE, other),
            "{{name}}",
        )
        .colored([colors::other(other)]),
    );
    layout.add(
        12,
        9,
        accesses_and_sources(
            l,
            l.t("Sources against accesses, daily", "アクセス数と発信元数の変化"),
            l.t(
                "Accesses that climb while sources fall come from few senders.",
                "発信元数が減りアクセス数が増える場合は、少数の発信元が多数送信している。",
            ),
            &PORT_ACCESSES.daily("", ONE),
            &PORT_SOURCES.daily("", ONE),
        ),
    );
    layout.add(12, 9, Panel::lines(l.t("By sensor, hourly", "観測点別アクセス数（1時間ごと）"), l.t("The amount of each hour at its end; choose a range of days.", "各時間の終わりに示した1時間のアクセス数。数日間の表示に適する。"))
        .query(Run::Range, &format!("sum by (sensor) (last_over_time(sensor_transport_port:teiten_accesses:hour{{{SENSOR},{ONE}}}[1h]))"), "{{sensor}}")
        .empty(l.t("No hour of this port is kept for this range", "この期間の1時間ごとの記録なし")));
    layout.add(
        12,
        9,
        Panel::bars(
            l.t("By hour of day", "時間帯別アクセス数"),
            l.t("Local hours of the sensors.", "観測点の現地時刻による。"),
            &named(&PORT_HOUR_ACCESSES.total("transport, port, hour", ONE)),
            ("hour", "name"),
            "none",
        )
        .empty(l.t(
            "No data by hour in this range; feature ports have it (--feature)",
            "この期間の時間帯別データなし（--feature のポートにある）",
        ))
        .transform("sortBy", json!({ "sort": [{ "field": "hour\\name", "desc": false }] }))
        .colored(colors::ports(other)),
    );
    layout.add(
        12,
        9,
        Panel::pie(
            l.t("Share of sources by region", "発信元地域別発信元数の比率"),
            l.t(
                "Of all cumulative sources of this port, in whole percents. Those of days before the port was \
                 counted by region are in \"other\".",
                "このポートの延べ発信元数に占める比率（四捨五入）。地域別に数える前の日の分は「その他」に含む。",
            ),
            &top_regions_of(
                &PORT_COUNTRY_SOURCES.total("country", ONE),
                &format!("topk(8, {})", PORT_COUNTRY_SOURCES.total("country", ONE)),
                &sources,
                other,
            ),
        )
        .empty(l.t("No data by region in this range; feature ports have it (--feature)", "この期間の地域別データなし（--feature のポートにある）"))
        .colored(regions(l)),
    );
    layout.add(
        12,
        9,
        lists_daily(
            l,
            l.t("By source list, daily", "発信元リスト別アクセス数の変化"),
            l.t(
                "Accesses to this port by the list (--source-list) that holds the source; below, what is left without lists. \
                 Lists count from when the port got full detail.",
                "このポートへのアクセスの、発信元を含むリスト（--source-list）別の内訳。下段はリスト外。リスト別に数えるのは、ポートの詳細の記録を始めてから。",
            ),
            (PORT_ACCESSES, PORT_LIST_ACCESSES),
            ONE,
        ),
    );
    layout.add(
        12,
        9,
        tools_daily(
            l,
            l.t("By scanning tool, daily", "スキャンツール別アクセス数の変化"),
            l.t(
                "TCP accesses to this port by the marks that tools leave in packets; only ports with full detail have this.",
                "このポートへのTCPアクセスのツール別の内訳（パケットの特徴による）。詳細を記録するポートのみ。",
            ),
            PORT_TOOLS,
            ONE,
        )
        .empty(l.t("No data by tool in this range; feature ports have it (--feature)", "この期間のツール別データなし（--feature のポートにある）")),
    );
    layout.add(24, 5, explanation_table(l, &PORT_ACCESSES.total("transport, port", ONE)));
    layout.row(l.t("Port group $group", "ポートグループ $group"));
    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("Group by region, daily", "グループの発信元地域別アクセス数の変化"),
            l.t(
                "Accesses to the ports of the group by region of the source.",
                "グループに属するポートへの発信元地域別アクセス数。",
            ),
            &by_country_daily(GROUP_ACCESSES, r#"group="$group""#, other),
            "{{name}}",
        )
        .empty(l.t(
            "No data of this group in this range; groups are declared by --port-group",
            "この期間のデータなし（ポートグループは --port-group で宣言）",
        ))
        .colored(regions(l)),
    );
    layout.add(
        12,
        9,
        accesses_and_sources(
            l,
            l.t("Group: sources against accesses, daily", "グループのアクセス数と発信元数の変化"),
            l.t("The group's accesses and cumulative sources.", "グループのアクセス数と延べ発信元数。"),
            &GROUP_ACCESSES.daily("", r#"group="$group""#),
            &GROUP_SOURCES.daily("", r#"group="$group""#),
        )
        .empty(l.t(
            "No data of this group in this range; groups are declared by --port-group",
            "この期間のデータなし（ポートグループは --port-group で宣言）",
        )),
    );
    layout.row(l.t("All ports", "全ポート"));
    layout.add(
        12,
        9,
        tools_daily(
            l,
            l.t("Accesses by scanning tool, daily", "スキャンツール別アクセス数の変化（全ポート）"),
            l.t(
                "Tools known by the marks that they leave in packets: ZMap (zmap4 from version 4.1), masscan, nmap, Mirai, and scanners that keep no state.",
                "パケットの特徴から判別したツール（ZMap（4.1 以降は zmap4）、masscan、nmap、Mirai、状態を持たないスキャナ）。",
            ),
            TOOLS,
            "",
        ),
    );
    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("Backscatter by port, daily", "バックスキャッタの送信元ポート別変化"),
            l.t(
                "Answers to packets with forged source addresses, by the port that answered.",
                "発信元を詐称されたパケットへの応答。応答したポート別。",
            ),
            &by_port_daily(BACKSCATTER, "", other),
            "{{name}}",
        )
        .colored(colors::ports(other)),
    );
    layout.add(
        24,
        11,
        tools_of(
            l,
            l.t("Tools of each port", "宛先（ポート種類）毎のスキャンツール別アクセス数の比率"),
            l.t(
                "Of the accesses to each of the busiest TCP ports that are counted by tool, what each tool sent.",
                "ツール別に数えた上位のTCPポートごとの、アクセス数に占める各ツールの比率。",
            ),
            PORT_TOOLS,
            PORT,
            PORTS,
            "name",
            &|expression| named(expression),
        )
        .empty(l.t("No data by tool in this range", "この期間のツール別データなし")),
    );
    layout.add(
        24,
        14,
        Panel::table(
            l.t("Ranking", "順位"),
            l.t("Ports by accesses of the range.", "期間内のアクセス数によるポートの順位。"),
        )
        .query(Run::Table, &named(&PORT_ACCESSES.total(PORT, "")), "")
        .query(Run::Table, &named(&PORT_SOURCES.total(PORT, "")), "")
        .merged("Value #A", Order::Falling)
        .transform(
            "organize",
            json!({
                "excludeByName": { "Time": true, "transport": true, "port": true },
                "indexByName": { "name": 0, "Value #A": 1, "Value #B": 2 },
                "renameByName": {
                    "name": l.t("Port", "ポート種類"),
                    "Value #A": l.t("Accesses", "アクセス数"), "Value #B": l.t("Sources", "発信元数"),
                },
            }),
        )
        .overrides([by_name(
            l.t("Port", "ポート種類"),
            &[("mappings", json!([{
                "type": "regex",
                "options": { "pattern": "^other/(.*)$", "result": { "text": format!("{other}/$1"), "index": 0 } },
            }]))],
        )]),
    );
    layout.panels(l)
}

/// What a link says to show the ranking of all ports.
pub(super) fn ranking(l: Language) -> String {
    super::panels::view(&panels(l), l.t("Ranking", "順位"))
}
