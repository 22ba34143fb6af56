//! Queries, panels and colours that several dashboards draw.

use serde_json::{Value, json};

use super::colors;
use super::panels::{Language, Order, Panel, Run, by_name};
use super::queries::{self, Counter, PORT, PORT_ACCESSES, PORT_SOURCES, all_sized, country, named, top};

/// Ports and regions that are drawn by name; the others are one series.
pub(super) const PORTS: usize = 10;
pub(super) const COUNTRIES: usize = 8;

/// The field `bars` as bars, the field `line` as a line over them.
pub(super) fn bars_and_line(bars: &str, line: &str, alignment: i8) -> [Value; 2] {
    let color = |hex: &str| ("color", json!({ "mode": "fixed", "fixedColor": hex }));
    [
        by_name(
            bars,
            &[
                color("#1f77b4"),
                ("custom.drawStyle", json!("bars")),
                ("custom.barAlignment", json!(alignment)),
                ("custom.barWidthFactor", json!(0.8)),
                ("custom.fillOpacity", json!(80)),
                ("custom.lineWidth", json!(0)),
                ("custom.showPoints", json!("never")),
            ],
        ),
        by_name(line, &[color("#d62728")]),
    ]
}

/// Accesses as bars, sources as a line over them; the line keeps to the bar of its day.
pub(super) fn accesses_and_sources(
    l: Language,
    title: &str,
    description: &str,
    accesses: &str,
    sources: &str,
) -> Panel {
    let (a, s) = (l.t("Accesses", "アクセス数"), l.t("Sources", "発信元数"));
    Panel::lines(title, description)
        .query(Run::Daily, accesses, a)
        .query(Run::Daily, sources, s)
        .defaults(json!({ "custom": { "lineInterpolation": "stepAfter" } }))
        .overrides(bars_and_line(a, s, 1))
}

/// Names of regions instead of their codes, each in its colour.
pub(super) fn regions(l: Language) -> Vec<Value> {
    super::regions::names()
        .map(|(code, en, ja)| {
            let mut properties = vec![("displayName", json!(l.t(en, ja)))];
            properties.extend(colors::region(code).map(|color| ("color", color)));
            by_name(code, &properties)
        })
        .chain([colors::other(l.t("other", "その他"))])
        .collect()
}

/// The busiest regions of a counter, day by day, the others as one.
pub(super) fn by_country_daily(counter: Counter, matchers: &str, other: &str) -> String {
    let rank = format!("topk({COUNTRIES}, {})", counter.total("country", matchers));
    top(&counter.daily("country", matchers), &rank, "country", "", &country, other)
}

/// The busiest ports of a counter, day by day, the others as one.
pub(super) fn by_port_daily(counter: Counter, matchers: &str, other: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { "," };
    let rank =
        format!("topk({PORTS}, {})", counter.total(PORT, &format!(r#"port!="other"{comma}{matchers}"#)));
    top(&counter.daily(PORT, matchers), &rank, PORT, "", &|e| named(e), other)
}

/// Accesses by scanning tool, day by day.
pub(super) fn tools_daily(
    l: Language,
    title: &str,
    description: &str,
    counter: Counter,
    matchers: &str,
) -> Panel {
    let amounts = all_sized(
        &counter.daily("tool", matchers),
        &counter.total("tool", matchers),
        "tool",
        Some(UNKNOWN_TOOL),
    );
    Panel::daily_bars(title, description, &amounts, "{{tool}}")
        .colored(colors::tools(UNKNOWN_TOOL, l.t("other", "その他")))
}

/// The tool of accesses that bear no tool's mark.
const UNKNOWN_TOOL: &str = "other";

/// What sources of no list are called.
pub(super) const fn no_list(l: Language) -> &'static str {
    l.t("without lists", "リスト外")
}

/// What a panel says where nothing is counted by list.
pub(super) const fn no_data_by_list(l: Language) -> &'static str {
    l.t(
        "No data by list in this range; feature ports have it while there are lists (--source-list)",
        "この期間のリスト別データなし（リスト（--source-list）がある間の注目ポートにある）",
    )
}

/// Accesses by the source list that holds the source, day by day.
pub(super) fn lists_daily(
    l: Language,
    title: &str,
    description: &str,
    counters: (Counter, Counter),
    matchers: &str,
) -> Panel {
    let other = l.t("other", "その他");
    let amounts = queries::by_list_daily(counters, matchers, no_list(l), other);
    Panel::daily_bars(title, description, &amounts, "{{name}}")
        .empty(no_data_by_list(l))
        .colored([colors::unlisted(no_list(l)), colors::other(other)])
}

/// A bar for each of the `n` busiest label sets `by` of a counter by tool: the share of each tool. The label `row` is
/// what `name` gives them.
#[expect(clippy::too_many_arguments, reason = "two panels, each with words of its own")]
pub(super) fn tools_of(
    l: Language,
    title: &str,
    description: &str,
    counter: Counter,
    by: &str,
    n: usize,
    row: &str,
    name: &dyn Fn(&str) -> String,
) -> Panel {
    let rank = format!("topk({n}, {})", counter.total(by, ""));
    let ranked = format!("({} and on ({by}) {rank})", counter.total(&format!("tool, {by}"), ""));
    Panel::bars(
        title,
        description,
        &queries::tool_shares(&ranked, &rank, by, UNKNOWN_TOOL, name),
        (row, "tool"),
        "normal",
    )
    .shares_of_whole()
    .options(json!({ "orientation": "horizontal" }))
    .colored(colors::tools(UNKNOWN_TOOL, l.t("other", "その他")))
}

/// The ports of `rank` with their amounts and what they are known for.
pub(super) fn explanation_table(l: Language, rank: &str) -> Panel {
    let amount = format!("({} and on ({PORT}) {rank})", PORT_ACCESSES.total(PORT, ""));
    // The newest text of each port. A range that ends in the future has none near its end, and one that begins with
    // an installation none at the times of the subquery.
    let port_info = "teiten_port_info";
    let info = format!(
        r#"(topk by ({PORT}) (1, max by ({PORT}, service, description) (label_replace(max_over_time(timestamp({port_info})[${{__range_s}}s:6h] @ ${{__to:date:seconds}} offset -2h) or last_over_time({port_info}[3h] @ ${{__to:date:seconds}} offset -2h), "service", "$1", "name", "(.*)"))) > bool 0)"#
    );
    let accesses = named(&format!(
        "({amount} * on ({PORT}) group_left (service, description) {info} or ({amount} unless on ({PORT}) {info}))"
    ));
    let sources = named(&format!("({} and on ({PORT}) {rank})", PORT_SOURCES.total(PORT, "")));
    // Sensors explain in English.
    let translations: serde_json::Map<_, _> = super::ports::table()
        .iter()
        .enumerate()
        .map(|(index, port)| (port.en.clone(), json!({ "text": port.ja, "index": index })))
        .collect();
    let description = [
        ("custom.width", json!(1080)),
        ("custom.cellOptions", json!({ "type": "auto", "wrapText": true })),
        (
            "mappings",
            match l {
                Language::English => json!([]),
                Language::Japanese => json!([{ "type": "value", "options": translations }]),
            },
        ),
    ];
    Panel::table(
        l.t("Explanation of ports", "宛先（ポート種類）の解説"),
        l.t(
            "The busiest ports and what is known of them; sections 5 of 2005-11 and 4 of 2010-07.",
            "アクセスの多いポートとその解説。2005年11月の5章、2010年7月の4章に相当する。",
        ),
    )
    .query(Run::Table, &accesses, "")
    .query(Run::Table, &sources, "")
    .merged("Value #A", Order::Falling)
    .transform(
        "organize",
        json!({
            "excludeByName": { "Time": true, "transport": true, "port": true },
            "indexByName": { "name": 0, "service": 1, "Value #A": 2, "Value #B": 3, "description": 4 },
            "renameByName": {
                "name": l.t("Port", "ポート種類"), "service": l.t("Service", "サービス"),
                "Value #A": l.t("Accesses", "アクセス数"), "Value #B": l.t("Sources", "発信元数"),
                "description": l.t("Explanation", "解説"),
            },
        }),
    )
    .overrides([by_name(l.t("Explanation", "解説"), &description)])
}
