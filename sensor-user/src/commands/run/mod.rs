//! `teiten run`: the daemon, put together.
//!
//! `open` does what can fail before anything is attached, `attach` attaches or takes back, `drain_thread`
//! starts the drain; then `follow` turns what changes around the daemon into commands, `signals` answers
//! signals until the end, and `last_commit` holds what the status shows.

mod attach;
mod drain_thread;
mod follow;
mod last_commit;
mod open;
mod signals;

use crate::config::{Config, ConfigError, Reload};
use crate::counters::port_names::PortTable;
use crate::drain::{self, Drain};
use crate::exposition::Exposition;
use crate::kernel::{self, Ready};
use crate::ledger::{self, NotThere};
use crate::sight::Watch;
use crate::system::condition::Fault;
use crate::system::logging::LogHandle;
use crate::system::rights;
use crate::web::WebState;
use anyhow::{Context, Result};
use follow::Follower;
use last_commit::LastCommit;
use open::Line;
use signals::Signals;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

/// Runs the daemon until a signal ends it.
///
/// `reload` loads the configuration again, for SIGHUP.
///
/// # Errors
///
/// When it cannot start, or the last counts could not be committed.
pub fn run(
    config: Config,
    reload: impl Fn(&Config) -> Result<Reload, ConfigError> + Send + Sync + 'static,
    log: LogHandle,
) -> Result<()> {
    rights::forbid_new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(rights::keep_needed_or_tell)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(daemon(config, reload, log));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn daemon(
    config: Config,
    reload: impl Fn(&Config) -> Result<Reload, ConfigError> + Send + Sync + 'static,
    log: LogHandle,
) -> Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("TEITEN_REVISION"),
        sensor = config.sensor_name,
        timezone = config.timezone_name(),
        "starting teiten"
    );
    kernel::prepare();
    let geoip = open::geoip(&config)?;
    let lists = open::lists(&config)?;
    let asn = open::asn(&config)?;
    let Line { interfaces, changes, network, targets, observed } = open::line(&config).await?;
    let policy = follow::policy(&network, &config, &targets.indexes());
    let blind = targets.blind(&network, &config);
    let not_there = NotThere::before(&config.state_dir);
    let mut ledger = open::ledger(&config)?;
    let archive_not_there = open::before_archive(&config, &ledger);
    let archive = open::archive(&config, &mut ledger)?;
    // After the ledger, whose lock tells which process is there already.
    let server = open::server(&config)?;

    let ports = Arc::new(PortTable::embedded().context("read the embedded port explanations")?);
    let exposition = Arc::new(Exposition::new(config.series_hold, ledger.released().clone())?);
    exposition.health().set_ports(&ports);
    exposition.health().set_current_for(config.drain_interval * 3);
    let database = geoip.current();
    exposition.health().set_geoip(database.built().as_second() as u64, database.source());
    exposition.health().set_lists(lists.current().read());
    exposition.health().set_asn(asn.current().read());
    exposition.health().set_blind(blind.clone());

    for double in targets.doubles(&network) {
        warn!("{double}");
    }
    let watch = {
        let exposition = Arc::clone(&exposition);
        ledger::Verifier::start(&config.state_dir, ledger::Pace::default(), move |damaged| {
            exposition.health().set_ledger_damaged(damaged);
        })
        .context("start the thread that verifies the ledger")?
    };
    let (commands, inbox) = drain::inbox().context("make the inbox of the drain")?;
    // Until now a signal ends the process, which has nothing to undo. From here on it is answered after the
    // start.
    let signals = Signals::listen(Arc::clone(&exposition)).context("listen to signals")?;
    let released_first = targets.released_first(&network);
    let Ready { kernel, spare, wake } = attach::observe(
        &config,
        ledger.numbering(),
        &policy.with_features(|| ledger.feature_ports()),
        &observed,
        &released_first,
    )?;
    tokio::spawn(follow::forward_wakes(wake, commands.clone()));

    let last_commit = Arc::new(LastCommit::new(&config, &kernel, &exposition, archive));
    let detached = Arc::new(Notify::new());
    let drain = Drain {
        watch: Watch::new(blind, kernel.began()),
        kernel,
        ledger,
        exposition: Arc::clone(&exposition),
        geoip,
        lists,
        asn,
        policy: policy.clone(),
        timezone: config.timezone.clone(),
        interval: config.drain_interval,
        mode: config.xdp_mode,
        interfaces: targets.names(),
        detached: Arc::clone(&detached),
        committed: {
            let (last_commit, exposition) = (Arc::clone(&last_commit), Arc::clone(&exposition));
            Box::new(move |ledger, totals, attachments| {
                last_commit.committed(ledger, totals, attachments, &exposition, &watch);
            })
        },
    };
    drain.show_monitored();
    let (ipv4, ipv6) = policy.monitored_addresses();
    info!(
        ipv4 = ipv4 as u64,
        // A /64 and what is larger saturate.
        ipv6 = ipv6 as u64,
        excluded = policy.excluded.len(),
        services = policy.services.len(),
        "observing addresses"
    );
    let totals = Arc::new(drain.ledger.totals().clone());
    last_commit.set_totals(Arc::clone(&totals));
    exposition.update(totals);

    // The drain's thread inherits what is left.
    if let Err(error) = rights::keep_needed() {
        attach::give_up(drain.kernel.undo());
        return Err(error.into());
    }
    let drain_ended = drain_thread::spawn(drain, spare, inbox)?;
    not_there.keep();
    archive_not_there.keep();

    let (shutdown, mut stopped) = watch::channel(());
    let state = WebState {
        exposition: Arc::clone(&exposition),
        status: Arc::new(move || last_commit.status(&exposition, &ports)),
    };
    let web = tokio::spawn(server.serve(state, async move {
        // Also when the sender is gone.
        let _ = stopped.changed().await;
    }));

    let (reconfigured, config_changes) = watch::channel(config.clone());
    let follower = Follower { interfaces, targets, commands: commands.clone(), fault: Fault::default() };
    tokio::spawn(follower.follow(changes, config_changes, detached));
    let result = signals.answer(config, reload, log, commands, reconfigured, drain_ended).await;
    drop(shutdown);
    if let Ok(Err(error)) = web.await {
        error!(%error, "HTTP server ended with an error; counts are not affected");
    }
    result
}
