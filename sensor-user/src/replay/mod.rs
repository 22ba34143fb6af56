//! Counts capture files by the rules of the kernel program.
//!
//! Packets are parsed and judged by the same code, and become the same [`Observation`](crate::observation::Observation)s, one or more
//! for each local hour, so that the ledger does not know the difference. Files are read
//! as streams and accumulators are bounded, so memory does not grow with them: two hours are open and
//! up to four observations on their way, each of at most two million IPv4 accesses and a quarter of a
//! million IPv6 ones, which take 8 to 32 bytes, and the bounded sets of a day.

mod accumulator;
mod both_directions;
mod capture;
mod flows;
mod hours;
mod link;
mod rules;
#[cfg(test)]
mod tests;

pub use accumulator::Accumulator;
pub use capture::{CaptureFault, Findings};
pub use flows::{Conversations, FlowCounts, MAX_FLOWS, MAX_OFFERS};
pub use hours::{Hours, Sink};
pub use link::UnknownLinkType;
pub(crate) use rules::PacketWorld;
pub use rules::Rules;

use crate::config::Config;
use crate::observation::spans::Spans;
use crate::system::terminal::Terminal;
use both_directions::Seen;
use capture::{Captured, is_time};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sensor_common::{Class, Link, judge};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is wrong with one of the captures.
#[derive(Debug, thiserror::Error)]
#[error("capture `{}`", path.display())]
pub struct CaptureError {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: CaptureFault,
}

/// What captures held in addition to what is counted. In this order in the output of `teiten replay --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Time of the earliest packet.
    pub first: Option<Timestamp>,
    /// Time of the latest packet.
    pub last: Option<Timestamp>,
    /// Packets that the sensor's side sent (`--local`), in no class.
    pub outbound: u64,
    /// Records of captures that were left out, at least; [`Outcome::errors`] has why.
    pub left_out: u64,
    /// Packets that have no time; they were counted as of a time close to them, or as of 1970.
    pub untimed: u64,
    /// What was counted about the conversations of the sensor's side; `None` when it cannot be distinguished from
    /// the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<FlowCounts>,
}

/// The result of a replay, without its counts.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Packets that were counted, of whatever class.
    pub packets: u64,
    /// What else the captures held.
    pub contents: Contents,
    /// What captures have observed, these and those before.
    pub observed: Spans,
    /// What is wrong with captures, in their order.
    pub errors: Vec<CaptureError>,
}

/// Counts captures, packet by packet.
pub struct Replay {
    rules: Rules,
    /// Of the sensor's side, when it can be distinguished from the other.
    conversations: Option<Conversations>,
    hours: Hours,
    packets: u64,
    /// Without times and flows, until the end.
    contents: Contents,
    /// Times of the earliest and the latest packet, nanoseconds since the epoch.
    span: Option<(i64, i64)>,
}

impl Replay {
    /// Counts by the rules of `config`; what is in `observed` was observed by captures before.
    pub fn new(config: &Config, observed: Spans) -> Self {
        let rules = Rules::new(&config.observe, &config.excluded, &config.services, &config.local)
            .with_samples(config.samples.clone());
        Self {
            conversations: rules.has_local().then(|| Conversations::of_services(&config.services)),
            rules,
            hours: Hours::new(config.timezone.clone(), observed, config.samples.contents),
            packets: 0,
            contents: Contents::default(),
            span: None,
        }
    }

    /// Counts one capture; returns what is wrong with it. Observations go to `sink` as they are complete.
    ///
    /// # Errors
    ///
    /// What the sink says, which ends the replay.
    pub fn capture<E>(
        &mut self,
        input: impl Read + Send,
        sink: &mut Sink<'_, E>,
    ) -> Result<Vec<CaptureFault>, E> {
        self.hours.begin_capture();
        let findings = if self.conversations.is_some() {
            capture::read(input, |packet| self.take(&mut Seen::new(&packet, &self.rules), sink))?
        } else {
            capture::read(input, |packet| self.received(&packet, sink))?
        };
        Ok(self.note(findings))
    }

    /// Counts what was left out; returns what is wrong.
    fn note(&mut self, findings: Findings) -> Vec<CaptureFault> {
        self.contents.left_out += findings.left_out;
        self.contents.untimed += findings.untimed;
        findings.faults
    }

    /// Counts a packet of a capture that holds only what the sensor received.
    #[inline]
    fn received<E>(&mut self, packet: &Captured<'_>, sink: &mut Sink<'_, E>) -> Result<(), E> {
        self.extend_span(packet.at);
        let moment = PacketWorld::<[u8]> { rules: &self.rules, conversations: None };
        let parsed = packet.link.parse_captured(packet.frame, packet.bytes);
        let (frame, link) = packet.link.open(packet.frame).unwrap_or((&[], Link::Ip));
        let verdict = judge(frame, &parsed, &moment);
        let sample = match &parsed {
            Ok(parsed) if verdict.class == Class::Access => self.rules.sample(frame, link, parsed),
            _ => None,
        };
        let unparsed = parsed.err().and_then(|why| packet.link.detail(packet.frame, why));
        self.packets += 1;
        self.hours.count(packet.at, &verdict, unparsed.as_ref(), packet.bytes, sample, sink)
    }

    /// Counts a packet of a capture of both directions.
    fn take<E>(&mut self, packet: &mut Seen, sink: &mut Sink<'_, E>) -> Result<(), E> {
        self.extend_span(packet.at);
        let conversations = self.conversations.as_ref().expect("captures of both directions have them");
        let Some(verdict) = packet.judge(&self.rules, conversations) else {
            self.contents.outbound += 1;
            return Ok(());
        };
        self.packets += 1;
        let sample = if verdict.class == Class::Access { packet.sample.take() } else { None };
        self.hours.count(packet.at, &verdict, packet.unparsed.as_ref(), packet.bytes, sample, sink)
    }

    #[inline]
    fn extend_span(&mut self, at: i64) {
        if !is_time(at) {
            return;
        }
        let (first, last) = self.span.get_or_insert((at, at));
        *first = at.min(*first);
        *last = at.max(*last);
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
            contents: Contents {
                first: self.span.map(|(first, _)| hours::timestamp(first)),
                last: self.span.map(|(_, last)| hours::timestamp(last)),
                flows: self.conversations.as_ref().map(Conversations::counts),
                ..self.contents
            },
            observed: self.hours.observed().clone(),
            errors: Vec::new(),
        })
    }
}

/// Counts `files`, with a progress bar when standard error is a terminal: in their order, or, when they
/// are of both directions, together by packet time. A capture that is damaged or cannot be read does not
/// keep the others from being counted; [`Outcome::errors`] has what is wrong with it. What is in `observed`
/// was observed by captures before.
///
/// # Errors
///
/// What the sink says.
pub fn run<E>(
    files: &[PathBuf],
    config: &Config,
    observed: Spans,
    sink: &mut Sink<'_, E>,
) -> Result<Outcome, E> {
    let mut replay = Replay::new(config, observed);
    let sizes = files.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    let progress = progress_bar(sizes.sum());
    let faults = if replay.conversations.is_some() {
        both_directions::captures(&mut replay, files, &progress, sink)?
    } else {
        one_by_one(&mut replay, files, &progress, sink)?
    };
    progress.finish_and_clear();
    let outcome = replay.finish(sink)?;
    let errors = faults.into_iter().flat_map(|(index, faults)| {
        faults.into_iter().map(move |fault| CaptureError { path: files[index].clone(), fault })
    });
    Ok(Outcome { errors: errors.collect(), ..outcome })
}

/// Counts `files` in their order; returns what is wrong with them, by index.
fn one_by_one<E>(
    replay: &mut Replay,
    files: &[PathBuf],
    progress: &ProgressBar,
    sink: &mut Sink<'_, E>,
) -> Result<BTreeMap<usize, Vec<CaptureFault>>, E> {
    let mut faults = BTreeMap::new();
    for (index, path) in files.iter().enumerate() {
        progress.set_message(path.display().to_string());
        let found = match open(path) {
            Ok(input) => replay.capture(progress.wrap_read(input), sink)?,
            Err(error) => vec![CaptureFault::Open(error)],
        };
        faults.insert(index, found);
    }
    Ok(faults)
}

fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") { Ok(Box::new(io::stdin())) } else { Ok(Box::new(File::open(path)?)) }
}

/// Shown on a terminal only.
fn progress_bar(bytes: u64) -> ProgressBar {
    let terminal = Terminal::of_process(true);
    if std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb") {
        return ProgressBar::hidden();
    }
    // Of pipes there is no size.
    let (bar, template) = if bytes == 0 {
        (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {wide_msg}")
    } else {
        (ProgressBar::new(bytes), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {wide_msg}")
    };
    let style = ProgressStyle::with_template(template).expect("a valid template");
    bar.with_style(if terminal.blocks { style } else { style.progress_chars("=> ").tick_chars("-\\|/ ") })
}
