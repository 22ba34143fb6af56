//! The daemon at rest and when it is asked: start-up, idle, memory, scrapes.

use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::replay::{self, Capture, DAY};
use super::{Context, process};
use anyhow::{Context as _, Result, bail, ensure};
use lab::command;
use lab::sensor::{Daemon, INTERFACE, Lab, WEB};
use lab::wait;
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A daemon that is not ready or does not drain for so long is broken.
const PATIENCE: Duration = Duration::from_mins(1);
/// More ports than have series of their own.
const FULL_PORTS: u32 = 640;
/// Times between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// Starts the daemon with default settings, but for what keeps it in the lab; tells how long it was
/// until it was ready.
pub(super) fn start(lab: &Lab, context: &Context, more: &[&str]) -> Result<(Daemon, Duration)> {
    let begin = Instant::now();
    let timezone = super::calm_timezone();
    let arguments = ["--interface", INTERFACE, "--timezone", &timezone];
    let mut daemon = lab.spawn(&context.teiten, &[&arguments[..], more].concat())?;
    while !daemon.get("/-/ready").is_ok_and(|answer| answer.status == 200) {
        if let Some(status) = daemon.ended()? {
            bail!("teiten ended with {status}:\n{}", daemon.log());
        }
        ensure!(begin.elapsed() < PATIENCE, "teiten is not ready after {PATIENCE:?}:\n{}", daemon.log());
        std::thread::sleep(LOOK);
    }
    Ok((daemon, begin.elapsed()))
}

/// Half a day, which is how far the day has gone where it is about noon, but for a rest.
const MORNING: u64 = 11 * 3600;

/// Puts packets into the lab's ledger.
fn fill(lab: &Lab, context: &Context, capture: Capture) -> Result<()> {
    let path = lab.directory().join("day.pcap");
    replay::write(&path, capture)?;
    let mut replay = Command::new(&context.teiten);
    replay.args(["replay", "--json", "--timezone", &super::calm_timezone(), "--state-dir"]);
    command::output(replay.arg(lab.state_dir()).arg(&path))?;
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

/// The morning of this day, with as many packets as sources.
fn morning(sources: u32) -> Capture {
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    Capture { begin: now - MORNING, seconds: MORNING, ..Capture::of_a_day(sources, sources) }
}

/// The day that ends now, over so few ports that each has sources of all countries.
fn full(sources: u32) -> Capture {
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    Capture { ports: FULL_PORTS, begin: now - DAY, seconds: DAY, ..Capture::of_a_day(sources, sources) }
}

/// Bytes of the body of `/metrics`, as it comes.
fn scrape(lab: &Lab, gzip: bool) -> Result<usize> {
    let mut stream = lab.sensor.connect(WEB, PATIENCE).context("connect to the daemon")?;
    let accept = if gzip { "gzip" } else { "identity" };
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: teiten\r\nAccept-Encoding: {accept}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 200"), "the scrape failed");
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").context("find the answer's body")?;
    Ok(answer.len() - body - 4)
}

fn generation(daemon: &Daemon) -> Result<u64> {
    daemon.status()?["generation"].as_u64().context("read the generation of the status")
}

/// CPU milliseconds of the first scrape after a drain, by round.
fn scrapes(lab: &Lab, daemon: &Daemon, rounds: u32, gzip: bool) -> Result<(Rounds, usize)> {
    let mut cpu = Rounds::new(Unit::Milliseconds);
    let mut bytes = 0;
    for _ in 0..rounds {
        let last = generation(daemon)?;
        let next = wait::poll(wait::PATIENCE, || {
            generation(daemon).map(|now| (now != last).then_some(())).transpose()
        });
        next.context("wait for the daemon to drain")??;
        let before = process::cpu(daemon.id())?;
        bytes = scrape(lab, gzip)?;
        cpu.push(process::cpu(daemon.id())?.saturating_sub(before).as_secs_f64() * 1000.0);
    }
    Ok((cpu, bytes))
}

/// Bytes below `path`.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let mut table = Table::new(
        "Daemon: start-up, rest, memory",
        "Default settings. Start-up is from the start of the process to `/-/ready`, with a first drain \
         committed. At rest no packet comes, for a drain interval each round. The day's sources came before, \
         and are in the ledger.",
        &["sources of the day", "start-up", "CPU at rest", "memory at rest", "ledger"],
    );
    for &sources in context.scale.days {
        let [mut started, mut cpu, mut memory] =
            [Unit::Milliseconds, Unit::PercentOfCore, Unit::Bytes].map(Rounds::new);
        let lab = Lab::new(1500)?;
        if sources > 0 {
            fill(&lab, context, morning(sources))?;
        }
        for _ in 0..context.rounds {
            let (daemon, took) = start(&lab, context, &[])?;
            started.push(took.as_secs_f64() * 1000.0);
            daemon.stop(Signal::SIGINT)?;
        }
        let (daemon, _) = start(&lab, context, &[])?;
        for _ in 0..context.rounds.min(3) {
            let (begin, before) = (Instant::now(), process::cpu(daemon.id())?);
            // What is measured is time in which nothing happens.
            std::thread::sleep(context.scale.rest);
            let used = process::cpu(daemon.id())?.saturating_sub(before);
            cpu.push(used.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0);
            memory.push(process::memory(daemon.id(), "VmRSS")?);
        }
        daemon.stop(Signal::SIGINT)?;
        if sources == 0 {
            results.target("daemon at rest: CPU", Bound::AtMost(0.5), cpu.clone());
            results.target("daemon at rest: memory", Bound::AtMost(64.0 * 1_048_576.0), memory.clone());
        }
        let ledger = Rounds::of(Unit::Bytes, [size(&lab.state_dir().join("ledger.sqlite")) as f64]);
        table.row([u64::from(sources).into(), started.into(), cpu.into(), memory.into(), ledger.into()]);
    }
    results.tables.push(table);

    let mut table = Table::new(
        "Scrape of /metrics",
        "CPU time of the daemon for the first scrape after a drain. Full is a ledger that has seen \
         accesses of every country to more ports than have series, in every hour of a day.",
        &["series", "encoding", "bytes", "CPU"],
    );
    for (packets, is_full) in [(0, false), (context.scale.full, true)] {
        let lab = Lab::new(1500)?;
        if packets > 0 {
            fill(&lab, context, full(packets))?;
        }
        let (daemon, _) = start(&lab, context, &["--drain-interval", "1s", "--series-hold", "0s"])?;
        let body = daemon.get("/metrics")?.body;
        let series = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count() as u64;
        for (encoding, gzip) in [("none", false), ("gzip", true)] {
            let (cpu, bytes) = scrapes(&lab, &daemon, context.rounds, gzip)?;
            if is_full {
                results.target(
                    &format!("scrape, {series} series, {encoding}: CPU"),
                    Bound::AtMost(30.0),
                    cpu.clone(),
                );
            }
            let bytes = Rounds::of(Unit::Bytes, [bytes as f64]);
            table.row([series.into(), encoding.into(), bytes.into(), cpu.into()]);
        }
        daemon.stop(Signal::SIGINT)?;
    }
    results.tables.push(table);
    Ok(())
}
