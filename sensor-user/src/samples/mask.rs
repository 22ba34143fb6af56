//! What is hidden of a content before anyone sees it: hosts, the sensor's own addresses, e-mail addresses
//! and long numbers.
//!
//! The November 2005 report prints `www.***.com`: a leading `www` and the last label of a host stay, so that
//! a reader sees what kind of text it was.

use super::notation;
use super::own::OwnAddresses;
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};

/// What is shown instead.
pub const HIDDEN: &str = "***";

/// Digits in a row from which on a number is hidden.
const LONG: usize = 7;
/// Digits from which on a number with single spaces, hyphens or points between its digits is hidden.
const LONG_GROUPED: usize = 11;

/// Escapes within escapes that are read.
const ESCAPED: usize = 3;
/// Characters of a user's name in quotation marks, and of an address in brackets, at most.
const LONGEST_USER: usize = 64;

/// Last labels of host names that are written without a scheme. Two letters are a country's, unless they are
/// the ending of a file.
const DOMAINS: [&str; 20] = [
    "com", "net", "org", "info", "biz", "edu", "gov", "mil", "int", "name", "arpa", "xyz", "top", "site",
    "online", "club", "shop", "app", "dev", "onion",
];
/// Endings of two letters that file names have.
const ENDINGS: [&str; 16] =
    ["sh", "py", "pl", "so", "js", "cc", "rs", "md", "cs", "ps", "gz", "db", "go", "ts", "vb", "jp2"];

/// Hides what is not to be seen.
#[derive(Clone, Debug, Default)]
pub struct Masker {
    own: OwnAddresses,
}

/// A part of a text that is hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MaskedPart {
    range: Range<usize>,
    instead: Cow<'static, str>,
}

impl Masker {
    /// Hides these addresses in whatever notation, and all hosts.
    pub fn new(own: &BTreeSet<IpAddr>) -> Self {
        Self::of_network(own, &[])
    }

    /// Hides these addresses, those in `prefixes`, and all hosts. Of prefixes shorter than 8 bits (IPv6: 16) nothing is
    /// hidden that is not in `own`.
    pub fn of_network(own: &BTreeSet<IpAddr>, prefixes: &[IpNet]) -> Self {
        Self { own: OwnAddresses::new(own, prefixes) }
    }

    /// The text with hosts, addresses, e-mail addresses and long numbers hidden.
    pub fn text(&self, text: &str) -> String {
        self.asked(text, 0..0)
    }

    /// The same, but names of hosts among the characters `stay` stay, as the name that a DNS query asks for
    /// does. Hosts of URLs do not.
    pub fn asked(&self, text: &str, stay: Range<usize>) -> String {
        let characters: Vec<char> = text.chars().collect();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for MaskedPart { range, instead } in self.parts(&characters, stay) {
            out.extend(&characters[at..range.start]);
            out.push_str(&instead);
            at = range.end;
        }
        out.extend(&characters[at..]);
        out
    }

    /// Which bytes are hidden, one flag each: whatever the characters are that the bytes are taken for, and
    /// the sensor's addresses as bytes.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<bool> {
        let mut hidden = vec![false; bytes.len()];
        let latin: Vec<char> = bytes.iter().map(|byte| char::from(*byte)).collect();
        for part in self.parts(&latin, 0..0) {
            hidden[part.range].fill(true);
        }
        // Texts of UTF-16 among the bytes, whichever half of a character comes first.
        for odd in [0, 1] {
            for (low, high) in [(0, 1), (1, 0)] {
                let (pairs, _) = bytes.get(odd..).unwrap_or_default().as_chunks::<2>();
                let wide: Vec<char> = pairs
                    .iter()
                    .map(|pair| if pair[high] == 0 { char::from(pair[low]) } else { '\0' })
                    .collect();
                for part in self.parts(&wide, 0..0) {
                    hidden[odd + 2 * part.range.start..odd + 2 * part.range.end].fill(true);
                }
            }
        }
        // Other texts, as far as their characters can be read.
        if let Ok(text) = std::str::from_utf8(bytes)
            && !text.is_ascii()
        {
            let (places, characters): (Vec<usize>, Vec<char>) = text.char_indices().unzip();
            for part in self.parts(&characters, 0..0) {
                let end = places.get(part.range.end).copied().unwrap_or(bytes.len());
                hidden[places[part.range.start]..end].fill(true);
            }
        }
        for range in notation::all_in_bytes(&self.own, bytes) {
            hidden[range].fill(true);
        }
        hidden
    }

    /// Where those of the sensor's addresses that are known one by one are among the bytes.
    pub fn addresses(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        notation::singles_in_bytes(&self.own, bytes)
    }

    /// Whether four bytes of a header are an address of the sensor, in either order.
    pub fn is_own_word(&self, bytes: [u8; 4]) -> bool {
        self.own.is_number(u32::from_be_bytes(bytes))
    }

    /// Whether this address of a packet is the sensor's, or has one of its IPv4 addresses in it, as one of
    /// 6to4 does.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_in(address)
    }

    /// The parts that are hidden, ascending, apart from each other: those of the text as it is, and of what
    /// its escapes mean.
    fn parts(&self, text: &[char], stay: Range<usize>) -> Vec<MaskedPart> {
        let mut written = text.to_vec();
        let mut text: Vec<char> = written.iter().map(|c| narrow(*c)).collect();
        let mut parts = self.plain_parts(&text, &written, &stay);
        // Where each character begins and ends in the text.
        let mut places: Vec<Range<usize>> = (0..text.len()).map(|at| at..at + 1).collect();
        for _ in 0..ESCAPED {
            let Some(meant) = unescaped(&text) else { break };
            places =
                meant.iter().map(|(_, range)| places[range.start].start..places[range.end - 1].end).collect();
            written = meant
                .into_iter()
                .map(|(c, range)| if range.len() == 1 { written[range.start] } else { c })
                .collect();
            text = written.iter().map(|c| narrow(*c)).collect();
            let stay = places.partition_point(|place| place.start < stay.start)
                ..places.partition_point(|place| place.start < stay.end);
            for MaskedPart { range, instead } in self.plain_parts(&text, &written, &stay) {
                if let (Some(first), Some(last)) = (places.get(range.start), places[..range.end].last()) {
                    parts.push(MaskedPart { range: first.start..last.end, instead });
                }
            }
        }
        joined(parts)
    }

    /// The parts of a text that are hidden, without a look at escapes. `written` has its characters before they were made
    /// narrow.
    fn plain_parts(&self, text: &[char], written: &[char], stay: &Range<usize>) -> Vec<MaskedPart> {
        let mut parts = Vec::new();
        names(text, &mut parts);
        marked(text, written, &mut parts);
        strokes(text, &mut parts);
        parts.retain(|part| part.range.end <= stay.start || stay.end <= part.range.start);
        urls(text, &mut parts);
        mails(text, &mut parts);
        numbers(text, &mut parts);
        v6_texts(text, &mut parts);
        quads(text, &mut parts);
        let mut own = Vec::new();
        notation::in_text(&self.own, text, &mut own);
        parts.extend(own.into_iter().map(|range| MaskedPart { range, instead: HIDDEN.into() }));
        parts
    }
}

/// Full-width letters and digits as the narrow ones that they are read as.
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        c => c,
    }
}

/// Sorts parts and joins those that overlap.
fn joined(mut parts: Vec<MaskedPart>) -> Vec<MaskedPart> {
    parts.sort_by_key(|part| (part.range.start, std::cmp::Reverse(part.range.end)));
    let mut out: Vec<MaskedPart> = Vec::with_capacity(parts.len());
    for part in parts {
        match out.last_mut() {
            Some(last) if part.range.start < last.range.end => {
                if part.range.end > last.range.end {
                    last.range.end = part.range.end;
                    last.instead = HIDDEN.into();
                }
            }
            _ => out.push(part),
        }
    }
    out
}

/// What host names are made of; and the asterisks of those that are hidden already.
fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*') || (!c.is_ascii() && c.is_alphanumeric())
}

/// The end of the host that begins at `begin`, without what is no part of a name.
fn host_end(text: &[char], begin: usize) -> usize {
    let mut end = begin;
    while end < text.len() && is_host(text[end]) {
        end += 1;
    }
    while end > begin && matches!(text[end - 1], '.' | '*' | '-' | '_') {
        end -= 1;
    }
    end
}

/// `www.***.com` for a host.
fn hidden_host(host: &[char]) -> Cow<'static, str> {
    let labels: Vec<&[char]> = host.split(|c| *c == '.').collect();
    let is_www = |label: &[char]| {
        label.len() >= 3
            && label[..3].iter().all(|c| c.eq_ignore_ascii_case(&'w'))
            && label[3..].iter().all(char::is_ascii_digit)
    };
    let last = labels.last().copied().unwrap_or_default();
    let shows_last = labels.len() >= 2 && last.len() >= 2 && last.iter().all(char::is_ascii_alphabetic);
    let first = if labels.len() >= 2 && is_www(labels[0]) { "www." } else { "" };
    if shows_last {
        let last: String = last.iter().collect();
        format!("{first}{HIDDEN}.{last}").into()
    } else {
        format!("{first}{HIDDEN}").into()
    }
}

/// Hosts after `scheme://`, also with other strokes.
fn urls(text: &[char], parts: &mut Vec<MaskedPart>) {
    for begin in after_strokes(text).filter(|(_, is_url)| *is_url).map(|(begin, _)| begin) {
        authority(text, begin, parts);
    }
}

/// Hosts after `//` without a scheme.
fn strokes(text: &[char], parts: &mut Vec<MaskedPart>) {
    for begin in after_strokes(text).filter(|(_, is_url)| !*is_url).map(|(begin, _)| begin) {
        authority(text, begin, parts);
    }
}

/// What follows two strokes or more, also in percent notation; and whether a colon is before them.
fn after_strokes(text: &[char]) -> impl Iterator<Item = (usize, bool)> {
    let stroke = |at: usize| -> Option<usize> {
        match text.get(at) {
            Some('/' | '\\') => Some(1),
            Some('%') => {
                let (a, b) = (text.get(at + 1)?, text.get(at + 2)?);
                matches!((a, b.to_ascii_lowercase()), ('2', 'f') | ('5', 'c')).then_some(3)
            }
            _ => None,
        }
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let first = at;
            let mut count = 0;
            while let Some(length) = stroke(at) {
                at += length;
                count += 1;
            }
            if count >= 2 {
                let before: String = text[first.saturating_sub(3)..first].iter().collect();
                let is_url = before.ends_with(':') || before.eq_ignore_ascii_case("%3a");
                return Some((at, is_url));
            }
            if count == 0 {
                at += 1;
            }
        }
        None
    })
}

/// `sip:host`, `http:host`, what a header says: `Host: name`, and what a proxy is asked for:
/// `CONNECT name:port`. After a letter they are parts of other words, unless the letter is a wide one: bytes that are taken for
/// characters of two bytes begin with any.
fn marked(text: &[char], written: &[char], parts: &mut Vec<MaskedPart>) {
    for mark in ["sip:", "sips:", "http:", "https:", "ldap:", "host:", "@", "connect "] {
        let mark: Vec<char> = mark.chars().collect();
        for at in 0..text.len().saturating_sub(mark.len()) {
            let part = &text[at..at + mark.len()];
            if part.iter().zip(&mark).all(|(a, b)| a.eq_ignore_ascii_case(b))
                && (at == 0 || !written[at - 1].is_ascii_alphabetic())
            {
                let mut begin = at + mark.len();
                while begin < text.len() && matches!(text[begin], ' ' | '\t') {
                    begin += 1;
                }
                // The word is one of many languages; a port makes it the method.
                let has_port = || {
                    let end = host_end(text, begin);
                    text.get(end) == Some(&':') && text.get(end + 1).is_some_and(char::is_ascii_digit)
                };
                if mark[0] != 'c' || has_port() {
                    authority(text, begin, parts);
                }
            }
        }
    }
}

/// What is between the strokes of a URL and its path: user, host; the port stays.
fn authority(text: &[char], begin: usize, parts: &mut Vec<MaskedPart>) {
    let ends = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '"' | '<' | '>' | '`')
    };
    let end = (begin..text.len()).find(|at| ends(text[*at])).unwrap_or(text.len());
    let user = (begin..end).rev().find(|at| text[*at] == '@');
    let host = user.map_or(begin, |at| at + 1);
    if text.get(host) == Some(&'[')
        && let Some(close) = (host..end).find(|at| text[*at] == ']')
    {
        if host > begin + 1 {
            parts.push(MaskedPart { range: begin..host, instead: format!("{HIDDEN}@").into() });
        }
        parts.push(MaskedPart { range: host + 1..close, instead: HIDDEN.into() });
        return;
    }
    let end = host_end(text, host);
    let shown = if end > host { hidden_host(&text[host..end]) } else { Cow::Borrowed("") };
    match user {
        Some(at) if at > begin => {
            parts.push(MaskedPart {
                range: begin..end.max(host),
                instead: format!("{HIDDEN}@{shown}").into(),
            });
        }
        _ if end > host => parts.push(MaskedPart { range: host..end, instead: shown }),
        _ => {}
    }
}

/// Names of hosts without a scheme: `www.example.com`, `example.jp`.
fn names(text: &[char], parts: &mut Vec<MaskedPart>) {
    // In Japanese text no space separates a name from the words around it.
    let is_name = |c: char| c.is_ascii() && is_host(c);
    let mut at = 0;
    while at < text.len() {
        if !is_name(text[at]) {
            at += 1;
            continue;
        }
        // Of `%2F` the digits belong to the sign before them.
        if at > 0 && text[at - 1] == '%' && text[at..].iter().take(2).all(char::is_ascii_hexdigit) {
            at = text.len().min(at + 2);
        }
        let mut begin = at;
        while at < text.len() && is_name(text[at]) {
            at += 1;
        }
        if at == begin {
            continue;
        }
        if text[begin] == '.' {
            while begin > 0 && is_host(text[begin - 1]) {
                begin -= 1;
            }
        }
        while begin < at && matches!(text[begin], '.' | '-' | '*' | '_') {
            begin += 1;
        }
        let end = host_end(&text[..at], begin);
        if end <= begin {
            continue;
        }
        let name = &text[begin..end];
        let labels: Vec<&[char]> = name.split(|c| *c == '.').collect();
        if labels.len() < 2 {
            continue;
        }
        let last: String = labels[labels.len() - 1].iter().map(char::to_ascii_lowercase).collect();
        let is_www = labels[0].len() >= 3 && labels[0][..3].iter().all(|c| c.eq_ignore_ascii_case(&'w'));
        let is_file = labels.len() == 2
            && ENDINGS.contains(&last.as_str())
            && !matches!(text.get(end), Some('/' | '\\' | ':'));
        let is_country = last.len() == 2 && last.bytes().all(|byte| byte.is_ascii_lowercase()) && !is_file;
        let is_domain = DOMAINS.contains(&last.as_str()) || last.starts_with("xn--");
        if is_www || is_country || is_domain {
            parts.push(MaskedPart { range: begin..end, instead: hidden_host(name) });
        }
    }
}

/// `user@host` (RFC 5322, 3.4.1): the user's name as atoms or in quotation marks, the host also as
/// `[address]`. Atoms may have strokes, question marks and `&`, but here these separate, as in URLs.
fn mails(text: &[char], parts: &mut Vec<MaskedPart>) {
    let is_local = |c: char| c.is_alphanumeric() || ".!#$%'*+-=^_`{|}~".contains(c);
    for at in (0..text.len()).filter(|at| text[*at] == '@') {
        let mut begin = at;
        if begin > 0 && text[begin - 1] == '"' {
            let is_open = |place: &usize| text[*place] == '"' && (*place == 0 || text[place - 1] != '\\');
            let first = begin.saturating_sub(1 + LONGEST_USER);
            begin = (first..begin - 1).rev().find(is_open).unwrap_or(begin);
        }
        while begin > 0 && is_local(text[begin - 1]) {
            begin -= 1;
        }
        let (end, host) = if text.get(at + 1) == Some(&'[') {
            let close = (at + 2..text.len().min(at + 2 + LONGEST_USER)).find(|place| text[*place] == ']');
            (close.map_or(at + 1, |place| place + 1), HIDDEN.into())
        } else {
            let end = host_end(text, at + 1);
            (end, hidden_host(&text[at + 1..end]))
        };
        if begin < at && end > at + 1 {
            parts.push(MaskedPart { range: begin..end, instead: format!("{HIDDEN}@{host}").into() });
        }
    }
}

/// Long numbers: of accounts, telephones, addresses.
fn numbers(text: &[char], parts: &mut Vec<MaskedPart>) {
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let begin = at;
        let (mut digits, mut run, mut longest) = (0, 0, 0);
        let mut end = at;
        while at < text.len() {
            if text[at].is_ascii_digit() {
                digits += 1;
                run += 1;
                longest = longest.max(run);
                end = at + 1;
            } else if matches!(text[at], ' ' | '-' | '.') && at == end {
                run = 0;
            } else {
                break;
            }
            at += 1;
        }
        if digits >= LONG_GROUPED {
            parts.push(MaskedPart { range: begin..end, instead: HIDDEN.into() });
        } else if longest >= LONG {
            for run in runs(&text[begin..end]) {
                if run.len() >= LONG {
                    parts.push(MaskedPart {
                        range: begin + run.start..begin + run.end,
                        instead: HIDDEN.into(),
                    });
                }
            }
        }
    }
}

/// Runs of digits.
fn runs(text: &[char]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in (0..text.len()).filter(|at| text[*at].is_ascii_digit()) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// Dotted quads: hosts without a name, the sensor's or others'.
fn quads(text: &[char], parts: &mut Vec<MaskedPart>) {
    let mut begin = 0;
    while begin < text.len() {
        let starts = text[begin].is_ascii_digit() && (begin == 0 || !text[begin - 1].is_ascii_digit());
        match starts.then(|| quad(&text[begin..])).flatten() {
            Some(length) => {
                parts.push(MaskedPart { range: begin..begin + length, instead: HIDDEN.into() });
                begin += length;
            }
            None => begin += 1,
        }
    }
}

fn quad(text: &[char]) -> Option<usize> {
    let mut at = 0;
    for nth in 0..4 {
        if nth > 0 {
            (text.get(at) == Some(&'.')).then_some(())?;
            at += 1;
        }
        let begin = at;
        let mut value = 0;
        while let Some(digit) = text.get(at).and_then(|c| c.to_digit(10)) {
            value = value * 10 + digit;
            at += 1;
            if at - begin > 3 || value > 255 {
                return None;
            }
        }
        (at > begin).then_some(())?;
    }
    Some(at)
}

/// IPv6 addresses.
fn v6_texts(text: &[char], parts: &mut Vec<MaskedPart>) {
    for range in v6_candidates(text) {
        parts.push(MaskedPart { range, instead: HIDDEN.into() });
    }
}

/// Lengths that an address of IPv6 at the beginning of `word` can have, as few as the form allows, because a remote host
/// chooses the text. Hyphens stand for colons.
fn v6_ends(word: &[char]) -> RangeInclusive<usize> {
    let is_colon = |c: char| matches!(c, ':' | '-');
    let (mut digits, mut colons, mut dots, mut doubles) = (0, 0, 0, 0);
    let mut length = 0;
    for (at, &c) in word.iter().enumerate() {
        if is_colon(c) {
            let is_double = at > 0 && is_colon(word[at - 1]);
            if dots > 0 || colons == 8 || (is_double && doubles == 1) {
                break;
            }
            doubles += usize::from(is_double);
            (colons, digits) = (colons + 1, 0);
        } else if c == '.' {
            if dots == 3 {
                break;
            }
            (dots, digits) = (dots + 1, 0);
        } else if digits == 4 {
            break;
        } else {
            digits += 1;
        }
        length = at + 1;
    }
    // Eight groups, or six and an address of IPv4, or fewer around `::`.
    if doubles == 1 || colons >= 6 { 3..=length } else { RangeInclusive::new(1, 0) }
}

/// Where addresses of IPv6 are: words of hexadecimal digits, colons and points, also with hyphens for colons,
/// as in names of hosts.
fn v6_candidates(text: &[char]) -> Vec<Range<usize>> {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '-');
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !is_part(text[at]) {
            at += 1;
            continue;
        }
        let begin = at;
        while at < text.len() && is_part(text[at]) {
            at += 1;
        }
        let separators = text[begin..at].iter().filter(|c| matches!(c, ':' | '-')).count();
        if separators < 2 {
            continue;
        }
        // The longest address at each place of the word.
        let mut place = begin;
        while place < at {
            let ends = v6_ends(&text[place..at]);
            let longest = ends.rev().map(|length| place + length).find_map(|end| {
                let word: String =
                    text[place..end].iter().map(|c| if *c == '-' { ':' } else { *c }).collect();
                let address = word.parse::<Ipv6Addr>().ok()?;
                // `::` and `::1` are no one's.
                (address.to_bits() > 1).then_some(place..end)
            });
            match longest {
                Some(range) => {
                    place = range.end;
                    found.push(range);
                }
                None => place += 1,
            }
        }
    }
    found
}

/// The characters that the escapes of a text mean, each with where it is in the text; `None` when there are no
/// escapes. Of percent notation and quoted-printable each byte is one character.
fn unescaped(text: &[char]) -> Option<Vec<(char, Range<usize>)>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (c, length) = escape(&text[at..]).unwrap_or((text[at], 1));
        out.push((c, at..at + length));
        at += length;
    }
    (out.len() < text.len()).then_some(out)
}

/// The character that an escape at the beginning means, and its length: `%2e`, `=2E`, `\x2e`, `\u002e`,
/// `\u{2e}`, `&#46;`, `&#x2e;`, `&period;`.
fn escape(text: &[char]) -> Option<(char, usize)> {
    /// Names of HTML.
    const NAMED: [(&str, char); 10] = [
        ("amp;", '&'),
        ("bsol;", '\\'),
        ("colon;", ':'),
        ("commat;", '@'),
        ("dash;", '-'),
        ("lowbar;", '_'),
        ("nbsp;", ' '),
        ("percnt;", '%'),
        ("period;", '.'),
        ("sol;", '/'),
    ];
    // The value of the digits from `begin` on, at least and at most so many; and where they end.
    let value = |begin: usize, radix: u32, least: usize, most: usize| {
        let digits: String = text.get(begin..)?.iter().take(most).take_while(|c| c.is_digit(radix)).collect();
        let c = char::from_u32(u32::from_str_radix(&digits, radix).ok()?)?;
        (digits.len() >= least).then_some((c, begin + digits.len()))
    };
    let closed =
        |(c, end): (char, usize), close: char| (text.get(end) == Some(&close)).then_some((c, end + 1));
    match (text.first()?, text.get(1)?) {
        ('%' | '=', _) => value(1, 16, 2, 2),
        ('\\', 'x' | 'X') => value(2, 16, 2, 2),
        ('\\', 'u' | 'U') if text.get(2) == Some(&'{') => closed(value(3, 16, 1, 6)?, '}'),
        ('\\', 'u' | 'U') => value(2, 16, 4, 4),
        ('&', '#') => {
            let found =
                if matches!(text.get(2), Some('x' | 'X')) { value(3, 16, 1, 9) } else { value(2, 10, 1, 9) };
            // The semicolon may be missing.
            found.map(|found| closed(found, ';').unwrap_or(found))
        }
        ('&', _) => {
            let (name, c) =
                NAMED.iter().find(|(name, _)| text[1..].iter().copied().take(name.len()).eq(name.chars()))?;
            Some((*c, 1 + name.len()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker() -> Masker {
        Masker::new(&BTreeSet::from(["203.0.113.77".parse().unwrap(), "2001:db8:0:7::2f".parse().unwrap()]))
    }

    fn masked(text: &str) -> String {
        masker().text(text)
    }

    #[test]
    fn hosts_are_hidden_as_in_the_report_of_november_2005() {
        for (text, expected) in [
            ("Visit\nwww.registryfix.com\nTo repair now", "Visit\nwww.***.com\nTo repair now"),
            ("from: http://www.fix-it.co.jp/", "from: http://www.***.jp/"),
            ("www.***.com**", "www.***.com**"),
            ("HTTPS://user:pw@a.b.example.info:8080/x?y=1", "HTTPS://***@***.info:8080/x?y=1"),
            ("wget http://198.51.100.9/bin.sh", "wget http://***/bin.sh"),
            ("http:\\\\evil.example", "http:\\\\***.example"),
            ("url=http%3A%2F%2Fevil.com%2Fx", "url=http%3A%2F%2F***.com%2Fx"),
            ("http://[2001:db8::1]:80/", "http://[***]:80/"),
            ("http://localhost/x", "http://***/x"),
            ("Host: example.net:81", "Host: ***.net:81"),
            ("sip:100@192.0.2.3;tag", "sip:***@***;tag"),
            ("write to Taro.Yamada+x@mail.example.jp!", "write to ***@***.jp!"),
            ("ＷＷＷ．ｅｖｉｌ．ｃｏｍ", "www.***.com"),
            ("例え.com", "***.com"),
            ("ＢHost:\tx.internal", "ＢHost:\t***.internal"),
            ("ghost: x", "ghost: x"),
            ("サイトはwww.evil.comです。次の文", "サイトはwww.***.comです。次の文"),
            ("evil.ru", "***.ru"),
            ("evil.pl/x", "***.pl/x"),
            ("evil.so:8080", "***.so:8080"),
            ("Host:\tx.internal", "Host:\t***.internal"),
            ("http:\\u002f\\u002fevil.w", "http:\\u002f\\u002f***"),
            ("http&colon;&#47;&sol;evil.w", "http&colon;&#47;&sol;***"),
            ("CONNECT evil.internal:25", "CONNECT ***.internal:25"),
            ("http://o'neil:p@a.b.jp/", "http://***@***.jp/"),
            ("to o'neil@a.jp,", "to ***@***.jp,"),
            ("a!b@c.jp", "***@***.jp"),
            ("x <\"john \\\"j\\\" doe\"@c.jp>", "x <***@***.jp>"),
            ("me%40c.jp", "***@***.jp"),
            ("me@[192.0.2.3]", "***@***"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn files_versions_and_words_stay() {
        for text in [
            "GET /index.php HTTP/1.1",
            "install.sh and main.py",
            "STOP! WINDOWS REQUIRES IMMEDIATE ATTENTION.\nWindows has found 55 Critical System Errors.",
            "version 1.2.3, 12:34:56, 2005-11-30",
            "00:11:22:33:44:55",
            "a.b",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn the_sensors_addresses_are_hidden_in_any_notation() {
        // 203.0.113.77 is cb 00 71 4d; 3405803853; octal 0313.0.0161.0115.
        for address in [
            "203.0.113.77",
            "203-0-113-77",
            "203_0_113_77",
            "77.113.0.203",
            "77-113-0-203",
            "203.000.113.077",
            "0xcb.0x0.0x71.0x4d",
            "0313.0.0161.0115",
            "0313.0000.0161.0115",
            "203.0.29005",
            "203.29005",
            "0xcb00714d",
            "cb00714d",
            "CB00714D",
            "4d7100cb",
            "3405803853",
            "031300070515",
            "cb:00:71:4d",
            "cb 00 71 4d",
            "\\xcb\\x00\\x71\\x4d",
            "203[.]0[.]113[.]77",
            "203%2e0%2e113%2e77",
            "::ffff:203.0.113.77",
            "::ffff:cb00:714d",
            "2001:db8:0:7::2f",
            "2001:0DB8:0000:0007:0000:0000:0000:002F",
            "2001-db8-0-7--2f",
            "20010db800000007000000000000002f",
            "f.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
            "2002:cb00:714d::1",
        ] {
            let shown = masked(&format!("to {address} now"));
            assert!(!shown.contains(address), "{address}: {shown}");
            assert!(shown.starts_with("to ") && shown.ends_with(" now") && shown.contains(HIDDEN), "{shown}");
        }
        // Within other words.
        for text in ["hostcb00714dx", "ip-203-0-113-77.isp", "id=3405803853;"] {
            assert!(masked(text).contains(HIDDEN), "{text}");
        }
        // In a DNS query's name the rest stays.
        assert_eq!(masker().asked("203-0-113-77.scan.example.com A", 0..29), "***.scan.example.com A");
    }

    #[test]
    fn the_sensors_addresses_are_hidden_among_other_digits_and_separators() {
        for (text, expected) in [
            ("203.29005.bad.example", "***.bad.example"),
            ("0xcb.0x00714d.dead.", "***.dead."),
            ("203.0.29005.cafe.x", "***.cafe.x"),
            ("203\\.0\\.113\\.77", "***"),
            ("203;0;113;77", "***"),
            ("203|0|113|77", "***"),
            ("203+0+113+77", "***"),
            ("203 . 0 . 113 . 77", "***"),
            ("[203][0][113][77]", "[***]"),
            ("203·0·113·77", "***"),
            ("203\u{3002}0\u{3002}113\u{3002}77", "***"),
            ("203 dot 0 DOT 113[dot]77", "***"),
            ("203.0-113_77", "***"),
            ("1203.0.113.77", "1***"),
            ("203.0.113.771", "***1"),
            ("&#50;&#48;&#51;.0.113.77", "***"),
            ("&#x32;0&#x33&period;0.113.77", "***"),
            ("%32%30%33.0.113.77", "***"),
            ("203%252e0%252e113%252e77", "***"),
            ("\\u0032\\x30\\u{33}.0.113.77", "***"),
            ("203=2E0=2E113=2E77", "***"),
            ("o203.o0.o113.o77", "***"),
            ("0o313.o0.o161.o115", "***"),
        ] {
            assert_eq!(masker().asked(text, 0..text.len()), expected, "{text}");
        }
        for text in ["203.0.113", "1203.29005", "203;0;113;7"] {
            assert_eq!(masker().asked(text, 0..text.len()), text);
        }
    }

    #[test]
    fn all_addresses_of_a_prefix_are_hidden_in_any_notation() {
        // 203.0.113.77 and 2001:db8:0:7::2f again, but not known as single addresses.
        let prefixes = ["203.0.112.0/20", "2001:db8::/48"].map(|prefix| prefix.parse().unwrap());
        let masker = Masker::of_network(&BTreeSet::new(), &prefixes);
        for address in [
            "203-0-113-77",
            "77.113.0.203",
            "203.000.113.077",
            "0xcb.0x0.0x71.0x4d",
            "0313.0.0161.0115",
            "203.0.29005",
            "203.29005",
            "0xcb00714d",
            "cb00714d",
            "4d7100cb",
            "3405803853",
            "031300070515",
            "cb:00:71:4d",
            "203[.]0[.]113[.]77",
            "203%2e0%2e113%2e77",
            "20010db800000007000000000000002f",
            "f.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
        ] {
            let shown = masker.asked(&format!("to {address} now"), 0..200);
            assert_eq!(shown, "to *** now", "{address}");
        }
        for text in ["203;0;128;77", "203.0.113", "cb00814d", "0xcb008", "f.2.0.0"] {
            assert_eq!(masker.asked(text, 0..text.len()), text);
        }
        // Bytes that are no text.
        let hidden = |bytes: &[u8]| masker.bytes(bytes).iter().filter(|hidden| **hidden).count();
        assert_eq!(hidden(b"\x01\xcb\0\x71\x4d\x02\x4d\x71\0\xcb"), 8);
        assert_eq!(hidden(b"\x20\x01\x0d\xb8\0\0\0\x07\0\0\0\0\0\0\0\x2f"), 16);
        assert!(masker.is_own("203.0.127.1".parse().unwrap()) && masker.is_own_word([0x4d, 0x71, 0, 0xcb]));
    }

    #[test]
    fn a_prefix_hides_no_words_and_no_small_numbers() {
        // In characters 101.32 is `e `, and 10 is the end of a line.
        let prefixes = ["101.32.0.0/16", "10.0.0.0/8", "32.0.0.0/3"].map(|prefix| prefix.parse().unwrap());
        let masker = Masker::of_network(&BTreeSet::new(), &prefixes);
        let text = "We recommend a complete system scan.\nFound 10 of 266 errors, 10:25\n";
        assert_eq!(masker.text(text), text);
        assert!(masker.addresses(text.as_bytes()).is_empty());
        assert_eq!(masker.bytes(text.as_bytes()), vec![false; text.len()]);
    }

    #[test]
    fn long_numbers_are_hidden() {
        assert_eq!(masked("call 1234567 or 090-1234-5678, not 123456"), "call *** or ***, not 123456");
    }

    #[test]
    fn among_bytes_addresses_and_texts_are_hidden() {
        let hidden = |bytes: &[u8]| {
            masker().bytes(bytes).iter().map(|hidden| if *hidden { '*' } else { '.' }).collect::<String>()
        };
        assert_eq!(hidden(b"\x01\xcb\0\x71\x4d\x02"), ".****.");
        assert_eq!(hidden(b"\x01\x4d\x71\0\xcb\x02"), ".****.");
        assert_eq!(hidden(b"\x01\x02www.a.com\0\x80"), "..*********..");
        assert_eq!(hidden(b"\x80w\0w\0w\0.\0a\0.\0i\0t\0\x80"), ".****************.");
    }
}
