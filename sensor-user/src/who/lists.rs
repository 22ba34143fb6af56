//! Lists of sources: files of addresses and prefixes that have a name, like those of research scanners.
//!
//! A file is text with one address or prefix a line (as `acknowledged_scanners` and netset files have them,
//! or `add NAME ADDRESS` as `ipset save` writes), or JSON: an array of strings, or of objects that name an address
//! (the research feed of the Internet Storm Center), alone or in a field `list` or `prefixes` (MISP's warning
//! lists, the prefixes that cloud providers publish).

use crate::ranges::{Number, Ranges, RangesBuilder};
use crate::system::follow::{ReadFault, stamp_of};
use crate::system::regular_file;
use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes that a file may have.
const MAX_BYTES: u64 = 64 << 20;

/// Lists that a configuration may have.
pub const MAX_LISTS: usize = 32;

/// The `list` label of sources that no list holds.
pub const NO_LIST: &str = "none";

/// The `list` label of lists whose names came when the ledger had [`MAX_NAMES`] already.
pub const OTHER_LISTS: &str = "other";

/// Names of lists with series of their own, over the whole life of a ledger: a series stays when its list
/// goes.
pub const MAX_NAMES: usize = 256;

/// Prefixes that all lists may have together.
pub const MAX_PREFIXES: usize = 2_000_000;

/// Fields of JSON that hold an address or prefix.
const FIELDS: [&str; 11] = [
    "ipv4",
    "ipv6",
    "ip",
    "address",
    "addr",
    "cidr",
    "prefix",
    "ipv4Prefix",
    "ipv6Prefix",
    "ip_prefix",
    "ipv6_prefix",
];

/// A list as the configuration names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceList {
    /// The `list` label's value.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot use source list `{name}` from `{}`", path.display())]
pub struct ListError {
    /// The list.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: ListFault,
}

impl ListError {
    /// What is wrong with a list.
    pub(super) fn of(list: &SourceList, reason: ListFault) -> Self {
        Self { name: list.name.clone(), path: list.path.clone(), reason }
    }
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListFault {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// It is not UTF-8.
    #[error("it is not text; give one address or prefix a line, or JSON")]
    NotText,
    /// A line that names nothing.
    #[error("line {number}: `{text}` is neither an address nor a prefix; remarks begin with `#` or `;`")]
    Line {
        /// From 1.
        number: usize,
        /// What is there.
        text: String,
    },
    /// It is not JSON.
    #[error("it begins like JSON and is not JSON")]
    Json(#[from] serde_json::Error),
    /// JSON of another shape.
    #[error(
        "entry {number} of the JSON names no address; expected a string, or an object with one of: {}",
        FIELDS.join(", ")
    )]
    Entry {
        /// From 1.
        number: usize,
    },
    /// JSON of another shape.
    #[error("the JSON is neither an array nor an object with an array `list` or `prefixes`")]
    Shape,
    /// Nothing is in it: a download that failed looks so.
    #[error("it holds no address; leave the list out if that is meant")]
    Empty,
    /// There are too many.
    #[error("with it there are more than {MAX_PREFIXES} prefixes; leave a list out")]
    TooMany,
}

impl From<std::io::Error> for ListFault {
    fn from(error: std::io::Error) -> Self {
        ReadFault::Io(error).into()
    }
}

/// Where a source is in the lists of a configuration: 0 for none, or one more than the place of the first
/// list that holds it.
pub type ListPlace = u16;

/// All lists of a configuration, for look-ups.
#[derive(Clone)]
pub struct Lists {
    names: Vec<String>,
    v4: Ranges<u32, ListPlace>,
    v6: Ranges<u128, ListPlace>,
    read: Vec<Read>,
}

/// A list that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes in it.
    pub prefixes: usize,
    /// The widest prefix, when that is wider than an organisation's is.
    pub widest: Option<IpNet>,
    /// When its file was changed last.
    pub modified: Option<SystemTime>,
}

impl Lists {
    /// Reads the files of all lists.
    ///
    /// # Errors
    ///
    /// One of them cannot be read or understood.
    pub fn load(lists: &[SourceList]) -> Result<Self, ListError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut read = Vec::new();
        for (list, place) in lists.iter().zip(1..) {
            let fail = |reason| ListError::of(list, reason);
            let (prefixes, modified) = open(&list.path).map_err(fail)?;
            let widest = prefixes.iter().copied().filter(is_wide).min_by_key(IpNet::prefix_len);
            read.push(Read { name: list.name.clone(), prefixes: prefixes.len(), widest, modified });
            for prefix in prefixes {
                match prefix {
                    IpNet::V4(net) => v4.push((u32::from(net.network()), net.prefix_len(), place)),
                    IpNet::V6(net) => v6.push((u128::from(net.network()), net.prefix_len(), place)),
                }
            }
            if v4.len() + v6.len() > MAX_PREFIXES {
                return Err(fail(ListFault::TooMany));
            }
        }
        let names = lists.iter().map(|list| list.name.clone()).collect();
        Ok(Self { names, v4: flattened(v4), v6: flattened(v6), read })
    }

    /// Their names, in the order of the configuration.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What was read.
    pub fn read(&self) -> &[Read] {
        &self.read
    }

    /// The place of an IPv4 address.
    #[inline]
    pub fn v4(&self, address: u32) -> ListPlace {
        self.v4.get(address)
    }

    /// The place of an IPv6 address.
    #[inline]
    pub fn v6(&self, address: u128) -> ListPlace {
        self.v6.get(address)
    }
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").field("read", &self.read).finish_non_exhaustive()
    }
}

/// Whether a prefix is wider than any that one organisation has: /8 of IPv4, /16 of IPv6.
fn is_wide(prefix: &IpNet) -> bool {
    prefix.prefix_len() < if matches!(prefix, IpNet::V4(_)) { 8 } else { 16 }
}

/// Ranges in which each address has the place of the first list that holds it. Prefixes lie in each other
/// or apart.
fn flattened<A: Number>(mut prefixes: Vec<(A, u8, ListPlace)>) -> Ranges<A, ListPlace> {
    prefixes.sort_unstable();
    let mut builder = RangesBuilder::default();
    // The prefixes around the current one: the last address of each, and the first list up to it.
    let mut open: Vec<(A, ListPlace)> = Vec::new();
    for (first, length, place) in prefixes {
        while open.pop_if(|(last, _)| *last < first).is_some() {}
        let place = open.last().map_or(place, |&(_, outer)| place.min(outer));
        builder.push(first, length, place);
        open.push((first.last(length), place));
    }
    builder.build(std::iter::empty())
}

/// The prefixes in a file, and when it was changed last.
fn open(path: &Path) -> Result<(Vec<IpNet>, Option<SystemTime>), ListFault> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let before = stamp_of(path);
    let bytes = regular_file::read(path, MAX_BYTES)?;
    // Half of a list looks like a list.
    if stamp_of(path) != before {
        return Err(ReadFault::Changing.into());
    }
    Ok((parse(&bytes)?, modified))
}

fn parse(bytes: &[u8]) -> Result<Vec<IpNet>, ListFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| ListFault::NotText)?;
    let text = text.trim_start_matches('\u{feff}');
    let mut found = Vec::new();
    if text.trim_start().starts_with(['[', '{']) {
        from_json(&serde_json::from_str(text)?, &mut found)?;
    } else {
        for (line, number) in text.lines().zip(1..) {
            from_line(line, &mut found)
                .map_err(|text| ListFault::Line { number, text: text.chars().take(60).collect() })?;
            within(&found)?;
        }
    }
    if found.is_empty() { Err(ListFault::Empty) } else { Ok(found) }
}

/// A range of IPv6 addresses has up to 254 prefixes, so the bound on bytes is none on prefixes.
fn within(found: &[IpNet]) -> Result<(), ListFault> {
    if found.len() > MAX_PREFIXES { Err(ListFault::TooMany) } else { Ok(()) }
}

fn from_line<'l>(line: &'l str, found: &mut Vec<IpNet>) -> Result<(), &'l str> {
    let line = line.split(['#', ';']).next().unwrap_or_default().trim();
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let word = match words.next() {
        // `ipset save`: what makes the set, and its entries.
        None | Some("create") => return Ok(()),
        Some("add") => words.nth(1).ok_or(line)?,
        Some(word) => word,
    };
    one(word, found).ok_or(word)
}

fn from_json(value: &Value, found: &mut Vec<IpNet>) -> Result<(), ListFault> {
    let entries = match value {
        Value::Array(entries) => entries,
        Value::Object(fields) => {
            let entries = fields.get("list").or_else(|| fields.get("prefixes"));
            entries.and_then(Value::as_array).ok_or(ListFault::Shape)?
        }
        _ => return Err(ListFault::Shape),
    };
    for (entry, number) in entries.iter().zip(1..) {
        let text = match entry {
            Value::String(text) => Some(text.as_str()),
            Value::Object(fields) => FIELDS.iter().find_map(|name| fields.get(*name)?.as_str()),
            _ => None,
        };
        text.and_then(|text| one(text, found)).ok_or(ListFault::Entry { number })?;
        within(found)?;
    }
    Ok(())
}

/// Adds what `text` names: an address, a prefix (whose address may have bits beyond its length), or two
/// addresses with `-` in between.
fn one(text: &str, found: &mut Vec<IpNet>) -> Option<()> {
    let text = text.trim().trim_matches('"');
    if let Some((first, last)) = text.split_once('-') {
        match (address(first)?, address(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                found.extend(ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                found.extend(ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
            }
            _ => return None,
        }
        return Some(());
    }
    let net = match text.split_once('/') {
        Some((network, length)) => IpNet::new(address(network)?, length.parse().ok()?).ok()?.trunc(),
        None => IpNet::from(address(text)?),
    };
    // Packets carry IPv4 addresses as such.
    found.push(match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => IpNet::V4(Ipv4Net::new(v4, v6.prefix_len() - 96).ok()?),
            None => net,
        },
        net => net,
    });
    Some(())
}

/// An address; the numbers of IPv4 may have zeros in front, and are decimal all the same.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let mut bytes = [0; 4];
    let mut numbers = text.split('.');
    for byte in &mut bytes {
        let number = numbers.next()?;
        if number.is_empty() || number.len() > 3 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *byte = number.parse().ok()?;
    }
    numbers.next().is_none().then(|| Ipv4Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(bytes: &str) -> Vec<String> {
        parse(bytes.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_format_is_read() {
        let netset = "\u{feff}# firehol\n; and a remark\n\n192.0.2.0/24\n198.51.100.7 # one\r\n2001:db8::/32\n\
                      10.1.2.3/16\n::ffff:203.0.113.0/120\n192.0.2.4-192.0.2.7\n";
        assert_eq!(
            texts(netset),
            [
                "192.0.2.0/24",
                "198.51.100.7/32",
                "2001:db8::/32",
                "10.1.0.0/16",
                "203.0.113.0/24",
                "192.0.2.4/30"
            ]
        );
        let saved =
            "create scanners hash:net family inet\nadd scanners 192.0.2.0/25\nadd scanners 198.51.100.1\n";
        assert_eq!(texts(saved), ["192.0.2.0/25", "198.51.100.1/32"]);
        let isc = r#"[{"ipv4":"064.062.197.002","added":"2024-01-01","type":"shadowserver"},{"ipv4":"71.6.135.131"}]"#;
        assert_eq!(texts(isc), ["64.62.197.2/32", "71.6.135.131/32"]);
        let misp = r#"{"name":"x","type":"cidr","matching_attributes":["ip-src"],"list":["192.0.2.0/24","2001:db8::1"]}"#;
        assert_eq!(texts(misp), ["192.0.2.0/24", "2001:db8::1/128"]);
        let cloud = r#"{"prefixes":[{"ipv4Prefix":"192.0.2.0/24"},{"ipv6Prefix":"2001:db8::/32"}]}"#;
        assert_eq!(texts(cloud), ["192.0.2.0/24", "2001:db8::/32"]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            refused("192.0.2.0/24\n<html>\n"),
            "line 2: `<html>` is neither an address nor a prefix; remarks begin with `#` or `;`"
        );
        assert!(refused("192.0.2.0/33\n").starts_with("line 1: `192.0.2.0/33`"));
        assert!(refused("192.0.2.9-192.0.2.1\n").starts_with("line 1"));
        assert!(refused("# nothing\n\n").starts_with("it holds no address"));
        assert!(refused("").starts_with("it holds no address"));
        assert!(refused("[]").starts_with("it holds no address"));
        assert!(refused(r#"[{"ipv4":"192.0.2.1"},{"name":"x"}]"#).starts_with("entry 2 of the JSON"));
        assert!(refused(r#"{"error":"rate limit"}"#).starts_with("the JSON is neither"));
        assert!(refused("[").starts_with("it begins like JSON"));
        assert!(matches!(parse(b"\xff\xfe"), Err(ListFault::NotText)));
    }

    proptest! {
        /// Against a search through all prefixes in the order of the lists.
        #[test]
        fn an_address_has_the_first_list_that_holds_it(
            prefixes in prop::collection::vec((any::<u32>(), 0..=32_u8, 1..6_u16), 0..40),
            near in prop::collection::vec(any::<u32>(), 0..40),
        ) {
            let masked: Vec<(u32, u8, ListPlace)> = prefixes
                .iter()
                .map(|&(address, length, place)| {
                    let net = Ipv4Net::new((address & 0xe00f_00ff).into(), length).unwrap();
                    (net.network().into(), length, place)
                })
                .collect();
            let ranges = flattened(masked.clone());
            let edges = masked.iter().flat_map(|&(first, length, _)| {
                let last = first.last(length);
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in near.iter().copied().chain(edges).chain([0, u32::MAX]) {
                let holds = |&&(first, length, _): &&(u32, u8, ListPlace)| {
                    first <= address && address <= first.last(length)
                };
                let expected = masked.iter().filter(holds).map(|&(.., place)| place).min().unwrap_or(0);
                prop_assert_eq!(ranges.get(address), expected, "{}", Ipv4Addr::from(address));
            }
        }
    }
}
