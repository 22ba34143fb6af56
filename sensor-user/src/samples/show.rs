//! Contents as tables of text and as JSON.

use super::day::{DaySamples, Row, masker};
use super::mask::{HIDDEN, Masker};
use super::{question, text};
use crate::format::thousands;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_common::Slot;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Bytes in a line of a dump.
const IN_LINE: usize = 16;
/// Countries that are named in the text.
const COUNTRIES: usize = 5;

/// The contents of a port and day, for programs: fields may be added, none is renamed or changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortDay {
    /// The local day.
    pub day: Date,
    /// The port.
    pub transport: &'static str,
    /// See `transport`.
    pub port: u16,
    /// Chosen packets whose content is not kept.
    pub not_kept: u64,
    /// Those that are, most packets first.
    pub contents: Vec<ShownContent>,
}

/// One content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownContent {
    /// What it is known by; the same on every sensor.
    pub id: String,
    /// Packets that had it.
    pub packets: u64,
    /// Sources of them.
    pub sources: u64,
    /// Whether `sources` is exact; if not, its standard error is 9 %.
    pub sources_exact: bool,
    /// How many different contents, byte by byte, differ in nothing but numbers, case and hosts.
    pub variants: u64,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the last packet.
    pub last: Timestamp,
    /// Packets by country, by source list, by tool.
    pub countries: BTreeMap<String, u64>,
    /// See `countries`.
    pub lists: BTreeMap<String, u64>,
    /// See `countries`.
    pub tools: BTreeMap<String, u64>,
    /// The known question that it is, with what it asks for.
    pub name: Option<String>,
    /// The characters of `text`.
    pub charset: Option<&'static str>,
    /// The content as text.
    pub text: Option<String>,
    /// The content in hexadecimal digits, `**` for a byte that is hidden; unless it is text.
    pub hex: Option<String>,
    /// Bytes of the content on the wire.
    pub length: u64,
    /// Bytes of it that are kept.
    pub captured: u64,
    /// Lines for people.
    #[serde(skip)]
    lines: Vec<String>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// These ports; all when empty.
    pub slots: BTreeSet<Slot>,
    /// Further addresses of the sensor, which are hidden: single ones and whole prefixes.
    pub own: Vec<IpNet>,
    /// Whether nothing is hidden.
    pub unmasked: bool,
}

impl Query {
    /// What hides what is not to be seen of `rows`; `None` when nothing is to be hidden.
    pub fn masker<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) -> Option<Masker> {
        (!self.unmasked).then(|| masker(rows, &self.own))
    }

    fn has(&self, slot: Slot) -> bool {
        self.slots.is_empty() || self.slots.contains(&slot)
    }

    /// The contents of some days, by day and port.
    pub fn of_days<'a>(
        &self,
        days: impl IntoIterator<Item = &'a (Date, DaySamples)>,
        masker: Option<&Masker>,
    ) -> Vec<PortDay> {
        days.into_iter()
            .flat_map(|(day, samples)| {
                let rows: Vec<_> = samples.rows().cloned().collect();
                self.port_days(*day, &rows, &samples.rest().collect(), masker)
            })
            .collect()
    }

    /// The contents of a day, by port.
    pub fn port_days(
        &self,
        day: Date,
        rows: &[Row],
        rest: &BTreeMap<Slot, u64>,
        masker: Option<&Masker>,
    ) -> Vec<PortDay> {
        let mut ports: BTreeMap<Slot, Vec<&Row>> = BTreeMap::new();
        for slot in rest.keys().filter(|slot| self.has(**slot)) {
            ports.entry(*slot).or_default();
        }
        for row in rows.iter().filter(|row| self.has(row.slot)) {
            ports.entry(row.slot).or_default().push(row);
        }
        let port = |(slot, mut rows): (Slot, Vec<&Row>)| {
            rows.sort_by_key(|row| (std::cmp::Reverse(row.packets), row.first, row.key));
            PortDay {
                day,
                transport: slot.transport().name(),
                port: slot.port(),
                not_kept: rest.get(&slot).copied().unwrap_or(0),
                contents: rows.into_iter().map(|row| ShownContent::new(row, masker)).collect(),
            }
        };
        ports.into_iter().map(port).collect()
    }
}

fn instant(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).expect("within jiff's years")
}

impl ShownContent {
    fn new(row: &Row, masker: Option<&Masker>) -> Self {
        let content = row.packet.content();
        let hosts = |text: &str| masker.map_or_else(|| text.to_owned(), |masker| masker.text(text));
        let question = masker.map_or_else(
            || question::recognise(content),
            |masker| question::recognise_without(content, masker),
        );
        let name = question.as_ref().map(|question| question.name(masker));
        // Characters of two bytes would show bytes of an address as one of them.
        let is_bare = |bytes: &[u8]| masker.is_none_or(|masker| masker.addresses(bytes).is_empty());
        let message = question.and_then(|question| question.message);
        let decoded = match message.filter(|message| is_bare(message.as_bytes())) {
            Some(message) => Some((None, message)),
            None => text::decode(content, row.packet.is_cut())
                .filter(|_| is_bare(content))
                .map(|(charset, text)| (Some(charset.name()), text)),
        };
        let mut lines = Vec::new();
        let (charset, shown, hex) = if let Some((charset, decoded)) = decoded {
            let shown = text::plain(&hosts(&decoded));
            lines.extend(shown.lines().map(|line| line.trim_end().to_owned()));
            (charset, Some(shown), None)
        } else {
            let hidden = masker.map_or_else(|| vec![false; content.len()], |masker| masker.bytes(content));
            lines.extend(dump(content, &hidden));
            let hex = content.iter().zip(&hidden).map(|(byte, hidden)| hex(*byte, *hidden)).collect();
            (None, None, Some(hex))
        };
        let missing = row.packet.length.saturating_sub(content.len());
        if missing > 0 {
            lines.push(format!("({} more bytes were not kept)", thousands(missing as u64)));
        }
        Self {
            id: format!("{:016x}", row.key),
            packets: row.packets,
            sources: row.sources.count(),
            sources_exact: row.sources.is_exact(),
            variants: row.variants.count(),
            first: instant(row.first),
            last: instant(row.last),
            countries: row.origins.countries.clone(),
            lists: row.origins.lists.clone(),
            tools: row.origins.tools.clone(),
            name,
            charset,
            text: shown,
            hex,
            length: row.packet.length as u64,
            captured: content.len() as u64,
            lines,
        }
    }
}

fn hex(byte: u8, hidden: bool) -> String {
    if hidden { "**".to_owned() } else { format!("{byte:02x}") }
}

/// Lines of offset, bytes in hexadecimal digits, and those that can be printed.
fn dump(content: &[u8], hidden: &[bool]) -> Vec<String> {
    let lines = content.chunks(IN_LINE).zip(hidden.chunks(IN_LINE)).enumerate();
    lines
        .map(|(at, (bytes, hidden))| {
            let mut line = format!("{:04x} ", at * IN_LINE);
            for (byte, hidden) in bytes.iter().zip(hidden) {
                let _ = write!(line, " {}", hex(*byte, *hidden));
            }
            line.push_str(&" ".repeat(3 * (IN_LINE - bytes.len()) + 2));
            line.extend(bytes.iter().zip(hidden).map(|(byte, hidden)| match byte {
                _ if *hidden => '*',
                0x20..=0x7e => char::from(*byte),
                _ => '.',
            }));
            line
        })
        .collect()
}

/// The most frequent of them with their share of `packets`.
fn shares(counts: &BTreeMap<String, u64>, packets: u64) -> String {
    let mut counts: Vec<(&String, u64)> = counts.iter().map(|(name, packets)| (name, *packets)).collect();
    counts.sort_by_key(|(name, packets)| (std::cmp::Reverse(*packets), (*name).clone()));
    let more = counts.len().saturating_sub(COUNTRIES);
    let mut shown: Vec<String> = counts
        .into_iter()
        .take(COUNTRIES)
        .map(|(name, part)| format!("{name} {} %", (200 * part + packets) / (2 * packets).max(1)))
        .collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// Contents as text for people, times in `timezone`.
pub fn render(ports: &[PortDay], timezone: &TimeZone) -> String {
    let mut out = String::new();
    let local = |at: Timestamp| at.to_zoned(timezone.clone()).strftime("%H:%M:%S").to_string();
    let plural =
        |number: u64, one: &str| format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" });
    for (nth, port) in ports.iter().enumerate() {
        if nth > 0 {
            out.push('\n');
        }
        let kept: u64 = port.contents.iter().map(|content| content.packets).sum();
        let _ = write!(
            out,
            "{}/{} on {}: {} of {}",
            port.port,
            port.transport,
            port.day,
            plural(port.contents.len() as u64, "content"),
            plural(kept, "packet"),
        );
        if port.not_kept > 0 {
            let _ = write!(out, ", and {} whose content was not kept", plural(port.not_kept, "packet"));
        }
        out.push('\n');
        for content in &port.contents {
            let about = if content.sources_exact { "" } else { "about " };
            let _ = write!(
                out,
                "\n  {} from {about}{}",
                plural(content.packets, "packet"),
                plural(content.sources, "source")
            );
            for counts in [&content.countries, &content.lists, &content.tools] {
                if !counts.is_empty() {
                    let _ = write!(out, "; {}", shares(counts, content.packets));
                }
            }
            let _ = write!(out, "; {} to {}", local(content.first), local(content.last));
            if content.variants > 1 {
                let _ = write!(out, "; {} variants", thousands(content.variants));
            }
            out.push('\n');
            let what = match (&content.name, content.charset) {
                (Some(name), _) => name.clone(),
                (None, Some(charset)) => format!("text, {charset}"),
                (None, None) => plural(content.length, "byte"),
            };
            let _ = writeln!(out, "  {what}");
            for line in &content.lines {
                let _ = writeln!(out, "    | {line}");
            }
        }
    }
    out
}

/// What is hidden, in words for people.
pub fn note(unmasked: bool) -> String {
    if unmasked {
        "nothing is hidden: hosts, addresses and numbers are as they came".to_owned()
    } else {
        format!(
            "hosts, the sensor's addresses, e-mail addresses and long numbers are hidden ({HIDDEN}); --unmasked shows them"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Choice, Chosen, Collector, DaySamples, SampleSettings};
    use super::*;
    use crate::country::{Country, Locate};
    use sensor_common::{Link, Transport, parse};

    struct Nowhere;

    impl Locate for Nowhere {
        fn v4(&self, _: u32) -> Country {
            Country::UNKNOWN
        }

        fn v6(&self, _: u128) -> Country {
            Country::UNKNOWN
        }
    }

    const OWN: [u8; 4] = [203, 0, 113, 77];

    /// The text, the JSON and the capture of one datagram.
    fn shown(payload: &[u8]) -> (String, String, Vec<u8>) {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ipv4([198, 51, 100, 7], OWN, 60)
            .udp(40_000, 1026)
            .write(&mut frame, payload)
            .unwrap();
        let packet = parse(&frame[..], Link::Ip).unwrap();
        let slot = Slot::new(Transport::Udp, 1026);
        let mut collector = Collector::new(20);
        collector.add(slot, 0, None, Chosen::new(&frame, Link::Ip, &packet, 768).unwrap());
        let settings =
            SampleSettings { choice: Choice { all: true, ..Choice::default() }, ..SampleSettings::default() };
        let mut day = DaySamples::default();
        let outcome = day.compute(&collector.take(), &settings, |_| false, &Nowhere);
        day.apply(&outcome);
        let rows: Vec<Row> = day.rows().cloned().collect();
        let query = Query::default();
        let masker = query.masker(&rows);
        let ports = query.port_days(Date::new(2010, 7, 9).unwrap(), &rows, &BTreeMap::new(), masker.as_ref());
        let mut capture = Vec::new();
        super::super::pcapng::write(&rows.iter().collect::<Vec<_>>(), masker.as_ref(), &mut capture).unwrap();
        (render(&ports, &TimeZone::UTC), serde_json::to_string(&ports).unwrap(), capture)
    }

    /// What payloads are put together from: some of it must not be seen.
    const PARTS: &[&str] = &[
        "http://www.zqxhost.com/a",
        "HTTPS://zqxhost.example:8080",
        "http:\\\\zqxhost.net",
        "http%3a%2f%2fzqxhost.org%2f",
        "www.zqxhost.info",
        "zqxhost.co.jp",
        "mail zqxhost@zqxhost.jp",
        "Host: zqxhost.biz",
        "203.0.113.77",
        "203-0-113-77",
        "0xcb00714d",
        "3405803853",
        "0313.0.0161.0115",
        "\\xcb\\x00\\x71\\x4d",
        "77.113.0.203",
        "::ffff:cb00:714d",
        "Host:\tzqxhost.internal",
        "http:\\u002f\\u002fzqxhost.w",
        "o'zqxhost@a.jp",
        "zqxhost!x@a.jp",
        "\"zqxhost x\"@a.jp",
        "zqxhost%40a.jp",
        "zqxhost.pl/",
        "203\\.0\\.113\\.77",
        "203 . 0 . 113 . 77",
        "203][0][113][77",
        "203·0·113·77",
        "203。0。113。77",
        "1203.0.113.771",
        "203.29005.bad.example",
        "0xcb.0x00714d.dead.",
        "&#50;&#48;&#51;.0.113.77",
        "o203.o0.o113.o77",
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\u{202e}\u{2066}\u{9b}31m",
        "M-SEARCH * HTTP/1.1\r\nST: ",
        "GET / HTTP/1.1\r\n",
        "OPTIONS sip:zqxhost.net SIP/2.0\r\nUser-Agent: ",
        "text that a person could read, ",
        "これは警告です。",
    ];

    /// Beginnings of questions, what follows the part that is asked for, and whether hosts are hidden in it.
    const FORMS: &[(&str, &[u8], &[u8], bool)] = &[
        (
            "SIP OPTIONS: by",
            b"OPTIONS sip:100@zqxhost.net SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.77\r\nUser-Agent: ",
            b"\r\n\r\n",
            true,
        ),
        ("SSDP M-SEARCH: ", b"M-SEARCH * HTTP/1.1\r\nHost: zqxhost.lan\r\nST: ", b"\r\n\r\n", true),
        ("HTTP request: GET http", b"GET http://zqxhost:zqxhost@zqxhost.cloud/", b" HTTP/1.1\r\n", true),
        ("HTTP request: CONNECT", b"CONNECT smtp.zqxhost.lan:25/", b" HTTP/1.1\r\n", true),
        ("HTTP request: HEAD /a?", b"HEAD /a?b=", b" HTTP/1.1\r\n", true),
        ("HTTP request: GET /c/", b"GET /c/", b" HTTP/1.1\r\n", false),
        ("memcached: get ", b"\0\x01\0\0\0\x01\0\0get ", b"\r\n", true),
        ("TFTP read of: ", b"\0\x01", b"\0oct\x65t\0", true),
        (
            "SNMP get: community ",
            b"\x30\x82\x01\0\x02\x01\x01\x04",
            b"\xa0\x1c\x02\x04\x4c\x33\xa7\x56",
            true,
        ),
        ("DNS query of: ", b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", b"\0\0\x01\0\x01", false),
    ];

    /// `SplitMix64`.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((bits ^ (bits >> 31)) % bound as u64) as usize
        }

        /// The beginning of a known question.
        fn question(&mut self) -> Vec<u8> {
            let (_, before, after, hides) = FORMS[self.below(FORMS.len())];
            let asked = match self.below(4) {
                0 => OWN.to_vec(),
                _ => loop {
                    let part = PARTS[self.below(PARTS.len())];
                    if hides || !part.to_ascii_lowercase().contains("zqxhost") {
                        break part.as_bytes().to_vec();
                    }
                },
            };
            let mut question = before.to_vec();
            // A string of SNMP or DNS follows its length.
            if [b"\x01\x04", b"\0\0"].iter().any(|end| before.ends_with(*end)) {
                question.push(asked.len() as u8);
            }
            [&question[..], &asked, after].concat()
        }

        fn payload(&mut self) -> Vec<u8> {
            let mut payload = if self.below(2) == 0 { self.question() } else { Vec::new() };
            for _ in 0..self.below(6) {
                // Parts lie between bytes that belong to no name and no number.
                let between = b" \n\0\"<(\x1b\x80\xff"[self.below(9)];
                let wide = self.below(5) == 0;
                let part: Vec<u8> = match self.below(4) {
                    0 => (0..self.below(40)).map(|_| self.below(256) as u8).collect(),
                    1 => OWN.iter().copied().chain([0, 0]).collect(),
                    _ => {
                        let part = PARTS[self.below(PARTS.len())];
                        if wide {
                            part.encode_utf16().flat_map(u16::to_le_bytes).collect()
                        } else {
                            part.as_bytes().to_vec()
                        }
                    }
                };
                payload.push(between);
                payload.extend(if wide { &[0][..] } else { &[] });
                payload.extend(part);
                payload.push(between);
                payload.extend(if wide { &[0][..] } else { &[] });
            }
            payload
        }
    }

    /// `TEITEN_SAMPLE_CASES` runs more of them.
    #[test]
    fn no_payload_shows_a_host_an_address_or_a_terminals_command() {
        let cases = std::env::var("TEITEN_SAMPLE_CASES").map_or(2000, |cases| cases.parse().unwrap());
        let mut random = Random(20_051_101);
        let (mut hidden, mut named) = (0, BTreeSet::new());
        for case in 0..cases {
            let payload = random.payload();
            let (text, json, capture) = shown(&payload);
            for output in [&text, &json] {
                let bad = |c: char| {
                    !matches!(c, '\n' | '\t')
                        && (c.is_control()
                            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'))
                };
                assert!(!output.contains(bad), "case {case}: {output:?}");
                let lower = output.to_ascii_lowercase();
                for secret in [
                    "zqxhost",
                    "203.0.113.77",
                    "203-0-113-77",
                    "cb00714d",
                    "3405803853",
                    "0313.0.0161",
                    "cb 00 71 4d",
                    "77.113.0.203",
                    "cb00:714d",
                    "\\xcb\\x00\\x71",
                    "203.29005",
                    "0x00714d",
                    "113\\.77",
                    ". 113",
                    "113][77",
                    "113·77",
                    "113。77",
                    "&#48;&#51;",
                    "o113",
                ] {
                    assert!(!lower.contains(secret), "case {case}: {secret} of {payload:02x?} in {output}");
                }
                hidden += usize::from(output.contains(HIDDEN));
                for name in FORMS.iter().map(|(name, ..)| *name).filter(|name| output.contains(name)) {
                    named.insert(name);
                }
            }
            let capture = capture.to_ascii_lowercase();
            for secret in [&b"zqxhost"[..], b"203.0.113.77", b"113\\.77", b"203.29005", &OWN] {
                assert!(
                    !capture.windows(secret.len()).any(|part| part == secret),
                    "case {case}: {payload:02x?}"
                );
            }
        }
        assert!(hidden > cases / 4, "only {hidden} of {cases} hid something");
        assert_eq!(named.len(), FORMS.len(), "{named:?}");
    }

    #[test]
    fn binary_contents_are_dumped_with_what_can_be_printed() {
        let (text, json, _) = shown(b"\x80\x01\x02http://a.com/\x00\xcb\x00\x71\x4d");
        assert!(
            text.contains(
                "    | 0000  80 01 02 68 74 74 70 3a 2f 2f ** ** ** ** ** 2f  ...http://*****/\n    | 0010  00 ** ** ** **                                   .****\n"
            ),
            "{text}"
        );
        assert!(json.contains("\"hex\":\"800102687474703a2f2f**********2f00********\""), "{json}");
    }
}
