//! What the running sensor sees: the JSON of `/api/v1/status`, and the tables of `teiten status`.
//!
//! The numbers are those without the series hold, so the identities (docs/classification.md) hold in them at every
//! moment, and [`Status::identities`] says that they do.

use super::Note;
use super::rows::{BandRow, CountryRow, Counts, ListRow, NetworkRow, PortRow, Subject, of_class};
use crate::counters::port_names::PortTable;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::exposition::{Health, Reloadable, SensorInfo};
use crate::ledger::Today;
use crate::sight::Blind;
use jiff::Timestamp;
use jiff::civil::Date;
use sensor_common::Class;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What a status is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The sensor.
    pub info: &'a SensorInfo,
    /// The counters as last committed.
    pub totals: &'a Totals,
    /// The day, when the ledger has something of it.
    pub today: Option<&'a Today>,
    /// Names of ports.
    pub ports: &'a PortTable,
    /// The sensor's own state.
    pub health: &'a Health,
    /// When the totals began.
    pub since: Option<Timestamp>,
    /// What else the operator should know.
    pub notes: &'a [Note],
    /// The wall clock.
    pub now: Timestamp,
    /// The same moment on the clock that [`Health`] goes by.
    pub instant: Instant,
}

/// What the running sensor sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the sensor.
    pub sensor: String,
    /// Version of the program.
    pub version: String,
    /// Revision it was built from.
    pub revision: String,
    /// IANA name of the observation time zone.
    pub timezone: String,
    /// What is observed, and how.
    pub interfaces: Vec<ObservedInterface>,
    /// Size of the observed space, by address family; absent until known.
    pub monitored_addresses: Option<Monitored>,
    /// Whether the sensor can see its line, and the drain is current.
    pub up: bool,
    /// What `/-/ready` says: the same.
    pub ready: bool,
    /// What keeps the sensor from seeing its line.
    #[serde(default)]
    pub blind: Vec<Blind>,
    /// When this was written.
    pub now: Timestamp,
    /// When the totals began.
    pub since: Option<Timestamp>,
    /// When the last drain was committed.
    pub last_drain: Option<Timestamp>,
    /// The last generation that is in the totals.
    pub generation: u64,
    /// Observed time, seconds: the program was attached, and no reason but silence was given for being blind.
    pub observed_seconds: f64,
    /// Build time of the country database, seconds since the epoch.
    pub geoip_build: Option<u64>,
    /// Build time of the ASN database, seconds since the epoch; absent without one.
    #[serde(default)]
    pub asn_build: Option<i64>,
    /// The current local day.
    pub today: Option<DayStatus>,
    /// Everything since the totals began.
    pub total: Counts,
    /// What was not counted in full.
    pub loss: Loss,
    /// The archive.
    #[serde(default)]
    pub archive: ArchiveStatus,
    /// The identities (docs/classification.md), with both of their sides.
    pub identities: Vec<Identity>,
    /// What else the operator should know.
    pub notes: Vec<Note>,
}

/// One observed interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedInterface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
}

/// Addresses that count as the sensor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monitored {
    /// IPv4 addresses.
    pub ipv4: f64,
    /// IPv6 addresses; a prefix soon has more than an integer holds.
    pub ipv6: f64,
}

/// One local day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayStatus {
    /// The day, by the observation time zone.
    pub date: Date,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
    /// Unique hosts.
    pub hosts: u64,
    /// By destination, the busiest first.
    pub ports: Vec<PortRow>,
    /// By country, the busiest first.
    pub countries: Vec<CountryRow>,
    /// By source list, the busiest first.
    #[serde(default)]
    pub lists: Vec<ListRow>,
    /// By network, exact for each, the busiest first.
    #[serde(default)]
    pub networks: Vec<NetworkRow>,
    /// By how many ports the sources have reached.
    #[serde(default)]
    pub breadth: Vec<BandRow>,
    /// Accesses by local hour, 0 to 23.
    pub hours: Vec<u64>,
    /// By class, in the order of decision.
    pub classes: Vec<DayClassRow>,
}

/// Packets of one class on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayClassRow {
    /// The class, as its label.
    pub class: String,
    /// Packets.
    pub packets: u64,
}

/// What was not counted in full.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Accesses counted by port whose source could not be kept.
    pub source_table_overflow_packets: u64,
    /// Sources that came when the day's sets of sources were full.
    pub source_set_overflow: u64,
    /// Drains that had to be tried again.
    pub drain_failures: u64,
    /// From the beginning of the totals to the last drain, the time without counting, seconds;
    /// absent when either end is not known.
    pub unobserved_seconds: Option<f64>,
}

/// Whether what is drained is archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveWorks {
    /// There is no archive.
    #[default]
    Off,
    /// It is.
    Works,
    /// The archive cannot be written.
    Failing,
}

/// The archive of sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Whether what is drained is written into it.
    pub state: ArchiveWorks,
    /// Packets that were written into it.
    pub packets: u64,
    /// Packets that could not be.
    pub lost_packets: u64,
    /// Packets in files that its bounds have dropped.
    pub dropped_packets: u64,
    /// Files of this sensor.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Two sums that must be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The identity, in terms of the metrics.
    pub identity: String,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
    /// Whether they are the same.
    pub holds: bool,
}

impl Identity {
    pub(super) fn new(identity: &str, left: u64, right: u64) -> Self {
        Self { identity: identity.to_owned(), left, right, holds: left == right }
    }
}

impl DayStatus {
    fn new(today: &Today, names: &PortTable) -> Self {
        let rows = Subject::Sensor(names);
        let class = |class: Class| DayClassRow {
            class: class.name().to_owned(),
            packets: today.packets[class as usize],
        };
        Self {
            date: today.day,
            accesses: today.total.accesses,
            sources: today.total.sources,
            hosts: today.hosts,
            ports: rows.ports(today.ports.iter().map(|(slot, tally)| (PortLabel::Own(*slot), *tally))),
            countries: rows.countries(today.countries.iter().copied()),
            lists: rows.lists(today.lists.clone()),
            networks: rows.networks(today.networks.iter().cloned()),
            breadth: BandRow::of(today.breadth),
            hours: today.hours.to_vec(),
            classes: Class::ALL.into_iter().map(class).collect(),
        }
    }
}

/// What fails at this moment: the commit, and the files that cannot be read again.
fn of_health(health: &Health) -> impl Iterator<Item = Note> + use<> {
    let commit = health.drain_fault().map(|(why, is_counting)| {
        let (english, japanese) = if is_counting {
            (
                "counting continues in the kernel, and what is shown is of the last commit",
                "計数はカーネル内で続いています",
            )
        } else {
            (
                "packets are not counted, because an interface is not attached",
                "接続していないインターフェースがあり、パケットは計数されていません",
            )
        };
        Note::new(
            format!("{why}; {english}"),
            format!("台帳へのコミットに失敗しています。{japanese}。表示は最後のコミット時点のものです"),
        )
    });
    let files = health.unread().into_iter().map(|(what, why)| {
        let japanese = match what {
            Reloadable::Geoip => "国データベースを再読み込みできません。読み込み済みのもので判定しています",
            Reloadable::Lists => "発信元リストを再読み込みできません。読み込み済みのもので判定しています",
            Reloadable::Asn => "ASN データベースを再読み込みできません。読み込み済みのもので判定しています",
            Reloadable::Config => "設定を再読み込みできません。読み込み済みの設定で動作しています",
            Reloadable::Web => "Web 設定を再読み込みできません。読み込み済みの設定で動作しています",
        };
        Note::new(
            format!("the {} cannot be read again; {}: {why}", what.subject(), what.meanwhile()),
            japanese,
        )
    });
    commit.into_iter().chain(files)
}

impl Status {
    /// Puts a status together.
    pub fn new(inputs: Inputs<'_>) -> Self {
        let Inputs { info, totals, today, ports, health, since, notes, now, instant } = inputs;
        let last_drain = health.last_drain();
        let observed_seconds = totals.observed.as_secs_f64();
        let total = Subject::Sensor(ports).counts(totals);
        let country_sum = |value: fn(&Tally) -> u64| totals.countries.values().map(value).sum::<u64>();
        let identities = vec![
            Identity::new(
                "sum(teiten_accesses_total) = teiten_packets_total{class=\"access\"}",
                total.accesses,
                of_class(totals, Class::Access).packets,
            ),
            Identity::new(
                "sum(teiten_accesses_total) = sum(teiten_country_accesses_total) + \
                 teiten_source_table_overflow_packets_total",
                total.accesses,
                country_sum(|tally| tally.accesses) + totals.overflow,
            ),
            Identity::new(
                "sum(teiten_sources_total) = sum(teiten_country_sources_total)",
                total.sources,
                country_sum(|tally| tally.sources),
            ),
            Identity::new(
                "sum(teiten_accesses_total) = sum(teiten_list_accesses_total) + \
                 teiten_source_table_overflow_packets_total",
                total.accesses,
                total.lists.iter().map(|row| row.accesses).sum::<u64>() + totals.overflow,
            ),
            Identity::new(
                "sum(teiten_sources_total) = sum(teiten_list_sources_total)",
                total.sources,
                total.lists.iter().map(|row| row.sources).sum(),
            ),
            Identity::new(
                "sum(teiten_accesses_total) = sum(teiten_asn_accesses_total) + \
                 teiten_source_table_overflow_packets_total",
                total.accesses,
                total.networks.iter().map(|row| row.accesses).sum::<u64>() + totals.overflow,
            ),
            Identity::new(
                "sum(teiten_sources_total) = sum(teiten_asn_sources_total)",
                total.sources,
                total.networks.iter().map(|row| row.sources).sum(),
            ),
            Identity::new(
                "teiten_hosts_total = sum(teiten_list_hosts_total)",
                total.hosts,
                total.lists.iter().map(|row| row.hosts).sum(),
            ),
            Identity::new(
                "sum(teiten_unread_frames_total) = teiten_packets_total{class=\"non_ip\"}",
                total.unread_frames.iter().map(|row| row.frames).sum(),
                of_class(totals, Class::NonIp).packets,
            ),
            Identity::new(
                "sum(teiten_malformed_packets_total) = teiten_packets_total{class=\"malformed\"}",
                total.malformed.iter().map(|row| row.packets).sum(),
                of_class(totals, Class::Malformed).packets,
            ),
        ];
        let unobserved = since.zip(last_drain).map(|(since, last)| {
            let elapsed = last.duration_since(since).as_secs_f64();
            (elapsed - observed_seconds).max(0.0)
        });
        Self {
            sensor: info.sensor.clone(),
            version: info.version.clone(),
            revision: info.revision.clone(),
            timezone: info.timezone.clone(),
            interfaces: info
                .interfaces
                .iter()
                .zip(&info.xdp_modes)
                .map(|(name, mode)| ObservedInterface { name: name.clone(), xdp_mode: mode.clone() })
                .collect(),
            monitored_addresses: health.monitored_addresses().map(|[ipv4, ipv6]| Monitored { ipv4, ipv6 }),
            up: health.is_up(instant),
            ready: health.is_up(instant),
            blind: health.blind(),
            now,
            since,
            last_drain,
            generation: totals.generation,
            observed_seconds,
            geoip_build: health.geoip_build(),
            asn_build: health.asn_build(),
            today: today.map(|today| DayStatus::new(today, ports)),
            total,
            loss: Loss {
                source_table_overflow_packets: totals.overflow,
                source_set_overflow: totals.set_overflow,
                drain_failures: health.drain_failures(),
                unobserved_seconds: unobserved,
            },
            archive: {
                let archive = health.archive();
                let state = match archive {
                    None => ArchiveWorks::Off,
                    Some(archive) if archive.failing => ArchiveWorks::Failing,
                    Some(_) => ArchiveWorks::Works,
                };
                let archive = archive.unwrap_or_default();
                ArchiveStatus {
                    state,
                    packets: totals.archived,
                    lost_packets: totals.archive_lost,
                    dropped_packets: archive.dropped_packets,
                    files: archive.files,
                    bytes: archive.bytes,
                }
            },
            identities,
            notes: of_health(health).chain(notes.iter().cloned()).collect(),
        }
    }
}
