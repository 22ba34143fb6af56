//! Follows what changes around the daemon: interfaces, addresses, routes, and the program's wake-ups.
//! Everything goes to the drain as a command.

use crate::config::Config;
use crate::drain::{DrainCommand, Outbox, Scene};
use crate::kernel::Policy;
use crate::kernel::interfaces::Interfaces;
use crate::kernel::network::Network;
use crate::sight::targets::Targets;
use crate::system::clock;
use crate::system::condition::{Fault, Notice};
use aya::maps::{MapData, RingBuf};
use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

/// What holds while netlink fails.
const UNFOLLOWED: &str = "changes of interfaces, addresses and routes are not followed until it works";
/// Several changes of addresses or links that come together are answered once, after this time.
const SETTLE: Duration = Duration::from_millis(50);

/// What counts, by the configuration and the addresses that the interfaces of these indexes have now.
pub(super) fn policy(network: &Network, config: &Config, indexes: &[u32]) -> Policy {
    let observe: Vec<IpNet> = if config.observe.is_empty() {
        let links = network.links.iter().filter(|link| indexes.contains(&link.index));
        let addresses: BTreeSet<_> = links.flat_map(|link| link.addresses.iter().copied()).collect();
        addresses.into_iter().map(IpNet::from).collect()
    } else {
        config.observe.clone()
    };
    Policy {
        observe,
        excluded: config.excluded.clone(),
        services: config.services.iter().copied().collect(),
        samples: config.samples.clone(),
    }
}

/// Follows addresses, links, default routes and the configuration: makes the new policy, attaches again
/// to an interface that has come back, and reports whether the sensor can see.
pub(super) struct Follower {
    pub(super) interfaces: Interfaces,
    pub(super) targets: Targets,
    pub(super) commands: Outbox,
    /// The network cannot be read.
    pub(super) fault: Fault,
}

impl Follower {
    pub(super) async fn follow(
        mut self,
        mut changes: impl Stream<Item = ()> + Unpin + Send,
        mut config: watch::Receiver<Config>,
        detached: Arc<Notify>,
    ) {
        loop {
            // No notice came of what changed between the start and now.
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
        self.commands.send(DrainCommand::Network(Box::new(scene))).ok()
    }
}

/// Hands on the program's wish to be drained.
pub(super) async fn forward_wakes(ring: RingBuf<MapData>, commands: Outbox) {
    // SAFETY: the ring owns its descriptor, which stays the same until it is dropped.
    let Ok(mut ring) = (unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }) else { return };
    while let Ok(mut ready) = ring.readable_mut().await {
        let ring = ready.get_inner_mut();
        while ring.next().is_some() {}
        ready.clear_ready();
        if commands.send(DrainCommand::Wake).is_err() {
            return;
        }
    }
}
