//! One region of sources.

use serde_json::{Value, json};

use super::colors;
use super::common::{COUNTRIES, PORTS, accesses_and_sources, tools_daily, tools_of};
use super::panels::{Language, Layout, Panel, Run};
use super::queries::{
    ACCESSES, COUNTRY_ACCESSES, COUNTRY_SOURCES, COUNTRY_TOOLS, PORT, PORT_COUNTRY_ACCESSES, by_sensor_daily,
    top_of,
};

const ONE: &str = r#"country="$country""#;

pub(super) fn variables(l: Language) -> Vec<Value> {
    // The viewer chooses a name; queries and links have the code.
    let mut names: Vec<(&str, &str)> =
        super::regions::names().map(|(code, en, ja)| (l.t(en, ja), code)).collect();
    names.sort_unstable();
    let query: Vec<String> =
        names.iter().map(|(name, code)| format!("{} : {code}", name.replace(',', "\\,"))).collect();
    let options: Vec<Value> = names
        .iter()
        .map(|(name, code)| json!({ "text": name, "value": code, "selected": *code == "CN" }))
        .collect();
    vec![json!({
        "type": "custom", "name": "country", "label": l.t("Region", "地域"), "query": query.join(", "),
        "current": { "text": l.t("China", "中国"), "value": "CN" }, "options": options,
        "hide": 0, "includeAll": false, "multi": false, "skipUrlSync": false,
    })]
}

pub(super) fn panels(l: Language) -> Vec<Value> {
    let other = l.t("other", "その他");
    let mut layout = Layout::new();
    let accesses = COUNTRY_ACCESSES.total("", ONE);
    let sources = COUNTRY_SOURCES.total("", ONE);
    layout.row(l.t("Region $country", "地域 $country"));
    layout.add(
        8,
        4,
        Panel::stat(
            l.t("Accesses", "アクセス数"),
            l.t(
                "Accesses from this region on the finished days of the range.",
                "期間内の終了した日の、この地域からのアクセス数。",
            ),
            &accesses,
        ),
    );
    layout.add(
        8,
        4,
        Panel::stat(
            l.t("Cumulative sources", "延べ発信元数"),
            l.t(
                "The same source counts once for a day, sensor and port.",
                "同一発信元から同一の観測日・観測点・ポートへのアクセスは1とする。",
            ),
            &sources,
        ),
    );
    layout.add(
        8,
        4,
        Panel::stat(
            l.t("Share of all accesses", "全アクセスに占める比率"),
            l.t(
                "Of the accesses from all regions, in whole percents, rounded half up.",
                "全地域からのアクセス数に占める比率。小数点第一位を四捨五入。",
            ),
            &format!("floor(100 * {accesses} / {} + 0.5)", ACCESSES.total("", "")),
        )
        .unit("percent", 0),
    );
    let port_uid = format!("teiten-port-{}", l.code());
    let rank =
        format!("topk({PORTS}, {})", PORT_COUNTRY_ACCESSES.total(PORT, &format!(r#"port!="other",{ONE}"#)));
    layout.add(
        12,
        9,
        Panel::daily_bars(
            l.t("Ports, daily", "宛先（ポート種類）別アクセス数の変化"),
            l.t(
                "All accesses from this region. Ports that sensors do not count by region are in \"other\".",
                "この地域からの全アクセス。地域別に数えていないポートは「その他」に含む。",
            ),
            &top_of(&PORT_COUNTRY_ACCESSES.daily(PORT, ONE), &rank, &COUNTRY_ACCESSES.daily("", ONE), other),
            "{{name}}",
        )
        .colored(colors::ports(other))
        .link(
            l.t("Show this port", "このポートを見る"),
            &port_uid,
            "var-transport=${__field.labels.transport}&var-port=${__field.labels.port}",
        )
        .link_of(other, l.t("Show all ports", "全ポートを見る"), &port_uid, &super::port::ranking(l)),
    );
    layout.add(
        12,
        9,
        accesses_and_sources(
            l,
            l.t("Accesses and sources, daily", "アクセス数と発信元数の変化"),
            l.t("This region's accesses and cumulative sources.", "この地域からのアクセス数と延べ発信元数。"),
            &COUNTRY_ACCESSES.daily("", ONE),
            &COUNTRY_SOURCES.daily("", ONE),
        ),
    );
    layout.add(
        12,
        10,
        Panel::pie(
            l.t("Share of accesses by port", "宛先（ポート種類）別アクセス数の比率"),
            l.t(
                "Of all accesses from this region, in whole percents. Ports that sensors do not count by region are \
                 in \"other\".",
                "この地域からの全アクセスに占める比率（四捨五入）。地域別に数えていないポートは「その他」に含む。",
            ),
            &top_of(&PORT_COUNTRY_ACCESSES.total(PORT, ONE), &rank, &COUNTRY_ACCESSES.total("", ONE), other),
        )
        .colored(colors::ports(other)),
    );
    layout.add(
        12,
        10,
        Panel::daily_bars(
            l.t("By sensor, daily", "観測点別アクセス数の変化"),
            l.t("Accesses from this region by sensor.", "この地域からの観測点別アクセス数。"),
            &by_sensor_daily(COUNTRY_ACCESSES, ONE, other),
            "{{name}}",
        )
        .colored([colors::other(other)]),
    );
    layout.add(
        24,
        9,
        tools_daily(
            l,
            l.t("By scanning tool, daily", "スキャンツール別アクセス数の変化"),
            l.t(
                "TCP accesses from this region by the marks that tools leave in packets.",
                "この地域からのTCPアクセスのツール別の内訳（パケットの特徴による）。",
            ),
            COUNTRY_TOOLS,
            ONE,
        ),
    );
    layout.row(l.t("All regions", "全地域"));
    layout.add(16, 14, Panel::new("geomap", l.t("Where accesses come from", "発信元地域の分布"), l.t("Accesses of the range by region of the source.", "期間内の発信元地域別アクセス数。"))
        .query(Run::Table, &COUNTRY_ACCESSES.total("country", ""), "")
        .options(json!({
            "view": { "id": "zero", "lat": 20, "lon": 100, "zoom": 2, "allLayers": true },
            "basemap": { "type": "default", "name": "Basemap", "config": {} },
            "controls": { "showZoom": true, "mouseWheelZoom": false, "showAttribution": true, "showScale": false, "showMeasure": false, "showDebug": false },
            "tooltip": { "mode": "details" },
            "layers": [{
                "type": "markers",
                "name": l.t("Accesses", "アクセス数"),
                "tooltip": true,
                "location": { "mode": "lookup", "lookup": "country", "gazetteer": "public/gazetteer/countries.json" },
                "config": {
                    "showLegend": false,
                    "style": {
                        "color": { "fixed": "dark-orange" },
                        "opacity": 0.5,
                        "size": { "field": "Value", "min": 3, "max": 40, "fixed": 5 },
                        "symbol": { "mode": "fixed", "fixed": "img/icons/marker/circle.svg" },
                    },
                },
            }],
        })));
    let tools = tools_of(
        l,
        l.t("Tools of each region", "発信元地域毎のスキャンツール別アクセス数の比率"),
        l.t(
            "Of the TCP accesses from each of the busiest regions, what each tool sent.",
            "上位の発信元地域ごとの、TCPアクセス数に占める各ツールの比率。",
        ),
        COUNTRY_TOOLS,
        "country",
        COUNTRIES,
        "country",
        &str::to_owned,
    );
    let names = json!([{ "type": "value", "options": mapping(l) }]);
    let tools = tools.overrides([super::panels::by_name("country\\tool", &[("mappings", names)])]);
    layout.add(8, 14, Panel::table(l.t("Ranking", "順位"), l.t("Regions by accesses of the range.", "期間内のアクセス数による地域の順位。"))
        .query(Run::Table, &format!("sort_desc({})", COUNTRY_ACCESSES.total("country", "")), "")
        .transform("organize", json!({ "excludeByName": { "Time": true }, "indexByName": {}, "renameByName": { "country": l.t("Region", "地域"), "Value": l.t("Accesses", "アクセス数") } }))
        .overrides([super::panels::by_name(l.t("Region", "地域"), &[("mappings", json!([{ "type": "value", "options": mapping(l) }]))])]));
    layout.add(24, 10, tools);
    layout.panels(l)
}

/// What a link says to show the ranking of all regions.
pub(super) fn ranking(l: Language) -> String {
    super::panels::view(&panels(l), l.t("Ranking", "順位"))
}

/// Names of regions as a value mapping of their codes.
pub(super) fn mapping(l: Language) -> Value {
    super::regions::names()
        .enumerate()
        .map(|(index, (code, en, ja))| (code.to_owned(), json!({ "text": l.t(en, ja), "index": index })))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
