//! Contents that are known questions, by rules that say where the form is defined.

use super::mask::Masker;
use super::text;
use std::ops::Range;

/// A content that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it is, in words.
    pub what: &'static str,
    /// What it asks for, as it was sent.
    pub detail: Option<Requested>,
    /// The text that it carries for a person.
    pub message: Option<String>,
}

/// What a question asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    text: String,
    /// The characters of it that are the name that is asked for, where the form says that they are one: hosts
    /// are not hidden there.
    asked: Range<usize>,
}

impl Requested {
    /// Words in which hosts are hidden.
    fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), asked: 0..0 }
    }

    /// The name that is asked for, between what is written before and after it.
    fn asked(before: &str, name: &str, after: &str) -> Self {
        let begin = before.chars().count();
        Self { text: format!("{before}{name}{after}"), asked: begin..begin + name.chars().count() }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "rules return it")]
impl Question {
    fn new(what: &'static str) -> Option<Self> {
        Some(Self { what, detail: None, message: None })
    }

    fn of(what: &'static str, detail: impl Into<String>) -> Option<Self> {
        Some(Self { what, detail: Some(Requested::words(detail)), message: None })
    }

    fn asking(what: &'static str, before: &str, name: &str, after: &str) -> Option<Self> {
        Some(Self { what, detail: Some(Requested::asked(before, name, after)), message: None })
    }

    /// The name, with what is asked for as a terminal may be given it.
    pub fn name(&self, masker: Option<&Masker>) -> String {
        match &self.detail {
            Some(Requested { text, asked }) => {
                let shown = masker.map_or_else(|| text.clone(), |masker| masker.asked(text, asked.clone()));
                format!("{}: {}", self.what, text::line(&shown))
            }
            None => self.what.to_owned(),
        }
    }

    /// What distinguishes it from other questions of its kind.
    pub(super) fn subject(&self) -> &str {
        let detail = self.detail.as_ref().map(|detail| detail.text.as_str());
        self.message.as_deref().or(detail).unwrap_or_default()
    }
}

/// A rule: what it recognises in a content, as far as that was kept.
type Rule = fn(&[u8]) -> Option<Question>;

/// In the order in which they are asked.
const RULES: &[Rule] = &[
    messenger,
    quic,
    tls,
    sip,
    ssdp,
    rtsp,
    http,
    shell,
    memcached,
    ntp,
    snmp,
    cldap,
    portmapper,
    ike,
    stun,
    dht,
    source_engine,
    sql_browser,
    ipmi,
    ws_discovery,
    coap,
    netbios,
    dns,
    tftp,
    ping,
];

/// The name of a content, without what is made of the bytes that are the sensor's addresses, which a text would
/// show as its characters; `None` when it is no known question.
pub fn recognise_without(content: &[u8], masker: &Masker) -> Option<Question> {
    let question = recognise(content)?;
    let addresses = masker.addresses(content);
    if addresses.is_empty() {
        return Some(question);
    }
    let mut covered = content.to_vec();
    for address in addresses {
        covered[address].fill(b'*');
    }
    let again = recognise(&covered).filter(|again| again.what == question.what);
    let (detail, message) = again.map_or((None, None), |again| (again.detail, again.message));
    Some(Question { what: question.what, detail, message })
}

/// The name of a content; `None` when it is no known question.
pub fn recognise(content: &[u8]) -> Option<Question> {
    RULES.iter().find_map(|rule| rule(content))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// The first line, without its end.
fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value of a header like `User-Agent:`.
fn header<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    bytes.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        key.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The pop-up message of Windows' Messenger service: `NetrSendMessage`, operation 0 of an interface
/// ([MS-MSRP] 3.2.4.1) that is called by a connectionless request of DCE 1.1 RPC (C706, 12.5): header of 80
/// bytes, then three strings of NDR (14.3.3.4).
fn messenger(bytes: &[u8]) -> Option<Question> {
    /// 5a7b91f8-ff00-11d0-a9b2-00c04fb6e6fc.
    const MESSENGER: [[u8; 16]; 2] = [
        [0xf8, 0x91, 0x7b, 0x5a, 0, 0xff, 0xd0, 0x11, 0xa9, 0xb2, 0, 0xc0, 0x4f, 0xb6, 0xe6, 0xfc],
        [0x5a, 0x7b, 0x91, 0xf8, 0xff, 0, 0x11, 0xd0, 0xa9, 0xb2, 0, 0xc0, 0x4f, 0xb6, 0xe6, 0xfc],
    ];
    // Version 4, a request.
    let header: [u8; 80] = array(bytes, 0)?;
    if header[0] != 4 || header[1] != 0 {
        return None;
    }
    let little = header[4] & 0x10 != 0;
    if !MESSENGER.iter().any(|uuid| header[24..40] == *uuid) {
        return Question::new("DCE/RPC request");
    }
    let mut at = 80;
    let mut next = || {
        let number = |at| {
            let bytes = array(bytes, at)?;
            Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize)
        };
        // Greatest length, offset, length; aligned to 4 bytes.
        let (offset, length) = (number(at + 4)?, number(at + 8)?);
        let begin = at + 12;
        if offset != 0 || length > 0x1_0000 {
            return None;
        }
        at = (begin + length).next_multiple_of(4);
        let string = bytes.get(begin..)?;
        let is_cut = string.len() < length;
        let string = &string[..string.len().min(length)];
        let string = &string[..string.iter().position(|byte| *byte == 0).unwrap_or(string.len())];
        // Latin-1 reads every byte, as Windows' code pages do.
        let text = text::decode(string, is_cut).map(|(_, text)| text);
        Some(text.unwrap_or_else(|| string.iter().map(|byte| char::from(*byte)).collect()))
    };
    let (from, to, message) = (next(), next(), next());
    Some(Question {
        what: "Messenger pop-up (DCE/RPC)",
        detail: from.zip(to).map(|(from, to)| Requested::words(format!("from {from} to {to}"))),
        message,
    })
}

/// A long header with fixed bit (RFC 9000, 17.2; packet types by RFC 9369 for version 2; the versions that
/// force a negotiation: 15).
fn quic(bytes: &[u8]) -> Option<Question> {
    let (first, version) = (*bytes.first()?, be32(bytes, 1)?);
    let length = usize::from(*bytes.get(5)?);
    if first & 0xc0 != 0xc0 || length > 20 {
        return None;
    }
    let initial = match version {
        1 | 0xff00_0000..=0xff00_0022 => 0,
        0x6b33_43cf => 1,
        _ if version & 0x0f0f_0f0f == 0x0a0a_0a0a => {
            return Question::of("QUIC, asking for versions", format!("{version:#010x}"));
        }
        _ => return None,
    };
    (first >> 4 & 3 == initial).then(|| Question::of("QUIC Initial, version", format!("{version:#x}")))?
}

/// A handshake record with a `ClientHello` (TLS: RFC 8446, 4.1.2 and 5.1; DTLS: RFC 9147, 5.3 and 4).
fn tls(bytes: &[u8]) -> Option<Question> {
    let record: [u8; 3] = array(bytes, 0)?;
    let (hello, what) = match record {
        [0x16, 3, _] if bytes.get(5) == Some(&1) => (9, "TLS ClientHello"),
        [0x16, 0xfe, 0xff | 0xfd] if bytes.get(13) == Some(&1) => (25, "DTLS ClientHello"),
        _ => return None,
    };
    let name = server_name(bytes.get(hello..)?, what.starts_with('D'));
    Some(Question { what, detail: name.map(|name| Requested::asked("for ", &name, "")), message: None })
}

/// The extension `server_name` (RFC 6066, 3) of a `ClientHello` after its length.
fn server_name(hello: &[u8], cookie: bool) -> Option<String> {
    // Version and random.
    let mut at = 34;
    at += 1 + usize::from(*hello.get(at)?);
    if cookie {
        at += 1 + usize::from(*hello.get(at)?);
    }
    at += 2 + usize::from(be16(hello, at)?);
    at += 1 + usize::from(*hello.get(at)?);
    at += 2;
    while let (Some(kind), Some(length)) = (be16(hello, at), be16(hello, at + 2)) {
        if kind == 0 {
            let length = usize::from(be16(hello, at + 7)?);
            return hello.get(at + 9..at + 9 + length).map(lossy);
        }
        at += 4 + usize::from(length);
    }
    None
}

/// A request line that ends in `version` and begins with a method: letters.
fn request<'a>(bytes: &'a [u8], version: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let line = first_line(bytes);
    let space = line.iter().position(|byte| *byte == b' ')?;
    let method = std::str::from_utf8(&line[..space]).ok()?;
    let is_method = (2..=20).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_alphabetic() || b"-_".contains(&byte));
    let rest = &line[space + 1..];
    let last = rest.iter().rposition(|byte| *byte == b' ')?;
    (is_method && rest[last + 1..].starts_with(version)).then_some((method, &rest[..last]))
}

/// RFC 3261, 7.1.
fn sip(bytes: &[u8]) -> Option<Question> {
    let (method, _) = request(bytes, b"SIP/")?;
    let what = match method.to_ascii_uppercase().as_str() {
        "OPTIONS" => "SIP OPTIONS",
        "REGISTER" => "SIP REGISTER",
        "INVITE" => "SIP INVITE",
        _ => "SIP request",
    };
    let agent = header(bytes, "User-Agent").map(lossy);
    Some(Question { what, detail: agent.map(|agent| Requested::words(format!("by {agent}"))), message: None })
}

/// `UPnP` Device Architecture 2.0, 1.3.2.
fn ssdp(bytes: &[u8]) -> Option<Question> {
    if !bytes.starts_with(b"M-SEARCH ") {
        return None;
    }
    let target = header(bytes, "ST").map(lossy).map(Requested::words);
    Some(Question { what: "SSDP M-SEARCH", detail: target, message: None })
}

/// RFC 7826, 20.
fn rtsp(bytes: &[u8]) -> Option<Question> {
    let (method, _) = request(bytes, b"RTSP/")?;
    Question::of("RTSP request", method)
}

/// RFC 9112, 3.
fn http(bytes: &[u8]) -> Option<Question> {
    if bytes.starts_with(b"PRI * HTTP/2.0\r\n") {
        return Question::new("HTTP/2 preface");
    }
    let (method, target) = request(bytes, b"HTTP/")?;
    let target = lossy(target);
    // A path; two slashes begin the name of a host. What follows a question mark or a space is no name.
    if target.starts_with('/') && !target.starts_with("//") {
        let is_end = |c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control();
        let (path, query) = target.split_at(target.find(is_end).unwrap_or(target.len()));
        return Question::asking("HTTP request", &format!("{method} "), path, query);
    }
    Question::of("HTTP request", format!("{method} {target}"))
}

/// What Mirai and its relatives send after a login, or instead of one: commands of a shell, of which
/// `busybox` answers with the name of an applet that does not exist (Antonakakis et al., "Understanding the
/// Mirai Botnet", 2017, section 3.1).
fn shell(bytes: &[u8]) -> Option<Question> {
    const MARKS: [&[u8]; 5] =
        [b"/bin/busybox", b"busybox wget", b"busybox tftp", b"cd /tmp", b"enable\r\nsystem\r\nshell"];
    let has = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part.eq_ignore_ascii_case(mark));
    MARKS.iter().any(|mark| has(mark)).then(|| Question::new("Mirai-type shell commands"))?
}

/// A frame header of 8 bytes, the last two zero, before a command (memcached, `doc/protocol.txt`, "UDP
/// protocol").
fn memcached(bytes: &[u8]) -> Option<Question> {
    const COMMANDS: [&str; 9] =
        ["stats", "gets", "get", "gat", "version", "set", "add", "flush_all", "verbosity"];
    let frame: [u8; 8] = array(bytes, 0)?;
    if frame[4..] != [0, 1, 0, 0] {
        return None;
    }
    let command = lossy(first_line(&bytes[8..]));
    let verb = command.split(' ').next()?;
    COMMANDS.contains(&verb).then(|| Question::of("memcached", command.trim_end()))?
}

/// Modes 3 and 6 (RFC 5905, 7.3; RFC 9327, 2), and 7, of which `ntp_request.h` of the reference implementation
/// has the codes: `MON_GETLIST` is 20, `MON_GETLIST_1` is 42.
fn ntp(bytes: &[u8]) -> Option<Question> {
    let first = *bytes.first()?;
    let version = first >> 3 & 7;
    if !(1..=4).contains(&version) {
        return None;
    }
    match first & 7 {
        7 if first & 0xc0 == 0 && bytes.len() >= 8 && matches!(bytes[2], 0 | 2 | 3) => match bytes[3] {
            20 | 42 => Question::new("NTP monlist"),
            code if bytes[4..8] == [0; 4] => Question::of("NTP private request", format!("code {code}")),
            _ => None,
        },
        // Not an answer, not an error, no more parts.
        6 if bytes.len() >= 12 && bytes[1] & 0xe0 == 0 && matches!(bytes[1], 1 | 2 | 31) => {
            Question::new("NTP control request")
        }
        // Stratum, poll and precision as clients have them.
        3 if bytes.len() == 48 && bytes[1] <= 16 => Question::new("NTP client request"),
        _ => None,
    }
}

/// One element of BER (X.690, 8.1): tag, content, what follows. The content may be cut.
fn ber(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    let (length, begin) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81..=0x84 => {
            let more = usize::from(first & 0x7f);
            let length = bytes.get(2..2 + more)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + more)
        }
        _ => return None,
    };
    let rest = bytes.get(begin..)?;
    let (content, after) = rest.split_at(length.min(rest.len()));
    Some((tag, content, after))
}

/// RFC 1157, 4; RFC 3416, 3 (`GetBulkRequest` is tag 5); RFC 3412, 6.
fn snmp(bytes: &[u8]) -> Option<Question> {
    let (0x30, message, _) = ber(bytes)? else { return None };
    let (2, version, rest) = ber(message)? else { return None };
    match version {
        [0 | 1] => {
            let (4, community, rest) = ber(rest)? else { return None };
            let what = match rest.first()? {
                0xa0 => "SNMP get",
                0xa1 => "SNMP get-next",
                0xa5 => "SNMP get-bulk",
                0xa3 => "SNMP set",
                _ => return None,
            };
            Question::of(what, format!("community {}", lossy(community)))
        }
        [3] => matches!(ber(rest)?, (0x30, ..)).then(|| Question::new("SNMP version 3"))?,
        _ => None,
    }
}

/// A `searchRequest` (RFC 4511, 4.5.1) in one datagram (RFC 1798).
fn cldap(bytes: &[u8]) -> Option<Question> {
    let (0x30, message, _) = ber(bytes)? else { return None };
    let (2, _, rest) = ber(message)? else { return None };
    matches!(ber(rest)?, (0x63, ..)).then(|| Question::new("LDAP search (CLDAP)"))?
}

/// A call (RFC 5531, 9) of program 100000 (RFC 1833, 3.1).
fn portmapper(bytes: &[u8]) -> Option<Question> {
    if be32(bytes, 4)? != 0 || be32(bytes, 8)? != 2 {
        return None;
    }
    if be32(bytes, 12)? != 100_000 {
        return Question::of("Sun RPC call", format!("program {}", be32(bytes, 12)?));
    }
    let procedure = match be32(bytes, 20)? {
        0 => "NULL",
        3 => "GETPORT",
        4 => "DUMP",
        _ => "another procedure",
    };
    Question::of("Portmapper", procedure)
}

/// RFC 7296, 3.1; RFC 2408, 3.1: an initiator's SPI, none of a responder.
fn ike(bytes: &[u8]) -> Option<Question> {
    let header: [u8; 28] = array(bytes, 0)?;
    if header[..8] == [0; 8] || header[8..16] != [0; 8] {
        return None;
    }
    match (header[17], header[18]) {
        (0x10, 2 | 4) => Question::of("IKE", "version 1"),
        (0x20, 34) => Question::of("IKE", "version 2"),
        _ => None,
    }
}

/// A binding request with the magic cookie (RFC 8489, 5).
fn stun(bytes: &[u8]) -> Option<Question> {
    (be16(bytes, 0)? == 1 && be32(bytes, 4)? == 0x2112_a442).then(|| Question::new("STUN binding request"))?
}

/// BEP 5: bencoded queries.
fn dht(bytes: &[u8]) -> Option<Question> {
    if !bytes.starts_with(b"d1:ad2:id20:") {
        return None;
    }
    let kinds: [&[u8]; 4] = [b"1:q4:ping", b"1:q9:find_node", b"1:q9:get_peers", b"1:q13:announce_peer"];
    let kind = kinds.iter().find(|kind| bytes.windows(kind.len()).any(|part| part == **kind));
    let detail = kind.map(|kind| Requested::words(lossy(&kind[4..]).trim_start_matches(':')));
    Some(Question { what: "BitTorrent DHT", detail, message: None })
}

/// Valve, "Server queries": `A2S_INFO`.
fn source_engine(bytes: &[u8]) -> Option<Question> {
    bytes
        .starts_with(b"\xff\xff\xff\xffTSource Engine Query")
        .then(|| Question::new("Source Engine A2S_INFO"))?
}

/// [MC-SQLR] 2.2.1 and 2.2.3; the worm of 2003 is the one datagram of 376 bytes that begins with 4 and then
/// repeats 1 (CERT CA-2003-04).
fn sql_browser(bytes: &[u8]) -> Option<Question> {
    match bytes {
        [4, 1, 1, 1, 1, 1, 1, 1, ..] => Question::new("SQL Slammer"),
        [2 | 3] => Question::new("SQL Server Browser"),
        _ => None,
    }
}

/// RMCP (ASF 2.0, 3.2.2.2), class IPMI or a ping of ASF.
fn ipmi(bytes: &[u8]) -> Option<Question> {
    match bytes {
        [6, 0, 0xff, 7, ..] => Question::new("IPMI over RMCP"),
        [6, 0, _, 6, ..] => Question::new("RMCP ping"),
        _ => None,
    }
}

/// WS-Discovery 1.1, 5.2: a Probe.
fn ws_discovery(bytes: &[u8]) -> Option<Question> {
    let has = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    (bytes.trim_ascii_start().starts_with(b"<") && has(b"ws/2005/04/discovery"))
        .then(|| Question::new("WS-Discovery Probe"))?
}

/// A GET with the path `.well-known/core` (RFC 7252, 3 and 7.2): options 11.
fn coap(bytes: &[u8]) -> Option<Question> {
    let header: [u8; 4] = array(bytes, 0)?;
    let has = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    (header[0] & 0xc0 == 0x40 && header[1] == 1 && has(b"\xbb.well-known\x04core"))
        .then(|| Question::of("CoAP GET", "/.well-known/core"))?
}

/// A question with a name of 32 letters (RFC 1002, 4.1 and 4.2.1).
fn netbios(bytes: &[u8]) -> Option<Question> {
    let header: [u8; 13] = array(bytes, 0)?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] || header[12] != 32 {
        return None;
    }
    let name: [u8; 32] = array(bytes, 13)?;
    if !name.iter().all(|letter| (b'A'..=b'P').contains(letter)) {
        return None;
    }
    let (pairs, _) = name.as_chunks::<2>();
    let name: Vec<u8> = pairs.iter().map(|[high, low]| (high - b'A') << 4 | (low - b'A')).collect();
    let name = lossy(&name[..15]).trim_end_matches([' ', '\0']).to_owned();
    match be16(bytes, 46)? {
        0x21 => Question::of("NetBIOS status query of", name),
        0x20 => Question::of("NetBIOS query of", name),
        _ => None,
    }
}

/// Types of records (RFC 1035, 3.2.2 and later).
const TYPES: [(u16, &str); 13] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (43, "DS"),
    (46, "RRSIG"),
    (48, "DNSKEY"),
    (255, "ANY"),
];

/// A query with one question (RFC 1035, 4.1).
fn dns(bytes: &[u8]) -> Option<Question> {
    let header: [u8; 12] = array(bytes, 0)?;
    let numbers: [u16; 4] =
        std::array::from_fn(|at| u16::from_be_bytes([header[4 + 2 * at], header[5 + 2 * at]]));
    // A query, of opcode QUERY; only additional records, as of EDNS.
    if header[2] & 0xf8 != 0 || numbers[..3] != [1, 0, 0] || numbers[3] > 2 {
        return None;
    }
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = bytes.get(at..at + length)?;
        if length > 63 || name.len() > 255 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&lossy(label));
        at += length;
    }
    if name.is_empty() {
        name.push('.');
    }
    let (kind, class) = (be16(bytes, at)?, be16(bytes, at + 2)?);
    let kind = TYPES
        .iter()
        .find(|(number, _)| *number == kind)
        .map_or_else(|| format!("TYPE{kind}"), |(_, name)| (*name).to_owned());
    match class & 0x7fff {
        1 | 255 => Question::asking("DNS query of", "", &name, &format!(" {kind}")),
        3 => Question::asking("DNS query of", "", &name, &format!(" CH {kind}")),
        _ => None,
    }
}

/// RFC 1350, 5, with the modes of RFC 1350, 1.
fn tftp(bytes: &[u8]) -> Option<Question> {
    let what = match be16(bytes, 0)? {
        1 => "TFTP read of",
        2 => "TFTP write of",
        _ => return None,
    };
    let mut parts = bytes[2..].split(|byte| *byte == 0);
    let (file, mode) = (parts.next()?, parts.next()?);
    // The names of the modes as the RFC has them.
    let is_mode =
        [&b"netascii"[..], b"oct\x65t", b"mail"].iter().any(|known| mode.eq_ignore_ascii_case(known));
    (is_mode && !file.is_empty()).then(|| Question::of(what, lossy(file)))?
}

/// What echo requests hold: of Linux' and BSD's ping a time, then bytes that count on from their own place
/// (iputils, `ping/ping.c`: the time has 8 or 16 bytes); of Windows' the letters to `w`, over and over.
fn ping(bytes: &[u8]) -> Option<Question> {
    let counts_on = |from: usize| {
        bytes.len() >= from + 8 && bytes.iter().enumerate().skip(from).all(|(at, byte)| *byte == at as u8)
    };
    if counts_on(8) || counts_on(16) {
        return Question::new("ping of Linux or BSD");
    }
    let is_windows =
        bytes.len() >= 23 && bytes.iter().enumerate().all(|(at, byte)| *byte == b'a' + (at % 23) as u8);
    is_windows.then(|| Question::new("ping of Windows"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(content: &[u8]) -> Option<String> {
        recognise(content).map(|question| question.name(Some(&Masker::default())))
    }

    #[test]
    fn known_questions_are_named() {
        let cases: &[(&[u8], &str)] = &[
            // dig www.example.com A
            (
                b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01",
                "DNS query of: www.example.com A",
            ),
            (b"\0\x06\x01\0\0\x01\0\0\0\0\0\0\x07version\x04bind\0\0\x10\0\x03", "DNS query of: version.bind CH TXT"),
            (
                b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n",
                "SIP OPTIONS: by friendly-scanner",
            ),
            (b"\x17\0\x03\x2a\0\0\0\0", "NTP monlist"),
            (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: ssdp:all\r\n\r\n", "SSDP M-SEARCH: ssdp:all"),
            (b"\0\x01\0\0\0\x01\0\0stats\r\n", "memcached: stats"),
            // snmpget -v2c -c public: sysDescr.0
            (
                b"\x30\x29\x02\x01\x01\x04\x06public\xa0\x1c\x02\x04\x4c\x33\xa7\x56\x02\x01\0\x02\x01\0\x30\x0e",
                "SNMP get: community public",
            ),
            (
                b"\xc3\0\0\0\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\0\0\x44\x9e\x7b\x9a\xec\x34",
                "QUIC Initial, version: 0x1",
            ),
            (b"GET /cgi-bin/luci HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP request: GET /cgi-bin/luci"),
            (b"enable\r\nsystem\r\nshell\r\nsh\r\n/bin/busybox MIRAI\r\n", "Mirai-type shell commands"),
            (b"\0\x01startup-config\0oct\x65t\0", "TFTP read of: startup-config"),
            (
                b"\x80\xf0\0\x10\0\x01\0\0\0\0\0\0\x20CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\0\0\x21\0\x01",
                "NetBIOS status query of: *",
            ),
            (
                b"\x72\xfe\x1d\x13\0\0\0\0\0\0\0\x02\0\x01\x86\xa0\0\0\0\x02\0\0\0\x04\0\0\0\0",
                "Portmapper: DUMP",
            ),
            (b"\xff\xff\xff\xffTSource Engine Query\0", "Source Engine A2S_INFO"),
            (b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl", "STUN binding request"),
            (b"\x06\0\xff\x07\0\0\0\0\0\0\0\0\0\x09\x20\x18\xc8\x81\0\x38\x8e\x04\xb5", "IPMI over RMCP"),
        ];
        for (content, name) in cases {
            assert_eq!(named(content).as_deref(), Some(*name));
        }
    }

    #[test]
    fn hosts_are_hidden_but_where_the_form_has_the_name_that_is_asked_for() {
        let own = std::collections::BTreeSet::from(["203.0.113.77".parse().unwrap()]);
        let masker = Masker::new(&own);
        let cases: &[(&[u8], &str)] = &[
            (
                b"OPTIONS sip:1@a.net SIP/2.0\r\nUser-Agent: see http://www.evil.com/\r\n",
                "SIP OPTIONS: by see http://www.***.com/",
            ),
            (b"M-SEARCH * HTTP/1.1\r\nST: http://evil.net/\r\n", "SSDP M-SEARCH: http://***.net/"),
            (b"GET http://me:pw@evil.cloud/a HTTP/1.1\r\n", "HTTP request: GET http://***@***.cloud/a"),
            (b"GET //evil.cloud/a HTTP/1.1\r\n", "HTTP request: GET //***.cloud/a"),
            (b"CONNECT smtp.evil.com:25 HTTP/1.1\r\n", "HTTP request: CONNECT ***.com:25"),
            (b"CONNECT evil:25 HTTP/1.1\r\n", "HTTP request: CONNECT ***:25"),
            (b"GET /www.evil.com/203.0.113.77/a.pl HTTP/1.1\r\n", "HTTP request: GET /www.evil.com/***/a.pl"),
            (b"GET /cgi-bin//luci;@b HTTP/1.1\r\n", "HTTP request: GET /cgi-bin//luci;@b"),
            (b"GET /http:%2f%2fevil.com/ HTTP/1.1\r\n", "HTTP request: GET /http:%2f%2f***.com/"),
            (b"GET /a?b=www.evil.com&me@c.jp HTTP/1.1\r\n", "HTTP request: GET /a?b=www.***.com&***@***.jp"),
            (b"\0\x01\0\0\0\x01\0\0get www.evil.com\r\n", "memcached: get www.***.com"),
            (b"\x30\x29\x02\x01\x01\x04\x08evil.com\xa0\x1c\x02\x04", "SNMP get: community ***.com"),
            (b"\0\x01www.evil.com/boot\0oct\x65t\0", "TFTP read of: www.***.com/boot"),
            (
                b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x0c203-0-113-77\x03www\x03com\0\0\x01\0\x01",
                "DNS query of: ***.www.com A",
            ),
            // The address as bytes.
            (b"\x30\x29\x02\x01\x01\x04\x05a\xcb\0qM\xa0\x1c\x02\x04", "SNMP get: community a****"),
        ];
        for (content, name) in cases {
            let question = recognise_without(content, &masker).unwrap();
            assert_eq!(question.name(Some(&masker)), *name);
        }
    }

    #[test]
    fn a_client_hello_says_for_whom() {
        let mut hello = vec![3, 3];
        hello.extend([9; 32]);
        hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
        hello.extend([0, 16, 0, 0, 0, 12, 0, 10, 0, 0, 7]);
        hello.extend(b"foo.com");
        let mut record = vec![0x16, 3, 1, 0, 0, 1, 0, 0, 0];
        record.extend(&hello);
        assert_eq!(named(&record).as_deref(), Some("TLS ClientHello: for foo.com"));
        // A hello that is cut has no name, and is one all the same.
        assert_eq!(named(&record[..30]).as_deref(), Some("TLS ClientHello"));
    }

    #[test]
    fn other_contents_have_no_name() {
        for content in [&b""[..], b"\0", b"hello", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"GET / HTPP/1.1"] {
            assert_eq!(named(content), None, "{content:?}");
        }
    }
}
