//! The reader and the parser against Wireshark's, packet by packet, over the project's own captures and
//! those of the tcpdump project.

use super::capture::{Captured, Findings, read};
use super::link::LinkType;
use sensor_common::{Packet, Transport, Unparsed};
use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    parsed: Result<Packet, Unparsed>,
    link: LinkType,
    bytes: u32,
    at: i64,
}

fn see(path: &Path) -> (Vec<Seen>, Findings) {
    let mut seen = Vec::new();
    let Ok(findings) = read(File::open(path).unwrap(), |packet: Captured<'_>| {
        let parsed = packet.link.parse(packet.frame);
        seen.push(Seen { parsed, link: packet.link, bytes: packet.bytes, at: packet.at });
        Ok::<(), Infallible>(())
    });
    (seen, findings)
}

/// The project's own captures, and those of the tcpdump project where they are.
fn corpus() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("TEITEN_TEST_DATA")
        .map_or_else(|| here.join("../../shared/data"), PathBuf::from)
        .join("pcaps/tcpdump");
    let mut files = Vec::new();
    for folder in [here.join("tests/captures"), data] {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("left out: no captures in {}; TEITEN_TEST_DATA names their folder", folder.display());
            continue;
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| {
            path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng")
        }));
    }
    files.sort();
    files
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// What Wireshark makes of one packet: transport and port, where the first IP header leads to one.
fn judged(line: &str) -> (u32, Option<(Transport, u16)>) {
    let fields: Vec<&str> = line.split('\t').collect();
    let [length, protocols, protocol, tcp, udp, sctp, icmp, icmpv6] = fields[..] else {
        panic!("unexpected line {line:?}")
    };
    let mut names = protocols.split(':').skip_while(|name| !matches!(*name, "ip" | "ipv6" | "arp" | "llc"));
    let first = names.next();
    let next = names.find(|name| !name.starts_with("ipv6.") && *name != "ah");
    let port = |text: &str| text.split(',').next().and_then(|port| port.parse().ok());
    let judged = match (first, next) {
        (Some("ip" | "ipv6"), Some(name)) => match name {
            "tcp" => port(tcp).map(|port| (Transport::Tcp, port)),
            "udp" => port(udp).map(|port| (Transport::Udp, port)),
            "sctp" => port(sctp).map(|port| (Transport::Sctp, port)),
            "icmp" => port(icmp).map(|port| (Transport::Icmp, port)),
            "icmpv6" => port(icmpv6).map(|port| (Transport::Icmpv6, port)),
            // `ip.proto` is that of the IPv4 packet inside.
            "ip" if first == Some("ipv6") => Some((Transport::Other, 4)),
            _ => port(protocol)
                .filter(|number| !matches!(number, 1 | 6 | 17 | 58 | 132))
                .map(|number| (Transport::Other, number)),
        },
        _ => None,
    };
    (length.parse().unwrap(), judged)
}

#[test]
fn transport_and_port_are_those_that_wireshark_finds() {
    let files = corpus();
    assert!(files.len() >= 4, "{files:?}");
    if !has("tshark") || !has("mergecap") {
        return;
    }
    // One file of all that can be read to their end, so that one run of tshark does.
    let mut alone = Vec::new();
    let mut whole = Vec::new();
    for path in files {
        let (seen, findings) = see(&path);
        if findings.faults.is_empty() && !seen.is_empty() {
            alone.extend(seen.into_iter().map(|seen| (path.clone(), seen)));
            whole.push(path);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let merged = directory.path().join("all.pcapng");
    let output = Command::new("mergecap").arg("-a").arg("-w").arg(&merged).args(&whole).output().unwrap();
    assert!(output.status.success(), "mergecap: {}", String::from_utf8_lossy(&output.stderr));

    // Each packet is the same in its own file and in the merged one of another format. Its time may
    // be cut to microseconds.
    let (seen, findings) = see(&merged);
    assert!(findings.faults.is_empty(), "{findings:?}");
    assert_eq!(seen.len(), alone.len());
    for (merged, (path, alone)) in seen.iter().zip(&alone) {
        assert_eq!((merged.parsed, merged.bytes), (alone.parsed, alone.bytes), "{}", path.display());
        // These have fractions of a second that are longer than a second.
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("timestamp_invalid") && name != "rx_serviceid_oobr.pcap" {
            assert!((merged.at - alone.at).abs() < 1000, "{name}: {merged:?} {alone:?}");
        }
    }

    let fields =
        "frame.len frame.protocols ip.proto tcp.dstport udp.dstport sctp.dstport icmp.type icmpv6.type";
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-T", "fields"]);
    for field in fields.split(' ') {
        tshark.args(["-e", field]);
    }
    let output = tshark.arg("-r").arg(&merged).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut compared = 0;
    for (number, (line, seen)) in text.lines().zip(&seen).enumerate() {
        let (length, theirs) = judged(line);
        assert_eq!(length, seen.bytes, "frame {}", number + 1);
        if let (Some(theirs), Ok(ours)) = (theirs, &seen.parsed) {
            assert_eq!((ours.transport, ours.port), theirs, "frame {}: {line}", number + 1);
            compared += 1;
        }
    }
    assert_eq!(text.lines().count(), seen.len());
    let parsed = seen.iter().filter(|seen| seen.parsed.is_ok()).count();
    assert!(compared * 10 > parsed * 9, "only {compared} of {parsed} packets compared");
    eprintln!("{compared} of {} packets in {} captures compared", seen.len(), whole.len());
}
