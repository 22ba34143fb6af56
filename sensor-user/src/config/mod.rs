//! One checked configuration from flags, environment and file.
//!
//! Flags beat the environment, the environment beats the file, each key for itself; a list that a
//! layer gives replaces the lists of the layers below. Everything is checked here, before anything
//! is opened or attached, so a `Config` that exists makes sense.

mod error;
mod keys;
mod origin;
mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use crate::system::logging::LogFormat;
pub use error::ConfigError;
pub use keys::{KEYS, Key};
pub use origin::{DEFAULT_CONFIG, Origin};
pub use settings::{Environment, Flags, PASSWORD_VARIABLE, Settings};

use crate::samples::{Choice, MAX_BYTES, SampleSettings};
use crate::who::lists::{MAX_LISTS, SourceList};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use sensor_common::Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A port and its transport, like `445/tcp` or `8/icmp`.
///
/// # Errors
///
/// What would be right.
pub fn port(text: &str) -> Result<Slot, String> {
    values::slot(text)
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native; where the driver refuses, generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's network stack.
    Generic,
}

impl XdpMode {
    /// As the flag takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Ports that are charted as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// The `group` label.
    pub name: String,
    /// Its ports, at least one.
    pub slots: BTreeSet<Slot>,
}

/// How `teiten status` shows who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebClient {
    /// User of basic authentication.
    pub user: Option<String>,
    /// File with the user's password.
    pub password_file: Option<PathBuf>,
    /// Client certificate and its key, both PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The ports in a text like `1026/udp` or `1026-1030/udp`.
///
/// # Errors
///
/// What is wrong with it, and what would be right.
pub fn parse_slots(text: &str) -> Result<BTreeSet<Slot>, String> {
    let choice = values::samples(text)?;
    if choice.slots.is_empty() {
        return Err("expected ports like `1026/udp`, `1026-1030/udp` or `8/icmp`".to_owned());
    }
    Ok(choice.slots)
}

/// Bounds of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Days, today among them.
    pub days: Option<u32>,
    /// Bytes of all files of the sensor.
    pub bytes: Option<u64>,
}

/// Everything that flags, environment and file can say, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Interfaces to observe, each once; empty: the one of the default route.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// Destinations that count as the sensor; empty: the interface's own unicast addresses (in a
    /// replay: every destination).
    pub observe: Vec<IpNet>,
    /// Sources that never count as accesses.
    pub excluded: Vec<IpNet>,
    /// Services really offered here, ascending; TCP, UDP and SCTP only.
    pub services: Vec<Slot>,
    /// Port groups, in the order given; names differ, ports may overlap.
    pub port_groups: Vec<PortGroup>,
    /// Ports that are always feature ports, ascending; none is a service.
    pub features: Vec<Slot>,
    /// Ports with a series of their own, at least as many as `features` and `feature_ports`.
    pub max_ports: usize,
    /// How many ports other than `features` get series by region, hour and tool.
    pub feature_ports: usize,
    /// Sources × ports that the overflow table holds per drain interval, at least 1; `None`: as many as the
    /// memory allows, 1,048,576 at most.
    pub source_table: Option<u32>,
    /// Bytes of kernel memory that may grow with the number of possible CPUs, at least 32 MiB.
    pub kernel_memory: u64,
    /// How long a new series stays at 0 after a scrape first showed it; zero turns the rule off.
    pub series_hold: Duration,
    /// Time between drains, 100 ms to 1 h.
    pub drain_interval: Duration,
    /// Zone of the observation day.
    pub timezone: TimeZone,
    /// The sensor's name, not empty.
    pub sensor_name: String,
    /// Country database; `None`: the embedded one.
    pub geoip: Option<PathBuf>,
    /// ASN database; `None`: no source has a network.
    pub asn: Option<PathBuf>,
    /// Lists of sources, in the order given, which decides; names differ.
    pub source_lists: Vec<SourceList>,
    /// Which packets are sampled, none of a service, and how much of them is kept.
    pub samples: SampleSettings,
    /// Days of detail kept in the ledger, at least 1.
    pub keep_days: u32,
    /// Where every source is archived; `None`: nowhere.
    pub archive_dir: Option<PathBuf>,
    /// How much the archive keeps.
    pub archive_keep: Keep,
    /// Where the ledger lives.
    pub state_dir: PathBuf,
    /// Where programs, links and maps are pinned.
    pub pin_dir: PathBuf,
    /// Addresses of the HTTP server, at least one, each once.
    pub listen: Vec<SocketAddr>,
    /// TLS and authentication, in exporter-toolkit's format.
    pub web_config: Option<PathBuf>,
    /// Whether systemd hands over the sockets to listen on, instead of `listen`.
    pub systemd_socket: bool,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// How `teiten status` shows who asks.
    pub web_client: WebClient,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Level and filters of the log, in tracing's syntax.
    pub log_level: String,
    /// The sensor's side in captures of both directions; of `teiten replay` alone.
    pub local: Vec<IpNet>,
}

/// What a SIGHUP makes of a running daemon's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// The configuration to use: the new values where they can be taken, else the old.
    pub config: Config,
    /// Keys whose new value is in it.
    pub changed: Vec<&'static str>,
    /// Keys whose new value needs a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Default of `--state-dir`.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/teiten";
/// Default of `--pin-dir`.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/teiten";
/// Default of `--web.listen-address`.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9477";

/// Default of `--web.telemetry-path`.
pub const DEFAULT_TELEMETRY_PATH: &str = "/metrics";

const MAX_GROUPS: usize = 100;
const DRAIN_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));
const SERIES_HOLD: (Duration, Duration) = (Duration::ZERO, Duration::from_hours(1));
/// 64 Mi entries of 32 bytes are 2 GiB of kernel memory; more is almost certainly a typo.
const MAX_SOURCE_TABLE: u64 = 64 * 1024 * 1024;
const KERNEL_MEMORY: u64 = 256 << 20;
/// The least that may be given as `kernel-memory`, bytes: a block, which two generations have each, and what 100 CPUs
/// need beside it.
pub const LEAST_KERNEL_MEMORY: u64 = 32 << 20;
const MAX_KEEP_DAYS: u64 = 36_525;
/// A day's contents are in memory while it lasts.
const MAX_SAMPLE_CONTENTS: u64 = 1000;

impl Config {
    /// The configuration that flags, the environment and the file named by either describe.
    ///
    /// # Errors
    ///
    /// Names the value, where it was given, what is wrong with it and what would be right; or the file
    /// that cannot be read.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        Self::from_settings(&mut Settings::gather(flags, environment)?, environment)
    }

    /// The configuration for asking the running sensor. The default file may be for other users: asking
    /// needs little of it, so the rest is taken, and the error comes along.
    ///
    /// # Errors
    ///
    /// As [`Config::load`], but for that.
    pub fn load_for_status(
        flags: &Flags,
        environment: &Environment,
    ) -> Result<(Self, Option<ConfigError>), ConfigError> {
        let load = |environment: &Environment| {
            Self::from_settings(&mut Settings::gather(flags, environment)?, environment)
        };
        match load(environment) {
            Err(error) if !flags.has(keys::CONFIG) && error.is_default_for_others() => {
                Ok((load(&environment.without_file())?, Some(error)))
            }
            result => Ok((result?, None)),
        }
    }

    /// The configuration of a replay, and the directory of the ledger to write, if any: the one that
    /// the flag names. What the environment or the file say about the state directory and the archive is the
    /// sensor's, and no place for captures.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_for_replay(
        flags: &Flags,
        environment: &Environment,
    ) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let mut settings = Settings::gather(flags, environment)?;
        settings.only_from_flag("state-dir");
        settings.only_from_flag("archive-dir");
        let config = Self::from_settings(&mut settings, environment)?;
        let state_dir = settings.one("state-dir").map(|_| config.state_dir.clone());
        Ok((config, state_dir))
    }

    /// Loads again, after the file changed, and takes what a running daemon can take.
    ///
    /// # Errors
    ///
    /// As [`Config::load`]; the old configuration stays good.
    pub fn reload(&self, flags: &Flags, environment: &Environment) -> Result<Reload, ConfigError> {
        let new = Self::load(flags, environment)?;
        let mut reload = Reload { config: self.clone(), changed: Vec::new(), needs_restart: Vec::new() };
        for key in &KEYS {
            let mut candidate = reload.config.clone();
            (key.copy)(&mut candidate, &new);
            if candidate != reload.config {
                if key.reloadable {
                    reload.config = candidate;
                    reload.changed.push(key.name);
                } else {
                    reload.needs_restart.push(key.name);
                }
            }
        }
        Ok(reload)
    }

    /// The name of the time zone for labels and the ledger: IANA's, or `localtime` for a system
    /// whose `/etc/localtime` does not tell it.
    pub fn timezone_name(&self) -> &str {
        self.timezone.iana_name().unwrap_or("localtime")
    }

    /// Checks merged settings.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut errors = Errors(settings.take_errors());
        let settings = &*settings;
        let path = |key| optional(settings, key, values::path);
        let max_ports = errors.take(number(settings, "max-ports", 1, Slot::COUNT as u64, 500));
        let config = Self {
            interfaces: errors.take(distinct(settings, "interface", values::interface)),
            xdp_mode: errors.take(optional(settings, "xdp-mode", values::xdp_mode)).unwrap_or_default(),
            observe: errors.take(distinct(settings, "observe", values::observed_prefix)),
            excluded: errors.take(distinct(settings, "exclude-source", values::prefix)),
            services: ascending(errors.take(distinct(settings, "service", values::service))),
            port_groups: errors.take(port_groups(settings)),
            features: ascending(errors.take(distinct(settings, "feature", values::slot))),
            max_ports: max_ports as usize,
            // The default follows a smaller `max-ports`; a number that was asked for does not.
            feature_ports: errors.take(number(
                settings,
                "feature-ports",
                0,
                Slot::COUNT as u64,
                30.min(max_ports),
            )) as usize,
            source_table: errors
                .take(optional(settings, "source-table", |text| values::number(text, 1, MAX_SOURCE_TABLE)))
                .map(|entries| entries as u32),
            kernel_memory: errors
                .take(optional(settings, "kernel-memory", values::kernel_memory))
                .unwrap_or(KERNEL_MEMORY),
            series_hold: errors.take(duration(settings, "series-hold", SERIES_HOLD, Duration::from_secs(75))),
            drain_interval: errors.take(duration(
                settings,
                "drain-interval",
                DRAIN_INTERVAL,
                Duration::from_secs(10),
            )),
            timezone: errors
                .take(optional(settings, "timezone", values::timezone))
                .unwrap_or_else(|| environment.timezone.clone()),
            sensor_name: errors
                .take(optional(settings, "sensor-name", values::sensor_name))
                .unwrap_or_else(|| environment.host_name.clone()),
            geoip: errors.take(path("geoip")),
            asn: errors.take(path("asn")),
            source_lists: errors.take(source_lists(settings)),
            samples: SampleSettings {
                choice: errors.take(samples(settings)),
                bytes: errors.take(number(
                    settings,
                    "sample-bytes",
                    1,
                    MAX_BYTES.into(),
                    SampleSettings::BYTES.into(),
                )) as u16,
                contents: errors.take(number(
                    settings,
                    "sample-contents",
                    1,
                    MAX_SAMPLE_CONTENTS,
                    SampleSettings::CONTENTS.into(),
                )) as u32,
            },
            keep_days: errors.take(number(settings, "keep-days", 1, MAX_KEEP_DAYS, 400)) as u32,
            archive_dir: errors.take(path("archive-dir")),
            archive_keep: errors.take(archive_keep(settings)),
            state_dir: errors.take(path("state-dir")).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)),
            pin_dir: errors.take(path("pin-dir")).unwrap_or_else(|| PathBuf::from(DEFAULT_PIN_DIR)),
            listen: errors.take(listen(settings)),
            web_config: errors.take(path("web.config.file")),
            systemd_socket: errors
                .take(optional(settings, "web.systemd-socket", values::boolean))
                .unwrap_or_default(),
            telemetry_path: errors
                .take(optional(settings, "web.telemetry-path", values::telemetry_path))
                .unwrap_or_else(|| DEFAULT_TELEMETRY_PATH.to_owned()),
            web_client: errors.take(web_client(settings)),
            log_format: errors.take(optional(settings, "log-format", values::log_format)).unwrap_or_default(),
            log_level: errors
                .take(optional(settings, "log-level", values::log_level))
                .unwrap_or_else(|| "info".to_owned()),
            local: errors.take(distinct(settings, "local", values::prefix)),
        };
        // Whether values that are wrong also contradict each other is of no interest.
        if errors.0.is_empty() {
            config.check_contradictions(settings, &mut errors.0);
        }
        match ConfigError::of_all(errors.0) {
            None => Ok(config),
            Some(error) => Err(error),
        }
    }

    /// Values that are right alone and wrong together.
    fn check_contradictions(&self, settings: &Settings, errors: &mut Vec<ConfigError>) {
        let services: HashMap<_, _> = settings
            .list("service")
            .iter()
            .filter_map(|service| Some((values::slot(service.value()).ok()?, service)))
            .collect();
        for feature in settings.list("feature") {
            let service = values::slot(feature.value()).ok().and_then(|slot| services.get(&slot));
            if let Some(&service) = service {
                errors.push(ConfigError::Contradiction {
                    first: Box::new(feature.clone()),
                    second: Box::new(service.clone()),
                    reason: "a service is left out of the totals by port and has its own by country; \
                             drop one of the two"
                        .to_owned(),
                });
            }
        }
        for sampled in settings.list("samples") {
            let service = values::samples(sampled.value())
                .ok()
                .and_then(|choice| services.iter().find(|(slot, _)| choice.slots.contains(*slot)));
            if let Some((slot, service)) = service {
                errors.push(ConfigError::Contradiction {
                    first: Box::new(sampled.clone()),
                    second: Box::new((*service).clone()),
                    reason: format!(
                        "only accesses are sampled, and to a service there are none; leave {slot} out"
                    ),
                });
            }
        }
        let max_ports = origin(settings, "max-ports", self.max_ports);
        if self.features.len() > self.max_ports
            && let Some(feature) = settings.list("feature").last()
        {
            errors.push(ConfigError::Contradiction {
                first: Box::new(feature.clone()),
                second: Box::new(max_ports.clone()),
                reason: format!(
                    "each of the {} features has a series of its own; raise `max-ports` or name fewer",
                    self.features.len()
                ),
            });
        }
        if self.feature_ports > self.max_ports {
            errors.push(ConfigError::Contradiction {
                first: Box::new(origin(settings, "feature-ports", self.feature_ports)),
                second: Box::new(max_ports),
                reason: "a port with detail has a series of its own too; raise `max-ports` or lower \
                         `feature-ports`"
                    .to_owned(),
            });
        }
        for (key, other) in [("state-dir", &self.state_dir), ("pin-dir", &self.pin_dir)] {
            if let Some(archive_dir) = self.archive_dir.as_ref().filter(|it| *it == other) {
                errors.push(ConfigError::Contradiction {
                    first: Box::new(origin(settings, "archive-dir", archive_dir.display())),
                    second: Box::new(origin(settings, key, other.display())),
                    reason: "the archive has a directory of its own, which may lie in the state directory"
                        .to_owned(),
                });
            }
        }
        if self.state_dir == self.pin_dir {
            errors.push(ConfigError::Contradiction {
                first: Box::new(origin(settings, "state-dir", self.state_dir.display())),
                second: Box::new(origin(settings, "pin-dir", self.pin_dir.display())),
                reason: "pins live on a bpffs, which holds no files; give two directories".to_owned(),
            });
        }
    }
}

/// Where the one value of `key` comes from, or that it is the default.
fn origin(settings: &Settings, key: &'static str, default: impl std::fmt::Display) -> Origin {
    settings.one(key).cloned().unwrap_or_else(|| Origin::Default { key, value: default.to_string() })
}

/// What is wrong so far; all of it is reported at once.
struct Errors(Vec<ConfigError>);

impl Errors {
    /// The value; when it is wrong, any, which no one will see.
    fn take<T: Default>(&mut self, value: Result<T, ConfigError>) -> T {
        value.unwrap_or_else(|error| {
            self.0.extend(error.into_each());
            T::default()
        })
    }
}

fn parse<T>(origin: &Origin, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    parse(origin.value()).map_err(|reason| origin.error(reason))
}

fn optional<T>(
    settings: &Settings,
    key: &str,
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    settings.one(key).map(|origin| parse(origin, value)).transpose()
}

fn number(settings: &Settings, key: &str, least: u64, most: u64, default: u64) -> Result<u64, ConfigError> {
    Ok(optional(settings, key, |text| values::number(text, least, most))?.unwrap_or(default))
}

fn duration(
    settings: &Settings,
    key: &str,
    (least, most): (Duration, Duration),
    default: Duration,
) -> Result<Duration, ConfigError> {
    Ok(optional(settings, key, |text| values::duration(text, least, most))?.unwrap_or(default))
}

/// The values of a list in the order given, each once.
fn distinct<T: Clone + Eq + Hash>(
    settings: &Settings,
    key: &str,
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut errors = Vec::new();
    for origin in settings.list(key) {
        match parse(origin, &value) {
            Ok(value) if known.insert(value.clone()) => found.push(value),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    ConfigError::of_all(errors).map_or(Ok(found), Err)
}

fn ascending<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values
}

fn samples(settings: &Settings) -> Result<Choice, ConfigError> {
    let mut sum = Choice::default();
    let mut errors = Vec::new();
    for origin in settings.list("samples") {
        match parse(origin, values::samples) {
            Ok(Choice { all, features, slots }) => {
                sum.all |= all;
                sum.features |= features;
                sum.slots.extend(slots);
            }
            Err(error) => errors.push(error),
        }
    }
    ConfigError::of_all(errors).map_or(Ok(sum), Err)
}

fn port_groups(settings: &Settings) -> Result<Vec<PortGroup>, ConfigError> {
    let mut groups = Vec::new();
    let mut errors = Vec::new();
    let mut names: BTreeMap<String, &Origin> = BTreeMap::new();
    for origin in settings.list("port-group") {
        let group = match parse(origin, values::port_group) {
            Ok(group) => group,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if let Some(first) = names.insert(group.name.clone(), origin) {
            errors.push(ConfigError::Contradiction {
                first: Box::new(first.clone()),
                second: Box::new(origin.clone()),
                reason: "a group is given once; join the two lists with a comma".to_owned(),
            });
        }
        groups.push(group);
        if groups.len() > MAX_GROUPS {
            errors.push(origin.error(format!("there can be {MAX_GROUPS} port groups at most")));
            break;
        }
    }
    ConfigError::of_all(errors).map_or(Ok(groups), Err)
}

fn source_lists(settings: &Settings) -> Result<Vec<SourceList>, ConfigError> {
    let mut lists = Vec::new();
    let mut errors = Vec::new();
    let mut names: BTreeMap<String, &Origin> = BTreeMap::new();
    for origin in settings.list("source-list") {
        let list = match parse(origin, values::source_list) {
            Ok(list) => list,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if let Some(first) = names.insert(list.name.clone(), origin) {
            errors.push(ConfigError::Contradiction {
                first: Box::new(first.clone()),
                second: Box::new(origin.clone()),
                reason: "a list has one file; join the files, or give the second another name".to_owned(),
            });
        }
        lists.push(list);
        if lists.len() > MAX_LISTS {
            errors.push(origin.error(format!("there can be {MAX_LISTS} source lists at most")));
            break;
        }
    }
    ConfigError::of_all(errors).map_or(Ok(lists), Err)
}

/// One bound of each kind.
fn archive_keep(settings: &Settings) -> Result<Keep, ConfigError> {
    let mut keep = Keep::default();
    let mut errors = Vec::new();
    let mut given: [Option<&Origin>; 2] = [None, None];
    for origin in settings.list("archive-keep") {
        let one = match parse(origin, values::archive_keep) {
            Ok(one) => one,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let before = given[usize::from(one.bytes.is_some())].replace(origin);
        if let Some(before) = before {
            errors.push(ConfigError::Contradiction {
                first: Box::new(before.clone()),
                second: Box::new(origin.clone()),
                reason: "there is one bound by days and one by size; drop one of the two".to_owned(),
            });
        }
        keep = Keep { days: one.days.or(keep.days), bytes: one.bytes.or(keep.bytes) };
    }
    ConfigError::of_all(errors).map_or(Ok(keep), Err)
}

fn web_client(settings: &Settings) -> Result<WebClient, ConfigError> {
    let path = |key| optional(settings, key, values::path);
    let alone = |key, missing: &str| match settings.one(key) {
        Some(origin) => Err(origin.error(format!("`--{missing}` has to be given with it"))),
        None => Ok(()),
    };
    let client = WebClient {
        user: optional(settings, "web.user", values::user)?,
        password_file: path("web.password-file")?,
        certificate: path("web.client-cert-file")?.zip(path("web.client-key-file")?),
    };
    if client.certificate.is_none() {
        alone("web.client-cert-file", "web.client-key-file")?;
        alone("web.client-key-file", "web.client-cert-file")?;
    }
    if client.user.is_none() {
        alone("web.password-file", "web.user")?;
    }
    Ok(client)
}

fn listen(settings: &Settings) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut addresses = distinct(settings, "web.listen-address", values::listen)?;
    if addresses.is_empty() {
        addresses.push(DEFAULT_LISTEN.parse().expect("an address"));
    }
    Ok(addresses)
}
