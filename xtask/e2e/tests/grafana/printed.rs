//! The printed report of the model history, against the model's own counters.

use sensor_counters::Country;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use xtask::history::prometheus::Server;
use xtask::history::{HistoryReport, write_openmetrics};

fn figure<'a>(report: &'a Value, name: &str) -> &'a Value {
    let figures = report["figures"].as_array().expect("figures");
    figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no figure {name}"))
}

/// Name and sum of each series.
fn amounts(figure: &Value) -> BTreeMap<String, u64> {
    let series = figure["series"].as_array().expect("series");
    series
        .iter()
        .map(|line| {
            let values = line["values"].as_array().expect("values");
            (line["name"].as_str().expect("a name").to_owned(), values.iter().filter_map(Value::as_u64).sum())
        })
        .collect()
}

/// What the counters of the model grew by in its last month, by metric and the values of these labels.
fn truth(history: &str, report: HistoryReport, metric: &str, labels: &[&str]) -> BTreeMap<String, u64> {
    let month = report.months()[5];
    let mut ends: BTreeMap<(String, String), [u64; 2]> = BTreeMap::new();
    for line in history.lines().filter(|line| line.starts_with(&format!("{metric}{{"))) {
        let (series, rest) = line.rsplit_once("} ").expect("a sample");
        let (value, at) = rest.split_once(' ').expect("value and time");
        let (value, at): (u64, i64) = (value.parse().expect("a count"), at.parse().expect("a time"));
        let key: Vec<&str> = labels
            .iter()
            .map(|label| {
                let (_, rest) = series.split_once(&format!(",{label}=\"")).expect("the label");
                rest.split('"').next().expect("a value")
            })
            .collect();
        let entry = ends.entry((key.join("/"), series.to_owned())).or_default();
        if at <= month.start() {
            entry[0] = entry[0].max(value);
        }
        if at <= month.end() {
            entry[1] = entry[1].max(value);
        }
    }
    let mut sums = BTreeMap::new();
    for ((key, _), [from, to]) in ends {
        *sums.entry(key).or_default() += to - from;
    }
    sums
}

/// The report of a seed's month, from what these arguments name, against the model's own counters.
pub(crate) fn is_the_seeds(inputs: &[&str], report: HistoryReport, headline: &[(&str, u64)]) {
    let month = report.months()[5].first.strftime("%Y-%m").to_string();
    let bytes = |lang: &str, format: &str| {
        let common =
            ["teiten-report", "--month", &month, "--lang", lang, "--format", format, "--date", "2026-01-01"];
        report::make(common.iter().chain(inputs)).expect("a report")
    };
    let make = |lang: &str, format: &str| String::from_utf8(bytes(lang, format)).expect("text");
    let printed: Value = serde_json::from_str(&make("en", "json")).expect("JSON");
    for (name, value) in headline {
        assert_eq!(printed["headline"][name].as_u64(), Some(*value), "{name}");
    }
    let mut history = Vec::new();
    write_openmetrics(report, &mut history).expect("memory");
    let history = String::from_utf8(history).expect("text");
    let total: u64 = headline.iter().find(|it| it.0 == "accesses").expect("given").1;
    for (name, metric, labels) in [
        ("ports-share-accesses", "teiten_accesses_total", &["port", "transport"][..]),
        ("ports-share-sources", "teiten_sources_total", &["port", "transport"]),
        ("ports-daily-accesses", "teiten_accesses_total", &["port", "transport"]),
        ("ports-daily-sources", "teiten_sources_total", &["port", "transport"]),
        ("regions-share-accesses", "teiten_country_accesses_total", &["country"]),
        ("regions-daily-sources", "teiten_country_sources_total", &["country"]),
    ] {
        let truth = truth(&history, report, metric, labels);
        let shown = amounts(figure(&printed, name));
        assert_eq!(shown.values().sum::<u64>(), truth.values().sum::<u64>(), "{name}");
        let mut checked = 0;
        for (shown_name, amount) in &shown {
            let key = match shown_name.as_str() {
                "Ping (ICMP)" => "8/icmp",
                "other" => continue,
                name => Country::from_code(name).map_or(name, |_| name),
            };
            let known = truth.get(key).or_else(|| {
                truth
                    .iter()
                    .find(|(code, _)| {
                        Country::from_label(code).and_then(Country::names).is_some_and(|(en, _)| en == key)
                    })
                    .map(|it| it.1)
            });
            assert_eq!(known, Some(amount), "{name}: {shown_name}");
            checked += 1;
        }
        assert!(checked >= 8, "{name}: {checked}");
    }
    for share in figure(&printed, "ports-share-accesses")["series"].as_array().expect("series") {
        let value = share["values"][0].as_u64().expect("a value");
        let percent = (value as f64 / total as f64 * 100.0 + 0.5).floor() as u64;
        assert_eq!(share["percent"][0].as_u64(), Some(percent), "{}", share["name"]);
    }
    let hours = amounts(figure(&printed, "hours-own"));
    assert_eq!(hours.values().sum::<u64>(), total);
    assert_eq!(figure(&printed, "six-means")["series"][0]["values"].as_array().expect("months").len(), 6);

    // The same in both languages and on every run.
    let japanese = make("ja", "html");
    let numbers: BTreeMap<&str, u64> = headline.iter().copied().collect();
    let sentences = [
        format!("{}件", with_commas(numbers["accesses"])),
        format!(
            "1日あたり{}の発信元から{}件",
            with_commas(numbers["sources_per_sensor_day"]),
            with_commas(numbers["accesses_per_sensor_day"])
        ),
    ];
    for text in &sentences {
        assert!(japanese.contains(text), "{text}");
    }
    assert!(make("en", "html").contains(&with_commas(numbers["accesses"])));
    assert_eq!(japanese, make("ja", "html"));

    if !report::HAS_PDF {
        eprintln!("skipped: built without the feature pdf");
        return;
    }
    for lang in ["en", "ja"] {
        let Some(text) = text_of(&bytes(lang, "pdf")) else { return };
        // A line may end within a sentence, and Japanese has no spaces.
        let flowing: String = text.split_whitespace().collect();
        for sentence in sentences.iter().filter(|_| lang == "ja") {
            assert!(flowing.contains(sentence.as_str()), "{sentence}");
        }
        let words: BTreeSet<&str> =
            text.split(|c: char| !c.is_ascii_digit() && c != ',').filter(|word| !word.is_empty()).collect();
        for (name, value) in headline {
            assert!(words.contains(with_commas(*value).as_str()), "{lang}: {name}");
        }
        let mut checked = 0;
        for figure in printed["figures"].as_array().expect("figures") {
            for value in figure["series"].as_array().expect("series").iter().flat_map(numbers_of) {
                let value = with_commas(value);
                assert!(words.contains(value.as_str()), "{lang}: {}: {value}", figure["name"]);
                checked += 1;
            }
        }
        assert!(checked > 2_000, "{lang}: {checked}");
    }
}

/// The values of a series, and their percentages where it has some.
fn numbers_of(series: &Value) -> impl Iterator<Item = u64> {
    ["values", "percent"]
        .into_iter()
        .filter_map(|name| series[name].as_array())
        .flatten()
        .filter_map(Value::as_u64)
}

fn with_commas(value: u64) -> String {
    let text = value.to_string();
    if text.len() > 3 { format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..]) } else { text }
}

/// What poppler reads in a PDF; `None` without it.
fn text_of(pdf: &[u8]) -> Option<String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pdf).expect("write the file");
    match Command::new("pdftotext").args(["-layout", "-enc", "UTF-8"]).arg(file.path()).arg("-").output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).expect("text"))
        }
        Err(error) => {
            eprintln!("skipped: pdftotext cannot be run: {error}");
            None
        }
    }
}

/// The sentences on what happened.
pub(crate) fn events(server: &Server, month: &str) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}", server.port);
    let bytes = report::make(["teiten-report", "--month", month, "--prometheus", &url, "--format", "json"]);
    let printed: Value = serde_json::from_slice(&bytes.expect("a report")).expect("JSON");
    let texts = printed["texts"].as_array().expect("texts");
    texts.iter().filter_map(|text| text["text"].as_str().map(str::to_owned)).collect()
}
