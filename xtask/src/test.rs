//! `cargo xtask test`: everything that decides whether a change is good, in one command.

use crate::ebpf::{self, Fresh};
use crate::report::{Counts, Outcome, Report};
use crate::{apt, command, lint, origin, sudo, toolchain};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that tests drive or ask as judges, and the Debian package of each.
const TOOLS: [(&str, &str); 20] = [
    ("bpftool", "bpftool"),
    ("c++", "g++"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("ethtool", "ethtool"),
    ("git", "git"),
    ("hping3", "hping3"),
    ("ip", "iproute2"),
    ("masscan", "masscan"),
    ("nft", "nftables"),
    ("nmap", "nmap"),
    ("ping", "iputils-ping"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("scapy", "python3-scapy"),
    ("tcpreplay", "tcpreplay"),
    ("traceroute", "traceroute"),
    ("trafgen", "netsniff-ng"),
    ("tshark", "tshark"),
    ("zmap", "zmap"),
];

/// Where captures that nobody of this project wrote are expected, from the project's root.
const TEST_DATA: &str = "../shared/data";
/// What a test prints, with the reason behind it, when it could not do its work here.
const SKIPPED: &str = "skipped: ";

/// What to do besides the defaults.
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
    report.tests("tests", || cargo_test(&["--workspace"], embed));
    if embed.is_some() && matches!(origin::stale(command::root()), Ok(None)) {
        report.tests("committed object", || cargo_test(&["--package", "sensor-user"], None));
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

/// Unit, integration and documentation tests, as root. `embed` is the BPF object to test instead of
/// the committed one.
fn cargo_test(packages: &[&str], embed: Option<&Path>) -> (Outcome, Counts, Vec<String>) {
    let mut results = Results::default();
    let outcome = match run_tests(packages, embed, &mut results) {
        Ok(()) => Outcome::Passed(results.counts.to_string()),
        Err(error) => {
            // Whatever kept cargo from a test is at least one test that did not pass.
            results.counts.failed = results.counts.failed.max(1);
            Outcome::Failed(format!("{error:#} ({})", results.counts))
        }
    };
    let skipped = results.reasons();
    (outcome, results.counts, skipped)
}

fn run_tests(packages: &[&str], embed: Option<&Path>, results: &mut Results) -> Result<()> {
    let mut variables: Vec<(&str, OsString)> = Vec::new();
    match test_data() {
        Some(directory) => variables.push(("TEITEN_TEST_DATA", directory.into())),
        None => eprintln!("no captures at {TEST_DATA}; set TEITEN_TEST_DATA to test against some"),
    }
    let mut cargo = command::cargo();
    cargo.arg("test").arg("--locked").args(packages).arg("--no-fail-fast");
    if !sudo::is_root() {
        let why = "testing in the kernel (BPF, network namespaces)";
        sudo::authenticate(why)?;
        cargo.arg("--config").arg(runner(&host()?, &sudo::prefix(why)?, &variables)?);
    }
    cargo.envs(variables);
    if let Some(object) = embed {
        cargo.env("TEITEN_BPF_OBJECT", object);
    }
    cargo.args(["--", "--show-output"]).stdin(Stdio::null()).stdout(Stdio::piped());

    let line = command::line(&cargo);
    eprintln!("$ {line}");
    let mut child = cargo.spawn().with_context(|| format!("start `{line}`"))?;
    let output = child.stdout.take().context("read what the tests print")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if results.read(&line) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// cargo's setting that runs test binaries through sudo, which hands `variables` on.
fn runner(host: &str, sudo: &[OsString], variables: &[(&str, OsString)]) -> Result<String> {
    let mut words = Vec::new();
    for word in sudo {
        words.push(word.to_str().context("sudo lies at a path that is not UTF-8")?.to_owned());
    }
    words.push("env".into());
    words.push(format!("PATH={}", std::env::var("PATH").context("read PATH")?));
    for (name, value) in variables {
        words.push(format!("{name}={}", value.to_str().with_context(|| format!("{name} is not UTF-8"))?));
    }
    // JSON's strings and arrays of strings are TOML's.
    Ok(format!("target.{host}.runner={}", serde_json::to_string(&words)?))
}

/// The captures to test against, when there are some.
fn test_data() -> Option<PathBuf> {
    let given = std::env::var_os("TEITEN_TEST_DATA").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| command::root().join(TEST_DATA));
    directory.canonicalize().ok().filter(|directory| directory.is_dir())
}

/// The target that this machine's compiler builds for.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = command::output(Command::new(rustc).arg("-vV").current_dir(command::root()))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("read the host in `rustc -vV`")?.to_owned())
}

fn documentation(embed: Option<&Path>) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
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
        .args(["--target", &host()?])
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

/// What the tests of one cargo run did, as libtest prints it.
#[derive(Debug, Default)]
struct Results {
    counts: Counts,
    /// Reason, and the tests that gave it.
    skipped: BTreeMap<String, Vec<String>>,
    /// Inside the list of what passing tests printed.
    in_successes: bool,
    /// The test whose output is being read there.
    test: String,
    /// Whether that test said that it was skipped.
    said: bool,
    /// Tests of the current binary that ran without doing their work.
    idle: u64,
}

impl Results {
    /// Takes one line in, and tells whether a reader wants to see it.
    fn read(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.close(result);
            return true;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if !self.in_successes {
            if let Some((test, reason)) =
                line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
            {
                let reason = reason.trim_start_matches(", ");
                let reason = if reason.is_empty() { "ignored" } else { reason };
                self.skipped.entry(reason.to_owned()).or_default().push(test.to_owned());
            }
            return true;
        }
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            test.clone_into(&mut self.test);
            self.said = false;
        } else if let Some(reason) = line.strip_prefix(SKIPPED) {
            self.skipped.entry(reason.trim().to_owned()).or_default().push(self.test.clone());
            if !self.said {
                self.said = true;
                self.idle += 1;
            }
        }
        false
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn close(&mut self, result: &str) {
        let count = |word: &str| {
            let (before, _) = result.split_once(&format!(" {word}"))?;
            before.rsplit([' ', '.']).next()?.parse::<u64>().ok()
        };
        let idle = std::mem::take(&mut self.idle);
        self.counts += Counts {
            passed: count("passed").unwrap_or(0).saturating_sub(idle),
            failed: count("failed").unwrap_or(0),
            skipped: count("ignored").unwrap_or(0) + idle,
        };
    }

    /// One line for each reason.
    fn reasons(&self) -> Vec<String> {
        const NAMED: usize = 3;
        let line = |(reason, tests): (&String, &Vec<String>)| {
            let mut line = format!("{reason}: {}", tests[..tests.len().min(NAMED)].join(", "));
            if tests.len() > NAMED {
                let _ = write!(line, " and {} more", tests.len() - NAMED);
            }
            line
        };
        self.skipped.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results_of(output: &str) -> Results {
        let mut results = Results::default();
        for line in output.lines() {
            results.read(line);
        }
        results
    }

    #[test]
    fn binaries_add_up() {
        let results = results_of(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
        );
        assert_eq!(results.counts, Counts { passed: 15, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_test_that_says_it_was_skipped_is_no_pass() {
        let results = results_of(
            "test a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\nskipped: tshark is not installed\n\
             skipped: no captures\n\n\nsuccesses:\n    a\n    b\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
        );
        assert_eq!(results.counts, Counts { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(results.reasons(), ["no captures: a", "tshark is not installed: a"]);
    }

    #[test]
    fn an_ignored_test_is_listed_with_its_reason() {
        let results = results_of(
            "test slow ... ignored, takes an hour\ntest other ... ignored\n\
             test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(results.counts, Counts { passed: 0, failed: 0, skipped: 2 });
        assert_eq!(results.reasons(), ["ignored: other", "takes an hour: slow"]);
    }

    #[test]
    fn many_tests_with_one_reason_take_one_line() {
        let mut results = Results::default();
        results.skipped.insert("no tun".into(), ["a", "b", "c", "d", "e"].map(String::from).into());
        assert_eq!(results.reasons(), ["no tun: a, b, c and 2 more"]);
    }

    #[test]
    fn what_failing_tests_print_is_shown_and_what_passing_ones_print_is_not() {
        let mut results = Results::default();
        let shown: Vec<&str> = "successes:\n---- a stdout ----\nfine\nfailures:\n---- b stdout ----\nbroken"
            .lines()
            .filter(|line| results.read(line))
            .collect();
        assert_eq!(shown, ["failures:", "---- b stdout ----", "broken"]);
    }

    #[test]
    fn the_runner_hands_variables_through_sudo() {
        let sudo = ["/usr/bin/sudo", "-n", "--"].map(OsString::from);
        let setting =
            runner("x86_64-unknown-linux-gnu", &sudo, &[("TEITEN_TEST_DATA", "/a b".into())]).unwrap();
        assert!(setting.starts_with(
            r#"target.x86_64-unknown-linux-gnu.runner=["/usr/bin/sudo","-n","--","env","PATH="#
        ));
        assert!(setting.ends_with(r#","TEITEN_TEST_DATA=/a b"]"#), "{setting}");
    }
}
