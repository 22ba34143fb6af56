//! `cargo xtask test`: everything that decides whether a change is good, in one command.

use crate::ebpf::{self, Fresh};
use crate::report::{Outcome, Report};
use crate::{lint, toolchain};
use anyhow::{Context as _, Result, bail};
use bpf_origin as origin;
use lab::{apt, command, netns};
use std::path::Path;

mod lanes;
mod results;

/// Programs that tests drive or ask as judges, and the Debian package of each.
const TOOLS: [(&str, &str); 32] = [
    ("amtool", "prometheus-alertmanager"),
    ("bpftool", "bpftool"),
    ("busybox", "busybox"),
    ("c++", "g++"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("dropbear", "dropbear-bin"),
    ("ethtool", "ethtool"),
    ("faketime", "faketime"),
    ("git", "git"),
    ("hping3", "hping3"),
    ("ip", "iproute2"),
    ("masscan", "masscan"),
    ("nft", "nftables"),
    ("nmap", "nmap"),
    ("ntpdig", "ntpsec-ntpdig"),
    ("pdftotext", "poppler-utils"),
    ("ping", "iputils-ping"),
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("promtool", "prometheus"),
    ("scapy", "python3-scapy"),
    ("ssh", "openssh-client"),
    ("tcpdump", "tcpdump"),
    ("tcpreplay", "tcpreplay"),
    ("traceroute", "traceroute"),
    ("trafgen", "netsniff-ng"),
    ("tshark", "tshark"),
    ("victoria-metrics", "victoria-metrics"),
    ("zic", "libc-bin"),
    ("zmap", "zmap"),
];

/// What to do apart from the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Install missing tools and the BPF toolchain.
    pub install: bool,
    /// How long to fuzz the parser, seconds; 0: not at all.
    pub fuzz_seconds: u32,
}

/// Runs everything, each step whatever became of the one before, and prints the report.
///
/// # Errors
///
/// A step failed.
pub fn run(options: Options) -> Result<()> {
    if netns::is_root() {
        // Every lane needs them.
        netns::check()?;
    }
    let mut report = Report::default();
    lint::steps(&mut report);

    let mut fresh = None;
    report.step("BPF object", || match rebuild(options.install) {
        Ok((built, outcome)) => {
            fresh = Some(built);
            outcome
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    });
    report.step("test tools", || tools(options.install));

    let embed = fresh.as_ref().and_then(ebpf::to_test);
    report.tests("tests", || lanes::everything(embed));
    let is_committed_current = matches!(origin::stale(command::root()), Ok(None));
    if embed.is_some() && is_committed_current {
        report.tests("committed object", lanes::with_committed_object);
    } else if is_committed_current {
        report.tests("default features", lanes::with_default_features);
    }
    report.step("documentation", || documentation(embed).into());
    report.step("fuzzing", || fuzz(options.fuzz_seconds));

    println!("\n{report}");
    if !report.is_good() {
        bail!("the tests failed");
    }
    Ok(())
}

fn rebuild(install: bool) -> Result<(Fresh, Outcome)> {
    let fresh = ebpf::build(&toolchain::ensure(install)?)?;
    let outcome = ebpf::compare(&fresh)
        .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}; run `{}`", origin::COMMAND)));
    Ok((fresh, outcome))
}

/// Installs the programs that are missing. Tests that miss one say so and are skipped.
fn tools(install: bool) -> Outcome {
    let missing = || TOOLS.into_iter().filter(|(program, _)| command::find(program).is_none());
    let mut packages: Vec<&str> = missing().map(|(_, package)| package).collect();
    packages.dedup();
    if install
        && apt::is_here()
        && let Err(error) = apt::install(&packages, "programs that tests drive")
    {
        eprintln!("{error:#}");
    }
    let absent: Vec<&str> = missing().map(|(program, _)| program).collect();
    if absent.is_empty() {
        Outcome::Passed(format!("all {} are here", TOOLS.len()))
    } else {
        Outcome::Skipped(format!("not here: {}", absent.join(", ")))
    }
}

/// Without the typesetter: nothing that needs it is public, and cargo would check its crates a second time.
fn documentation(embed: Option<&Path>) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["doc", "--locked", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings");
    if let Some(object) = embed {
        cargo.env("TEITEN_BPF_OBJECT", object);
    }
    command::run(&mut cargo)
}

/// Runs the parser under libFuzzer. The instrumentation is LLVM's own and needs no nightly; the
/// parser has no unsafe code, so there is nothing for an address sanitizer to find.
fn fuzz(seconds: u32) -> Outcome {
    if seconds == 0 {
        return Outcome::Skipped("not asked for".into());
    }
    if command::find("c++").is_none() {
        return Outcome::Skipped("libFuzzer needs a C++ compiler (Debian: g++)".into());
    }
    match run_fuzzer(seconds) {
        Ok(()) => Outcome::Passed(format!("{seconds} s")),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn run_fuzzer(seconds: u32) -> Result<()> {
    const FLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1";
    let fuzz = command::root().join("sensor-common/fuzz");
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--locked", "--quiet", "--release", "--bin", "parse"])
        // With a target named, build scripts are not instrumented.
        .args(["--target", &lanes::host()?])
        .args([
            "--",
            "-verbosity=0",
            "-print_final_stats=1",
            &format!("-max_total_time={seconds}"),
            "-max_len=2048",
        ])
        .arg("-artifact_prefix=artifacts/")
        .env("RUSTFLAGS", FLAGS)
        .current_dir(&fuzz);
    let artifacts = fuzz.join("artifacts");
    std::fs::create_dir_all(&artifacts).with_context(|| format!("make {}", artifacts.display()))?;
    command::run(&mut cargo)
        .with_context(|| format!("fuzz the parser (what broke it is in {})", artifacts.display()))
}
