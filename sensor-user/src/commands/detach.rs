//! `teiten detach`: ends what SIGTERM left running, after a last drain.

use super::ledger_settings;
use crate::archive::Archive;
use crate::config::Config;
use crate::drain;
use crate::geoip::GeoIp;
use crate::kernel::{
    ByCpu, Found, Kernel, MapSizes, Policy, Ready, inspect, is_pinned, memory, remove_pin_dir,
};
use crate::ledger::{self, Ledger, NotThere};
use crate::system::{rights, trusted};
use crate::who::Register;
use crate::who::asn::AsnDatabase;
use crate::who::lists::Lists;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use tracing::{info, warn};

/// Ends the attachments, takes what they counted into the ledger, and removes the pins.
///
/// As root it works with the rights of the user to whom the state directory belongs, so that the ledger
/// stays that user's.
///
/// # Errors
///
/// When a daemon still runs, or the last counts cannot be committed; then nothing is removed.
pub fn detach(config: &Config) -> Result<()> {
    match is_pinned(&config.pin_dir) {
        Found::Yes => {}
        Found::No => {
            info!("nothing is pinned under {}", config.pin_dir.display());
            for occupant in inspect::attached_elsewhere() {
                warn!("{occupant}");
            }
            return Ok(());
        }
        Found::NotAllowed => bail!(
            "not allowed to see whether anything is pinned under {}; try `sudo teiten detach`",
            config.pin_dir.display()
        ),
    }
    let owner = match config.state_dir.symlink_metadata() {
        Ok(metadata) => (metadata.uid(), metadata.gid()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "not allowed to look at the state directory {}, into whose ledger the last counts belong; try `sudo \
             teiten detach`",
            config.state_dir.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "the pinned counts belong into a ledger, and {} cannot be opened; name its place with --state-dir",
                    config.state_dir.display()
                )
            });
        }
    };
    let user = geteuid();
    let packets = if user.is_root() && owner.0 != user.as_raw() {
        info!(user = trusted::name(owner.0), "working as the user to whom the state directory belongs");
        let work = || {
            rights::become_user(owner.0, owner.1)?;
            finish(config)
        };
        std::thread::scope(|scope| scope.spawn(work).join())
            .map_err(|_| anyhow::anyhow!("the work panicked"))??
    } else {
        finish(config)?
    };
    // What a user without rights there had to leave.
    remove_pin_dir(&config.pin_dir);
    info!(packets, "took the last packets into the ledger, detached, removed the pins");
    Ok(())
}

fn finish(config: &Config) -> Result<u64> {
    trusted::check(&config.state_dir)?;
    trusted::check_files(&config.state_dir, &ledger::FILES)?;
    let not_there = NotThere::before(&config.state_dir);
    let mut ledger = Ledger::open(&config.state_dir, ledger_settings(config))
        .context("the pinned counts belong into a ledger; name its place with --state-dir")?;
    if let Some(root) = &config.archive_dir {
        let archive = Archive::open_once(root, &config.sensor_name, ledger.commits(), false)
            .context("the last counts belong into the archive, too; leave --archive-dir out to do without")?;
        ledger.set_archivist(Box::new(archive));
    }
    let register = Register {
        geoip: Arc::new(GeoIp::open(config.geoip.as_deref())?),
        lists: Arc::new(Lists::load(&config.source_lists)?),
        asn: Arc::new(AsnDatabase::open(config.asn.as_deref())?),
    };
    let by_cpu = ByCpu::within(config.kernel_memory);
    let source_table = config.source_table.unwrap_or_else(|| by_cpu.default_source_table(memory()));
    let opened = Kernel::open(
        &config.pin_dir,
        &MapSizes { by_cpu, source_table },
        ledger.numbering(),
        &Policy::default(),
    )?;
    let Ready { mut kernel, spare, .. } = opened.end()?;
    let packets = drain::finish(&mut kernel, spare, &mut ledger, &config.timezone, &register)
        .map_err(|error| error.with_fate(&kernel.outlook()))?;
    not_there.keep();
    kernel.detach()?;
    Ok(packets)
}
