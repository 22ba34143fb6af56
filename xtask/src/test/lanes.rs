//! Unit, integration and documentation tests, built once and run in two lanes side by side.
//!
//! Most tests that work with network namespaces or with Prometheus wait more than they compute, so
//! two of them at a time keep two cores busy. Each lane is one cargo after the other. Results are printed
//! line by line, and what a failed test printed is printed in one piece.

use super::results::Results;
use crate::WORKSPACE;
use crate::report::{Outcome, Tested};
use anyhow::{Context as _, Result, bail};
use lab::{command, sudo};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Captures from elsewhere, from the project's root.
const TEST_DATA: &str = "../shared/data";
/// The integration test that needs Prometheus, and no network namespace.
const CHARTS: &str = "grafana";

/// What cargo is to test, as its arguments; the words after `--` are libtest's.
type Selection = Vec<String>;

/// Tests of all packages.
///
/// `embed` is the BPF object to test instead of the committed one.
pub(super) fn everything(embed: Option<&Path>) -> Tested {
    run(everything_in_lanes, embed)
}

/// Tests of the package that embeds the BPF object, which is then built without `parquet`.
pub(super) fn with_committed_object() -> Tested {
    run(|| Ok(vec![vec![words("--package sensor-user")]]), None)
}

/// Tests of the command line of a daemon without `parquet`.
pub(super) fn with_default_features() -> Tested {
    run(|| Ok(vec![vec![words("--package sensor-user --test cli")]]), None)
}

fn words(line: &str) -> Selection {
    line.split_whitespace().map(String::from).collect()
}

/// All packages as a selection, and `more`.
fn workspace(more: &str) -> Selection {
    WORKSPACE.map(String::from).into_iter().chain(words(more)).collect()
}

/// Every selection names the whole workspace, because cargo builds a dependency again for another
/// choice of packages when their features differ.
fn everything_in_lanes() -> Result<Vec<Vec<Selection>>> {
    let (charts, others): (Vec<String>, Vec<String>) =
        integration_tests()?.into_iter().partition(|test| test == CHARTS);
    let select = |tests: Vec<String>| tests.into_iter().flat_map(|test| ["--test".into(), test]);

    let mut in_namespaces = workspace("");
    in_namespaces.extend(select(others));
    let mut charts_first = workspace("");
    charts_first.extend(select(charts));
    Ok(vec![vec![in_namespaces], vec![charts_first, workspace("--lib --bins"), workspace("--doc")]])
}

/// The names of all integration tests, as `--test` takes them.
fn integration_tests() -> Result<Vec<String>> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&command::output(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("read the packages in `cargo metadata`")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str().map(String::from)).collect())
}

fn run(lanes: impl FnOnce() -> Result<Vec<Vec<Selection>>>, embed: Option<&Path>) -> Tested {
    let results = Mutex::new(Results::default());
    let outcome = lanes().and_then(|lanes| run_lanes(&lanes, embed, &results));
    let mut results = results.into_inner().expect("no lane panicked");
    let outcome = match outcome {
        Ok(()) => Outcome::Passed(results.counts.to_string()),
        Err(error) => {
            // Whatever kept cargo from a test is at least one test that did not pass.
            results.counts.failed = results.counts.failed.max(1);
            Outcome::Failed(format!("{error:#} ({})", results.counts))
        }
    };
    let mut skipped = results.reasons();
    if test_data().is_none() {
        skipped.push(format!("captures of the tcpdump project, which are not at {TEST_DATA}: left out"));
    }
    Tested { outcome, counts: results.counts, skipped, failures: results.failures() }
}

fn run_lanes(lanes: &[Vec<Selection>], embed: Option<&Path>, results: &Mutex<Results>) -> Result<()> {
    let environment = Environment::prepare(embed)?;
    if lanes.len() > 1 {
        // Lanes that build at the same time would wait for each other.
        command::run(&mut environment.cargo(&workspace("--no-run")))?;
    }

    let one_lane = |lane: &[Selection]| -> Result<()> {
        let mut failed = None;
        for selection in lane {
            if let Err(error) = run_one(&environment, selection, results) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| one_lane(lane))).collect();
        let ends: Vec<Result<()>> =
            lanes.into_iter().map(|lane| lane.join().expect("a lane panicked")).collect();
        ends.into_iter().collect()
    })
}

/// One cargo. Its output is printed in blocks that can be read although the other lane prints too.
fn run_one(environment: &Environment, selection: &Selection, results: &Mutex<Results>) -> Result<()> {
    let mut cargo = environment.cargo(selection);
    cargo.args(["--", "--show-output"]);
    let line = command::line(&cargo);
    let (output, input) = std::io::pipe().context("make a pipe for what the tests print")?;
    cargo.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = cargo.spawn().with_context(|| format!("start `{line}`"))?;
    // The pipe ends when its last writer does, and `cargo` holds two.
    drop(cargo);

    let mut own = Results::default();
    let mut block = format!("$ {line}\n");
    for text in BufReader::new(output).split(b'\n') {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        let ends = Results::ends_block(&text);
        if own.read(&text) {
            block.push_str(&text);
            block.push('\n');
        }
        if ends {
            print(&mut block);
        }
    }
    print(&mut block);
    let status = child.wait()?;
    results.lock().expect("no lane panicked").take(own);
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

fn print(block: &mut String) {
    // A reader that went away is no reason to stop testing.
    let _ = std::io::stdout().lock().write_all(block.as_bytes());
    block.clear();
}

/// What every cargo of a run is given.
struct Environment {
    variables: Vec<(&'static str, OsString)>,
    embed: Option<PathBuf>,
    /// cargo's setting that runs test binaries as root.
    runner: Option<String>,
}

impl Environment {
    fn prepare(embed: Option<&Path>) -> Result<Self> {
        let mut variables: Vec<(&str, OsString)> = Vec::new();
        match test_data() {
            Some(directory) => variables.push(("TEITEN_TEST_DATA", directory.into())),
            None => eprintln!("no captures at {TEST_DATA}: testing with the project's own only"),
        }
        let runner = if sudo::is_root() {
            None
        } else {
            let why = "testing in the kernel (BPF, network namespaces)";
            sudo::authenticate(why)?;
            Some(runner(&host()?, &sudo::prefix(why)?, &variables)?)
        };
        Ok(Self { variables, embed: embed.map(Path::to_owned), runner })
    }

    fn cargo(&self, selection: &Selection) -> Command {
        let mut cargo = command::cargo();
        cargo.args(["test", "--locked", "--no-fail-fast"]).args(selection);
        if let Some(runner) = &self.runner {
            cargo.arg("--config").arg(runner);
        }
        cargo.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(object) = &self.embed {
            cargo.env("TEITEN_BPF_OBJECT", object);
        }
        cargo
    }
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
pub(super) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = command::output(Command::new(rustc).arg("-vV").current_dir(command::root()))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("read the host in `rustc -vV`")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
