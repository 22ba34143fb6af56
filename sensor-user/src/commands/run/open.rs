//! Opens everything that can fail before anything is attached.

use crate::archive::{self, Archive};
use crate::commands::ledger_settings;
use crate::config::Config;
use crate::geoip;
use crate::kernel::interface::Interface;
use crate::kernel::interfaces::Interfaces;
use crate::kernel::network::Network;
use crate::ledger::{self, Ledger, NotThere};
use crate::sight::targets::Targets;
use crate::system::trusted;
use crate::web::{Bound, Server, WebConfig};
use crate::who;
use anyhow::{Context, Result};
use futures_util::Stream;
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::info;

/// The network as it is at the start, and the socket that tells of its changes.
pub(super) struct Line<C> {
    pub(super) interfaces: Interfaces,
    /// Yields at each change.
    pub(super) changes: C,
    pub(super) network: Network,
    pub(super) targets: Targets,
    /// The interfaces to attach to.
    pub(super) observed: Vec<Interface>,
}

/// Opens the country database.
pub(super) fn geoip(config: &Config) -> Result<geoip::Watcher> {
    let geoip = geoip::Watcher::open(config.geoip.clone())?;
    let database = geoip.current();
    info!(
        database = %database.origin(),
        built = %database.built().strftime("%Y-%m-%d"),
        age_days = Timestamp::now().duration_since(database.built()).as_hours() / 24,
        "country database loaded"
    );
    Ok(geoip)
}

/// Opens the ASN database.
pub(super) fn asn(config: &Config) -> Result<who::AsnWatcher> {
    let asn = who::AsnWatcher::open(config.asn.clone())?;
    if let Some(read) = asn.current().read() {
        info!(
            database = %read.path.display(),
            networks = asn.current().networks().len(),
            built = %read.built.strftime("%Y-%m-%d"),
            age_days = Timestamp::now().duration_since(read.built).as_hours() / 24,
            "ASN database loaded"
        );
    }
    Ok(asn)
}

/// Reads the source lists.
pub(super) fn lists(config: &Config) -> Result<who::ListWatcher> {
    let lists = who::ListWatcher::open(config.source_lists.clone())?;
    for list in lists.current().read() {
        info!(list = list.name, prefixes = list.prefixes, "source list loaded");
    }
    Ok(lists)
}

/// Finds the interfaces to observe.
pub(super) async fn line(config: &Config) -> Result<Line<impl Stream<Item = ()> + Unpin + Send + use<>>> {
    let (interfaces, changes) = Interfaces::connect().context("open a netlink socket")?;
    let network = interfaces.survey().await?;
    let mut targets = Targets::new(&network, config)?;
    let observed = targets.present(&network)?;
    Ok(Line { interfaces, changes, network, targets, observed })
}

/// Opens the ledger, whose lock keeps a second daemon from the same state directory.
pub(super) fn ledger(config: &Config) -> Result<Ledger> {
    ledger::make_state_dir(&config.state_dir).map_err(|error| {
        let root = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "run as root, or ",
            _ => "",
        };
        let path = config.state_dir.display();
        anyhow::anyhow!("cannot create state directory {path}: {error}; {root}give another with --state-dir")
    })?;
    trusted::check(&config.state_dir)
        .and_then(|()| trusted::check_files(&config.state_dir, &ledger::FILES))
        .context("state directory refused")?;
    let ledger = Ledger::open(&config.state_dir, ledger_settings(config))?;
    info!(
        state_dir = %config.state_dir.display(),
        counting_since = ledger.since().map(tracing::field::display),
        last_generation = ledger.last_generation(),
        "ledger opened"
    );
    Ok(ledger)
}

/// What is missing before the archive is opened.
pub(super) fn before_archive(config: &Config, ledger: &Ledger) -> NotThere {
    let (identity, _) = ledger.commits();
    let before = |root: &PathBuf| NotThere::before_directory(&archive::work_dir(root, identity));
    config.archive_dir.as_ref().map(before).unwrap_or_default()
}

/// Opens the archive, if there is to be one, and gives it to the ledger.
pub(super) fn archive(config: &Config, ledger: &mut Ledger) -> Result<Option<archive::WatchedArchive>> {
    let Some(root) = &config.archive_dir else { return Ok(None) };
    let state = archive::WatchedArchive::default();
    let opened =
        Archive::open(root, &config.sensor_name, ledger.commits(), config.archive_keep, Arc::clone(&state))?;
    ledger.set_archivist(Box::new(opened));
    info!(archive_dir = %root.display(), "archive opened");
    Ok(Some(state))
}

/// Binds the HTTP server, which serves nothing yet.
pub(super) fn server(config: &Config) -> Result<Bound> {
    Ok(Server::bind(&WebConfig {
        listen: config.listen.iter().map(ToString::to_string).collect(),
        config_file: config.web_config.clone(),
        systemd_socket: config.systemd_socket,
        telemetry_path: config.telemetry_path.clone(),
        ..WebConfig::default()
    })?)
}
