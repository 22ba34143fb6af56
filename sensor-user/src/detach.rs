//! `teiten detach`: ends what SIGTERM left running, after a last drain.

use crate::config::Config;
use crate::geoip::GeoIp;
use crate::kernel::{Kernel, Policy, is_pinned};
use crate::ledger::Ledger;
use crate::{drain, run};
use anyhow::{Context, Result};
use tracing::info;

/// Ends the attachments, takes what they counted into the ledger, and removes the pins.
///
/// # Errors
///
/// When a daemon still runs, or the last counts cannot be committed; then nothing is removed.
pub fn detach(config: &Config) -> Result<()> {
    if !is_pinned(&config.pin_dir) {
        info!("nothing is pinned under {}", config.pin_dir.display());
        return Ok(());
    }
    let mut ledger = Ledger::open(&config.state_dir, run::settings(config))
        .context("the pinned counts belong into a ledger; name its place with --state-dir")?;
    let geoip = GeoIp::open(config.geoip.as_deref())?;
    let mut kernel =
        Kernel::open(&config.pin_dir, config.source_table, ledger.numbering(), &Policy::default())?;
    kernel.release_others(&[])?;
    let packets = drain::finish(&mut kernel, &mut ledger, &config.timezone, &geoip)?;
    kernel.detach()?;
    info!(packets, "took the last packets into the ledger, detached, removed the pins");
    Ok(())
}
