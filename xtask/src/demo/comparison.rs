//! What was counted beside what was sent.

use lab::traffic::{Class, Expectation, Port, Tool};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Ports that are shown; all are compared.
const SHOWN_PORTS: usize = 12;

/// One number, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: String,
    sent: u64,
    counted: u64,
}

/// The comparison of a `/api/v1/status` with what was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    sections: Vec<(&'static str, Vec<Row>)>,
    /// Rows that are compared and not shown, unless they differ.
    compared_silently: usize,
}

impl Comparison {
    /// Compares everything in `status` that is known of what was sent. With `same_day`, the sensor
    /// counted all of it on one observation day, so sources and single ports can be compared too.
    pub(super) fn new(sent: &Expectation, status: &Value, same_day: bool) -> Self {
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
        let octets = counts(&total["classes"], |row| text(&row["class"]), "bytes");
        let bytes = Class::ALL.into_iter().map(|class| sent.bytes(class)).sum();
        rows.push(Row { what: "all octets".to_owned(), sent: bytes, counted: octets.values().sum() });
        comparison.sections.push(("packets by class", rows));

        let tools = counts(&total["tools"], |row| text(&row["tool"]), "accesses");
        let rows = Tool::ALL
            .into_iter()
            .map(|tool| row(tool.label(), sent.tools.get(&tool).copied().unwrap_or(0), &tools))
            .collect();
        comparison.sections.push(("TCP SYN by scanner", rows));

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
        comparison.sections.push(("headline numbers", rows));

        if same_day {
            let port = |row: &Value| format!("{}/{}", text(&row["port"]), text(&row["transport"]));
            let ports = counts(&status["today"]["ports"], port, "accesses");
            comparison.add_ports(&sent.accesses, &ports);
        }
        comparison
    }

    /// The busiest ports, and any other that differs.
    fn add_ports(&mut self, sent: &BTreeMap<Port, u64>, counted: &BTreeMap<String, u64>) {
        let mut rows: Vec<Row> =
            sent.iter().map(|(port, count)| row(&port.to_string(), *count, counted)).collect();
        let known: std::collections::BTreeSet<String> = sent.keys().map(Port::to_string).collect();
        rows.extend(counted.iter().filter(|(port, _)| !known.contains(*port)).map(|(port, count)| Row {
            what: port.clone(),
            sent: 0,
            counted: *count,
        }));
        rows.sort_by_key(|row| std::cmp::Reverse(row.sent));
        let (shown, rest) = rows.split_at(rows.len().min(SHOWN_PORTS));
        let mut shown = shown.to_vec();
        shown.extend(rest.iter().filter(|row| row.sent != row.counted).take(SHOWN_PORTS).cloned());
        self.compared_silently += rows.len() - shown.len();
        self.sections.push(("accesses by port", shown));
    }

    /// Whether every number is the same on both sides.
    pub(super) fn agrees(&self) -> bool {
        self.sections.iter().flat_map(|(_, rows)| rows).all(|row| row.sent == row.counted)
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
        for (title, rows) in &self.sections {
            writeln!(f, "{title}")?;
            for Row { what, sent, counted } in rows {
                let verdict = if sent == counted { "" } else { "  DIFFERS" };
                writeln!(f, "  {what:<20} {sent:>12} {counted:>12}{verdict}")?;
            }
        }
        if self.compared_silently > 0 {
            writeln!(f, "  and {} more ports, each the same on both sides", self.compared_silently)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::traffic::{Meaning, Transport};
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
            },
        })
    }

    #[test]
    fn equal_numbers_agree() {
        let comparison = Comparison::new(&sent(), &status(2), true);
        assert!(comparison.agrees(), "{comparison}");
    }

    #[test]
    fn a_single_packet_too_few_is_told_wherever_it_shows() {
        let comparison = Comparison::new(&sent(), &status(1), true);
        assert!(!comparison.agrees());
        let text = comparison.to_string();
        let differing: Vec<&str> = text
            .lines()
            .filter(|line| line.ends_with("DIFFERS"))
            .map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap())
            .collect();
        assert_eq!(differing, ["access", "all packets", "all octets", "mirai", "accesses", "23/tcp"]);
    }

    #[test]
    fn a_status_without_anything_does_not_agree() {
        assert!(!Comparison::new(&sent(), &json!({}), true).agrees());
    }
}
