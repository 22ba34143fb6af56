//! What was counted beside what was sent.

use lab::traffic::{Class, Expectation, Tool};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Ports or countries that are shown; all are compared.
const SHOWN: usize = 12;

/// One number, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: String,
    sent: u64,
    counted: u64,
}

impl Row {
    fn differs(&self) -> bool {
        self.sent != self.counted
    }
}

/// Rows of one kind.
#[derive(Clone, Debug)]
struct Section {
    title: &'static str,
    /// All that differ, and the greatest of the others.
    rows: Vec<Row>,
    /// How many more are the same on both sides.
    more: usize,
}

/// The comparison of a `/api/v1/status` with what was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    sections: Vec<Section>,
}

impl Comparison {
    /// Compares everything in `status` that is known of what was sent; `countries` are the accesses by
    /// country, where the sensor's database is known. With `same_day`, the sensor counted all of it on one
    /// observation day, so sources and single ports can be compared too.
    pub(super) fn new(
        sent: &Expectation,
        countries: Option<&BTreeMap<String, u64>>,
        status: &Value,
        same_day: bool,
    ) -> Self {
        let mut comparison = Self::default();
        let total = &status["total"];

        let classes = counts(&total["classes"], |row| text(&row["class"]), "packets");
        let mut rows: Vec<Row> = Class::ALL
            .into_iter()
            .map(|class| row(class.label(), sent.packets(class), &classes))
            .filter(|row| row.sent + row.counted > 0)
            .collect();
        rows.push(Row {
            what: "all packets".to_owned(),
            sent: sent.total(),
            counted: classes.values().sum(),
        });
        let counted = counts(&total["classes"], |row| text(&row["class"]), "bytes");
        let bytes = Class::ALL.into_iter().map(|class| sent.bytes(class)).sum();
        rows.push(Row { what: "all bytes".to_owned(), sent: bytes, counted: counted.values().sum() });
        comparison.add("packets by class", rows);

        let tools = counts(&total["tools"], |row| text(&row["tool"]), "accesses");
        let rows = Tool::ALL
            .into_iter()
            .map(|tool| row(tool.label(), sent.tools.get(&tool).copied().unwrap_or(0), &tools))
            .collect();
        comparison.add("TCP SYN by scanner", rows);

        let single = |what: &str, sent: usize, counted: &Value| Row {
            what: what.to_owned(),
            sent: sent as u64,
            counted: counted.as_u64().unwrap_or(0),
        };
        let mut rows = vec![single("accesses", sent.packets(Class::Access) as usize, &total["accesses"])];
        if same_day {
            rows.push(single("cumulative sources", sent.sources.len(), &total["sources"]));
            rows.push(single("unique hosts", sent.hosts.len(), &total["hosts"]));
        }
        comparison.add("headline numbers", rows);

        if same_day {
            let port = |row: &Value| format!("{}/{}", text(&row["port"]), text(&row["transport"]));
            let ports = counts(&status["today"]["ports"], port, "accesses");
            let sent = sent.accesses.iter().map(|(port, count)| (port.to_string(), *count)).collect();
            comparison.add_ranking("accesses by port", &sent, &ports);
        }
        if let Some(sent) = countries {
            let counted = counts(&total["countries"], |row| text(&row["country"]), "accesses");
            comparison.add_ranking("accesses by country", sent, &counted);
        }
        comparison
    }

    fn add(&mut self, title: &'static str, rows: Vec<Row>) {
        self.sections.push(Section { title, rows, more: 0 });
    }

    /// The greatest rows, and any other that differs.
    fn add_ranking(
        &mut self,
        title: &'static str,
        sent: &BTreeMap<String, u64>,
        counted: &BTreeMap<String, u64>,
    ) {
        let names: BTreeSet<&String> = sent.keys().chain(counted.keys()).collect();
        let mut rows: Vec<Row> =
            names.into_iter().map(|name| row(name, sent.get(name).copied().unwrap_or(0), counted)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.sent));
        let total = rows.len();
        let others = rows.split_off(rows.len().min(SHOWN));
        rows.extend(others.into_iter().filter(Row::differs));
        let more = total - rows.len();
        self.sections.push(Section { title, rows, more });
    }

    /// Whether every number is the same on both sides.
    pub(super) fn agrees(&self) -> bool {
        !self.sections.iter().flat_map(|section| &section.rows).any(Row::differs)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn row(what: &str, sent: u64, counted: &BTreeMap<String, u64>) -> Row {
    Row { what: what.to_owned(), sent, counted: counted.get(what).copied().unwrap_or(0) }
}

/// `rows[…][field]` by name.
fn counts(rows: &Value, name: impl Fn(&Value) -> String, field: &str) -> BTreeMap<String, u64> {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().map(|row| (name(row), row[field].as_u64().unwrap_or(0))).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>12} {:>12}", "", "sent", "counted")?;
        for Section { title, rows, more } in &self.sections {
            writeln!(f, "{title}")?;
            for row in rows {
                let verdict = if row.differs() { "  DIFFERS" } else { "" };
                writeln!(f, "  {:<20} {:>12} {:>12}{verdict}", row.what, row.sent, row.counted)?;
            }
            if *more > 0 {
                writeln!(f, "  and {more} more, each the same on both sides")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::traffic::{Meaning, Port, Transport};
    use serde_json::json;

    fn sent() -> Expectation {
        let mut sent = Expectation::default();
        let port = Port(Transport::Tcp, 23);
        let access = Meaning::Access { src: [192, 0, 2, 1].into(), port, tool: Some(Tool::Mirai) };
        sent.add(&access, 60);
        sent.add(&access, 60);
        sent.add(&Meaning::Plain(Class::NonIp), 42);
        sent
    }

    fn countries() -> BTreeMap<String, u64> {
        BTreeMap::from([("JP".to_owned(), 2)])
    }

    fn status(accesses: u64) -> Value {
        json!({
            "today": { "ports": [{ "transport": "tcp", "port": "23", "accesses": accesses, "sources": 1 }] },
            "total": {
                "accesses": accesses, "sources": 1, "hosts": 1,
                "classes": [
                    { "class": "non_ip", "packets": 1, "bytes": 42 },
                    { "class": "access", "packets": accesses, "bytes": 60 * accesses },
                ],
                "tools": [{ "tool": "mirai", "accesses": accesses }],
                "countries": [{ "country": "JP", "accesses": accesses }],
            },
        })
    }

    #[test]
    fn equal_numbers_agree() {
        let comparison = Comparison::new(&sent(), Some(&countries()), &status(2), true);
        assert!(comparison.agrees(), "{comparison}");
    }

    #[test]
    fn a_single_packet_too_few_is_told_wherever_it_shows() {
        let comparison = Comparison::new(&sent(), Some(&countries()), &status(1), true);
        assert!(!comparison.agrees());
        let text = comparison.to_string();
        let differing: Vec<&str> = text
            .lines()
            .filter(|line| line.ends_with("DIFFERS"))
            .map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap())
            .collect();
        assert_eq!(differing, ["access", "all packets", "all bytes", "mirai", "accesses", "23/tcp", "JP"]);
    }

    #[test]
    fn rows_beyond_the_shown_ones_are_compared_and_shown_when_they_differ() {
        let counts = |differing: u64| {
            (0..40).map(|n| (format!("C{n:02}"), 100 - n + u64::from(n == 30) * differing)).collect()
        };
        let mut comparison = Comparison::default();
        comparison.add_ranking("accesses by country", &counts(0), &counts(0));
        let text = comparison.to_string();
        assert!(
            comparison.agrees() && text.ends_with("  and 28 more, each the same on both sides\n"),
            "{text}"
        );
        let mut comparison = Comparison::default();
        comparison.add_ranking("accesses by country", &counts(0), &counts(1));
        let text = comparison.to_string();
        assert!(!comparison.agrees() && text.contains("  C30 "), "{text}");
        assert!(text.ends_with("DIFFERS\n  and 27 more, each the same on both sides\n"), "{text}");
    }

    #[test]
    fn a_status_without_anything_does_not_agree() {
        assert!(!Comparison::new(&sent(), None, &json!({}), true).agrees());
    }
}
