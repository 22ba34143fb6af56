//! The project's own captures in `tests/captures`, whose README says how each was made. Their right
//! answers do not come from this program.

use super::teiten;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

fn replayed(name: &str, flags: &[&str]) -> Value {
    let path = path(name);
    let fixed = ["replay", "--json", "--timezone", "UTC", path.to_str().unwrap()];
    let (status, stdout, stderr) = teiten(&[&fixed[..], flags].concat(), b"");
    assert_eq!(status, Some(0), "{name}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// What a row of a table is about.
type Key<'a> = &'a dyn Fn(&Value) -> String;

/// Rows of `report` as `kind,key,values`, without those that are zero.
fn lines(report: &Value) -> BTreeMap<String, [u64; 2]> {
    let port =
        |row: &Value| format!("{}/{}", row["port"].as_str().unwrap(), row["transport"].as_str().unwrap());
    let class = |row: &Value| row["class"].as_str().unwrap().to_owned();
    let tool = |row: &Value| row["tool"].as_str().unwrap().to_owned();
    let tables: [(&str, &str, Key<'_>, [&str; 2]); 5] = [
        ("class", "classes", &class, ["packets", "bytes"]),
        ("port", "ports", &port, ["accesses", "sources"]),
        ("backscatter", "backscatter", &port, ["packets", ""]),
        ("service", "services", &port, ["accesses", ""]),
        ("tool", "tools", &tool, ["accesses", ""]),
    ];
    let mut lines = BTreeMap::from([("hosts,".to_owned(), [report["hosts"].as_u64().unwrap(), 0])]);
    for (kind, table, key, columns) in tables {
        for row in report[table].as_array().unwrap() {
            let values = columns.map(|column| row[column].as_u64().unwrap_or(0));
            // Services have a row for each country.
            let line = lines.entry(format!("{kind},{}", key(row))).or_insert([0, 0]);
            *line = [line[0] + values[0], line[1] + values[1]];
        }
    }
    lines.retain(|_, values| *values != [0, 0]);
    lines
}

/// The right answers beside a capture.
fn answers(name: &str) -> BTreeMap<String, [u64; 2]> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let [kind, key, values @ ..] = &fields[..] else { panic!("{line:?}") };
        (format!("{kind},{key}"), [0, 1].map(|at| values[at].parse().unwrap_or(0)))
    };
    text.lines().map(line).filter(|(_, values)| *values != [0, 0]).collect()
}

#[test]
fn the_mix_counts_as_it_was_made() {
    let flags = [
        "--observe=198.51.100.0/24",
        "--observe=192.0.2.7",
        "--observe=2001:db8:1::/48",
        "--service=22/tcp",
        "--service=5060/udp",
        "--exclude-source=203.0.113.0/25",
        "--exclude-source=2001:db8:ffff::/48",
        "--max-ports=197376",
    ];
    for name in ["mix-ethernet", "mix-ip"] {
        let found = lines(&replayed(&format!("{name}.pcap"), &flags));
        let wanted = answers(&format!("{name}.csv"));
        let different: Vec<_> = found
            .iter()
            .filter(|(key, values)| wanted.get(*key) != Some(values))
            .chain(wanted.iter().filter(|(key, _)| !found.contains_key(*key)))
            .collect();
        assert!(different.is_empty(), "{name}: {different:?}");
        assert!(wanted.len() > 100, "{name}: {} answers", wanted.len());
    }
}

#[test]
fn conversations_count_as_wireshark_judges_them() {
    for name in ["conversations.pcap", "conversations-cooked.pcapng"] {
        let report = replayed(name, &["--local=198.18.0.1", "--local=3fff::1"]);
        let classes: BTreeMap<&str, u64> = report["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["class"].as_str().unwrap(), row["packets"].as_u64().unwrap()))
            .filter(|(_, packets)| *packets > 0)
            .collect();
        let wanted = [
            ("access", 67),
            ("backscatter", 21),
            ("non_ip", 12),
            ("other", 17),
            ("other_destination", 10),
            ("solicited", 84),
        ];
        assert_eq!(classes, BTreeMap::from(wanted), "{name}");
        assert_eq!(report["outbound"], 178, "{name}");
    }
}

/// SYNs of ordinary systems: the captures of the tcpdump project, where they are.
#[test]
fn no_tool_is_seen_in_what_ordinary_systems_send() {
    let data = std::env::var_os("TEITEN_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from)
        .join("pcaps/tcpdump");
    let Ok(entries) = std::fs::read_dir(&data) else {
        eprintln!("left out: no captures in {}; TEITEN_TEST_DATA names their folder", data.display());
        return;
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"))
        .collect();
    paths.sort();
    let mut arguments = vec!["replay", "--json", "--timezone", "UTC"];
    arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
    // Many are damaged on purpose, which the status tells.
    let (_, stdout, stderr) = teiten(&arguments, b"");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    for row in report["tools"].as_array().unwrap() {
        let accesses = row["accesses"].as_u64().unwrap();
        if row["tool"] == "other" {
            assert!(accesses >= 80, "{accesses} SYNs in {} captures", paths.len());
        } else {
            assert_eq!(accesses, 0, "{row}");
        }
    }
}
