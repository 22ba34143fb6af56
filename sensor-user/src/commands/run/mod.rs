//! `teiten run`: the daemon, put together.

use crate::commands::ledger_settings;
use crate::config::{Config, ConfigError, Reload, XdpMode};
use crate::counters::port_names::PortTable;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::drain::{self, Command, Drain, DrainError, Outbox, Scene};
use crate::exposition::{Exposition, SensorInfo};
use crate::geoip;
use crate::kernel::interface::{Interface, Interfaces};
use crate::kernel::network::Network;
use crate::kernel::{self, GENERIC_MERGES, Kernel, KernelError, Mode, Opened, Policy, Ready};
use crate::ledger::{self, Ledger};
use crate::shown::Note;
use crate::shown::{Inputs, Status, Today};
use crate::sight::Watch;
use crate::sight::targets::Targets;
use crate::system::clock;
use crate::system::condition::{Fault, Notice};
use crate::system::logging::LogHandle;
use crate::system::{rights, trusted};
use crate::web::{Server, State, WebConfig};
use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// What holds while netlink fails.
const UNFOLLOWED: &str = "changes of interfaces, addresses and routes are not followed until it works";
/// Several changes of addresses or links that come together are answered once, after this time.
const SETTLE: Duration = Duration::from_millis(50);

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
    // What can fail is tried before anything is attached.
    let geoip = geoip::Watcher::open(config.geoip.clone())?;
    let database = geoip.current();
    info!(
        database = %database.origin(),
        built = %database.built().strftime("%Y-%m-%d"),
        age_days = Timestamp::now().duration_since(database.built()).as_hours() / 24,
        "country database loaded"
    );
    let (interfaces, changes) = Interfaces::connect().context("open a netlink socket")?;
    let network = interfaces.survey().await?;
    let mut targets = Targets::new(&network, &config)?;
    let observed = targets.present(&network)?;
    let names = targets.names();
    let policy = policy(&network, &config, &targets.indexes());
    let blind = targets.blind(&network, &config);
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
    let ledger = Ledger::open(&config.state_dir, ledger_settings(&config))?;
    info!(
        state_dir = %config.state_dir.display(),
        counting_since = ledger.since().map(tracing::field::display),
        last_generation = ledger.last_generation(),
        "ledger opened"
    );
    // After the ledger, whose lock tells which process is there already.
    let server = Server::bind(&WebConfig {
        listen: config.listen.iter().map(ToString::to_string).collect(),
        config_file: config.web_config.clone(),
        systemd_socket: config.systemd_socket,
        telemetry_path: config.telemetry_path.clone(),
        ..WebConfig::default()
    })?;

    let ports = Arc::new(PortTable::embedded().context("read the embedded port explanations")?);
    let exposition = Arc::new(Exposition::new(config.series_hold, ledger.released().clone())?);
    exposition.health().set_ports(&ports);
    exposition.health().set_current_for(config.drain_interval * 3);
    let database = geoip.current();
    exposition.health().set_geoip(database.built().as_second() as u64, database.source());

    for double in targets.doubles(&network) {
        warn!("{double}");
    }
    let watch = {
        let exposition = Arc::clone(&exposition);
        ledger::Watch::start(&config.state_dir, ledger::Pace::default(), move |damaged| {
            exposition.health().set_ledger_damaged(damaged);
        })
        .context("start the thread that verifies the ledger")?
    };
    let (commands, inbox) = drain::inbox().context("make the inbox of the drain")?;
    // Until now a signal ends the process, which has nothing to undo. From here on it is answered after the
    // start.
    let signals = Signals::listen().context("listen to signals")?;
    let mut opened = Kernel::open(&config.pin_dir, source_table(&config), ledger.numbering(), &policy)?;
    if let Err(error) = attach(&mut opened, &observed, &targets.released_first(&network), config.xdp_mode) {
        give_up(opened.undo());
        return Err(error.into());
    }
    let Ready { kernel, spare, wake } = opened.observe();
    if let Some(warning) = kernel.keeper().warning() {
        warn!("{warning}");
    }
    tokio::spawn(forward_wakes(wake, commands.clone()));
    let snapshot = Arc::new(Snapshot::default());
    let mut info = SensorInfo {
        sensor: config.sensor_name.clone(),
        timezone: config.timezone_name().to_owned(),
        interfaces: Vec::new(),
        xdp_modes: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: env!("TEITEN_REVISION").to_owned(),
    };
    set_attachments(&mut info, kernel.attachments().map(|(name, _, mode)| (name.to_owned(), mode)));
    exposition.health().set_sensor(&info);
    snapshot.set_info(info);
    snapshot.with(|shown| {
        shown.standing = kernel.keeper().warning().map(pins_note).into_iter().collect();
        shown.notes.clone_from(&shown.standing);
    });

    let detached = Arc::new(Notify::new());
    exposition.health().set_blind(blind.clone());
    let drain = Drain {
        watch: Watch::new(blind, kernel.began()),
        kernel,
        ledger,
        exposition: Arc::clone(&exposition),
        geoip,
        policy: policy.clone(),
        timezone: config.timezone.clone(),
        interval: config.drain_interval,
        mode: config.xdp_mode,
        interfaces: names,
        detached: Arc::clone(&detached),
        committed: {
            let (snapshot, exposition) = (Arc::clone(&snapshot), Arc::clone(&exposition));
            Box::new(move |ledger, totals, attachments| {
                snapshot.committed(ledger, totals, attachments, &exposition, &watch);
            })
        },
    };
    drain.show_monitored();
    let (ipv4, ipv6) = policy.monitored_addresses();
    info!(
        ipv4 = ipv4 as u64,
        // A /64 and what is larger saturate.
        ipv6 = ipv6 as u64,
        excluded_prefixes = policy.exclude.len(),
        services = policy.services.len(),
        "observing addresses"
    );
    let totals = Arc::new(drain.ledger.totals().clone());
    snapshot.with(|shown| shown.totals = Arc::clone(&totals));
    exposition.update(totals);

    // The drain's thread inherits what is left.
    if let Err(error) = rights::keep_needed() {
        give_up(drain.kernel.undo());
        return Err(error.into());
    }
    let (ended, drain_ended) = oneshot::channel();
    // Taken out again when there is no thread to be had.
    let drain = Arc::new(Mutex::new(Some(drain)));
    let take = |drain: &Mutex<Option<Drain>>| drain.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = Arc::clone(&drain);
    let started = std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
        if let Some(drain) = take(&taken) {
            // A receiver that is gone waits for nothing.
            let _ = ended.send(drain.run(spare, inbox));
        }
    });
    if let Err(error) = started {
        if let Some(drain) = take(&drain) {
            give_up(drain.kernel.undo());
        }
        return Err(error).context("start the drain thread");
    }

    let (shutdown, mut stopped) = watch::channel(());
    let state = State {
        exposition: Arc::clone(&exposition),
        status: {
            let (snapshot, ports) = (Arc::clone(&snapshot), Arc::clone(&ports));
            Arc::new(move || snapshot.status(&exposition, &ports))
        },
    };
    let web = tokio::spawn(server.serve(state, async move {
        // Also when the sender is gone.
        let _ = stopped.changed().await;
    }));

    let (reconfigured, config_changes) = watch::channel(config.clone());
    let follower = Follower { interfaces, targets, commands: commands.clone(), fault: Fault::default() };
    tokio::spawn(follower.follow(changes, config_changes, detached));
    let result = serve(signals, config, reload, log, commands, reconfigured, drain_ended).await;
    drop(shutdown);
    if let Ok(Err(error)) = web.await {
        error!(%error, "the HTTP server ended badly");
    }
    result
}

/// Attaches to the interfaces, and only then ends what is attached to others, but for those that are
/// to be `released_first`.
fn attach(
    opened: &mut Opened,
    observed: &[Interface],
    released_first: &[String],
    wanted: XdpMode,
) -> Result<(), KernelError> {
    let names: Vec<String> = observed.iter().map(|interface| interface.name.clone()).collect();
    opened.adopt(observed)?;
    for name in opened.release_where(|name| released_first.contains(name) && !names.contains(name))? {
        warn!(interface = name, "no longer observed; its attachment has ended");
    }
    for interface in observed {
        let mode = opened.attach(interface, wanted)?;
        info!(interface = interface.name, mode = mode.name(), "observing");
    }
    // Until a default route tells what to observe, what an earlier daemon attached continues to count.
    let released =
        if names.is_empty() { Vec::new() } else { opened.release_where(|name| !names.contains(name))? };
    for name in released {
        warn!(interface = name, "no longer observed; its attachment has ended");
    }
    Ok(())
}

/// After a start that failed.
fn give_up(undone: Result<Vec<String>, KernelError>) {
    match undone {
        Ok(left) if left.is_empty() => {}
        Ok(left) => warn!(
            interfaces = left.join(", "),
            "the program of an earlier start stays attached there and counts; `teiten detach` ends it"
        ),
        Err(error) => error!(
            error = &error as &dyn std::error::Error,
            "cannot undo what this start attached; `teiten detach` ends it"
        ),
    }
}

/// The signals that the daemon answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for signals and does what they ask for, until the drain has ended.
async fn serve(
    mut signals: Signals,
    mut config: Config,
    reload: impl Fn(&Config) -> Result<Reload, ConfigError> + Send + Sync + 'static,
    log: LogHandle,
    commands: Outbox,
    reconfigured: watch::Sender<Config>,
    mut drain_ended: oneshot::Receiver<Result<(), DrainError>>,
) -> Result<()> {
    let reload = Arc::new(reload);
    // Reads files, and a file system may not answer: nothing else waits for it.
    let mut reloading: Option<JoinHandle<Result<Reload, ConfigError>>> = None;
    loop {
        let detach = tokio::select! {
            ended = &mut drain_ended => return ended.context("the drain thread has died")?.map_err(Into::into),
            _ = signals.terminate.recv() => false,
            _ = signals.interrupt.recv() => true,
            _ = signals.hang_up.recv() => {
                if reloading.is_some() {
                    warn!("reload is still waiting for its files; this SIGHUP changes nothing");
                } else {
                    let (reload, config) = (Arc::clone(&reload), config.clone());
                    reloading = Some(tokio::task::spawn_blocking(move || reload(&config)));
                }
                continue;
            }
            reloaded = async { reloading.as_mut().expect("asked for only when it is there").await },
                if reloading.is_some() =>
            {
                reloading = None;
                match reloaded.context("reload the configuration")? {
                    Ok(reloaded) => apply(reloaded, &mut config, &log, &commands, &reconfigured),
                    Err(error) => error!(error = &error as &dyn std::error::Error, "keeping the configuration"),
                }
                continue;
            }
        };
        info!(signal = if detach { "SIGINT" } else { "SIGTERM" }, "draining a last time");
        // When the drain has ended already, its result is on its way.
        let _ = commands.send(Command::Stop { detach });
        return drain_ended.await.context("the drain thread has died")?.map_err(Into::into);
    }
}

/// Takes over a configuration that was loaded again.
fn apply(
    reloaded: Reload,
    config: &mut Config,
    log: &LogHandle,
    commands: &Outbox,
    reconfigured: &watch::Sender<Config>,
) {
    if !reloaded.needs_restart.is_empty() {
        warn!(keys = reloaded.needs_restart.join(", "), "these need a restart; keeping their old values");
    }
    if reloaded.changed.is_empty() {
        info!("reloaded; nothing that can change while running has changed");
        return;
    }
    info!(keys = reloaded.changed.join(", "), "reloaded");
    let old = std::mem::replace(config, reloaded.config);
    if old.log_level != config.log_level
        && let Err(error) = log.set_level(&config.log_level)
    {
        error!(error = &error as &dyn std::error::Error, "keeping the log level");
    }
    // The drain tells when it ends; it takes what comes before.
    let _ = commands.send(Command::Interval(config.drain_interval));
    let _ = commands.send(Command::Settings(Box::new(ledger_settings(config))));
    // The task that follows the addresses makes the new policy.
    reconfigured.send_replace(config.clone());
}

/// What counts, by the configuration and the addresses that the interfaces of these indexes have now.
fn policy(network: &Network, config: &Config, indexes: &[u32]) -> Policy {
    let observe: Vec<IpNet> = if config.observe.is_empty() {
        let links = network.links.iter().filter(|link| indexes.contains(&link.index));
        let addresses: BTreeSet<_> = links.flat_map(|link| link.addresses.iter().copied()).collect();
        addresses.into_iter().map(IpNet::from).collect()
    } else {
        config.observe.clone()
    };
    Policy {
        observe,
        exclude: config.exclude_sources.clone(),
        services: config.services.iter().copied().collect(),
    }
}

/// Follows addresses, links, default routes and the configuration: makes the new policy, attaches again
/// to an interface that has come back, and tells whether the sensor can see.
struct Follower {
    interfaces: Interfaces,
    targets: Targets,
    commands: Outbox,
    /// The network cannot be read.
    fault: Fault,
}

impl Follower {
    async fn follow(
        mut self,
        mut changes: impl Stream<Item = ()> + Unpin + Send,
        mut config: watch::Receiver<Config>,
        detached: Arc<Notify>,
    ) {
        loop {
            // What changed between the start and now is not told.
            let now = config.borrow_and_update().clone();
            if self.look(&now).await.is_none() {
                return;
            }
            tokio::select! {
                change = changes.next() => if change.is_none() { return },
                change = config.changed() => if change.is_err() { return },
                () = detached.notified() => {}
            }
            tokio::time::sleep(SETTLE).await;
            // What has come meanwhile is answered with it.
            while futures_util::future::poll_immediate(changes.next()).await.flatten().is_some() {}
        }
    }

    /// Tells the drain what there is now; `None` when it has ended.
    async fn look(&mut self, config: &Config) -> Option<()> {
        let network = match self.interfaces.survey().await {
            Ok(network) => network,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                match self.fault.failed(&crate::error_chain(error), clock::now()) {
                    Some(Notice::Lasts(failures)) => {
                        error!(error, failures, "netlink still fails; {UNFOLLOWED}");
                    }
                    Some(_) => error!(error, "netlink failed; {UNFOLLOWED}"),
                    None => {}
                }
                return Some(());
            }
        };
        if let Some(Notice::Ended(failures)) = self.fault.worked(clock::now()) {
            info!(failures, "netlink works again; following interfaces and addresses");
        }
        if self.targets.follow(&network) {
            for double in self.targets.doubles(&network) {
                warn!("{double}");
            }
        }
        let mut interfaces = Vec::new();
        for (name, interface) in self.targets.interfaces(&network) {
            match interface {
                Ok(interface) => interfaces.push(interface),
                Err(error) => error!(interface = name, error, "interface cannot be observed"),
            }
        }
        let scene = Scene {
            names: self.targets.names(),
            policy: policy(&network, config, &self.targets.indexes()),
            interfaces,
            released_first: self.targets.released_first(&network),
            blind: self.targets.blind(&network, config),
        };
        self.commands.send(Command::Network(Box::new(scene))).ok()
    }
}

/// Hands on the program's wish to be drained.
async fn forward_wakes(ring: RingBuf<MapData>, commands: Outbox) {
    // SAFETY: the ring owns its descriptor, which stays the same until it is dropped.
    let Ok(mut ring) = (unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }) else { return };
    while let Ok(mut ready) = ring.readable_mut().await {
        let ring = ready.get_inner_mut();
        while ring.next().is_some() {}
        ready.clear_ready();
        if commands.send(Command::Wake).is_err() {
            return;
        }
    }
}

fn set_attachments(info: &mut SensorInfo, attachments: impl Iterator<Item = (String, Mode)>) {
    (info.interfaces, info.xdp_modes) =
        attachments.map(|(name, mode)| (name, mode.name().to_owned())).unzip();
}

/// Entries of the source table: as many as were asked for, else as the memory allows.
fn source_table(config: &Config) -> u32 {
    config.source_table.unwrap_or_else(|| {
        let (memory, entries) = (kernel::memory(), kernel::default_source_table(kernel::memory()));
        if entries < kernel::default_source_table(None) {
            info!(
                entries,
                memory_mb = memory.map(|bytes| bytes / 1_000_000),
                "source table is smaller than usual because of the memory limit; --source-table sets another size"
            );
        }
        entries
    })
}

/// What is to be said of conversations that could not be kept.
fn flow_failures(failures: u64) -> Option<Note> {
    (failures > 0).then(|| {
        Note::new(
            format!(
                "{failures} conversations of this host were not kept, because there were too many; \
                 their answers count as backscatter or accesses"
            ),
            format!(
                "本ホストの通信 {failures} 件は、多すぎたため記録されていません。その応答はバックスキャッターまたはアクセスとして\
                 数えられます"
            ),
        )
    })
}

/// What the pins' file system means for the time after this process.
fn pins_note(warning: String) -> Note {
    Note::new(
        warning,
        "ピンの bpffs がこのホストのマウント名前空間にないため、デーモン終了後のパケットは計数されないおそれがあります",
    )
}

/// What the status page shows in addition to the counters, as of the last commit.
#[derive(Default)]
struct Snapshot(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    info: SensorInfo,
    totals: Arc<Totals>,
    today: Option<Today>,
    since: Option<Timestamp>,
    /// What holds as long as the daemon runs.
    standing: Vec<Note>,
    notes: Vec<Note>,
}

impl Snapshot {
    fn with<T>(&self, work: impl FnOnce(&mut Shown) -> T) -> T {
        // Plain values, whole after every statement: a panic elsewhere does not spoil them.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_info(&self, info: SensorInfo) {
        self.with(|shown| shown.info = info);
    }

    fn committed(
        &self,
        ledger: &Ledger,
        totals: &Arc<Totals>,
        attachments: &[(String, Mode)],
        exposition: &Exposition,
        watch: &ledger::Watch,
    ) {
        exposition.health().set_ledger_lacking(!ledger.losses().is_empty());
        let today = ledger.today().map(|today| Today {
            date: today.day,
            total: Tally { accesses: today.accesses, sources: today.sources },
            hosts: today.hosts,
            ports: today.ports.iter().map(|(slot, tally)| (PortLabel::Own(*slot), *tally)).collect(),
            countries: today.countries.clone(),
            hours: today.hours,
            packets: Some(today.packets),
        });
        let notes: Vec<Note> = attachments
            .iter()
            .filter(|(_, mode)| *mode == Mode::Generic)
            .map(|(name, _)| {
                Note::new(
                    format!("{name} is observed in generic mode: it costs more per packet, and {GENERIC_MERGES}"),
                    format!(
                        "{name} は generic モードで観測しています。パケット当たりの負荷が高く、結合されたパケット（GRO、LRO など）は \
                         1 件として数えられます"
                    ),
                )
            })
            .chain(exposition.health().untracked().into_iter().map(|name| {
                Note::new(
                    format!("it is not known what {name} sends; answers count as backscatter and accesses"),
                    format!(
                        "{name} からの送信を把握できません。応答はバックスキャッターまたはアクセスとして数えられます"
                    ),
                )
            }))
            .chain(flow_failures(exposition.health().flow_failures()))
            .chain(watch.notes().into_iter().map(|note| {
                Note::new(note, "台帳に破損があります。`teiten ledger verify` が該当する日を示します")
            }))
            .chain(ledger.losses().iter().map(|loss| {
                Note::new(loss, "台帳の一部が失われています。該当する期間の計数は不足しています")
            }))
            .collect();
        self.with(|shown| {
            let mut info = shown.info.clone();
            set_attachments(&mut info, attachments.iter().cloned());
            if info != shown.info {
                exposition.health().set_sensor(&info);
                shown.info = info;
            }
            shown.totals = Arc::clone(totals);
            shown.today = today;
            shown.since = ledger.since();
            shown.notes = shown.standing.iter().cloned().chain(notes).collect();
        });
    }

    fn status(&self, exposition: &Exposition, ports: &PortTable) -> Status {
        self.with(|shown| {
            Status::new(Inputs {
                info: &shown.info,
                totals: &shown.totals,
                today: shown.today.as_ref(),
                ports,
                health: exposition.health(),
                since: shown.since,
                notes: &shown.notes,
                now: Timestamp::now(),
                instant: clock::now(),
            })
        })
    }
}
