//! `cargo xtask bench`: what Teiten costs on this machine, beside what people use today.
//!
//! One run measures everything in turn, so that what the machine does meanwhile it does to all: each
//! figure is the median of several rounds, in which the contenders alternate, with the least and the
//! greatest. Ratios are made round by round. What is counted is compared with what was sent wherever
//! packets are sent; a difference ends the run.

mod bystanders;
mod daemon;
mod drain;
mod figures;
mod frames;
mod generation;
mod growth;
mod kernel;
mod machine;
mod packet_ring;
mod process;
mod programs;
mod replay;
mod veth;

pub use figures::{Bound, Cell, Results, Rounds, Table, Target, Unit};

use anyhow::{Context as _, Result, bail};
use bpf_origin as origin;
use clap::ValueEnum;
use lab::build::{self, Profile};
use lab::{command, sudo};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Options of the benchmark.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure; everything when none is named
    #[arg(value_enum)]
    pub parts: Vec<Part>,
    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Three rounds and smaller amounts: a look, not a figure to quote
    #[arg(long)]
    pub quick: bool,
    /// Compare the kernel program with that of an older revision too
    #[arg(long, value_name = "REVISION")]
    pub against: Option<String>,
    /// Write the tables there as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the figures there as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Use this `teiten` instead of building one
    #[arg(long, value_name = "FILE")]
    pub teiten: Option<PathBuf>,
    /// Use this object of the benchmark's own programs instead of building it
    #[arg(long, value_name = "FILE", hide = true)]
    pub programs: Option<PathBuf>,
    /// Use this object instead of the one that is installed, in the kernel's part
    #[arg(long, value_name = "FILE", hide = true)]
    pub object: Option<PathBuf>,
    /// Use this object of the older revision
    #[arg(long, value_name = "FILE", hide = true)]
    pub other: Option<PathBuf>,
    /// Amounts that show nothing but that all parts work
    #[arg(long, hide = true)]
    pub tiny: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU time of a packet in the kernel
    Kernel,
    /// Packets over a virtual cable, beside nftables and `AF_PACKET`
    Veth,
    /// From the switch to the ledger
    Drain,
    /// What a TCP connection through the interface notices
    Bystanders,
    /// Start-up, rest, memory, scrapes
    Daemon,
    /// Capture files, beside tshark and tcpdump
    Replay,
    /// How it grows with sources, ports, days and CPUs
    Growth,
}

/// How much of everything.
#[derive(Clone, Debug)]
struct Scale {
    /// Packets of a test run.
    test_runs: u32,
    /// Different sources.
    pools: &'static [u32],
    /// Frames of a round over the cable.
    frames: u32,
    /// Pairs of a drain.
    drains: &'static [u32],
    /// Pairs of a drain with source lists.
    listed: u32,
    /// Pairs that come while the daemon drains.
    stream: u32,
    /// How long a connection is used.
    talk: Duration,
    /// Sources of the day that a daemon starts with.
    days: &'static [u32],
    /// How long the daemon is left alone.
    rest: Duration,
    /// Packets, each of a source of its own, that give every series there can be.
    full: u32,
    /// Packets and sources of captures.
    captures: &'static [(u32, u32)],
    /// Pairs of each generation of a day that grows, and how many of them there are.
    grown: u32,
    generations: u32,
    /// Numbers of ports that pairs go to.
    spread: &'static [u32],
    /// Accesses of a day, and the days of ledgers.
    daily: u32,
    ledgers: &'static [u32],
}

impl Scale {
    const FULL: Self = Self {
        test_runs: 400_000,
        pools: &[1, 10_000, 1_000_000, 16_000_000],
        frames: 4_000_000,
        drains: &[10, 1000, 10_000, 100_000, 1_000_000, 4_000_000],
        listed: 1_000_000,
        stream: 4_000_000,
        talk: Duration::from_millis(1500),
        days: &[0, 100_000, 1_000_000],
        rest: Duration::from_secs(10),
        full: 3_000_000,
        captures: &[(1_000_000, 100_000), (10_000_000, 1_000_000)],
        grown: 1_000_000,
        generations: 6,
        spread: &[1, 32, 1024, 32_768],
        daily: 20_000,
        ledgers: &[1, 10, 100],
    };
    const QUICK: Self = Self {
        test_runs: 200_000,
        pools: &[1, 10_000, 1_000_000],
        frames: 1_000_000,
        drains: &[10, 1000, 100_000, 1_000_000],
        listed: 1_000_000,
        stream: 4_000_000,
        talk: Duration::from_millis(700),
        days: &[0, 1_000_000],
        rest: Duration::from_secs(10),
        full: 3_000_000,
        captures: &[(500_000, 50_000), (10_000_000, 1_000_000)],
        grown: 1_000_000,
        generations: 3,
        spread: &[1, 1024, 32_768],
        daily: 10_000,
        ledgers: &[1, 30],
    };
    const TINY: Self = Self {
        test_runs: 20_000,
        pools: &[1000],
        frames: 20_000,
        drains: &[1000],
        listed: 1000,
        stream: 20_000,
        talk: Duration::from_millis(50),
        days: &[1000],
        rest: Duration::from_millis(200),
        full: 2000,
        captures: &[(2000, 500)],
        grown: 2000,
        generations: 2,
        spread: &[1024],
        daily: 100,
        ledgers: &[2],
    };

    /// The number of sources where it is not what is measured.
    fn pool(&self) -> u32 {
        self.pools.iter().copied().filter(|pool| *pool <= 1_000_000).max().unwrap_or(1)
    }
}

/// What every part needs.
struct Context {
    scale: Scale,
    rounds: u32,
    teiten: PathBuf,
    /// The object that is installed.
    object: PathBuf,
    bench_object: PathBuf,
    /// The object of another revision, and what it is called.
    other_object: Option<Vec<u8>>,
    other_name: Option<String>,
}

/// Measures, prints the tables and writes what is asked for. `build_programs` builds the benchmark's own
/// programs for the kernel (`xtask/bench/ebpf`) and returns the object's path.
///
/// # Errors
///
/// A tool or a right is missing, something was counted wrongly, or a file cannot be written.
pub fn run(args: &BenchArgs, build_programs: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    let teiten = match &args.teiten {
        Some(path) => path.canonicalize().with_context(|| format!("find {}", path.display()))?,
        None => build::daemon(Profile::Release)?,
    };
    let programs = match &args.programs {
        Some(path) => path.clone(),
        None => build_programs()?,
    };
    let other = match (&args.other, &args.against) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(revision)) => Some(object_of(revision)?),
        (None, None) => None,
    };
    // What this program itself does to packets, as a competitor, is to be as fast as it can be.
    let optimised = cfg!(not(debug_assertions)) || args.tiny;
    if !optimised || !sudo::is_root() {
        return again(args, optimised, &teiten, &programs, other.as_deref());
    }
    let results = measure(args, teiten, programs, other.as_deref())?;
    print!("{}", results.to_text());
    for (path, content) in [
        (&args.markdown, results.to_markdown()),
        (&args.json, serde_json::to_string_pretty(&results)? + "\n"),
    ] {
        if let Some(path) = path {
            std::fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    if !results.left_out.is_empty() {
        bail!("not everything could be measured: {}", results.left_out.join("; "));
    }
    Ok(())
}

/// The object that `revision` of this repository has.
fn object_of(revision: &str) -> Result<PathBuf> {
    let mut git = Command::new("git");
    git.arg("show").arg(format!("{revision}:{}", origin::OBJECT)).current_dir(command::root());
    let output = git.output().context("start git")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", command::line(&git), String::from_utf8_lossy(&output.stderr).trim());
    }
    let path = build::target_directory()?.join("other.bpf.o");
    std::fs::write(&path, output.stdout).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Runs this program again, optimised, and as root, for all but the building.
fn again(
    args: &BenchArgs,
    optimised: bool,
    teiten: &Path,
    programs: &Path,
    other: Option<&Path>,
) -> Result<()> {
    let program = if optimised {
        std::env::current_exe().context("find this program")?
    } else {
        let mut build = command::cargo();
        build.args(["build", "--locked", "--release", "--package", "xtask", "--bin", "xtask"]);
        command::run(&mut build)?;
        build::target_directory()?.join("release/xtask")
    };
    let mut bench = Command::new(program);
    bench.arg("bench");
    bench.args(
        args.parts.iter().filter_map(ValueEnum::to_possible_value).map(|part| part.get_name().to_owned()),
    );
    bench.arg("--rounds").arg(args.rounds.to_string());
    for (flag, set) in [("--quick", args.quick), ("--tiny", args.tiny)] {
        if set {
            bench.arg(flag);
        }
    }
    if let Some(revision) = &args.against {
        bench.arg("--against").arg(revision);
    }
    for (flag, path) in [
        ("--markdown", args.markdown.as_deref()),
        ("--json", args.json.as_deref()),
        ("--teiten", Some(teiten)),
        ("--programs", Some(programs)),
        ("--other", other),
        ("--object", args.object.as_deref()),
    ] {
        if let Some(path) = path {
            bench.arg(flag).arg(path);
        }
    }
    let mut bench = sudo::as_root(bench, "loading programs into the kernel and making network namespaces")?;
    let status = bench.status().with_context(|| format!("start `{}`", command::line(&bench)))?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}

fn measure(args: &BenchArgs, teiten: PathBuf, programs: PathBuf, other: Option<&Path>) -> Result<Results> {
    let (scale, rounds) = match (args.tiny, args.quick) {
        (true, _) => (Scale::TINY, 1),
        (_, true) => (Scale::QUICK, args.rounds.min(3)),
        _ => (Scale::FULL, args.rounds),
    };
    let context = Context {
        scale,
        rounds,
        teiten,
        object: args.object.clone().unwrap_or_else(|| command::root().join(origin::OBJECT)),
        bench_object: programs,
        other_object: other.map(std::fs::read).transpose().context("read the other revision's object")?,
        other_name: args.against.clone(),
    };
    let mut results = Results { machine: machine::describe(&context)?, ..Results::default() };
    for part in Part::value_variants() {
        if !args.parts.is_empty() && !args.parts.contains(part) {
            continue;
        }
        let name = part.to_possible_value().map(|part| part.get_name().to_owned()).unwrap_or_default();
        eprintln!("measuring: {name}");
        let begin = std::time::Instant::now();
        let measured = match part {
            Part::Kernel => kernel::run(&context, &mut results),
            Part::Veth => veth::run(&context, &mut results),
            Part::Drain => drain::run(&context, &mut results),
            Part::Bystanders => bystanders::run(&context, &mut results),
            Part::Daemon => daemon::run(&context, &mut results),
            Part::Replay => replay::run(&context, &mut results),
            Part::Growth => growth::run(&context, &mut results),
        };
        if let Err(error) = measured {
            eprintln!("{name}: {error:#}");
            results.left_out.push(format!("{name}: {error:#}"));
        }
        eprintln!("{name} took {} s", begin.elapsed().as_secs());
    }
    Ok(results)
}

/// A time zone in which it is about noon, so that no day and no hour of the day ends meanwhile. (The
/// names count westwards.)
fn calm_timezone() -> String {
    let west = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour()) - 12;
    format!("Etc/GMT{}{}", if west < 0 { '-' } else { '+' }, west.abs())
}
