//! The benchmark with amounts that show nothing but that all parts work: everything that is sent is
//! counted to the packet (a difference is an error of the run), and the tables come out. No time is
//! looked at. Needs root, and the toolchain for BPF, which builds the programs it compares with.

use crate::common::teiten;
use bench::{BenchArgs, run};
use serde_json::Value;
use xtask::{ebpf, toolchain};

#[test]
fn every_part_measures_counts_to_the_packet_and_shows_its_tables() {
    needs_root!();
    needs_program!("nft");
    needs_program!("ethtool");
    needs_program!("tshark");
    needs_program!("tcpdump");
    let Ok(toolchain) = toolchain::ensure(false) else {
        println!("skipped: no toolchain for BPF");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let [markdown, json] = ["bench.md", "bench.json"].map(|name| directory.path().join(name));
    let args = BenchArgs {
        parts: Vec::new(),
        rounds: 1,
        quick: false,
        against: None,
        markdown: Some(markdown.clone()),
        json: Some(json.clone()),
        teiten: Some(teiten().to_owned()),
        programs: Some(ebpf::build_bench(&toolchain).unwrap()),
        object: None,
        other: None,
        tiny: true,
    };
    run(&args, || unreachable!("the programs are built")).unwrap();

    let results: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let title = |table: &Value| table["title"].as_str().unwrap().to_owned();
    let tables = results["tables"].as_array().unwrap();
    let markdown = std::fs::read_to_string(markdown).unwrap();
    for begin in [
        "Kernel: a TCP SYN",
        "Kernel: kinds",
        "Whole path",
        "Drain: one",
        "Drain: source lists",
        "Drain: a stream",
        "Bystanders",
        "Daemon",
        "Scrape",
        "Replay",
        "Growth: sources",
        "Growth: ports",
        "Growth: days",
        "Growth: CPUs",
    ] {
        assert!(tables.iter().any(|table| title(table).starts_with(begin)), "no table {begin}");
        assert!(markdown.contains(&format!("\n## {begin}")), "no Markdown of {begin}");
    }
    // Each figure is one.
    for table in tables {
        for cell in table["rows"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()) {
            let is_figure =
                cell["rounds"].as_array().is_none_or(|rounds| rounds.iter().all(Value::is_number));
            assert!(is_figure, "{}: {cell}", title(table));
        }
    }
    // By what was sent: twenty thousand frames over the cable in one round.
    let path = tables.iter().find(|table| title(table).starts_with("Whole path")).unwrap();
    let rows = path["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row[0] == "Teiten as installed, pass").unwrap();
    assert_eq!(
        (&row[5], &row[6], &row[7], &row[8]),
        (&"20,000".into(), &"20,000".into(), &"20,000".into(), &"0".into())
    );
}
