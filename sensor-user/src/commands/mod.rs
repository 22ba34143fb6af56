//! The commands of `teiten`, each put together from the rooms beside this one.

pub mod check;
pub mod detach;
pub mod ledger;
pub mod replay;
pub mod run;
pub mod samples;
pub mod sources;
pub mod status;

use crate::config::Config;
use crate::ledger::{ChartedPorts, LedgerSettings, Reader};
use crate::system::output::say;
use jiff::civil::Date;
use std::ops::RangeInclusive;

/// The options of a command cannot all be meant: what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Says what a ledger has lost of what was committed to it, and that what follows lacks `lacks`; returns whether it
/// has lost nothing.
fn tell_losses(ledger: &Reader, severity: &str, lacks: &str) -> bool {
    let damage = ledger.log_damage().map(ToString::to_string);
    let lost = ledger.lost_commits().map(|lost| lost.to_string());
    let mut is_whole = true;
    for loss in [damage, lost].into_iter().flatten() {
        say(format_args!("{severity}: {loss}; what follows lacks {lacks}"));
        is_whole = false;
    }
    is_whole
}

/// The days from `from` to `to`; without a bound, all there are.
///
/// # Errors
///
/// The first is after the last.
pub fn days(from: Option<Date>, to: Option<Date>) -> Result<RangeInclusive<Date>, UsageError> {
    let range = from.unwrap_or(Date::MIN)..=to.unwrap_or(Date::MAX);
    if range.is_empty() {
        let (from, to) = (range.start(), range.end());
        return Err(UsageError(format!("--from {from} is after --to {to}; give the earlier day first")));
    }
    Ok(range)
}

/// The part of the configuration that the ledger counts by.
fn ledger_settings(config: &Config) -> LedgerSettings {
    let groups = config
        .port_groups
        .iter()
        .map(|group| ChartedPorts { name: group.name.clone(), slots: group.slots.iter().copied().collect() });
    LedgerSettings {
        timezone: config.timezone.clone(),
        keep_days: config.keep_days,
        max_ports: config.max_ports,
        feature_ports: config.feature_ports,
        features: config.features.clone(),
        groups: groups.collect(),
        sensor_name: config.sensor_name.clone(),
        samples: config.samples.clone(),
    }
}
