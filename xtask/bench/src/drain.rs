//! The drain: how long it takes from the switch to the ledger, for so many pairs of source and port.
//!
//! The daemon is stopped while the frames come, so that one generation holds them all: the logs of
//! the CPUs first, then the source table. Then it continues, and says at log level `debug` how long each
//! stage took; CPU time and memory are what the kernel says of the process.

use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::programs::{Feed, Programs, stay_on};
use super::{Context, frames, process};
use anyhow::{Result, bail, ensure};
use lab::sensor::{Daemon, INTERFACE, Lab, WIRE};
use lab::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const XDP_TX: u32 = 3;
const PORTS: u32 = 1024;
/// Pairs are in the ledger after this long at the latest.
const PATIENCE: Duration = Duration::from_mins(2);
/// Stages, as the daemon's log names them.
const STAGES: [&str; 4] = ["switch_us", "aggregate_us", "fold_us", "show_us"];

/// One drain.
#[derive(Debug)]
pub(super) struct Drained {
    /// Milliseconds of each of [`STAGES`].
    stages: [f64; 4],
    total: f64,
    /// CPU time of the daemon.
    pub(super) cpu: Duration,
    /// Memory before, at its peak and after, bytes.
    before: f64,
    peak: f64,
    pub(super) after: f64,
    /// Bytes written to storage.
    pub(super) written: f64,
}

/// Sends `count` frames, each of a source and port that no other has, half of them on each of the first
/// two CPUs, to `ports` ports; numbers begin at `first`.
fn send(lab: &Lab, programs: &mut Programs, first: u32, count: u32, ports: u32) -> Result<()> {
    let made = frames::syn_v4();
    let index = lab.internet.index(WIRE)?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2) as u32;
    for cpu in 0..cpus {
        let part = count / cpus + u32::from(cpu < count % cpus);
        let before = (0..cpu).map(|cpu| count / cpus + u32::from(cpu < count % cpus)).sum::<u32>();
        programs.set(Feed {
            count: first + before,
            pool: u32::MAX,
            source_at: made.source_at,
            port_at: made.port_at,
            ports,
            verdict: XDP_TX,
            ..Feed::default()
        })?;
        if part > 0 {
            lab.internet.run(|| {
                stay_on(cpu as usize)?;
                programs.send(&made.frame, index, part)
            })??;
        }
    }
    Ok(())
}

/// The daemon's lines about drains, those with pairs.
fn drains(daemon: &Daemon) -> Vec<Value> {
    daemon
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|mut line| if line["fields"].is_object() { line["fields"].take() } else { line })
        .filter(|line| line["message"] == "drained" && line["pairs"].as_u64() > Some(0))
        .collect()
}

/// Waits until `pairs` more than the first `known` drains had are in the ledger.
fn wait(daemon: &mut Daemon, known: usize, pairs: u64) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    let status = wait::poll(PATIENCE, || {
        lines = drains(daemon).split_off(known);
        let has_all = lines.iter().filter_map(|line| line["pairs"].as_u64()).sum::<u64>() >= pairs;
        if has_all { Some(Ok(None)) } else { daemon.ended().transpose().map(|status| status.map(Some)) }
    });
    match status {
        Some(Ok(None)) => Ok(lines),
        Some(Ok(Some(status))) => bail!("teiten ended with {status}:\n{}", daemon.log()),
        Some(Err(error)) => Err(error.into()),
        None => bail!("{pairs} pairs are not in the ledger after {PATIENCE:?}: {lines:?}"),
    }
}

fn start(lab: &Lab, context: &Context, more: &[&str]) -> Result<Daemon> {
    let timezone = super::calm_timezone();
    let arguments = [
        "--interface",
        INTERFACE,
        "--drain-interval",
        "1s",
        "--series-hold",
        "0s",
        "--log-format",
        "json",
        "--log-level",
        "debug",
        "--timezone",
        &timezone,
    ];
    Ok(lab.start(&context.teiten, &[&arguments[..], more].concat())?)
}

/// A daemon whose drains are watched one by one.
pub(super) struct Drains {
    lab: Lab,
    daemon: Daemon,
    /// How many of its lines are known.
    known: usize,
    sources: u64,
}

impl Drains {
    /// Starts one.
    pub(super) fn start(context: &Context, arguments: &[&str]) -> Result<Self> {
        let lab = Lab::new(1500)?;
        let daemon = start(&lab, context, arguments)?;
        Ok(Self { lab, daemon, known: 0, sources: 0 })
    }

    /// One generation of `pairs` pairs, which begin at number `first` and go to `ports` ports.
    pub(super) fn next(
        &mut self,
        programs: &mut Programs,
        first: u32,
        pairs: u32,
        ports: u32,
    ) -> Result<Drained> {
        let id = self.daemon.id();
        let before = process::memory(id, "VmRSS")?;
        process::forget_peak(id)?;
        self.daemon.signal(Signal::SIGSTOP)?;
        send(&self.lab, programs, first, pairs, ports)?;
        let (cpu, written) = (process::cpu(id)?, process::written(id)?);
        self.daemon.signal(Signal::SIGCONT)?;
        let lines = wait(&mut self.daemon, self.known, pairs.into())?;
        let cpu = process::cpu(id)?.saturating_sub(cpu);
        self.known += lines.len();
        self.sources += u64::from(pairs);
        let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_f64()).sum::<f64>() / 1000.0;
        let drained = Drained {
            stages: STAGES.map(sum),
            total: sum("total_us"),
            cpu,
            before,
            peak: process::memory(id, "VmHWM")?,
            after: process::memory(id, "VmRSS")?,
            written: process::written(id)? - written,
        };
        let samples = self.daemon.metrics()?;
        let (hosts, overflow) =
            (samples.sum("teiten_hosts_total"), samples.sum("teiten_source_table_overflow_packets_total"));
        ensure!(
            hosts == self.sources && overflow == 0,
            "{} sources were sent, {hosts} counted, {overflow} without a source",
            self.sources
        );
        Ok(drained)
    }

    /// Ends the daemon.
    pub(super) fn stop(self) -> Result<()> {
        self.daemon.stop(Signal::SIGINT)?;
        Ok(())
    }
}

/// One drain of `pairs` pairs, in a generation and a day of their own.
fn once(context: &Context, programs: &mut Programs, pairs: u32, more: &[&str]) -> Result<Drained> {
    let mut drains = Drains::start(context, &[&["--source-table", "4194304"], more].concat())?;
    let drained = drains.next(programs, 0, pairs, PORTS)?;
    drains.stop()?;
    Ok(drained)
}

/// What draining continues at while frames come as fast as they can.
struct Stream {
    cpu_per_million: f64,
    rate: f64,
    from_table: u64,
    overflow: u64,
    hosts: u64,
    memory: f64,
}

/// `pairs` pairs that come while the daemon drains.
fn stream(context: &Context, programs: &mut Programs, pairs: u32) -> Result<Stream> {
    let lab = Lab::new(1500)?;
    let mut daemon = start(&lab, context, &[])?;
    let cpu = process::cpu(daemon.id())?;
    let begin = Instant::now();
    send(&lab, programs, 0, pairs, PORTS)?;
    let wall = begin.elapsed();
    let lines = wait(&mut daemon, 0, pairs.into())?;
    let cpu = process::cpu(daemon.id())?.checked_sub(cpu).unwrap_or_default();
    let memory = process::memory(daemon.id(), "VmRSS")?;
    let samples = daemon.metrics()?;
    let result = Stream {
        cpu_per_million: cpu.as_secs_f64() * 1000.0 * 1e6 / f64::from(pairs),
        rate: f64::from(pairs) / wall.as_secs_f64(),
        from_table: lines.iter().filter(|line| line["from_table"] == true).count() as u64,
        overflow: samples.sum("teiten_source_table_overflow_packets_total"),
        hosts: samples.sum("teiten_hosts_total"),
        memory,
    };
    ensure!(result.hosts == u64::from(pairs), "{pairs} sources were sent, and {} counted", result.hosts);
    daemon.stop(Signal::SIGINT)?;
    Ok(result)
}

/// Prefixes of all source lists.
const LISTED: u32 = 100_000;

/// Source lists of [`LISTED`] prefixes all over the address space, each of them apart from the others.
fn source_lists(directory: &Path) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for (list, step) in ["research", "cloud", "hosting", "more"].iter().zip(0..) {
        let path = directory.join(list);
        let mut text = String::new();
        for at in (step..LISTED).step_by(4) {
            let first = u64::from(at) * (1 << 32) / u64::from(LISTED);
            let length = [32, 28, 24, 20][at as usize / 4 % 4];
            let first = first as u32 & (u32::MAX << (32 - length));
            writeln!(text, "{}/{length}", std::net::Ipv4Addr::from(first))?;
        }
        std::fs::write(&path, text)?;
        arguments.extend(["--source-list".to_owned(), format!("{list}={}", path.display())]);
    }
    Ok(arguments)
}

/// Ranges of the ASN database: as many as ip-location-db's of June 2026 has of IPv4.
const RANGES: u32 = 412_000;
/// Networks that it names.
const NETWORKS: u32 = 91_000;

/// An ASN database of [`RANGES`] ranges that lie beside each other and cover the address space.
fn asn_database(directory: &Path) -> Result<[String; 2]> {
    let path = directory.join("asn.csv");
    let mut text = String::new();
    let first = |at: u32| u64::from(at) * (1 << 32) / u64::from(RANGES);
    for at in 0..RANGES {
        // Neighbours are of different networks, and each has ranges all over the space.
        let number = 1 + at.wrapping_mul(7_919) % NETWORKS;
        writeln!(text, "{},{},{number},\"Network {number}, Inc.\"", first(at), first(at + 1) - 1)?;
    }
    std::fs::write(&path, text)?;
    Ok(["--asn".to_owned(), path.display().to_string()])
}

/// What source lists, and networks with them, cost a drain.
fn with_lists(context: &Context, programs: &mut Programs, results: &mut Results) -> Result<()> {
    let pairs = context.scale.listed;
    let directory = tempfile::tempdir()?;
    let lists = source_lists(directory.path())?;
    let both: Vec<String> = lists.iter().cloned().chain(asn_database(directory.path())?).collect();
    let [lists, both] = [&lists, &both].map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
    let ways = [("none", &[][..]), ("lists", lists.as_slice()), ("lists and networks", both.as_slice())];
    let mut cpu = [Unit::Milliseconds; 3].map(Rounds::new);
    let mut memory = [Unit::Bytes; 3].map(Rounds::new);
    for _ in 0..context.rounds {
        for ((_, arguments), (cpu, memory)) in ways.iter().zip(cpu.iter_mut().zip(&mut memory)) {
            let drained = once(context, programs, pairs, arguments)?;
            cpu.push(drained.cpu.as_secs_f64() * 1000.0);
            memory.push(drained.before);
        }
    }
    let [none, of_lists, of_both] = &cpu;
    let ratios = [none.per(none), of_lists.per(none), of_both.per(none)];
    let [_, of_lists, of_both] = &ratios;
    results.target("drain: CPU with source lists, of that without", Bound::AtMost(1.5), of_lists.clone());
    results.target(
        "drain: CPU with source lists and networks, of that without",
        Bound::AtMost(1.5),
        of_both.clone(),
    );
    let mut table = Table::new(
        "Drain: source lists and networks",
        "One generation as above, in turn: without, with four lists of 100,000 prefixes together, and with them and \
         an ASN database of 412,000 ranges and 91,000 networks. Memory is the daemon's before the drain.",
        &["pairs", "with", "CPU", "of that without", "memory"],
    );
    for (((with, _), cpu), (ratio, memory)) in ways.iter().zip(cpu).zip(ratios.into_iter().zip(memory)) {
        table.row([u64::from(pairs).into(), (*with).into(), cpu.into(), ratio.into(), memory.into()]);
    }
    results.tables.push(table);
    Ok(())
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let mut programs = Programs::load(&context.bench_object, [1, 1])?;
    let mut table = Table::new(
        "Drain: one generation, by distinct pairs of source and port",
        "From the switch to the ledger's commit and what is then shown, with sources all over the address \
         space, all of them new today. Up to a million pairs are in the logs of two CPUs, more are in the \
         source table too. Switching includes reading the generation; folding is countries, the day's \
         sets and the transaction. Memory is the daemon's before and at its peak.",
        &[
            "pairs",
            "switch, read",
            "add up",
            "fold",
            "show",
            "together",
            "CPU",
            "CPU for each",
            "written",
            "before",
            "peak",
        ],
    );
    for &pairs in context.scale.drains {
        // The largest take long, and their memory must be made again each time.
        let rounds = if pairs > 1_000_000 { context.rounds.min(3) } else { context.rounds };
        let mut stages = [const { Rounds::new(Unit::Milliseconds) }; 4];
        let [mut total, mut cpu] = [Unit::Milliseconds; 2].map(Rounds::new);
        let mut each = Rounds::new(Unit::Nanoseconds);
        let [mut before, mut peak, mut written] = [Unit::Bytes; 3].map(Rounds::new);
        for _ in 0..rounds {
            let drained = once(context, &mut programs, pairs, &[])?;
            for (rounds, value) in stages.iter_mut().zip(drained.stages) {
                rounds.push(value);
            }
            total.push(drained.total);
            cpu.push(drained.cpu.as_secs_f64() * 1000.0);
            each.push(drained.cpu.as_nanos() as f64 / f64::from(pairs));
            written.push(drained.written);
            before.push(drained.before);
            peak.push(drained.peak);
        }
        if pairs == 1_000_000 {
            results.target("drain: CPU of 1 M pairs", Bound::AtMost(1000.0), cpu.clone());
        }
        let [switch, aggregate, fold, show] = stages;
        table.row([
            u64::from(pairs).into(),
            switch.into(),
            aggregate.into(),
            fold.into(),
            show.into(),
            total.into(),
            cpu.into(),
            each.into(),
            written.into(),
            before.into(),
            peak.into(),
        ]);
    }
    results.tables.push(table);
    with_lists(context, &mut programs, results)?;

    let pairs = context.scale.stream;
    let mut table = Table::new(
        "Drain: a stream of new pairs",
        "New pairs come as fast as one CPU can send and receive them, each once, while the daemon drains \
         on the others. A generation falls behind when its log is full and the source table takes over.",
        &["pairs", "rate", "CPU for 1 M pairs", "generations behind", "overflow", "memory after"],
    );
    let mut cpu = Rounds::new(Unit::Milliseconds);
    let mut rate = Rounds::new(Unit::PacketsPerSecond);
    let mut memory = Rounds::new(Unit::Bytes);
    let (mut behind, mut overflow) = (Rounds::new(Unit::Count), Rounds::new(Unit::Count));
    for _ in 0..context.rounds.min(3) {
        let stream = stream(context, &mut programs, pairs)?;
        cpu.push(stream.cpu_per_million);
        rate.push(stream.rate);
        behind.push(stream.from_table as f64);
        overflow.push(stream.overflow as f64);
        memory.push(stream.memory);
    }
    results.target("drain: 4 M pairs in a stream, without a source", Bound::AtMost(0.0), overflow.clone());
    table.row([
        u64::from(pairs).into(),
        rate.into(),
        cpu.into(),
        behind.into(),
        overflow.into(),
        memory.into(),
    ]);
    results.tables.push(table);
    Ok(())
}
