//! What tests did, read from what libtest prints.

use crate::report::Counts;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a test prints, with the reason after it, when it could not do its work here.
const SKIPPED: &str = "skipped: ";
/// What libtest prints before the counts of a test binary.
const RESULT: &str = "test result: ";

/// What the tests of one cargo run did, as libtest prints it.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) counts: Counts,
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
    }

    /// Takes one line in, and tells whether a reader wants to see it.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix(RESULT) {
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
}
