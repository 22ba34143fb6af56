//! What can be found out about this machine without changing it.

use crate::config::Config;
use crate::error_chain;
use crate::geoip::GeoIp;
use aya::maps::MapType;
use aya::programs::ProgramType;
use caps::{CapSet, Capability};
use futures::TryStreamExt;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Everything that is judged.
pub(super) struct Facts {
    pub(super) kernel: (u32, u32),
    /// As `uname -r` shows it.
    pub(super) release: String,
    pub(super) missing_capabilities: Vec<&'static str>,
    pub(super) bpf: Result<(), String>,
    pub(super) btf: bool,
    /// Those configured, else the one of the default route.
    pub(super) interfaces: Vec<(String, Result<Interface, String>)>,
    pub(super) pin_dir: PinDir,
    pub(super) state_dir: Result<String, String>,
    pub(super) listen: Vec<(SocketAddr, Result<(), String>)>,
    pub(super) web_config: Option<(String, Result<(), String>)>,
    pub(super) geoip: Result<String, String>,
}

/// What frames of an interface begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Ethernet,
    Ip,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet headers",
            Self::Ip => "IP headers",
        })
    }
}

pub(super) struct Interface {
    pub(super) link_type: String,
    /// `None`: neither can be read.
    pub(super) header: Option<Header>,
    pub(super) mtu: u32,
    pub(super) is_up: bool,
    pub(super) xdp_program: Option<u32>,
}

pub(super) struct PinDir {
    /// It, or what it would be made in, is on a bpffs.
    pub(super) on_bpffs: bool,
    pub(super) can_mount: bool,
    pub(super) entries: usize,
}

pub(super) fn gather(config: &Config) -> Facts {
    let release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    Facts {
        kernel: version(&release),
        release,
        missing_capabilities: missing_capabilities(),
        bpf: bpf(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        interfaces: interfaces(config),
        pin_dir: pin_dir(&config.pin_dir),
        state_dir: state_dir(&config.state_dir),
        listen: config
            .listen
            .iter()
            .map(|&address| {
                let bound = TcpListener::bind(address).map(drop).map_err(|error| error.to_string());
                (address, bound)
            })
            .collect(),
        web_config: config.web_config.as_ref().map(|path| {
            let readable = std::fs::read(path).map(drop).map_err(|error| format!("cannot be read: {error}"));
            (path.display().to_string(), readable)
        }),
        geoip: GeoIp::open(config.geoip.as_deref())
            .map(|geoip| {
                let built = geoip.built().strftime("%Y-%m-%d");
                format!("{}, type {}, built {built}", geoip.origin(), geoip.database_type())
            })
            .map_err(|error| error_chain(&error)),
    }
}

/// The first two numbers of a release like `6.1.0-18-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn missing_capabilities() -> Vec<&'static str> {
    // CAP_SYS_ADMIN includes what was split from it in Linux 5.8, commits a17b53c4a4b5 and
    // 980737282232.
    let old = has(Capability::CAP_SYS_ADMIN);
    [
        ("CAP_BPF", old || has(Capability::CAP_BPF)),
        ("CAP_PERFMON", old || has(Capability::CAP_PERFMON)),
        ("CAP_NET_ADMIN", has(Capability::CAP_NET_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, has)| (!has).then_some(name))
    .collect()
}

fn bpf() -> Result<(), String> {
    match aya::sys::is_program_supported(ProgramType::Xdp) {
        Ok(true) => {}
        Ok(false) => return Err("the kernel has no XDP programs".to_owned()),
        Err(error) => return Err(format!("an XDP program cannot be loaded: {}", error_chain(&error))),
    }
    match aya::sys::is_map_supported(MapType::ArrayOfMaps) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel has no arrays of maps".to_owned()),
        Err(error) => Err(format!("an array of maps cannot be made: {}", error_chain(&error))),
    }
}

/// Asked over netlink, since inside a network namespace `/sys/class/net` may be another's.
fn interfaces(config: &Config) -> Vec<(String, Result<Interface, String>)> {
    let names = if config.interfaces.is_empty() {
        default_route(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()).into_iter().collect()
    } else {
        config.interfaces.clone()
    };
    let links = links();
    names
        .into_iter()
        .map(|name| {
            let found = match &links {
                Ok(links) => links.iter().find(|(known, _)| *known == name).map_or_else(
                    || {
                        let known: Vec<&str> = links.iter().map(|(name, _)| name.as_str()).collect();
                        Err(format!("there is no such interface; there are {}", known.join(", ")))
                    },
                    |(_, link)| Ok(interface(link)),
                ),
                Err(error) => Err(format!("netlink does not tell the interfaces: {error}")),
            };
            (name, found)
        })
        .collect()
}

fn links() -> Result<Vec<(String, LinkMessage)>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let links: Vec<LinkMessage> =
            handle.link().get().execute().try_collect().await.map_err(|error| error.to_string())?;
        Ok(links
            .into_iter()
            .filter_map(|link| {
                let name = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                })?;
                Some((name, link))
            })
            .collect())
    })
}

fn interface(link: &LinkMessage) -> Interface {
    let mut mtu = 0;
    let mut xdp_program = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(octets) => mtu = *octets,
            LinkAttribute::Xdp(details) => {
                xdp_program = details.iter().find_map(|detail| match detail {
                    LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let kind = link.header.link_layer_type;
    Interface {
        link_type: kind.to_string(),
        header: header(kind),
        mtu,
        is_up: link.header.flags.contains(LinkFlags::Up),
        xdp_program,
    }
}

fn header(kind: LinkLayerType) -> Option<Header> {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Some(Header::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre => Some(Header::Ip),
        _ => None,
    }
}

/// The interface of the IPv4 default route of least metric, from the lines of `/proc/net/route`.
fn default_route(table: &str) -> Option<String> {
    const UP: u32 = 1;
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[name, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else {
                return None;
            };
            let is_up = u32::from_str_radix(flags, 16).ok()? & UP != 0;
            (is_up && destination == "00000000" && mask == "00000000")
                .then_some((metric.parse::<u32>().ok()?, name))
        })
        .min_by_key(|&(metric, _)| metric)
        .map(|(_, name)| name.to_owned())
}

/// The path itself, or its nearest ancestor that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."))
}

fn pin_dir(path: &Path) -> PinDir {
    PinDir {
        on_bpffs: statfs(existing(path)).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC),
        can_mount: has(Capability::CAP_SYS_ADMIN),
        entries: std::fs::read_dir(path).map_or(0, Iterator::count),
    }
}

fn state_dir(path: &Path) -> Result<String, String> {
    let found = existing(path);
    if !found.is_dir() {
        return Err(format!("{} is not a directory", found.display()));
    }
    access(found, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|error| format!("{} cannot be written: {}", found.display(), error.desc()))?;
    Ok(if found != path {
        "would be created".to_owned()
    } else if path.join("ledger.sqlite").exists() {
        "writable; the ledger there would be continued".to_owned()
    } else {
        "writable; a new ledger would be begun".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_two_numbers() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("5.10"), (5, 10));
        assert_eq!(version("6.18.1+"), (6, 18));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn the_default_route_of_least_metric_wins() {
        let table = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0
eth2\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
        assert_eq!(default_route(table).as_deref(), Some("eth0"));
        assert_eq!(default_route("Iface\n"), None);
    }

    #[test]
    fn the_loopback_interface_is_found_as_ethernet() {
        let links = links().unwrap();
        let (_, link) = links.iter().find(|(name, _)| name == "lo").unwrap();
        assert_eq!(interface(link).header, Some(Header::Ethernet));
    }

    #[test]
    fn a_directory_that_can_be_made_is_as_good_as_one_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        let state = |path: &Path| state_dir(path);
        assert_eq!(state(&directory.path().join("a/b")), Ok("would be created".to_owned()));
        assert_eq!(state(directory.path()), Ok("writable; a new ledger would be begun".to_owned()));
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(state(&directory.path().join("file/a")).unwrap_err().ends_with("file is not a directory"));
    }
}
