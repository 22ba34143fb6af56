//! `teiten replay`: what captures hold, printed, and added to a ledger.

mod fold_thread;

use super::ledger_settings;
use crate::archive::{self, Archive};
use crate::config::Config;
use crate::geoip::GeoIp;
use crate::ledger::{self, Ledger, NotThere, Summary};
use crate::observation::Observation;
use crate::replay::{Outcome, run};
use crate::samples::show::{note, render};
use crate::shown::{Report, render_report};
use crate::system::logging;
use crate::system::output::Output;
use crate::who::Register;
use crate::who::asn::AsnDatabase;
use crate::who::lists::Lists;
use anyhow::Context;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The ledger that captures are counted into.
#[derive(Clone, Copy, Debug)]
pub struct ReplayLedger<'a> {
    /// Its directory.
    pub state_dir: &'a Path,
    /// Whether it may be of another sensor or time zone.
    pub any_sensor: bool,
    /// The directory of the archive that takes every source in, if any.
    pub archive_dir: Option<&'a Path>,
}

/// How the result is shown.
#[derive(Clone, Copy, Debug)]
pub struct ReplayView {
    /// As JSON.
    pub json: bool,
    /// Whether samples are shown as they came.
    pub unmasked: bool,
}

/// `teiten replay`: counts `files`, prints what they hold, adds it to the `ledger` when there is one to
/// write, and tells whether every capture could be read to its end. The ledger takes in all or nothing.
///
/// # Errors
///
/// A database or a list cannot be used, the ledger or standard output not written. When the ledger was written and
/// standard output was not, the error says so: who repeats the command would count twice.
pub fn command(
    files: &[PathBuf],
    config: &Config,
    ledger: Option<&ReplayLedger<'_>>,
    shown: ReplayView,
) -> anyhow::Result<bool> {
    // A faulty file fails at once; the embedded database is loaded while captures are read.
    let geoip = config.geoip.as_deref().map(GeoIp::load).transpose()?;
    let lists = Arc::new(Lists::load(&config.source_lists)?);
    let asn = Arc::new(AsnDatabase::open(config.asn.as_deref())?);
    let settings = ledger_settings(config);
    // What is printed is of these files alone.
    let mut printed = Summary::new(settings.clone());
    let (mut not_there, mut archive_not_there) = (None, None);
    let mut kept = match ledger {
        Some(ReplayLedger { state_dir, any_sensor, archive_dir }) => {
            not_there = Some(NotThere::before(state_dir));
            ledger::make_state_dir(state_dir).with_context(|| {
                format!("cannot make the state directory {}; give another --state-dir", state_dir.display())
            })?;
            let mut ledger = Ledger::open_for_captures(state_dir, settings, *any_sensor)?;
            if let Some(root) = archive_dir {
                let (identity, _) = ledger.commits();
                archive_not_there = Some(NotThere::before_directory(&archive::work_dir(root, identity)));
                let archive = Archive::open_once(root, &config.sensor_name, ledger.commits(), true)?;
                ledger.set_archivist(Box::new(archive));
            }
            Some(ledger)
        }
        None => None,
    };
    let observed = kept.as_ref().map(Ledger::observed_spans).transpose()?.unwrap_or_default();
    let prepare = || -> anyhow::Result<_> {
        let geoip = Arc::new(geoip.map_or_else(GeoIp::embedded, Ok)?);
        let register = Register { geoip, lists, asn };
        let (kept, printed) = (&mut kept, &mut printed);
        Ok(move |observation: Observation| {
            if let Some(ledger) = kept {
                ledger.fold(&observation, &register, &[])?;
            }
            Ok(printed.fold(&observation, &register)?)
        })
    };
    let outcome = fold_thread::take_in(prepare, |sink| run(files, config, observed, sink))?;
    // Of captures that could not be read nothing is in a ledger.
    let has_counts = outcome.errors.is_empty() || outcome.packets + outcome.contents.outbound > 0;
    let mut refused = None;
    let mut added = None;
    if let (Some(kept), Some(ledger)) = (kept, ledger) {
        match finish(kept, &outcome) {
            Ok(()) if has_counts => {
                for made in [not_there, archive_not_there].into_iter().flatten() {
                    made.keep();
                }
                added = Some(ledger.state_dir);
            }
            Ok(()) => {}
            Err(error) => refused = Some(error),
        }
    }
    let mut report = Report::new(files, config, &outcome, printed.totals());
    if !config.samples.choice.is_off() {
        let query = super::samples::query(config, shown.unmasked);
        let days = printed.samples();
        let masker = query.masker(days.iter().flat_map(|(_, samples)| samples.rows()));
        report.contents_of_ports = Some(query.of_days(&days, masker.as_ref()));
    }
    report.errors.extend(refused.iter().map(|error| crate::error_chain(error.as_ref())));
    let printed =
        if shown.json || (refused.is_none() && has_counts) { print(&report, config, shown) } else { Ok(()) };
    for error in &report.errors {
        logging::tell(error);
    }
    match added {
        Some(state_dir) => printed.with_context(|| {
            format!(
                "the captures were added to the ledger in {}, but the report could not be printed; do not \
                 replay them into it again",
                state_dir.display()
            )
        })?,
        None => printed?,
    }
    Ok(report.errors.is_empty())
}

/// Commits what the ledger took in.
fn finish(ledger: Ledger, outcome: &Outcome) -> anyhow::Result<()> {
    anyhow::ensure!(
        outcome.contents.untimed == 0,
        "{} no time, so they have no day in a ledger; none was added to it. Leave --state-dir out, or give \
         them times: `editcap -t SECONDS FILE NEW.pcap` adds seconds since 1970",
        match outcome.contents.untimed {
            1 => "1 packet has".to_owned(),
            packets => format!("{packets} packets have"),
        }
    );
    Ok(ledger.finish_captures(&outcome.observed)?)
}

/// Prints what the captures hold.
fn print(report: &Report, config: &Config, shown: ReplayView) -> anyhow::Result<()> {
    let mut out = Output::lock();
    if shown.json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render_report(report, config))?;
        if let Some(ports) = report.contents_of_ports.as_ref().filter(|ports| !ports.is_empty()) {
            writeln!(out, "\n{}\n{}", render(ports, &config.timezone), note(shown.unmasked))?;
        }
    }
    Ok(out.flush()?)
}
