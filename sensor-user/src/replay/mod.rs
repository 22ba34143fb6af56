//! `teiten replay`: counts capture files by the rules of the kernel program.
//!
//! Packets are parsed and judged by the same code, and become the same [`Observation`](crate::observation::Observation)s, one or more
//! for each local hour, so that everything behind them does not know the difference. Files are read
//! as streams and accumulators are bounded, so memory does not grow with them.

mod accumulator;
mod capture;
mod hours;
mod link;
mod report;
#[cfg(test)]
mod tests;
mod world;

pub use accumulator::Accumulator;
pub use capture::{Count, Fault};
pub use hours::{Hours, Sink};
pub use link::UnknownLinkType;
pub use report::{Report, render};
pub use world::{Flows, NoFlows, PrefixSet, Rules};

use crate::config::Config;
use crate::geoip::GeoIp;
use crate::ledger::{self, Ledger, LedgerError};
use anyhow::Context;
use capture::{Captured, Stopped};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sensor_common::{Slot, judge};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use world::Moment;

/// What is wrong with one of the captures.
#[derive(Debug, thiserror::Error)]
#[error("cannot count all of the capture `{}`", path.display())]
pub struct CaptureError {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What the captures held besides what was counted.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Packets that were counted, of whatever class.
    pub packets: u64,
    /// Packets that the sensor's side sent, which are not counted.
    pub outbound: u64,
    /// Time of the earliest packet.
    pub first: Option<Timestamp>,
    /// Time of the latest packet.
    pub last: Option<Timestamp>,
    /// Captures that could not be read to their end.
    pub errors: Vec<CaptureError>,
}

/// Counts captures, packet by packet.
pub struct Replay<F> {
    rules: Rules,
    flows: F,
    hours: Hours,
    packets: u64,
    outbound: u64,
    /// Times of the earliest and the latest packet, nanoseconds since the epoch.
    span: Option<(i64, i64)>,
}

impl<F: Flows> Replay<F> {
    /// Counts by the rules of `config`; `flows` knows the sensor's own conversations.
    pub fn new(config: &Config, flows: F) -> Self {
        Self {
            rules: Rules::new(&config.observe, &config.exclude_sources, &config.services, &config.local),
            flows,
            hours: Hours::new(config.timezone.clone()),
            packets: 0,
            outbound: 0,
            span: None,
        }
    }

    /// Counts one capture. Observations go to `sink` as they are complete.
    ///
    /// # Errors
    ///
    /// What is wrong with the capture; what came before that is counted. Or, outside, what the sink
    /// says, which ends the replay.
    pub fn capture<E>(
        &mut self,
        input: impl Read + Send,
        sink: &mut Sink<'_, E>,
    ) -> Result<Result<(), Fault>, E> {
        self.hours.begin_capture();
        match capture::read(input, |packet| self.packet(packet, sink)) {
            Ok(()) => Ok(Ok(())),
            Err(Stopped::Fault(fault)) => Ok(Err(fault)),
            Err(Stopped::Taker(error)) => Err(error),
        }
    }

    #[inline]
    fn packet<E>(&mut self, packet: Captured<'_>, sink: &mut Sink<'_, E>) -> Result<(), E> {
        let Captured { at, link, frame, octets } = packet;
        let (first, last) = self.span.get_or_insert((at, at));
        *first = at.min(*first);
        *last = at.max(*last);
        let parsed = link.parse(frame);
        if self.rules.has_local() {
            match &parsed {
                Ok(parsed) if self.rules.is_local(&parsed.src) => {
                    self.outbound += 1;
                    self.flows.sent(at, parsed, frame);
                    return Ok(());
                }
                // What is broken or a fragment has its sender all the same.
                Err(_) if link.source(frame).is_some_and(|src| self.rules.is_local(&src)) => {
                    self.outbound += 1;
                    return Ok(());
                }
                _ => {}
            }
        }
        let verdict = judge(&parsed, &Moment { rules: &self.rules, flows: &self.flows, at, frame });
        self.packets += 1;
        self.hours.count(at, &verdict, octets, sink)
    }

    /// Hands on what is still open, and tells what the captures held.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn finish<E>(mut self, sink: &mut Sink<'_, E>) -> Result<Outcome, E> {
        self.hours.finish(sink)?;
        Ok(Outcome {
            packets: self.packets,
            outbound: self.outbound,
            first: self.span.map(|(first, _)| hours::timestamp(first)),
            last: self.span.map(|(_, last)| hours::timestamp(last)),
            errors: Vec::new(),
        })
    }
}

/// Counts `files` in their order, with a progress bar when standard error is a terminal. A capture
/// that is damaged or cannot be read does not keep the others from being counted;
/// [`Outcome::errors`] has what is wrong with it.
///
/// # Errors
///
/// What the sink says.
pub fn run<E>(files: &[PathBuf], config: &Config, sink: &mut Sink<'_, E>) -> Result<Outcome, E> {
    let mut replay = Replay::new(config, NoFlows);
    let mut errors = Vec::new();
    let sizes = files.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    let progress = progress_bar(sizes.sum());
    for path in files {
        progress.set_message(path.display().to_string());
        let result = match open(path) {
            Ok(input) => replay.capture(progress.wrap_read(input), sink)?,
            Err(error) => Err(Fault::Open(error)),
        };
        if let Err(fault) = result {
            errors.push(CaptureError { path: path.clone(), fault });
        }
    }
    progress.finish_and_clear();
    let outcome = replay.finish(sink)?;
    Ok(Outcome { errors, ..outcome })
}

/// `teiten replay`: counts `files`, prints what they hold, adds it to the ledger in `state_dir` when
/// there is one to write, and tells whether every capture could be read to its end.
///
/// # Errors
///
/// The country database cannot be used, the ledger or standard output not written.
pub fn command(
    files: &[PathBuf],
    config: &Config,
    state_dir: Option<&Path>,
    json: bool,
) -> anyhow::Result<bool> {
    let geoip = GeoIp::open(config.geoip.as_deref())?;
    let settings = crate::run::settings(config);
    // What is printed is of these files alone, and bounds no series.
    let everything = ledger::Settings { max_ports: Slot::COUNT, ..settings.clone() };
    let mut printed = Ledger::in_memory(everything)?;
    let mut kept = match state_dir {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the state directory `{}`", directory.display()))?;
            Some(Ledger::open(directory, settings)?)
        }
        None => None,
    };
    let outcome = run(files, config, &mut |observation| {
        for ledger in kept.iter_mut().chain([&mut printed]) {
            ledger.fold(observation, &geoip, &[])?;
        }
        Ok::<(), LedgerError>(())
    })?;
    let report = Report::new(files, config, &outcome, printed.totals());
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render(&report, config))?;
    }
    for error in &report.errors {
        eprintln!("teiten: {error}");
    }
    Ok(report.errors.is_empty())
}

fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") { Ok(Box::new(io::stdin())) } else { Ok(Box::new(File::open(path)?)) }
}

/// Shown on a terminal only.
fn progress_bar(octets: u64) -> ProgressBar {
    // Of pipes there is no size.
    let (bar, template) = if octets == 0 {
        (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {wide_msg}")
    } else {
        (ProgressBar::new(octets), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {wide_msg}")
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a valid template"))
}
