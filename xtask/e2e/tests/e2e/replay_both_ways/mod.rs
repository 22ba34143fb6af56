//! `teiten replay --local` on captures of both directions, made of real conversations between two
//! namespaces with remote hosts in between, against the conversations that Wireshark finds in them.
//! Needs root.

mod judge;
mod life;

use crate::common::{output, teiten};
use life::Line;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Packets by class, and what was sent.
fn replayed(capture: &Path) -> BTreeMap<String, u64> {
    let mut command = Command::new(teiten());
    command.args(["replay", "--json", "--timezone", "UTC"]);
    for local in life::SENSOR {
        command.args(["--local", local]);
    }
    let report: serde_json::Value = serde_json::from_str(&output(command.arg(capture))).unwrap();
    let rows = report["classes"].as_array().unwrap().iter();
    let classes =
        rows.map(|row| (row["class"].as_str().unwrap().to_owned(), row["packets"].as_u64().unwrap()));
    let outbound = ("outbound".to_owned(), report["outbound"].as_u64().unwrap());
    classes.chain([outbound]).filter(|(_, packets)| *packets > 0).collect()
}

#[test]
fn replay_finds_the_conversations_that_wireshark_finds() {
    needs_root!();
    needs_program!("dumpcap");
    needs_program!("tshark");
    needs_program!("nmap");
    needs_program!("ping");
    let line = Line::new();
    let directory = tempfile::tempdir().unwrap();
    let captures = [("eth0", "ethernet.pcapng"), ("any", "cooked.pcapng")]
        .map(|(interface, name)| (interface, directory.path().join(name)));
    let running = captures.clone().map(|(interface, path)| line.capture(interface, &path));
    line.live();
    running.into_iter().for_each(life::Capture::stop);

    for (interface, path) in captures {
        let judged = judge::Judged::new(&path, &life::SENSOR);
        let found = replayed(&path);
        assert_eq!(found, judged.classes(), "on {interface}:\n{}", judged.table());
        for (class, least) in [
            ("solicited", 60),
            ("access", 30),
            ("backscatter", 10),
            ("other", 4),
            ("other_destination", 1),
            ("outbound", 80),
        ] {
            let packets = found.get(class).copied().unwrap_or(0);
            assert!(packets >= least, "{class}: {packets} on {interface}\n{}", judged.table());
        }
    }
}
