//! Answers signals until the drain has ended: SIGTERM and SIGINT end it, SIGHUP reloads.

use crate::commands::ledger_settings;
use crate::config::{Config, ConfigError, Reload};
use crate::drain::{DrainCommand, DrainError, Outbox};
use crate::exposition::{Exposition, Health, Reloadable};
use crate::system::logging::LogHandle;
use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// The signals that the daemon answers.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Shows what could not be loaded again.
    exposition: Arc<Exposition>,
}

impl Signals {
    pub(super) fn listen(exposition: Arc<Exposition>) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            exposition,
        })
    }

    /// Waits for signals and does what they ask for, until the drain has ended.
    pub(super) async fn answer(
        mut self,
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
                ended = &mut drain_ended => return ended.context("the drain thread panicked")?.map_err(Into::into),
                _ = self.terminate.recv() => false,
                _ = self.interrupt.recv() => true,
                _ = self.hang_up.recv() => {
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
                    let reloaded = reloaded.context("reload the configuration")?;
                    if let Some(reloaded) = judged(reloaded, self.exposition.health()) {
                        apply(reloaded, &mut config, &log, &commands, &reconfigured);
                    }
                    continue;
                }
            };
            info!(signal = if detach { "SIGINT" } else { "SIGTERM" }, "final drain before exit");
            // When the drain has ended already, its result is on its way.
            let _ = commands.send(DrainCommand::Stop { detach });
            return drain_ended.await.context("the drain thread panicked")?.map_err(Into::into);
        }
    }
}

/// What was loaded again, unless it cannot be used: then that is logged, counted and shown.
fn judged<T>(reloaded: Result<T, ConfigError>, health: &Health) -> Option<T> {
    match reloaded {
        Ok(reloaded) => {
            health.set_unread(Reloadable::Config, None);
            Some(reloaded)
        }
        Err(error) => {
            let what = Reloadable::Config;
            health.reload_failed(what);
            health.set_unread(what, Some(crate::error_chain(&error)));
            error!(
                error = &error as &dyn std::error::Error,
                "{} not reloaded; {}",
                what.subject(),
                what.meanwhile()
            );
            None
        }
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
        warn!(
            keys = reloaded.needs_restart.join(", "),
            "configuration reloaded except for keys that need a restart, which keep their old values; restart teiten to apply them"
        );
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
    let _ = commands.send(DrainCommand::Interval(config.drain_interval));
    let _ = commands.send(DrainCommand::Settings(Box::new(ledger_settings(config))));
    if old.geoip != config.geoip {
        let _ = commands.send(DrainCommand::Geoip(config.geoip.clone()));
    }
    if old.asn != config.asn {
        let _ = commands.send(DrainCommand::Asn(config.asn.clone()));
    }
    if old.source_lists != config.source_lists {
        let _ = commands.send(DrainCommand::Lists(config.source_lists.clone()));
    }
    // The task that follows the addresses makes the new policy.
    reconfigured.send_replace(config.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    #[test]
    fn a_configuration_that_cannot_be_loaded_again_is_counted_and_shown_until_one_can() {
        let exposition = Exposition::new(Duration::ZERO, BTreeSet::new()).unwrap();
        let health = exposition.health();
        let failures = || {
            let metrics = String::from_utf8(exposition.render(Instant::now()).unwrap().text).unwrap();
            let line = "teiten_reload_failures_total{what=\"config\"} ";
            metrics.lines().find_map(|it| it.strip_prefix(line)).unwrap().to_owned()
        };
        assert_eq!(failures(), "0");
        let source = std::io::Error::other("out of luck");
        let refused = ConfigError::Read { path: "/etc/teiten.toml".into(), source };
        assert_eq!(judged::<()>(Err(refused), health), None);
        assert_eq!(failures(), "1");
        let why = &health.unread()[&Reloadable::Config];
        assert!(why.contains("`/etc/teiten.toml`") && why.ends_with("out of luck"), "{why}");
        assert_eq!(judged(Ok(()), health), Some(()));
        assert_eq!((failures().as_str(), health.unread().len()), ("1", 0));
    }
}
