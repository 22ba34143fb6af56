//! What can be found out about this machine without changing it.

use super::line::ObservedLine;
use crate::config::Config;
use crate::error_chain;
use crate::geoip::GeoIp;
use crate::kernel::inspect::{self, Attached, PinDir, nearest};
use crate::kernel::interface::Interface;
use crate::kernel::interfaces::Interfaces;
use crate::kernel::network::Network;
use crate::kernel::{self, ByCpu, Found, MapSizes, adapter};
use crate::sight::Blind;
use crate::sight::targets::Targets;
use crate::system::trusted;
use crate::web::{Server, WebConfig};
use crate::who::asn::{AsnDatabase, AsnRead};
use crate::who::lists::{Lists, Read, SourceList};
use aya::maps::MapType;
use aya::programs::ProgramType;
use caps::{CapSet, Capability};
use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::SystemTime;

/// Everything that is judged.
pub(super) struct Facts {
    pub(super) kernel: (u32, u32),
    /// As `uname -r` shows it.
    pub(super) release: String,
    pub(super) missing_capabilities: Vec<&'static str>,
    pub(super) bpf: Result<(), String>,
    pub(super) btf: bool,
    /// Those configured, else those of the default routes.
    pub(super) interfaces: Vec<Result<(Interface, Attached), String>>,
    /// What is known of those that are there, by name.
    pub(super) lines: Vec<(String, ObservedLine)>,
    /// CPUs that are there.
    pub(super) cpus: usize,
    pub(super) memory: MapNeeds,
    /// What the daemon would not see from the start.
    pub(super) blind: Vec<Blind>,
    /// Observed interfaces that see the same packets.
    pub(super) doubles: Vec<String>,
    pub(super) pin_dir: PinDir,
    pub(super) can_mount: bool,
    pub(super) state_dir: StateDir,
    /// Of the archive, when there is to be one.
    pub(super) archive_dir: Option<StateDir>,
    pub(super) listen: Vec<(SocketAddr, Result<(), String>)>,
    pub(super) web_config: Option<(String, Result<(), String>)>,
    pub(super) geoip: Result<AddressDatabase, String>,
    /// The ASN database, when there is to be one.
    pub(super) asn: Option<Result<AddressDatabase, String>>,
    /// Each source list with what was found in it.
    pub(super) lists: Vec<(String, Result<Read, String>)>,
    pub(super) now: SystemTime,
}

/// A country or ASN database that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressDatabase {
    pub(super) text: String,
    /// Since it was built.
    pub(super) age_days: i64,
    pub(super) is_embedded: bool,
}

/// Bytes, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapNeeds {
    /// Of all maps.
    pub(super) maps: u64,
    /// Of them, what grows with the number of CPUs that there may ever be.
    pub(super) by_cpu: u64,
    /// Its bound.
    pub(super) bound: u64,
    pub(super) possible_cpus: usize,
    /// Blocks of counters and logs, which CPUs share when there are fewer.
    pub(super) blocks: usize,
    /// Entries of the source table.
    pub(super) source_table: u32,
    /// What this process may use; `None` when that cannot be read.
    pub(super) available: Option<u64>,
}

/// A state directory as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StateDir {
    /// It can be used; what would happen.
    Good(String),
    /// It can be used by the user to whom it belongs, and not by root.
    Of(String),
    /// It cannot be used; why, and the way out.
    Bad(String),
    /// This user may not look.
    NotAllowed,
}

pub(super) fn gather(config: &Config) -> Facts {
    let release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let network = survey();
    let lines = network.as_ref().map(|network| lines(config, network)).unwrap_or_default();
    let (interfaces, blind, doubles) = observed(config, network);
    Facts {
        kernel: version(&release),
        release,
        missing_capabilities: missing_capabilities(),
        bpf: bpf(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        interfaces,
        lines,
        cpus: std::thread::available_parallelism().map_or(1, Into::into),
        memory: memory(config),
        blind,
        doubles,
        pin_dir: inspect::pin_dir(&config.pin_dir),
        can_mount: has(Capability::CAP_SYS_ADMIN),
        state_dir: state_dir(&config.state_dir),
        archive_dir: config.archive_dir.as_deref().map(archive_dir),
        listen: config
            .listen
            .iter()
            // systemd hands over other ones.
            .filter(|_| !config.systemd_socket)
            .map(|&address| {
                let bound = TcpListener::bind(address).map(drop).map_err(|error| error.to_string());
                (address, bound)
            })
            .collect(),
        web_config: config.web_config.as_ref().map(|path| (path.display().to_string(), web_config(path))),
        geoip: GeoIp::open(config.geoip.as_deref())
            .map(|geoip| {
                let built = geoip.built();
                AddressDatabase {
                    text: format!(
                        "{}, type {}, built {}",
                        geoip.origin(),
                        geoip.database_type(),
                        built.strftime("%Y-%m-%d")
                    ),
                    age_days: Timestamp::now().duration_since(built).as_hours() / 24,
                    is_embedded: config.geoip.is_none(),
                }
            })
            .map_err(|error| error_chain(&error)),
        asn: config.asn.as_deref().map(asn),
        lists: config.source_lists.iter().map(list).collect(),
        now: SystemTime::now(),
    }
}

fn asn(path: &Path) -> Result<AddressDatabase, String> {
    let database = AsnDatabase::load(path).map_err(|error| error_chain(&error))?;
    let AsnRead { path, built, database_type } = database.read().expect("it was read");
    Ok(AddressDatabase {
        text: format!(
            "`{}`, type {database_type}, {} networks, built {}",
            path.display(),
            database.networks().len(),
            built.strftime("%Y-%m-%d")
        ),
        age_days: Timestamp::now().duration_since(*built).as_hours() / 24,
        is_embedded: false,
    })
}

fn list(list: &SourceList) -> (String, Result<Read, String>) {
    let read = Lists::load(std::slice::from_ref(list)).map_err(|error| error_chain(&error));
    (list.name.clone(), read.map(|lists| lists.read()[0].clone()))
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

/// Runs what needs a runtime.
fn wait_for<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(work)
}

/// The network as it is now.
fn survey() -> Result<Network, String> {
    wait_for(async {
        let (interfaces, _changes) =
            Interfaces::connect().map_err(|error| format!("open a netlink socket: {error}"))?;
        interfaces.survey().await.map_err(|error| error_chain(&error))
    })
}

/// Interfaces, what keeps them from seeing, and which of them see the same.
type LineFacts = (Vec<Result<(Interface, Attached), String>>, Vec<Blind>, Vec<String>);

fn observed(config: &Config, network: Result<Network, String>) -> LineFacts {
    let network = match network {
        Ok(network) => network,
        Err(error) => return (vec![Err(error)], Vec::new(), Vec::new()),
    };
    let attached = |interface: Interface| {
        let attached = inspect::attached(&config.pin_dir, &interface);
        (interface, attached)
    };
    let Ok(mut targets) = Targets::new(&network, config) else {
        // One is missing, which is for the others no reason not to be looked at.
        let named = config.interfaces.iter();
        let found =
            named.map(|name| network.interface(name).map(attached).map_err(|error| error_chain(&error)));
        return (found.collect(), Vec::new(), Vec::new());
    };
    let interfaces =
        targets.interfaces(&network).into_iter().map(|(_, interface)| interface.map(attached)).collect();
    (interfaces, targets.blind(&network, config), targets.doubles(&network))
}

/// What the drivers of the observed interfaces say, and what is stacked on them.
fn lines(config: &Config, network: &Network) -> Vec<(String, ObservedLine)> {
    let Ok(mut targets) = Targets::new(network, config) else { return Vec::new() };
    let found = targets.interfaces(network).into_iter().filter_map(|(_, interface)| interface.ok());
    found
        .filter_map(|interface| {
            // The name that the kernel has for it.
            let name = &network.with_index(interface.index)?.name;
            let line = ObservedLine::of(&interface, network, adapter::ask(name, interface.index));
            Some((interface.name, line))
        })
        .collect()
}

fn memory(config: &Config) -> MapNeeds {
    let available = kernel::memory();
    let by_cpu = ByCpu::within(config.kernel_memory);
    let source_table = config.source_table.unwrap_or_else(|| by_cpu.default_source_table(available));
    MapNeeds {
        maps: MapSizes { by_cpu, source_table }.bytes(),
        by_cpu: by_cpu.bytes(),
        bound: config.kernel_memory,
        possible_cpus: by_cpu.cpus(),
        blocks: by_cpu.blocks(),
        source_table,
        available,
    }
}

/// Reads it as the daemon does, which listens only when all is well; here on a port of no matter.
fn web_config(path: &Path) -> Result<(), String> {
    let config = WebConfig {
        listen: vec!["127.0.0.1:0".to_owned()],
        config_file: Some(path.to_owned()),
        ..WebConfig::default()
    };
    wait_for(async { Server::bind(&config).map(drop).map_err(|error| error_chain(&error)) })
}

fn state_dir(path: &Path) -> StateDir {
    if let Err(not_usable) = usable(path, "--state-dir") {
        return not_usable;
    }
    match Found::of(path.join("ledger.sqlite").symlink_metadata()) {
        Ok(Found::Yes) => StateDir::Good("writable; the ledger there would be continued".to_owned()),
        Ok(Found::No) => StateDir::Good("writable; a new ledger would be begun".to_owned()),
        Ok(Found::NotAllowed) => StateDir::NotAllowed,
        Err(error) => StateDir::Bad(format!("the ledger there cannot be looked at: {error}")),
    }
}

fn archive_dir(path: &Path) -> StateDir {
    match usable(path, "--archive-dir") {
        Ok(()) => StateDir::Good("writable; every source would be archived there".to_owned()),
        Err(found) => found,
    }
}

/// Whether a directory that `flag` gives is there and can be written; what is to be said otherwise.
fn usable(path: &Path, flag: &str) -> Result<(), StateDir> {
    let Some(found) = nearest(path) else { return Err(StateDir::NotAllowed) };
    if !found.is_dir() {
        return Err(StateDir::Bad(format!(
            "{} is not a directory; give another with {flag}",
            found.display()
        )));
    }
    if found == path {
        match trusted::check(path) {
            Ok(()) => {}
            Err(trusted::Untrusted::Owner { path: of, owner, .. })
                if of == path && nix::unistd::geteuid().is_root() =>
            {
                return Err(StateDir::Of(owner));
            }
            Err(error) => return Err(StateDir::Bad(error_chain(&error))),
        }
    }
    if let Err(error) = access(found, AccessFlags::W_OK | AccessFlags::X_OK) {
        let (found, error) = (found.display(), error.desc());
        let root =
            if nix::unistd::geteuid().is_root() { "" } else { "`sudo teiten check` checks it for root; or " };
        return Err(StateDir::Bad(format!(
            "{found} cannot be written by this user: {error}; {root}give another with {flag}"
        )));
    }
    if found == path { Ok(()) } else { Err(StateDir::Good("would be created".to_owned())) }
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
    fn a_directory_that_can_be_made_is_as_good_as_one_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        let state = |path: &Path| state_dir(path);
        assert_eq!(state(&directory.path().join("a/b")), StateDir::Good("would be created".to_owned()));
        let begun = "writable; a new ledger would be begun".to_owned();
        assert_eq!(state(directory.path()), StateDir::Good(begun));
        std::fs::write(directory.path().join("file"), "").unwrap();
        let StateDir::Bad(text) = state(&directory.path().join("file/a")) else { panic!("no directory") };
        assert!(text.contains("file is not a directory; give another with --state-dir"), "{text}");
        let StateDir::Good(text) = archive_dir(directory.path()) else { panic!("it can be written") };
        assert!(text.contains("every source would be archived"), "{text}");
        let StateDir::Bad(text) = archive_dir(&directory.path().join("file/a")) else {
            panic!("no directory")
        };
        assert!(text.contains("give another with --archive-dir"), "{text}");
    }
}
