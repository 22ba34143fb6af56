//! What tests did, read from what libtest prints.

use crate::report::Counts;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a test prints, with the reason after it, when it could not do its work here.
const SKIPPED: &str = "skipped: ";
/// What libtest prints before the counts of a test binary.
const RESULT: &str = "test result: ";
/// How many lines of what a failed test printed are repeated at the end.
const EXCERPT: usize = 12;

/// What the tests of one cargo run did, as libtest prints it.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) counts: Counts,
    /// Reason, and the tests that gave it.
    skipped: BTreeMap<String, Vec<String>>,
    failed: Vec<Failed>,
    /// The list of outputs that is being read.
    list: Option<List>,
    /// The test binary that is running, as cargo names it.
    binary: String,
    /// The passing test whose output is being read.
    test: String,
    /// Whether that test said that it was skipped.
    said: bool,
    /// Tests of the current binary that ran without doing their work.
    idle: u64,
}

/// A list of what tests printed, which libtest prints after the last test of a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Successes,
    Failures,
}

/// A test that failed.
#[derive(Debug)]
struct Failed {
    test: String,
    binary: String,
    /// The lines that it printed.
    output: Vec<String>,
}

impl Failed {
    /// Its name, and what it printed from its panic or error on, without backtraces.
    fn excerpt(&self) -> String {
        let is_panic = |line: &str| line.starts_with("thread '") && line.contains(" panicked at ");
        let is_cause = |line: &String| is_panic(line) || line.starts_with("Error: ");
        let from = self.output.iter().position(is_cause).unwrap_or(0);
        let mut in_backtrace = false;
        let mut lines: Vec<&str> = self.output[from..].iter().map(|line| line.trim_end()).collect();
        lines.retain(|line| {
            in_backtrace = !is_panic(line) && (in_backtrace || *line == "stack backtrace:");
            !in_backtrace && !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE")
        });
        let mut excerpt = self.test.clone();
        if !self.binary.is_empty() {
            let _ = write!(excerpt, "  ({})", self.binary);
        }
        for line in &lines[..lines.len().min(EXCERPT)] {
            let _ = write!(excerpt, "\n    {line}");
        }
        if lines.len() > EXCERPT {
            let _ = write!(excerpt, "\n    and {} more lines", lines.len() - EXCERPT);
        }
        excerpt
    }
}

impl Results {
    /// Whether `line` can be understood without the next one: the result of a test, or the last line of a
    /// test binary.
    pub(super) fn ends_block(line: &str) -> bool {
        line.starts_with("test ")
    }

    /// Adds what another run did.
    pub(super) fn take(&mut self, other: Self) {
        self.counts += other.counts;
        for (reason, tests) in other.skipped {
            self.skipped.entry(reason).or_default().extend(tests);
        }
        self.failed.extend(other.failed);
    }

    /// Takes one line in, and says whether a reader wants to see it.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix(RESULT) {
            self.list = None;
            self.close(result);
            return true;
        }
        match (line, self.list) {
            ("successes:", _) => self.list = Some(List::Successes),
            // libtest prints the names of what failed under the same heading, after the outputs.
            ("failures:", Some(List::Failures)) => self.list = None,
            ("failures:", _) => self.list = Some(List::Failures),
            (_, None) => self.read_progress(line),
            (_, Some(List::Successes)) => self.read_success(line),
            (_, Some(List::Failures)) => self.read_failure(line),
        }
        self.list != Some(List::Successes)
    }

    /// A line of cargo, or of libtest while tests run.
    fn read_progress(&mut self, line: &str) {
        let begin = |word| line.trim_start().strip_prefix(word);
        if let Some((test, reason)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
        {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.skipped.entry(reason.to_owned()).or_default().push(test.to_owned());
        } else if let Some(binary) = begin("Running ").or_else(|| begin("Doc-tests ")) {
            binary.split(" (").next().unwrap_or_default().clone_into(&mut self.binary);
        }
    }

    /// A line of what failing tests printed.
    fn read_failure(&mut self, line: &str) {
        if let Some(test) = printing(line) {
            let binary = self.binary.clone();
            self.failed.push(Failed { test: test.to_owned(), binary, output: Vec::new() });
        } else if let Some(failed) = self.failed.last_mut() {
            failed.output.push(line.to_owned());
        }
    }

    /// A line of what passing tests printed.
    fn read_success(&mut self, line: &str) {
        if let Some(test) = printing(line) {
            test.clone_into(&mut self.test);
            self.said = false;
        } else if let Some(reason) = line.strip_prefix(SKIPPED) {
            self.skipped.entry(reason.trim().to_owned()).or_default().push(self.test.clone());
            if !self.said {
                self.said = true;
                self.idle += 1;
            }
        }
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
    pub(super) fn reasons(&self) -> Vec<String> {
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

    /// What each failed test said, some lines each.
    pub(super) fn failures(&self) -> Vec<String> {
        self.failed.iter().map(Failed::excerpt).collect()
    }
}

/// The test whose output begins after `line`.
fn printing(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
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
    fn runs_add_up_and_keep_one_list_of_reasons() {
        let run = |test: &str| {
            results_of(&format!(
                "successes:\n---- {test} stdout ----\nskipped: no tun\n\n\
                 test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"
            ))
        };
        let mut all = run("a");
        all.take(run("b"));
        assert_eq!(all.counts, Counts { passed: 2, failed: 0, skipped: 2 });
        assert_eq!(all.reasons(), ["no tun: a, b"]);
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
    fn what_a_failed_test_said_from_its_panic_on_is_kept() {
        let results = results_of(
            "     Running unittests src/lib.rs (target/debug/deps/x-0123)\n\
             test a ... FAILED\ntest b ... FAILED\n\nsuccesses:\n\n---- c stdout ----\nfine\n\n\nsuccesses:\n    c\n\n\
             failures:\n\n---- a stdout ----\nstarting\n\n\
             thread 'a' (17) panicked at src/lib.rs:3:5:\nassertion failed: left == right\n\
             note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n\
             thread 'other' (18) panicked at src/lib.rs:9:5:\nno reader\nstack backtrace:\n   0: main\n\n\
             ---- b stdout ----\nstarting\nError: no such file\n\n\nfailures:\n    a\n    b\n\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \x20    Running tests/cli.rs (target/debug/deps/cli-0123)\n\
             failures:\n\n---- d stdout ----\nno panic\n\nfailures:\n    d\n",
        );
        assert_eq!(
            results.failures(),
            [
                "a  (unittests src/lib.rs)\n    thread 'a' (17) panicked at src/lib.rs:3:5:\n    \
                 assertion failed: left == right\n    \
                 thread 'other' (18) panicked at src/lib.rs:9:5:\n    no reader",
                "b  (unittests src/lib.rs)\n    Error: no such file",
                "d  (tests/cli.rs)\n    no panic",
            ]
        );
    }

    #[test]
    fn a_long_output_is_cut() {
        let mut results = Results::default();
        results.read("failures:");
        results.read("---- a stdout ----");
        for number in 1..=EXCERPT + 2 {
            results.read(&number.to_string());
        }
        let [failure] = &results.failures()[..] else { panic!("one test failed") };
        let lines: Vec<&str> = failure.lines().collect();
        assert_eq!(lines.len(), 1 + EXCERPT + 1);
        assert_eq!(&lines[EXCERPT..], ["    12", "    and 2 more lines"]);
    }
}
