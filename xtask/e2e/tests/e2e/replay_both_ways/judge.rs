//! What each packet of a capture is to the sensor, by Wireshark's conversations: which stream it belongs
//! to and who sent its first packet, how complete a TCP handshake is, which ICMP request a reply answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const FIELDS: [&str; 18] = [
    "frame.number",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.stream",
    "tcp.flags",
    "tcp.completeness",
    "tcp.srcport",
    "tcp.dstport",
    "udp.stream",
    "udp.srcport",
    "udp.dstport",
    "dns.flags.response",
    "icmp.type",
    "icmpv6.type",
    "icmp.ident",
];
/// Which request a reply answers: of ICMP, and of `ICMPv6`, whose identifier has a field of its own.
const MORE: [&str; 3] = ["icmp.resp_to", "icmpv6.echo.identifier", "icmpv6.echo.sequence_number"];

/// Values of one packet's fields; of one that quotes another, both's.
type Row = HashMap<&'static str, Vec<String>>;

/// Ends and protocol of a packet, from who sent it to who received it.
type Tuple = (String, String, String, String, &'static str);

/// A capture's packets with their classes.
pub(crate) struct Judged(Vec<(String, String)>);

impl Judged {
    pub(crate) fn new(capture: &Path, local: &[&str]) -> Self {
        let rows = read(capture);
        let knowledge = Knowledge::new(&rows, local);
        Self(rows.iter().map(|row| (knowledge.class(row).to_owned(), describe(row))).collect())
    }

    pub(crate) fn classes(&self) -> BTreeMap<String, u64> {
        let mut classes = BTreeMap::new();
        for (class, _) in &self.0 {
            *classes.entry(class.clone()).or_default() += 1;
        }
        classes
    }

    /// All packets, for a person who looks for the difference.
    pub(crate) fn table(&self) -> String {
        self.0.iter().fold(String::new(), |mut table, (class, packet)| {
            let _ = writeln!(table, "{class:18}{packet}");
            table
        })
    }
}

fn read(capture: &Path) -> Vec<Row> {
    let mut tshark = Command::new("tshark");
    // Two passes: the first finds how complete conversations are.
    tshark.args(["-2", "-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]);
    let names = || FIELDS.into_iter().chain(MORE);
    for field in names() {
        tshark.args(["-e", field]);
    }
    let text = crate::common::output(tshark.arg("-r").arg(capture).stderr(std::process::Stdio::null()));
    let values = |line: &str| -> Row {
        let values = line.split('\t').map(|value| value.split(',').map(str::to_owned).collect());
        names().zip(values).filter(|(_, values): &(_, Vec<String>)| values != &[""]).collect()
    };
    text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).map(values).collect()
}

fn describe(row: &Row) -> String {
    FIELDS
        .into_iter()
        .chain(MORE)
        .filter_map(|field| Some(format!("{field}={}", row.get(field)?.join(","))))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The value of a field in the packet itself, or (1) in the one that it quotes.
fn value<'a>(row: &'a Row, field: &str, layer: usize) -> Option<&'a str> {
    row.get(field)?.get(layer).map(String::as_str)
}

fn transport(row: &Row) -> &str {
    let protocols = row["frame.protocols"][0].split(':');
    let mut known =
        protocols.filter(|name| matches!(*name, "tcp" | "udp" | "icmp" | "icmpv6" | "arp" | "igmp"));
    known.next().unwrap_or("")
}

fn address<'a>(row: &'a Row, end: &str, layer: usize) -> &'a str {
    let (v4, v6) = if end == "src" { ("ip.src", "ipv6.src") } else { ("ip.dst", "ipv6.dst") };
    value(row, v4, layer).or_else(|| value(row, v6, layer)).unwrap_or("")
}

/// A TCP or UDP packet's tuple, or that of an echo request with its identifier.
fn tuple(row: &Row, layer: usize) -> Option<Tuple> {
    // A quote is the only one of its protocol in a packet, unless that is ICMP.
    let of = |protocol: &'static str, src: &str, dst: &str| {
        let port = |field| value(row, field, 0).map(str::to_owned);
        let ends = (address(row, "src", layer).to_owned(), address(row, "dst", layer).to_owned());
        Some((ends.0, ends.1, port(src)?, port(dst)?, protocol))
    };
    of("tcp", "tcp.srcport", "tcp.dstport").or_else(|| of("udp", "udp.srcport", "udp.dstport")).or_else(
        || {
            let identifier = row.get("icmp.ident").or_else(|| row.get("icmpv6.echo.identifier"))?.last()?;
            let kind = row.get("icmp.type").or_else(|| row.get("icmpv6.type"))?.last()?;
            matches!(kind.as_str(), "8" | "128").then_some(())?;
            let ends = (address(row, "src", layer).to_owned(), address(row, "dst", layer).to_owned());
            Some((ends.0, ends.1, identifier.clone(), kind.clone(), "echo"))
        },
    )
}

/// What the whole capture tells.
struct Knowledge<'a> {
    local: &'a [&'a str],
    /// Streams of which the sensor sent the first packet, by protocol and number.
    ours: HashSet<(&'static str, String)>,
    /// What the sensor sent in them, and echo requests.
    asked: HashSet<Tuple>,
}

impl<'a> Knowledge<'a> {
    fn new(rows: &[Row], local: &'a [&'a str]) -> Self {
        let mut knowledge = Self { local, ours: HashSet::new(), asked: HashSet::new() };
        let mut met = HashSet::new();
        for row in rows {
            for protocol in ["tcp", "udp"] {
                let Some(stream) = value(row, if protocol == "tcp" { "tcp.stream" } else { "udp.stream" }, 0)
                else {
                    continue;
                };
                if transport(row) != protocol {
                    continue;
                }
                let stream = (protocol, stream.to_owned());
                let is_first = met.insert(stream.clone());
                let accepted = protocol == "tcp" && is_complete(row);
                if knowledge.is_outbound(row) && is_first || accepted {
                    knowledge.ours.insert(stream.clone());
                }
                if knowledge.is_outbound(row) && knowledge.ours.contains(&stream) {
                    knowledge.asked.extend(tuple(row, 0));
                }
            }
            if transport(row).starts_with("icmp") && knowledge.is_outbound(row) {
                knowledge.asked.extend(tuple(row, 0).filter(|tuple| tuple.4 == "echo"));
            }
        }
        knowledge
    }

    fn is_outbound(&self, row: &Row) -> bool {
        self.local.contains(&address(row, "src", 0))
    }

    fn class(&self, row: &Row) -> &'static str {
        if self.is_outbound(row) {
            return "outbound";
        }
        if transport(row) == "arp" {
            return "non_ip";
        }
        if !self.local.contains(&address(row, "dst", 0)) {
            return "other_destination";
        }
        match transport(row) {
            "tcp" => self.tcp(row),
            "udp" => self.udp(row),
            "icmp" | "icmpv6" => self.icmp(row),
            _ => "other",
        }
    }

    fn tcp(&self, row: &Row) -> &'static str {
        let flags = u16::from_str_radix(row["tcp.flags"][0].trim_start_matches("0x"), 16).unwrap();
        let (syn, rst, ack) = (flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        let is_ours = self.ours.contains(&("tcp", row["tcp.stream"][0].clone()));
        match (is_ours, syn, rst, ack) {
            (_, _, false, false) => "access",
            (true, ..) => "solicited",
            // The sensor had sent a SYN+ACK, and the remote host declined.
            (false, _, true, _) if completeness(row) & 2 != 0 => "other",
            (false, _, true, _) | (false, true, ..) => "backscatter",
            (false, false, false, true) => "other",
        }
    }

    fn udp(&self, row: &Row) -> &'static str {
        let is_response =
            value(row, "dns.flags.response", 0).is_some_and(|flag| flag == "1" || flag == "True");
        let ports = (row["udp.srcport"][0].as_str(), row["udp.dstport"][0].as_str());
        if self.ours.contains(&("udp", row["udp.stream"][0].clone())) {
            "solicited"
        } else if ports == ("67", "68") {
            "other"
        } else if ports.0 == "53" && is_response {
            "backscatter"
        } else {
            "access"
        }
    }

    fn icmp(&self, row: &Row) -> &'static str {
        let kind = value(row, "icmp.type", 0).or_else(|| value(row, "icmpv6.type", 0)).unwrap();
        let answers = || match value(row, "icmp.resp_to", 0) {
            Some(_) => true,
            // The request has the addresses the other way round.
            None => row.get("icmpv6.echo.identifier").is_some_and(|identifier| {
                let (src, dst) = (address(row, "dst", 0).to_owned(), address(row, "src", 0).to_owned());
                self.asked.contains(&(src, dst, identifier[0].clone(), "128".to_owned(), "echo"))
            }),
        };
        match kind {
            "8" | "128" if transport(row) == "icmp" || kind == "128" => "access",
            "0" | "129" => {
                if answers() {
                    "solicited"
                } else {
                    "backscatter"
                }
            }
            "133" | "134" | "135" | "136" | "143" => "other",
            _ => {
                if tuple(row, 1).is_some_and(|tuple| self.asked.contains(&tuple)) {
                    "solicited"
                } else {
                    "backscatter"
                }
            }
        }
    }
}

/// Wireshark's sum of what a connection has: 1 SYN, 2 SYN+ACK, 4 ACK, 8 data, 16 FIN, 32 RST.
fn completeness(row: &Row) -> u32 {
    value(row, "tcp.completeness", 0).map_or(0, |sum| sum.parse().unwrap())
}

/// Whether the handshake of this packet's connection was completed.
fn is_complete(row: &Row) -> bool {
    completeness(row) & 7 == 7
}
