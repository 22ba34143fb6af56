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
use crate::ledger::{ChartedPorts, LedgerSettings};

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
