//! What the strings of a setting mean. Each function returns the value, or a reason that says what
//! is wrong and what would be right; the caller adds where the string was given.

use super::error::{did_you_mean, nearest};
use super::{Keep, LEAST_KERNEL_MEMORY, LogFormat, MAX_KEEP_DAYS, PortGroup, XdpMode};
use crate::samples::Choice;
use crate::who::lists::{NO_LIST, OTHER_LISTS, SourceList};
use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use sensor_common::{Slot, Transport};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

type Parsed<T> = Result<T, String>;

/// Interface names end before `IFNAMSIZ` (16 bytes with the final NUL) in every kernel.
const INTERFACE_NAME_BYTES: usize = 15;

pub(super) fn interface(text: &str) -> Parsed<String> {
    if text.is_empty() {
        return Err("the interface name is empty; give one as `ip link` shows it".to_owned());
    }
    if text.len() > INTERFACE_NAME_BYTES || text.contains(|c: char| c == '/' || c.is_whitespace()) {
        return Err(format!(
            "no interface can have this name (at most {INTERFACE_NAME_BYTES} bytes, no space, no `/`); give one as `ip link` shows it"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn xdp_mode(text: &str) -> Parsed<XdpMode> {
    match text {
        "auto" => Ok(XdpMode::Auto),
        "native" => Ok(XdpMode::Native),
        "generic" => Ok(XdpMode::Generic),
        _ => Err("expected `auto`, `native` or `generic`".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected `text` or `json`".to_owned()),
    }
}

/// A prefix, or an address alone, which is a prefix of full length.
pub(super) fn prefix(text: &str) -> Parsed<IpNet> {
    let prefix = match text.parse::<IpNet>() {
        Ok(prefix) => prefix,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| {
            "expected an address or a prefix, like `192.0.2.0/24`, `192.0.2.7` or `2001:db8::/32`".to_owned()
        })?),
    };
    if prefix.addr() != prefix.network() {
        return Err(format!(
            "the address has bits set beyond the prefix length; the network is `{}`, the address alone `{}`",
            prefix.trunc(),
            prefix.addr()
        ));
    }
    if let IpNet::V6(v6) = prefix
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        return Err(format!(
            "packets carry IPv4 addresses as such, so this would match none; give `{v4}/{}`",
            v6.prefix_len() - 96
        ));
    }
    Ok(prefix)
}

/// A prefix of destinations that can count as the sensor.
pub(super) fn observed_prefix(text: &str) -> Parsed<IpNet> {
    let prefix = prefix(text)?;
    let multicast = match prefix {
        IpNet::V4(v4) => v4.addr().is_multicast() && v4.prefix_len() >= 4,
        IpNet::V6(v6) => v6.addr().is_multicast() && v6.prefix_len() >= 8,
    };
    if multicast {
        return Err("multicast never counts as the sensor; give unicast prefixes".to_owned());
    }
    Ok(prefix)
}

/// `445/tcp`, `8/icmp`, `47/other`.
pub(super) fn slot(text: &str) -> Parsed<Slot> {
    let (port, transport) = text
        .split_once('/')
        .ok_or_else(|| "expected a port and a transport, like `445/tcp` or `8/icmp`".to_owned())?;
    let transport = transport_named(transport)?;
    Ok(Slot::new(transport, port_number(port, transport)?))
}

/// A slot of a transport that has ports.
pub(super) fn service(text: &str) -> Parsed<Slot> {
    let slot = slot(text)?;
    match slot.transport() {
        Transport::Tcp | Transport::Udp | Transport::Sctp => Ok(slot),
        Transport::Icmp | Transport::Icmpv6 | Transport::Other => {
            Err("only tcp, udp and sctp have services".to_owned())
        }
    }
}

fn transport_named(name: &str) -> Parsed<Transport> {
    Transport::from_name(&name.to_ascii_lowercase()).ok_or_else(|| {
        let names = Transport::ALL.map(Transport::name);
        format!(
            "there is no transport `{name}`{}; there are {}",
            did_you_mean(nearest(name, names.into_iter())),
            names.join(", ")
        )
    })
}

fn port_number(text: &str, transport: Transport) -> Parsed<u16> {
    text.parse::<u16>().ok().filter(|&port| u32::from(port) < transport.ports()).ok_or_else(|| {
        let what = match transport {
            Transport::Tcp | Transport::Udp | Transport::Sctp => "a port",
            Transport::Icmp | Transport::Icmpv6 => "a message type",
            Transport::Other => "a protocol number",
        };
        format!("`{text}` is not {what} of {}, 0 to {}", transport.name(), transport.ports() - 1)
    })
}

/// Bytes in the name of a source list, at most.
const LIST_NAME_BYTES: usize = 40;

/// Characters in a group's name, at most.
const GROUP_NAME_CHARACTERS: usize = 64;

/// `messenger=1026-1039/udp,1434/udp`.
pub(super) fn port_group(text: &str) -> Parsed<PortGroup> {
    const FORM: &str = "expected a name and its ports, like `messenger=1026-1039/udp,1434/udp`";
    let (name, ports) = text.split_once('=').ok_or_else(|| FORM.to_owned())?;
    let name = name.trim();
    if name.is_empty() {
        return Err(format!("the group has no name; {FORM}"));
    }
    // The name becomes a label value, and a field of exports.
    if name.chars().count() > GROUP_NAME_CHARACTERS
        || name.contains(|c: char| c.is_control() || c == ',' || c == '"' || c == '\\')
    {
        return Err(format!(
            "a group's name has at most {GROUP_NAME_CHARACTERS} characters, and neither commas, quotes, backslashes nor control characters"
        ));
    }
    let mut slots = BTreeSet::new();
    for item in ports.split(',').map(str::trim) {
        let (range, protocol) = item
            .split_once('/')
            .ok_or_else(|| format!("`{item}` is neither `PORT/PROTO` nor `PORT-PORT/PROTO`; {FORM}"))?;
        let transport = transport_named(protocol)?;
        slots.extend(port_range(range, transport)?);
    }
    Ok(PortGroup { name: name.to_owned(), slots })
}

/// `1026-1030/udp`, `27649/udp`, `8/icmp`, `feature`, `all`.
pub(super) fn samples(text: &str) -> Parsed<Choice> {
    let mut choice = Choice::default();
    match text {
        "all" => choice.all = true,
        "feature" => choice.features = true,
        _ => {
            let (range, protocol) = text.split_once('/').ok_or_else(|| {
                "expected ports like `1026/udp`, `1026-1030/udp` or `8/icmp`, or `feature`, or `all`"
                    .to_owned()
            })?;
            let transport = transport_named(protocol)?;
            if !crate::samples::can_hold(transport) {
                return Err("only tcp, udp, icmp and icmpv6 are sampled".to_owned());
            }
            choice.slots = port_range(range, transport)?;
        }
    }
    Ok(choice)
}

/// A port, or a range of them.
fn port_range(range: &str, transport: Transport) -> Parsed<BTreeSet<Slot>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (port_number(first, transport)?, port_number(last, transport)?);
    if first > last {
        return Err(format!(
            "the range `{range}/{name}` runs backwards; give `{last}-{first}/{name}`",
            name = transport.name()
        ));
    }
    Ok((first..=last).map(|port| Slot::new(transport, port)).collect())
}

/// `NAME=FILE`.
pub(super) fn source_list(text: &str) -> Parsed<SourceList> {
    const FORM: &str = "expected a name and a file, like `research=/etc/teiten/research.txt`";
    let (name, file) = text.split_once('=').ok_or_else(|| FORM.to_owned())?;
    let (name, file) = (name.trim(), file.trim());
    if name.is_empty() || file.is_empty() {
        return Err(FORM.to_owned());
    }
    let taken = match name {
        NO_LIST => Some("sources of no list"),
        OTHER_LISTS => Some("lists beyond those that a ledger can name"),
        _ => None,
    };
    if let Some(taken) = taken {
        return Err(format!("`{name}` is what {taken} count as; give another name"));
    }
    // It becomes a label value, and is written into rules and queries as it is.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.len() > LIST_NAME_BYTES || !name.chars().all(is_plain) {
        return Err(format!("a list's name has at most {LIST_NAME_BYTES} letters, digits, `_`, `-` and `.`"));
    }
    Ok(SourceList { name: name.to_owned(), path: path(file)? })
}

/// A bound of the archive: days like `400d`, or a size like `50GB` or `20GiB`.
pub(super) fn archive_keep(text: &str) -> Parsed<Keep> {
    let wrong = || {
        "expected days like `400d` (1 to 36525), or a size like `50GB` or `20GiB` (in MB, GB, TB, MiB, GiB, TiB)".to_owned()
    };
    match amount(text).ok_or_else(wrong)? {
        (days, "d") if days > MAX_KEEP_DAYS => Err(wrong()),
        (days, "d") => Ok(Keep { days: Some(days as u32), bytes: None }),
        (bytes, _) => Ok(Keep { days: None, bytes: Some(bytes) }),
    }
}

/// A bound of kernel memory, bytes.
pub(super) fn kernel_memory(text: &str) -> Parsed<u64> {
    let bytes = amount(text).filter(|(_, unit)| *unit != "d").map(|(bytes, _)| bytes);
    bytes.filter(|bytes| *bytes >= LEAST_KERNEL_MEMORY).ok_or_else(|| {
        let least = LEAST_KERNEL_MEMORY >> 20;
        format!(
            "expected a size of {least}MiB or more, like `256MiB` or `1GB` (in MB, GB, TB, MiB, GiB, TiB)"
        )
    })
}

/// A number of days or bytes that is not zero, and its unit: `d` for days.
fn amount(text: &str) -> Option<(u64, &'static str)> {
    const UNITS: [(&str, u64); 7] = [
        ("d", 1),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let (unit, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    Some((number.checked_mul(size).filter(|amount| *amount > 0)?, unit))
}

/// A whole number within bounds.
pub(super) fn number(text: &str, least: u64, most: u64) -> Parsed<u64> {
    match text.replace('_', "").parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {least} to {most}")),
    }
}

/// A duration within bounds, like `10s`, `500ms`, `1h30m`.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Parsed<Duration> {
    if text.parse::<f64>().is_ok() {
        return Err(format!("a duration has a unit; did you mean `{text}s`?"));
    }
    let duration = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "expected a duration like `10s`, `500ms`, `5m` or `1h30m`".to_owned())?;
    if duration < least || duration > most {
        return Err(format!("expected {} to {}", show_duration(least), show_duration(most)));
    }
    Ok(duration)
}

/// As [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}").replace(' ', ""))
}

/// An IANA time zone.
pub(super) fn timezone(text: &str) -> Parsed<TimeZone> {
    TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        // The zone is often known by its city alone.
        let by_city = names
            .iter()
            .find(|name| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text)))
            .map(String::as_str);
        let suggestion = by_city.or_else(|| nearest(text, names.iter().map(String::as_str)));
        format!(
            "there is no such time zone{}; expected an IANA name like `Asia/Tokyo`",
            did_you_mean(suggestion)
        )
    })
}

/// Characters in a sensor's name, at most.
const SENSOR_NAME_CHARACTERS: usize = 128;

pub(super) fn sensor_name(text: &str) -> Parsed<String> {
    if text.is_empty() {
        return Err("the sensor's name is empty; leave it out for the host name".to_owned());
    }
    if text.chars().count() > SENSOR_NAME_CHARACTERS || text.contains(char::is_control) {
        return Err(format!(
            "a sensor's name has at most {SENSOR_NAME_CHARACTERS} characters and no control characters"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() {
        return Err("the path is empty".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

/// A path that `/metrics` is to have instead.
pub(super) fn telemetry_path(text: &str) -> Parsed<String> {
    const TAKEN: [&str; 3] = ["/-/healthy", "/-/ready", "/api/v1/status"];
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !text.starts_with('/') || text.contains("//") || !text.bytes().all(is_plain) {
        return Err("expected a path like `/metrics`, of letters, digits and `-._~/`".to_owned());
    }
    if TAKEN.contains(&text) {
        return Err("this path has an answer of its own; give another".to_owned());
    }
    Ok(text.to_owned())
}

/// A user name of basic authentication (RFC 7617).
pub(super) fn user(text: &str) -> Parsed<String> {
    if text.is_empty() || text.contains(|c: char| c == ':' || c.is_control()) {
        return Err("a user name is not empty and has no colon and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// `127.0.0.1:9477`, `[::1]:9477`, `:9477` (every address, both families), `localhost:9477`.
pub(super) fn listen(text: &str) -> Parsed<SocketAddr> {
    const FORM: &str = "expected an address and a port, like `127.0.0.1:9477`, `[::1]:9477` or `:9477`";
    let form = || FORM.to_owned();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("the port is missing; {FORM}"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse::<u16>().map_err(|_| form())?;
    match host {
        "" => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        "localhost" => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        _ => Err(format!("names are not resolved; {FORM}")),
    }
}

/// Levels that a filter may name alone.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Levels of the log, alone or for a target, like `info` or `info,sensor_user::drain=debug`.
pub(super) fn log_level(text: &str) -> Parsed<String> {
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    for directive in &directives {
        // A word alone would be taken as a target at its most verbose, so a typo would
        // flood the log.
        let level = match directive.rsplit_once('=') {
            Some((_, level)) => level,
            None if directive.contains("::") => continue,
            None => directive,
        };
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "there is no level `{level}`{}; there are {}, alone or for a target, like `info,sensor_user::drain=debug`",
                did_you_mean(nearest(level, LEVELS.into_iter())),
                LEVELS.join(", ")
            ));
        }
    }
    if directives.is_empty() {
        return Err(format!("name a level: {}", LEVELS.join(", ")));
    }
    let text = directives.join(",");
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("this is not a filter: {error}")),
    }
}
