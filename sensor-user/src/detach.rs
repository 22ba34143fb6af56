//! `teiten detach`: ends what SIGTERM left running, after a last drain.

use crate::config::Config;
use crate::geoip::GeoIp;
use crate::kernel::{Found, Kernel, Policy, is_pinned};
use crate::ledger::Ledger;
use crate::{drain, run};
use anyhow::{Context, Result, bail};
use tracing::info;

/// Ends the attachments, takes what they counted into the ledger, and removes the pins.
///
/// # Errors
///
/// When a daemon still runs, or the last counts cannot be committed; then nothing is removed.
pub fn detach(config: &Config) -> Result<()> {
    match is_pinned(&config.pin_dir) {
        Found::Yes => {}
        Found::No => {
            info!("nothing is pinned under {}", config.pin_dir.display());
            return Ok(());
        }
        Found::NotAllowed => bail!(
            "not allowed to see whether anything is pinned under {}; try `sudo teiten detach`",
            config.pin_dir.display()
        ),
    }
    let mut ledger = Ledger::open(&config.state_dir, run::settings(config))
        .context("the pinned counts belong into a ledger; name its place with --state-dir")?;
    let geoip = GeoIp::open(config.geoip.as_deref())?;
    let mut kernel =
        Kernel::open(&config.pin_dir, config.source_table, ledger.numbering(), &Policy::default())?;
    kernel.release_others(&[])?;
    let packets = drain::finish(&mut kernel, &mut ledger, &config.timezone, &geoip)
        .map_err(|error| error.with_fate(&kernel.outlook()))?;
    kernel.detach()?;
    info!(packets, "took the last packets into the ledger, detached, removed the pins");
    Ok(())
}
