//! What a run of checks did, step by step, and its closing lines.

use std::fmt;
use std::time::{Duration, Instant};

/// How one step ended, each with what a reader wants to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done and is right.
    Passed(String),
    /// It was done and is wrong, or could not be done though it must.
    Failed(String),
    /// It could not be done here, for this reason.
    Skipped(String),
}

impl From<anyhow::Result<()>> for Outcome {
    fn from(result: anyhow::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed(String::new()),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Skipped.
    pub skipped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Closes the report: what a machine reads.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What a step did that counts its own tests.
#[derive(Clone, Debug)]
pub struct Tested {
    /// How it ended.
    pub outcome: Outcome,
    /// How many tests did what.
    pub counts: Counts,
    /// What was skipped, and why; one line each.
    pub skipped: Vec<String>,
    /// The tests that failed and what they said, some lines each.
    pub failures: Vec<String>,
}

/// The steps so far.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<(String, Outcome, Duration)>,
    failures: Vec<String>,
    counts: Counts,
}

impl Report {
    /// Does one step, which counts as one test, and keeps how it ended.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Outcome) {
        let begin = announce(name);
        let outcome = work();
        self.counts += match outcome {
            Outcome::Passed(_) => Counts { passed: 1, ..Counts::default() },
            Outcome::Failed(_) => Counts { failed: 1, ..Counts::default() },
            Outcome::Skipped(_) => Counts { skipped: 1, ..Counts::default() },
        };
        self.keep(name, outcome, begin.elapsed());
    }

    /// Does one step that counts its own tests.
    pub fn tests(&mut self, name: &str, work: impl FnOnce() -> Tested) {
        let begin = announce(name);
        let Tested { outcome, counts, skipped, failures } = work();
        self.counts += counts;
        self.keep(name, outcome, begin.elapsed());
        self.failures.extend(failures);
        for reason in skipped {
            self.lines.push((name.to_owned(), Outcome::Skipped(reason), Duration::ZERO));
        }
    }

    fn keep(&mut self, name: &str, outcome: Outcome, took: Duration) {
        if let Outcome::Failed(reason) = &outcome {
            eprintln!("{name} failed: {reason}");
        }
        self.lines.push((name.to_owned(), outcome, took));
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.counts.failed == 0
            && !self.lines.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
    }
}

fn announce(name: &str) -> Instant {
    eprintln!("\n== {name}");
    Instant::now()
}

/// One line for each step, what failed tests said, and the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        for (name, outcome, took) in &self.lines {
            let (word, note) = match outcome {
                Outcome::Passed(note) => ("passed", note),
                Outcome::Failed(note) => ("FAILED", note),
                Outcome::Skipped(note) => ("skipped", note),
            };
            write!(f, "{name:width$}  {word:7}  {:4}s", took.as_secs())?;
            // The first line names the cause; the rest was printed when it happened.
            match note.lines().next() {
                Some(note) => writeln!(f, "  {note}")?,
                None => writeln!(f)?,
            }
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED  {failure}")?;
        }
        if !self.failures.is_empty() {
            writeln!(f)?;
        }
        write!(f, "{}", self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_tests_add_up_in_the_closing_line() {
        let mut report = Report::default();
        report.step("format", || Outcome::Passed(String::new()));
        report.step("fuzzing", || Outcome::Skipped("no C++ compiler".into()));
        report.tests("tests", || Tested {
            outcome: Outcome::Passed(String::new()),
            counts: Counts { passed: 7, failed: 0, skipped: 2 },
            skipped: vec!["a: no tun".into()],
            failures: Vec::new(),
        });
        assert!(report.is_good());
        let text = report.to_string();
        assert_eq!(text.lines().last(), Some("8 passed, 0 failed, 3 skipped"));
        assert!(text.contains("no C++ compiler") && text.contains("a: no tun"), "{text}");
    }

    #[test]
    fn one_failure_spoils_the_report() {
        let mut report = Report::default();
        report.step("format", || Outcome::Passed(String::new()));
        report.step("lints", || Outcome::Failed("clippy: 1 warning".into()));
        assert!(!report.is_good());
        assert!(report.to_string().ends_with("1 passed, 1 failed, 0 skipped"));
    }

    #[test]
    fn a_test_run_that_broke_off_without_a_failed_test_spoils_it_too() {
        let mut report = Report::default();
        report.tests("tests", || Tested {
            outcome: Outcome::Failed("does not compile".into()),
            counts: Counts::default(),
            skipped: Vec::new(),
            failures: Vec::new(),
        });
        assert!(!report.is_good());
    }

    #[test]
    fn what_failed_is_repeated_between_the_steps_and_the_counts() {
        let mut report = Report::default();
        report.tests("tests", || Tested {
            outcome: Outcome::Failed("cargo failed".into()),
            counts: Counts { passed: 1, failed: 1, skipped: 0 },
            skipped: Vec::new(),
            failures: vec!["a\n    panicked".into()],
        });
        report.step("fuzzing", || Outcome::Skipped("not asked for".into()));
        let text = report.to_string();
        assert!(
            text.ends_with("  not asked for\n\nFAILED  a\n    panicked\n\n1 passed, 1 failed, 1 skipped"),
            "{text}"
        );
    }
}
