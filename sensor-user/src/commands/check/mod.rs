//! `teiten check`: what would happen if the daemon started here and now.
//!
//! The facts are gathered without changing anything (the probes of the bpf system call load a program that
//! returns at once, and close it). Judging them does no input or output.

mod facts;
mod line;

use crate::config::{Config, Environment, Flags, XdpMode};
use crate::error_chain;
use crate::kernel::inspect::Attached;
use crate::kernel::interface::{Interface, LinkLayer};
use crate::kernel::{Found, GENERIC_MERGES};
use crate::samples::SampleSettings;
use crate::system::output::{Output, visible};
use crate::who::lists::Read;
use facts::{AddressDatabase, Facts, MapNeeds, StateDir, gather};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::SystemTime;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// The daemon would start; the operator should know this.
    Warning,
    /// The daemon would not start.
    Problem,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How good or bad it is.
    pub level: Level,
    /// What it is about.
    pub about: String,
    /// A sentence, with the way out of a problem.
    pub text: String,
}

impl Finding {
    fn new(level: Level, about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level, about: about.into(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        write!(f, "{level:<8} {}: {}", self.about, self.text)
    }
}

/// Checks whether `teiten run` with these flags would start, and changes nothing.
pub fn run(flags: &Flags, environment: &Environment) -> Vec<Finding> {
    let mut findings: Vec<Finding> = environment
        .unknown_variables()
        .into_iter()
        .map(|(name, suggestion)| {
            let hint = suggestion.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            Finding::new(
                Level::Warning,
                "environment",
                format!("unknown variable {name}; it has no effect{hint}"),
            )
        })
        .collect();
    match Config::load(flags, environment) {
        Ok(config) => findings.extend(judge(&config, &gather(&config))),
        Err(error) => findings.extend(
            error
                .each()
                .iter()
                .map(|error| Finding::new(Level::Problem, "configuration", error_chain(error))),
        ),
    }
    findings
}

/// Prints what [`run`] finds, and tells whether the daemon would start.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn command(flags: &Flags, environment: &Environment) -> io::Result<bool> {
    let findings = run(flags, environment);
    let mut out = Output::lock();
    for finding in &findings {
        writeln!(out, "{}", visible(&finding.to_string()))?;
    }
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    match problems {
        0 => {
            let is_blind = findings.iter().any(|finding| finding.text.starts_with(BLIND));
            let end = if is_blind { ", but would not see its line; see above" } else { "" };
            writeln!(out, "teiten run would start{end}")?;
        }
        1 => writeln!(out, "teiten run would not start: 1 problem")?,
        problems => writeln!(out, "teiten run would not start: {problems} problems")?,
    }
    Ok(problems == 0)
}

/// The first kernel with `bpf_xdp_get_buff_len` and `bpf_xdp_load_bytes`, commits 0165cc817075 and
/// 3f364222d032.
const OLDEST_KERNEL: (u32, u32) = (5, 18);
/// The oldest kernel that the tests run on; which programs the verifier takes differs between kernels.
const OLDEST_TESTED_KERNEL: (u32, u32) = (6, 1);
/// The kernel that has TCX: 6.6, commit e420bed02507.
const TCX_KERNEL: (u32, u32) = (6, 6);

/// How a finding about sight begins.
const BLIND: &str = "would be blind";

fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![configuration(config)];
    findings.push(geoip(facts));
    findings.extend(facts.asn.as_ref().map(asn));
    findings.extend(facts.lists.iter().map(|(name, read)| judge_list(name, read.as_ref(), facts.now)));
    findings.push(samples(config));
    kernel(facts, &mut findings);
    for interface in &facts.interfaces {
        match interface {
            Ok((found, attached)) => findings.push(judge_interface(config, found, attached)),
            Err(text) => findings.push(Finding::new(Level::Problem, "interface", text)),
        }
    }
    for (name, line) in &facts.lines {
        findings.extend(line::judge(config, name, line, facts.cpus));
    }
    let sight = facts.blind.iter().map(|blind| {
        let about = blind.interface.as_deref().unwrap_or("interface");
        let text = format!("{BLIND} ({}): {}; {}", blind.reason, blind.what, blind.advice);
        Finding::new(Level::Warning, about, text)
    });
    findings.extend(sight);
    let doubles = facts.doubles.iter().map(|text| Finding::new(Level::Warning, "interfaces", text));
    findings.extend(doubles);
    findings.push(memory(&facts.memory));
    findings.push(pins(config, facts));
    findings.push(directory(format!("state directory {}", config.state_dir.display()), &facts.state_dir));
    if let (Some(path), Some(found)) = (&config.archive_dir, &facts.archive_dir) {
        findings.push(directory(format!("archive {}", path.display()), found));
    }
    for (address, bound) in &facts.listen {
        findings.push(match bound {
            Ok(()) => Finding::new(Level::Good, format!("http://{address}"), "free to listen on"),
            Err(text) => Finding::new(
                Level::Problem,
                format!("http://{address}"),
                format!(
                    "cannot listen there: {text}; stop what does (another teiten?) or give another \
                     address with --web.listen-address"
                ),
            ),
        });
    }
    if let Some((path, readable)) = &facts.web_config {
        findings.push(match readable {
            Ok(()) => Finding::new(Level::Good, format!("web configuration {path}"), "can be used"),
            Err(text) => Finding::new(Level::Problem, format!("web configuration {path}"), text),
        });
    }
    findings
}

/// A list of research scanners changes every week; one this old misses many of them.
const OLD_LIST_DAYS: u64 = 30;

fn samples(config: &Config) -> Finding {
    let SampleSettings { choice, bytes, contents } = &config.samples;
    let text = if choice.is_off() {
        "off: nothing of what packets hold is kept".to_owned()
    } else {
        format!(
            "of accesses to {choice}: {contents} contents of each port and day, {bytes} bytes of each at most, kept {} days",
            config.keep_days
        )
    };
    Finding::new(Level::Good, "samples", text)
}

fn judge_list(name: &str, read: Result<&Read, &String>, now: SystemTime) -> Finding {
    let about = format!("source list {name}");
    let read = match read {
        Ok(read) => read,
        Err(text) => return Finding::new(Level::Problem, about, text),
    };
    let days = read.modified.map(|at| now.duration_since(at).unwrap_or_default().as_secs() / 86_400);
    let mut text = match days {
        Some(days) => format!("{} addresses and prefixes, changed {days} days ago", read.prefixes),
        None => format!("{} addresses and prefixes, its age is not known", read.prefixes),
    };
    if let Some(widest) = read.widest {
        let _ = write!(text, "; {widest} is wider than one organisation has: is it meant?");
    }
    let is_old = days.is_some_and(|days| days > OLD_LIST_DAYS);
    if is_old {
        text.push_str("; fetch it again, it is older than a month");
    }
    let level = if is_old || read.widest.is_some() { Level::Warning } else { Level::Good };
    Finding::new(level, about, text)
}

/// From this age the alerts `TeitenGeoIpStale` and `TeitenAsnStale` fire, for a file and for the database in the program.
const OLD_DATABASE_DAYS: [i64; 2] = [90, 365];

fn geoip(facts: &Facts) -> Finding {
    address_database("geoip", &facts.geoip, "address blocks have changed hands since")
}

fn asn(found: &Result<AddressDatabase, String>) -> Finding {
    address_database("asn", found, "prefixes have changed hands since")
}

fn address_database(name: &'static str, found: &Result<AddressDatabase, String>, since: &str) -> Finding {
    let found = match found {
        Ok(found) => found,
        Err(text) => return Finding::new(Level::Problem, name, text),
    };
    if found.age_days <= OLD_DATABASE_DAYS[usize::from(found.is_embedded)] {
        return Finding::new(Level::Good, name, &found.text);
    }
    let way_out = if found.is_embedded {
        "install a newer release, or let teiten-geoip.timer fetch one and name it with --geoip"
    } else {
        "replace the file; a running sensor reads it again"
    };
    let text = format!("{}, {} days ago: {since}; {way_out}", found.text, found.age_days);
    Finding::new(Level::Warning, name, text)
}

fn memory(memory: &MapNeeds) -> Finding {
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let cpus = memory.possible_cpus;
    let by_cpu = if memory.blocks < cpus {
        let blocks =
            if memory.blocks == 1 { "one block".to_owned() } else { format!("{} blocks", memory.blocks) };
        format!(
            "{} MB for {cpus} possible CPUs, which share {blocks} of counters and logs",
            megabytes(memory.by_cpu)
        )
    } else {
        format!("{} MB for each of {cpus} possible CPUs", megabytes(memory.by_cpu / cpus.max(1) as u64))
    };
    let mut text = format!(
        "the maps take {} MB: {by_cpu}, the rest for {} sources of a flood and for conversations",
        megabytes(memory.maps),
        memory.source_table
    );
    let is_over = memory.by_cpu > memory.bound;
    if is_over {
        let _ = write!(
            text,
            "; --kernel-memory allows {} MB for the CPUs, which is not enough",
            megabytes(memory.bound)
        );
    }
    let level = if is_over { Level::Warning } else { Level::Good };
    let Some(available) = memory.available else {
        text.push_str("; how much memory there is cannot be read");
        return Finding::new(level, "memory", text);
    };
    let _ = write!(text, "; this process may use {} MB", megabytes(available));
    if memory.maps <= available / 2 {
        return Finding::new(level, "memory", text);
    }
    let _ = write!(
        text,
        ", and the ledger's day needs memory too: give a smaller --source-table{}, or the machine fewer possible CPUs \
         (`possible_cpus=` for Linux)",
        if memory.blocks > 1 { " or --kernel-memory" } else { "" }
    );
    Finding::new(Level::Warning, "memory", text)
}

fn configuration(config: &Config) -> Finding {
    let observed = if config.observe.is_empty() {
        "the interface's own addresses".to_owned()
    } else {
        config.observe.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    Finding::new(
        Level::Good,
        "configuration",
        format!(
            "sensor {} would observe {observed}, days by {}, a drain every {:#}",
            config.sensor_name,
            config.timezone_name(),
            jiff::SignedDuration::try_from(config.drain_interval).unwrap_or_default()
        ),
    )
}

fn kernel(facts: &Facts, findings: &mut Vec<Finding>) {
    let (major, minor) = facts.kernel;
    let (tested_major, tested_minor) = OLDEST_TESTED_KERNEL;
    findings.push(if facts.kernel < OLDEST_KERNEL {
        let (oldest, minor) = OLDEST_KERNEL;
        let text = format!(
            "{} is older than {oldest}.{minor} and lacks functions that the program calls; Linux \
             {tested_major}.{tested_minor} or later is needed",
            facts.release
        );
        Finding::new(Level::Problem, "kernel", text)
    } else if facts.kernel < OLDEST_TESTED_KERNEL {
        let text = format!(
            "{} is older than {tested_major}.{tested_minor}, the oldest that teiten is tested on; its verifier may refuse the \
             program",
            facts.release
        );
        Finding::new(Level::Warning, "kernel", text)
    } else {
        let egress = if facts.kernel < TCX_KERNEL { "clsact (TCX needs Linux 6.6)" } else { "TCX" };
        let text = format!("{} ({major}.{minor}); outbound flows through {egress}", facts.release);
        Finding::new(Level::Good, "kernel", text)
    });
    if facts.missing_capabilities.is_empty() {
        findings.push(Finding::new(Level::Good, "privilege", "all capabilities that are needed"));
    } else {
        let text = format!(
            "missing {}; run as root, or grant them (AmbientCapabilities= of a systemd unit)",
            facts.missing_capabilities.join(", ")
        );
        findings.push(Finding::new(Level::Problem, "privilege", text));
    }
    match &facts.bpf {
        Ok(()) => {
            findings.push(Finding::new(Level::Good, "bpf", "XDP programs and arrays of maps can be loaded"));
        }
        // The capabilities are reported already.
        Err(_) if !facts.missing_capabilities.is_empty() => {}
        Err(text) => findings.push(Finding::new(
            Level::Problem,
            "bpf",
            format!(
                "{text}; a container's seccomp profile or kernel lockdown may forbid the bpf system call"
            ),
        )),
    }
    if !facts.btf {
        findings.push(Finding::new(
            Level::Warning,
            "btf",
            "/sys/kernel/btf/vmlinux is not there; the program loads without, but names less to bpftool",
        ));
    }
}

fn judge_interface(config: &Config, interface: &Interface, attached: &Attached) -> Finding {
    let name = &interface.name;
    let header = match interface.link {
        LinkLayer::Ethernet => "Ethernet",
        LinkLayer::Ip => "IP",
    };
    let mode = match config.xdp_mode {
        XdpMode::Auto => "natively where the driver can, else generically",
        XdpMode::Native => "natively",
        XdpMode::Generic => "generically",
    };
    let merges = match config.xdp_mode {
        XdpMode::Auto => format!(" (generic mode: {GENERIC_MERGES})"),
        XdpMode::Generic => format!("; {GENERIC_MERGES}"),
        XdpMode::Native => String::new(),
    };
    match attached {
        Attached::Free => Finding::new(
            Level::Good,
            name,
            format!("packets begin with {header} headers; would attach {mode}{merges}"),
        ),
        Attached::Pinned => {
            Finding::new(Level::Good, name, "the pinned program is attached and would be taken over")
        }
        Attached::Foreign(occupant) => Finding::new(Level::Problem, name, occupant.to_string()),
        Attached::NotAllowed(program) => Finding::new(
            Level::Problem,
            name,
            format!(
                "XDP program {program} is attached; not allowed to see whether it is the pinned one, which would be \
                 taken over; run `sudo teiten check`"
            ),
        ),
    }
}

fn directory(about: String, found: &StateDir) -> Finding {
    match found {
        StateDir::Good(text) => Finding::new(Level::Good, about, text),
        StateDir::Of(owner) => Finding::new(
            Level::Warning,
            about,
            format!("belongs to {owner}; the daemon starts as that user (`User=` of its unit), not as root"),
        ),
        StateDir::Bad(text) => Finding::new(Level::Problem, about, text),
        StateDir::NotAllowed => {
            Finding::new(Level::Problem, about, "not allowed to look; run `sudo teiten check`")
        }
    }
}

fn pins(config: &Config, facts: &Facts) -> Finding {
    let about = format!("pins {}", config.pin_dir.display());
    let pin_dir = &facts.pin_dir;
    if let Some(text) = &pin_dir.refused {
        return Finding::new(Level::Problem, about, text);
    }
    if let Some(pid) = pin_dir.holder {
        let text = format!("in use by process {pid}; stop that daemon, or give another --pin-dir");
        return Finding::new(Level::Problem, about, text);
    }
    let text = match (pin_dir.on_bpffs, pin_dir.pinned) {
        (None, _) | (_, Found::NotAllowed) => {
            return Finding::new(Level::Problem, about, "not allowed to look; run `sudo teiten check`");
        }
        (Some(true), Found::Yes) => "counts are pinned there and would be taken over",
        (Some(true), Found::No) => "on a bpffs",
        (Some(false), _) if facts.can_mount => "not on a bpffs; one would be mounted there",
        (Some(false), _) => {
            let text = "not on a bpffs, and without CAP_SYS_ADMIN none can be mounted; `mount -t bpf bpf /sys/fs/bpf`";
            return Finding::new(Level::Problem, about, text);
        }
    };
    match pin_dir.keeper.warning() {
        None => Finding::new(Level::Good, about, text),
        Some(warning) => Finding::new(Level::Warning, about, format!("{text}; {warning}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::inspect::PinDir;
    use crate::kernel::{Keeper, Kind, Occupant};
    use jiff::tz::TimeZone;
    use std::collections::BTreeMap;
    use std::time::Duration;

    pub(super) fn config(args: &[&str]) -> Config {
        let environment = Environment {
            variables: BTreeMap::new(),
            host_name: "dark-1".to_owned(),
            timezone: TimeZone::UTC,
        };
        let args = ["teiten", "check"].iter().chain(args);
        let crate::cli::Command::Check(args) = crate::cli::Cli::try_from_args(args).unwrap().command else {
            unreachable!()
        };
        Config::load(&args.flags, &environment).unwrap()
    }

    fn good() -> Facts {
        Facts {
            kernel: (6, 18),
            release: "6.18.1".to_owned(),
            missing_capabilities: vec![],
            bpf: Ok(()),
            btf: true,
            interfaces: vec![Ok((ethernet(), Attached::Free))],
            lines: vec![],
            cpus: 4,
            memory: MapNeeds {
                maps: 290_000_000,
                by_cpu: 78_000_000,
                bound: 256 << 20,
                possible_cpus: 4,
                blocks: 4,
                source_table: 1 << 20,
                available: Some(8_000_000_000),
            },
            blind: vec![],
            doubles: vec![],
            pin_dir: PinDir {
                on_bpffs: Some(true),
                pinned: Found::No,
                refused: None,
                holder: None,
                keeper: Keeper::Machine,
            },
            can_mount: true,
            state_dir: StateDir::Good("would be created".to_owned()),
            archive_dir: None,
            listen: vec![(([127, 0, 0, 1], 9477).into(), Ok(()))],
            web_config: None,
            asn: None,
            lists: vec![],
            now: SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 100),
            geoip: Ok(AddressDatabase { text: "embedded".to_owned(), age_days: 40, is_embedded: true }),
        }
    }

    fn ethernet() -> Interface {
        Interface { name: "eth0".to_owned(), index: 2, link: LinkLayer::Ethernet, xdp: None }
    }

    /// What is not good, as it is shown.
    fn complaints(facts: &Facts) -> Vec<String> {
        let findings = judge(&config(&[]), facts);
        findings.iter().filter(|finding| finding.level != Level::Good).map(ToString::to_string).collect()
    }

    #[test]
    fn a_machine_that_has_everything_gives_no_complaint() {
        assert_eq!(complaints(&good()), [""; 0]);
        let first = judge(&config(&["--observe", "192.0.2.0/24"]), &good())[0].to_string();
        assert_eq!(
            first,
            "ok       configuration: sensor dark-1 would observe 192.0.2.0/24, days by UTC, a drain every 10s"
        );
    }

    #[test]
    fn source_lists_are_shown_with_their_age_and_what_is_odd_about_them() {
        let day = Duration::from_hours(24);
        let read = |days: u32, widest: Option<&str>| Read {
            name: "research".to_owned(),
            prefixes: 1_234,
            widest: widest.map(|net| net.parse().unwrap()),
            modified: Some(SystemTime::UNIX_EPOCH + day * (100 - days)),
        };
        let shown = |read: Result<Read, String>| {
            let facts = Facts { lists: vec![("research".to_owned(), read)], ..good() };
            let findings = judge(&config(&[]), &facts);
            findings.iter().find(|it| it.about.starts_with("source list")).unwrap().to_string()
        };
        assert_eq!(
            shown(Ok(read(3, None))),
            "ok       source list research: 1234 addresses and prefixes, changed 3 days ago"
        );
        assert_eq!(
            shown(Ok(read(31, None))),
            "warning  source list research: 1234 addresses and prefixes, changed 31 days ago; fetch it again, it is \
             older than a month"
        );
        let wide = shown(Ok(read(3, Some("0.0.0.0/0"))));
        assert!(wide.starts_with("warning") && wide.contains("0.0.0.0/0 is wider than one"), "{wide}");
        let bad = shown(Err("line 2: `<html>` is neither".to_owned()));
        assert_eq!(bad, "PROBLEM  source list research: line 2: `<html>` is neither");
    }

    #[test]
    fn each_lack_is_named_with_the_way_out() {
        let lacking = |change: fn(&mut Facts)| {
            let mut facts = good();
            change(&mut facts);
            complaints(&facts)
        };
        for (complaints, expected) in [
            (
                lacking(|facts| (facts.kernel, facts.release) = ((5, 15), "5.15.0-1".to_owned())),
                "PROBLEM  kernel: 5.15.0-1 is older than 5.18 and lacks functions that the program calls; Linux 6.1 or \
                 later is needed",
            ),
            (
                lacking(|facts| (facts.kernel, facts.release) = ((6, 0), "6.0.1".to_owned())),
                "warning  kernel: 6.0.1 is older than 6.1, the oldest that teiten is tested on; its verifier may refuse \
                 the program",
            ),
            (
                lacking(|facts| {
                    facts.missing_capabilities = vec!["CAP_BPF", "CAP_NET_ADMIN"];
                    facts.bpf = Err("not permitted".to_owned());
                }),
                "PROBLEM  privilege: missing CAP_BPF, CAP_NET_ADMIN; run as root, or grant them \
                 (AmbientCapabilities= of a systemd unit)",
            ),
            (
                lacking(|facts| facts.bpf = Err("not permitted".to_owned())),
                "PROBLEM  bpf: not permitted; a container's seccomp profile or kernel lockdown may forbid \
                 the bpf system call",
            ),
            (
                lacking(|facts| facts.interfaces = vec![Err("no interface eth7".to_owned())]),
                "PROBLEM  interface: no interface eth7",
            ),
            (
                lacking(|facts| {
                    let (interface, kind) = ("eth0".to_owned(), Kind::Link(3));
                    let occupant = Occupant { interface, program: Some(7), name: None, kind };
                    facts.interfaces = vec![Ok((ethernet(), Attached::Foreign(occupant)))];
                    // Pins beside a foreign program change nothing.
                    facts.pin_dir.pinned = Found::Yes;
                }),
                "PROBLEM  eth0: interface eth0 already has an XDP program (id 7); it belongs to another program; \
                 `bpftool link detach id 3` detaches it; or observe another interface",
            ),
            (
                lacking(|facts| facts.interfaces = vec![Ok((ethernet(), Attached::NotAllowed(7)))]),
                "PROBLEM  eth0: XDP program 7 is attached; not allowed to see whether it is the pinned one, which \
                 would be taken over; run `sudo teiten check`",
            ),
            (
                lacking(|facts| (facts.pin_dir.on_bpffs, facts.can_mount) = (Some(false), false)),
                "PROBLEM  pins /sys/fs/bpf/teiten: not on a bpffs, and without CAP_SYS_ADMIN none can be \
                 mounted; `mount -t bpf bpf /sys/fs/bpf`",
            ),
            (
                lacking(|facts| facts.pin_dir.pinned = Found::NotAllowed),
                "PROBLEM  pins /sys/fs/bpf/teiten: not allowed to look; run `sudo teiten check`",
            ),
            (
                lacking(|facts| facts.pin_dir.holder = Some(12)),
                "PROBLEM  pins /sys/fs/bpf/teiten: in use by process 12; stop that daemon, or give another --pin-dir",
            ),
            (
                lacking(|facts| facts.state_dir = StateDir::NotAllowed),
                "PROBLEM  state directory /var/lib/teiten: not allowed to look; run `sudo teiten check`",
            ),
            (
                lacking(|facts| facts.state_dir = StateDir::Of("teiten".to_owned())),
                "warning  state directory /var/lib/teiten: belongs to teiten; the daemon starts as that user \
                 (`User=` of its unit), not as root",
            ),
            (
                lacking(|facts| facts.listen[0].1 = Err("Address in use".to_owned())),
                "PROBLEM  http://127.0.0.1:9477: cannot listen there: Address in use; stop what does \
                 (another teiten?) or give another address with --web.listen-address",
            ),
            (
                lacking(|facts| facts.memory.available = Some(512_000_000)),
                "warning  memory: the maps take 290 MB: 20 MB for each of 4 possible CPUs, the rest for 1048576 sources of \
                 a flood and for conversations; this process may use 512 MB, and the ledger's day needs memory too: give \
                 a smaller --source-table or --kernel-memory, or the machine fewer possible CPUs (`possible_cpus=` for \
                 Linux)",
            ),
            (
                lacking(|facts| {
                    facts.memory = MapNeeds {
                        maps: 460_000_000,
                        by_cpu: 365_000_000,
                        possible_cpus: 8192,
                        blocks: 1,
                        ..facts.memory
                    };
                }),
                "warning  memory: the maps take 460 MB: 365 MB for 8192 possible CPUs, which share one block of counters \
                 and logs, the rest for 1048576 sources of a flood and for conversations; --kernel-memory allows 269 MB \
                 for the CPUs, which is not enough; this process may use 8000 MB",
            ),
            (
                lacking(|facts| {
                    let text = "/geoip, type text, built 2026-01-01".to_owned();
                    facts.geoip = Ok(AddressDatabase { text, age_days: 91, is_embedded: false });
                }),
                "warning  geoip: /geoip, type text, built 2026-01-01, 91 days ago: address blocks have changed hands \
                 since; replace the file; a running sensor reads it again",
            ),
            (
                lacking(|facts| {
                    let text = "`/asn`, type ASN, 3 networks, built 2026-01-01".to_owned();
                    facts.asn = Some(Ok(AddressDatabase { text, age_days: 91, is_embedded: false }));
                }),
                "warning  asn: `/asn`, type ASN, 3 networks, built 2026-01-01, 91 days ago: prefixes have changed hands \
                 since; replace the file; a running sensor reads it again",
            ),
            (
                lacking(|facts| facts.geoip.as_mut().unwrap().age_days = 366),
                "warning  geoip: embedded, 366 days ago: address blocks have changed hands since; install a newer \
                 release, or let teiten-geoip.timer fetch one and name it with --geoip",
            ),
            (
                lacking(|facts| facts.state_dir = StateDir::Bad("it cannot be written".to_owned())),
                "PROBLEM  state directory /var/lib/teiten: it cannot be written",
            ),
        ] {
            assert_eq!(complaints, [expected]);
        }
    }

    #[test]
    fn a_pinned_program_of_ours_would_be_taken_over() {
        let mut facts = good();
        facts.interfaces = vec![Ok((ethernet(), Attached::Pinned))];
        facts.pin_dir.pinned = Found::Yes;
        assert_eq!(complaints(&facts), [""; 0]);
    }

    #[test]
    fn pins_that_would_end_with_the_daemon_are_foreseen() {
        let mut facts = good();
        facts.pin_dir.on_bpffs = Some(false);
        facts.pin_dir.keeper = Keeper::ThisProcess;
        let said = complaints(&facts);
        let start = "warning  pins /sys/fs/bpf/teiten: not on a bpffs; one would be mounted there; the bpffs of the pins";
        assert!(said.len() == 1 && said[0].starts_with(start), "{said:?}");
    }

    #[test]
    fn an_older_kernel_does_without_tcx() {
        let facts = Facts { kernel: (6, 1), ..good() };
        let text: Vec<String> = judge(&config(&[]), &facts).iter().map(ToString::to_string).collect();
        assert!(
            text.iter().any(|line| line.ends_with("outbound flows through clsact (TCX needs Linux 6.6)"))
        );
    }
}
