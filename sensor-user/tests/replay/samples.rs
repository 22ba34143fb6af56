//! What packets held: `teiten replay --samples` and `teiten samples`.

use super::*;
use lab::traffic::messenger::{MESSAGES, request};
use sensor_counters::{SampleResult, Series};
use serde_json::Value;
use std::collections::BTreeSet;

const OWN: [u8; 4] = [203, 0, 113, 77];

/// What of them is shown.
fn masked(message: &str) -> String {
    message.replace("HOST", "***")
}

fn udp(src: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(src, OWN, 64).udp(40_000, port).write(&mut packet, payload).unwrap();
    packet
}

/// Words that no other number has.
fn words(number: u32) -> String {
    (0..6)
        .map(|nth| char::from(b'a' + (number.wrapping_mul(2_654_435_761) >> (4 * nth) & 15) as u8))
        .collect()
}

/// Each message from 60 sources to five ports in turn, with variations; a flood of contents that never come
/// again to the same ports.
fn spam(flood: u32) -> Vec<Record> {
    let mut records = Vec::new();
    for nth in 0..240_u32 {
        let message = MESSAGES[nth as usize % 4];
        let host = ["regfix", "registry-repair", "fixreg3000", "r"][nth as usize / 60];
        let message = message.replace("HOST", host).replace("55", &(nth + 3).to_string());
        let message = if nth % 7 == 0 { message.replace("your", "YOUR") } else { message };
        let port = 1026 + (nth / 4 % 5) as u16;
        let src = [203, 0, (nth / 100) as u8, (nth % 100) as u8];
        records.push((BEFORE_FOUR - 1000 + nth, 0, udp(src, port, &request(nth, &message))));
    }
    for nth in 0..flood {
        let port = 1026 + (nth % 5) as u16;
        let src = [198, 51, (nth >> 8) as u8, nth as u8];
        records.push((BEFORE_FOUR - 1000 + nth % 240, 1, udp(src, port, words(nth).as_bytes())));
    }
    records.sort_by_key(|(second, fraction, _)| (*second, *fraction));
    records
}

struct Case(tempfile::TempDir);

impl Case {
    fn new(records: &[Record]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.pcap"), pcap(Endian::Little, MICROSECONDS, 101, records))
            .unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn replay(&self, more: &[&str]) -> String {
        let file = self.path("x.pcap");
        let args = ["replay", "--timezone", "UTC", "--sensor-name", "n"];
        let (code, text, errors) = teiten(&[&args[..], more, &[&file]].concat(), b"");
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        text
    }

    fn samples(&self, more: &[&str]) -> String {
        let state = self.path("state");
        let (code, text, errors) = teiten(&[&["samples", "--state-dir", &state], more].concat(), b"");
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        text
    }
}

/// The contents of all ports, and the packets that are not kept.
fn contents(text: &str, key: Option<&str>) -> (Vec<Value>, u64) {
    let json: Value = serde_json::from_str(text).unwrap();
    let ports = key.map_or(&json, |key| &json[key]).as_array().unwrap().clone();
    let rest = ports.iter().map(|port| port["not_kept"].as_u64().unwrap()).sum();
    (ports.iter().flat_map(|port| port["contents"].as_array().unwrap().clone()).collect(), rest)
}

#[test]
fn the_messages_of_the_report_are_one_sample_each_and_masked_as_there() {
    let case = Case::new(&spam(0));
    let json = case.replay(&["--samples", "1026-1030/udp", "--json", "--state-dir", &case.path("state")]);
    let (replayed, rest) = contents(&json, Some("sampled"));
    // Four messages at each of five ports, each of them 12 times.
    assert_eq!((replayed.len(), rest), (20, 0));
    for content in &replayed {
        assert_eq!((content["packets"].as_u64(), content["sources"].as_u64()), (Some(12), Some(12)));
        assert_eq!(content["name"], "Messenger pop-up (DCE/RPC): from SYSTEM to ALERT");
    }
    // The variant that came first is shown, which may have another number or a word in capitals.
    let texts: BTreeSet<String> = replayed
        .iter()
        .map(|content| content["text"].as_str().unwrap().replace("YOUR", "your"))
        .map(|text| {
            text.split(' ')
                .map(|word| if word.parse::<u32>().is_ok() { "55" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(texts, MESSAGES.iter().map(|message| masked(message)).collect());
    // The ledger has the same, and what it has counted.
    let (kept, _) = contents(&case.samples(&["--json"]), None);
    assert_eq!(kept, replayed);
    let (code, text, errors) = teiten(&["ledger", "verify", "--state-dir", &case.path("state")], b"");
    assert_eq!(code, Some(0), "{text}{errors}");
    let text = case.samples(&["--port", "1026/udp", "--day", "2010-07-09"]);
    assert!(text.contains("4 contents of 48 packets") && text.contains("    | www.***.com\n"), "{text}");
    assert!(!text.contains("regfix"), "{text}");
    assert!(case.samples(&["--unmasked"]).contains("www.regfix.com"));
}

#[test]
fn a_flood_beside_them_keeps_none_of_them_out_and_every_packet_is_counted() {
    let flood = 20_000;
    let config = {
        let environment =
            Environment { variables: BTreeMap::new(), host_name: "n".to_owned(), timezone: TimeZone::UTC };
        let given = |key: &sensor_user::config::Key| {
            if key.name == "samples" { vec!["1026-1030/udp".to_owned()] } else { Vec::new() }
        };
        Config::load(&Flags::collect(given), &environment).unwrap()
    };
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &spam(flood));
    let observation = observe(&config, &capture);
    assert_eq!(observation.samples.iter().map(|port| port.packets).sum::<u64>(), 240 + u64::from(flood));
    assert!(observation.samples.iter().all(|port| port.contents.len() <= 40));
    let case = Case(tempfile::tempdir().unwrap());
    std::fs::write(case.path("x.pcap"), capture).unwrap();
    let json = case.replay(&["--samples", "1026-1030/udp", "--json"]);
    let (replayed, rest) = contents(&json, Some("sampled"));
    let packets: u64 = replayed.iter().map(|content| content["packets"].as_u64().unwrap()).sum();
    assert_eq!(packets + rest, 240 + u64::from(flood));
    assert_eq!(replayed.len(), 100);
    let popups: Vec<_> = replayed.iter().filter(|content| !content["name"].is_null()).collect();
    assert_eq!(popups.len(), 20);
    let json: Value = serde_json::from_str(&json).unwrap();
    let result = |name: &str| {
        json["samples"].as_array().unwrap().iter().find(|row| row["result"] == name).unwrap()["packets"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(result("kept") + result("known") + result("over_budget"), 240 + u64::from(flood));
    assert!(Series::parse("samples", SampleResult::OverBudget.name()).is_some());
}

#[test]
fn a_ledger_that_lacks_commits_is_an_error_of_samples() {
    let case = Case::new(&spam(0));
    case.replay(&["--samples", "1026-1030/udp", "--state-dir", &case.path("state")]);
    let ledger = case.path("state/ledger.sqlite");
    std::fs::copy(&ledger, case.path("older")).unwrap();
    case.replay(&["--samples", "1026-1030/udp", "--state-dir", &case.path("state")]);
    case.samples(&[]);
    // The record beside it knows of the second replay.
    std::fs::rename(case.path("older"), &ledger).unwrap();
    for more in [&[][..], &["--json"], &["--pcapng", "-"]] {
        let state = case.path("state");
        let args = [&["samples", "--state-dir", &state], more].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_teiten")).args(args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("error: ") && errors.contains("what follows lacks what is lost"), "{errors}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn hostile_contents_reach_no_terminal_and_no_reader() {
    let hostile: [&[u8]; 9] = [
        b"\x1b[2J\x1b]0;owned\x07 plain text around it so that it is a text, and more of it",
        b"",
        &[0x41; 1400],
        b"\xff\xfe\x00\xd8\x00",
        b"\x82\xa0\x82",
        "\u{202e}evil\u{2066} \u{9b}31m text text text text text text text text".as_bytes(),
        b"\r\n\r\n1026/udp on 2010-07-09: 1 content of 1 packet\r\n  | forged",
        b"http://user:secret@www.evil-host.example.com:80/ and 203.0.113.77 and cb00714d",
        b"\x80\x81http://evil-host.net/\x00\x01\xcb\x00\x71\x4d",
    ];
    let records: Vec<Record> = hostile
        .iter()
        .enumerate()
        .map(|(at, payload)| (BEFORE_FOUR, at as u32, udp([198, 51, 100, at as u8], 27_649, payload)))
        .collect();
    let case = Case::new(&records);
    let state = case.path("state");
    case.replay(&["--samples", "all", "--state-dir", &state]);
    let json = case.samples(&["--json"]);
    assert_eq!(contents(&json, None).0.len(), hostile.len());
    for text in [case.samples(&[]), json, case.replay(&["--samples", "27649/udp"])] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        for hidden in
            ["evil-host", "secret", "203.0.113.77", "cb00714d", "cb 00 71 4d", "\u{202e}", "\u{2066}"]
        {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
        // What looks like this program's own line is marked as content.
        assert!(text.lines().filter(|line| line.starts_with("1026/udp on")).count() == 0, "{text}");
    }
}

#[test]
fn a_capture_of_samples_tells_neither_the_sensors_address_nor_hosts_and_is_read_again() {
    let case = Case::new(&spam(0));
    case.replay(&["--samples", "1026/udp", "--state-dir", &case.path("state")]);
    let shared = case.path("shared.pcapng");
    case.samples(&["--pcapng", &shared]);
    let bytes = std::fs::read(&shared).unwrap();
    for (hidden, times) in [(&b"regfix"[..], 0), (&OWN, 0), (&[192, 0, 2, 1], 4)] {
        assert_eq!(bytes.windows(hidden.len()).filter(|part| *part == hidden).count(), times);
    }
    let (code, text, errors) =
        teiten(&["replay", "--timezone", "UTC", "--samples", "1026/udp", "--json", &shared], b"");
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (again, _) = contents(&text, Some("sampled"));
    let (kept, _) = contents(&case.samples(&["--json"]), None);
    let what = |contents: &[Value]| {
        contents.iter().map(|content| content["text"].as_str().unwrap().len()).collect::<BTreeSet<_>>()
    };
    assert_eq!((again.len(), kept.len()), (4, 4));
    assert!(what(&again).len() == 4);
}

#[test]
fn nothing_is_sampled_unless_a_port_is_chosen_and_services_never() {
    let case = Case::new(&spam(0));
    let json: Value = serde_json::from_str(&case.replay(&["--json"])).unwrap();
    assert!(json.get("sampled").is_none());
    let file = case.path("x.pcap");
    let (code, _, errors) =
        teiten(&["replay", "--samples", "1026-1030/udp", "--service", "1027/udp", &file], b"");
    assert_eq!(code, Some(2));
    assert!(errors.contains("leave 1027/udp out"), "{errors}");
    for wrong in ["1026", "1026/sctp", "9-3/udp", "everything"] {
        assert_eq!(teiten(&["replay", "--samples", wrong, &file], b"").0, Some(2), "{wrong}");
    }
}
