//! How it grows: with sources of the day, with ports, with days, with CPUs. (With prefixes: among the
//! kernel's figures.)

use super::drain::Drains;
use super::figures::{Results, Rounds, Table, Unit};
use super::programs::Programs;
use super::replay::{self, Capture, DAY};
use super::{Context, process};
use anyhow::{Context as _, Result};
use lab::command;
use lab::sensor::Lab;
use nix::sys::signal::Signal;
use sensor_common::layout::Block;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let mut programs = Programs::load(&context.bench_object, [1, 1])?;
    sources(context, &mut programs, results)?;
    ports(context, &mut programs, results)?;
    days(context, results)?;
    cpus(results);
    Ok(())
}

/// Drains of as many new pairs each, into a day that has more and more.
fn sources(context: &Context, programs: &mut Programs, results: &mut Results) -> Result<()> {
    let pairs = context.scale.grown;
    let mut table = Table::new(
        "Growth: sources of the day",
        &format!(
            "Generations of {pairs} new pairs each, one after the other into the same day, sources all over \
             the address space. Beyond 384 MiB of source sets they move to disk."
        ),
        &["pairs of the day", "CPU of the next", "memory after"],
    );
    let mut drains = Drains::start(context, &[])?;
    for nth in 0..context.scale.generations {
        let drained = drains.next(programs, nth * pairs, pairs, 1024)?;
        table.row([
            u64::from(nth * pairs).into(),
            Rounds::of(Unit::Milliseconds, [drained.cpu.as_secs_f64() * 1000.0]).into(),
            Rounds::of(Unit::Bytes, [drained.after]).into(),
        ]);
    }
    drains.stop()?;
    results.tables.push(table);
    Ok(())
}

/// Drains of as many pairs, over more and more ports.
fn ports(context: &Context, programs: &mut Programs, results: &mut Results) -> Result<()> {
    let pairs = context.scale.grown / 10;
    let mut table = Table::new(
        "Growth: ports",
        &format!("One generation of {pairs} new pairs into an empty day, and what it writes to storage."),
        &["ports", "CPU", "memory after", "written"],
    );
    for &ports in context.scale.spread {
        let [mut cpu, mut memory, mut written] =
            [Unit::Milliseconds, Unit::Bytes, Unit::Bytes].map(Rounds::new);
        for _ in 0..context.rounds.min(3) {
            let mut drains = Drains::start(context, &[])?;
            let drained = drains.next(programs, 0, pairs, ports)?;
            drains.stop()?;
            cpu.push(drained.cpu.as_secs_f64() * 1000.0);
            memory.push(drained.after);
            written.push(drained.written);
        }
        table.row([u64::from(ports).into(), cpu.into(), memory.into(), written.into()]);
    }
    results.tables.push(table);
    Ok(())
}

/// Milliseconds that a command over the ledger in `state_dir` takes.
fn ledger(context: &Context, state_dir: &Path, arguments: &[&str]) -> Result<f64> {
    let mut ledger = Command::new(&context.teiten);
    ledger.arg("ledger").args(arguments).arg("--state-dir").arg(state_dir);
    let begin = Instant::now();
    let status = ledger.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("start `{}`", command::line(&ledger)))?;
    anyhow::ensure!(status.success(), "`{}` failed: {status}", command::line(&ledger));
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}

/// Ledgers of more and more days.
fn days(context: &Context, results: &mut Results) -> Result<()> {
    let daily = context.scale.daily;
    let mut table = Table::new(
        "Growth: days",
        &format!(
            "A ledger of so many days with {daily} accesses each from as many sources to 1,024 ports; start-up \
             to the first committed drain; wall clock of whole commands over all days."
        ),
        &["days", "ledger", "start-up", "memory", "verify", "export csv", "parquet", "openmetrics"],
    );
    for &days in context.scale.ledgers {
        let lab = Lab::new(1500)?;
        let path = lab.directory().join("days.pcap");
        let whole = Capture::of_a_day(daily * days, daily);
        replay::write(&path, Capture { seconds: u64::from(days) * DAY, ..whole })?;
        let mut fill = Command::new(&context.teiten);
        fill.args(["replay", "--json", "--timezone", "UTC", "--state-dir"]).arg(lab.state_dir()).arg(&path);
        command::output(&mut fill)?;
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        let path = lab.state_dir().join("ledger.sqlite");
        let size = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
        let mut row = vec![u64::from(days).into(), Rounds::of(Unit::Bytes, [size as f64]).into()];
        let (daemon, started) = super::daemon::start(&lab, context, &[])?;
        let memory = process::memory(daemon.id(), "VmRSS")?;
        daemon.stop(Signal::SIGINT)?;
        row.push(Rounds::of(Unit::Milliseconds, [started.as_secs_f64() * 1000.0]).into());
        row.push(Rounds::of(Unit::Bytes, [memory]).into());
        for arguments in [
            &["verify"][..],
            &["export", "--format", "csv"],
            &["export", "--format", "parquet"],
            &["export", "--format", "openmetrics"],
        ] {
            let times = (0..context.rounds.min(3)).map(|_| ledger(context, &lab.state_dir(), arguments));
            row.push(Rounds::of(Unit::Milliseconds, times.collect::<Result<Vec<_>>>()?).into());
        }
        table.row(row);
    }
    results.tables.push(table);
    Ok(())
}

/// What the layout says.
fn cpus(results: &mut Results) {
    let mut table = Table::new(
        "Growth: CPUs",
        "Memory of the kernel for two generations, which have a block for each possible CPU; more than 13 CPUs share \
         blocks. By the layout, not measured; an idle drain reads the counters of all blocks, without the logs.",
        &["CPUs", "memory", "counters read by a drain"],
    );
    let counters = std::mem::offset_of!(Block, log_v4);
    for cpus in [1, 2, 8, 13] {
        table.row([
            (cpus as u64).into(),
            Rounds::of(Unit::Bytes, [(2 * cpus * size_of::<Block>()) as f64]).into(),
            Rounds::of(Unit::Bytes, [(cpus * counters) as f64]).into(),
        ]);
    }
    results.tables.push(table);
}
