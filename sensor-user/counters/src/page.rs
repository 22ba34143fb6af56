//! The generated part of `docs/metrics.md`.

use crate::catalogue::{COUNTERS, Number};
use crate::others::{Kind, OTHERS};
use std::fmt::Write as _;

/// The tables of all metrics, in Markdown.
pub fn page() -> String {
    let mut page = String::from("## Counters\n");
    page.push_str("\n| metric | labels | unit | held | meaning |\n|---|---|---|---|---|\n");
    for counter in COUNTERS {
        for (_, name, number) in counter.metrics() {
            let unit = number.unit.name();
            row(&mut page, &[&code(name), &codes(counter.labels), unit, yes(counter.held), number.help]);
        }
    }
    page.push_str(
        "\n## The same counters elsewhere\n\n\
         *Kind* is the counter's name in the ledger, and in the column `kind` of CSV and Parquet exports; *JSON* is \
         where `/api/v1/status` shows it.\n\n| kind | metrics | JSON |\n|---|---|---|\n",
    );
    for counter in COUNTERS {
        let names = counter.numbers.iter().map(|number| number.metric.map_or_else(|| only(number), code));
        row(
            &mut page,
            &[
                &code(counter.kind),
                &names.collect::<Vec<_>>().join(", "),
                &counter.status.map_or(String::new(), code),
            ],
        );
    }
    page.push_str("\n## The sensor's own state\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for other in OTHERS {
        let kind = match other.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        row(&mut page, &[&code(other.name), kind, &codes(other.labels), other.help]);
    }
    page
}

fn row(page: &mut String, cells: &[&str]) {
    for cell in cells {
        let _ = write!(page, "| {} ", cell.replace('|', "\\|"));
    }
    page.push_str("|\n");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes(texts: &[&str]) -> String {
    texts.iter().map(|text| code(text)).collect::<Vec<_>>().join(", ")
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

/// What a number means that no metric shows.
fn only(number: &Number) -> String {
    format!("none: {}", number.help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Counter;

    #[test]
    fn the_page_has_every_metric_once() {
        let page = page();
        let metrics = COUNTERS.iter().flat_map(Counter::metrics).map(|(_, name, _)| name);
        for name in metrics.chain(OTHERS.iter().map(|other| other.name)) {
            let rows = page.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))).count();
            assert_eq!(rows, 1, "{name}");
        }
    }
}
