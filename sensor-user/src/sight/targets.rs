//! Which interfaces are to be observed: those that are named, or wherever the default routes lead.

use super::{Aim, Blind, doubles, of_network};
use crate::config::Config;
use crate::kernel::interface::{Interface, InterfaceError};
use crate::kernel::network::{Link, Network};
use tracing::{info, warn};

/// The interfaces to observe.
#[derive(Clone, Debug)]
pub struct Targets {
    targets: Vec<ObservedLink>,
    follows_routes: bool,
}

/// An interface that is observed.
#[derive(Clone, Debug)]
struct ObservedLink {
    /// As it is configured, and pinned.
    name: String,
    /// As the kernel knows it, and calls it.
    index: u32,
    called: String,
    /// Whether the default routes of IPv4 and of IPv6 lead over it, or did when there were any.
    leads: [bool; 2],
    /// Whether its packets are counted on another target, which carries its frames: then its addresses
    /// count, and nothing is attached to it.
    is_carried: bool,
}

impl ObservedLink {
    fn new(name: &str, index: u32) -> Self {
        Self { name: name.to_owned(), index, called: name.to_owned(), leads: [false; 2], is_carried: false }
    }

    /// The interface as it is now: still the same, though it may be called otherwise; or another that
    /// has the name. `None` when there is neither.
    fn find<'a>(&mut self, network: &'a Network) -> Option<&'a Link> {
        let found = network.with_index(self.index).or_else(|| network.named(&self.name))?;
        self.index = found.index;
        if found.name != self.called {
            if found.name != self.name {
                warn!(
                    interface = self.name,
                    now = found.name,
                    "the interface was renamed; still observing it; a restart will look for the configured name"
                );
            }
            self.called.clone_from(&found.name);
        }
        Some(found)
    }
}

impl Targets {
    /// Those of the configuration, as the network is.
    ///
    /// # Errors
    ///
    /// When an interface that is named is not there. Without a default route to follow there is nothing
    /// to observe yet.
    pub fn new(network: &Network, config: &Config) -> Result<Self, InterfaceError> {
        let mut targets = Self { targets: Vec::new(), follows_routes: config.interfaces.is_empty() };
        if targets.follows_routes {
            targets.follow(network);
        }
        for name in &config.interfaces {
            targets.targets.push(ObservedLink::new(name, network.interface(name)?.index));
        }
        Ok(targets)
    }

    /// Goes where the default routes lead; says whether that is elsewhere than before. A family without a
    /// default route is observed where its last one led.
    pub fn follow(&mut self, network: &Network) -> bool {
        if !self.follows_routes {
            return false;
        }
        let before = self.names();
        for target in &mut self.targets {
            target.find(network);
        }
        for (family, is_v6) in [false, true].into_iter().enumerate() {
            let wanted = network.default_of(is_v6);
            if wanted.is_empty() {
                continue;
            }
            for target in &mut self.targets {
                target.leads[family] = wanted.contains(&target.index);
            }
            for index in wanted {
                if self.targets.iter().all(|target| target.index != index)
                    && let Some(link) = network.with_index(index)
                {
                    self.targets.push(ObservedLink::new(&link.name, index));
                }
                self.targets
                    .iter_mut()
                    .filter(|target| target.index == index)
                    .for_each(|target| target.leads[family] = true);
            }
        }
        self.targets.retain(|target| target.leads != [false; 2]);
        self.targets.sort_by(|one, other| one.name.cmp(&other.name));
        // IP within PPPoE is read where its frames arrive.
        let carries = |target: &ObservedLink| network.pppoe.contains(&target.called);
        let has_carrier = self.targets.iter().any(carries);
        for target in &mut self.targets {
            if let Some(link) = network.with_index(target.index) {
                target.is_carried = has_carrier && link.is_ppp();
            }
        }
        let names = self.names();
        if names == before {
            return false;
        }
        if !before.is_empty() {
            info!(
                from = before.join(", "),
                to = names.join(", "),
                "default route moved; observing the interfaces that it leads over now"
            );
        }
        true
    }

    /// The families that had a default route and have none, each with where it led.
    fn lost(&self, network: &Network) -> Vec<(&'static str, Vec<&str>)> {
        if !self.follows_routes {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for (family, is_v6) in [false, true].into_iter().enumerate() {
            if !network.default_of(is_v6).is_empty() {
                continue;
            }
            let led = self.targets.iter().filter(|target| target.leads[family]);
            // One that is gone is a reason of its own.
            let led = led.filter(|target| network.with_index(target.index).is_some());
            let names: Vec<&str> = led.map(|target| target.name.as_str()).collect();
            if !names.is_empty() {
                lost.push((["IPv4", "IPv6"][family], names));
            }
        }
        lost
    }

    fn attached(&self) -> impl Iterator<Item = &ObservedLink> {
        self.targets.iter().filter(|target| !target.is_carried)
    }

    /// The names that the interfaces to attach to are observed by.
    pub fn names(&self) -> Vec<String> {
        self.attached().map(|target| target.name.clone()).collect()
    }

    /// The indexes of all whose addresses count, as they were seen last.
    pub fn indexes(&self) -> Vec<u32> {
        self.targets.iter().map(|target| target.index).collect()
    }

    /// Those that are there, each under the name that it is observed by, or why it cannot be.
    pub fn interfaces(&mut self, network: &Network) -> Vec<(String, Result<Interface, String>)> {
        let mut found = Vec::new();
        for target in &mut self.targets {
            if let Some(link) = target.find(network).filter(|_| !target.is_carried) {
                let name = target.name.clone();
                let interface = link.interface.clone().map(|found| Interface { name: name.clone(), ..found });
                found.push((name, interface));
            }
        }
        found
    }

    /// All of them, to be attached to.
    ///
    /// # Errors
    ///
    /// When one cannot be observed.
    pub fn present(&mut self, network: &Network) -> Result<Vec<Interface>, InterfaceError> {
        let found = self.interfaces(network).into_iter().map(|(_, interface)| interface);
        found.collect::<Result<_, _>>().map_err(InterfaceError::Unusable)
    }

    /// What keeps the sensor from seeing, by what the network is.
    pub fn blind(&self, network: &Network, config: &Config) -> Vec<Blind> {
        let there = |target: &ObservedLink| network.with_index(target.index).map(|link| link.index);
        let interfaces: Vec<_> = self.targets.iter().map(|it| (it.name.clone(), there(it))).collect();
        of_network(
            network,
            Aim {
                interfaces: &interfaces,
                follows_routes: self.follows_routes,
                lost: &self.lost(network),
                has_addresses: !config.observe.is_empty(),
            },
        )
    }

    /// The names of the links whose program keeps the kernel from attaching to these: those above, since a
    /// bridge or bond with a program lets none be attached to its ports, and the ports of a bond, which is
    /// attached to natively only while none of them has a program of its own.
    pub fn in_the_way(&self, network: &Network) -> Vec<String> {
        let links = || self.targets.iter().filter_map(|target| network.with_index(target.index));
        let bonds: Vec<u32> =
            links().filter(|link| link.kind.as_deref() == Some("bond")).map(|link| link.index).collect();
        let ports =
            network.links.iter().filter(|link| link.master.is_some_and(|index| bonds.contains(&index)));
        links().flat_map(|link| network.above(link)).chain(ports).map(|link| link.name.clone()).collect()
    }

    /// The names of the links to release before these are attached to: those that are
    /// [in the way](Self::in_the_way), and those that see the same packets, which would be counted twice
    /// while both are attached.
    pub fn released_first(&self, network: &Network) -> Vec<String> {
        let mut names = self.in_the_way(network);
        let observed = || self.attached().filter_map(|target| network.with_index(target.index));
        for other in &network.links {
            // The kernel does not always say what carries a tunnel; it does of PPPoE.
            let is_inner = |link: &Link| {
                (link.is_tunnel() || link.is_tun()) && (network.pppoe.is_empty() || !link.is_ppp())
            };
            let carries = |one: &Link, session: &Link| session.is_ppp() && network.pppoe.contains(&one.name);
            let is_double = |link: &Link| {
                is_inner(link) != is_inner(other)
                    || network.above(other).iter().any(|above| above.index == link.index)
                    || carries(other, link)
                    || carries(link, other)
            };
            if observed().any(is_double) && !names.contains(&other.name) {
                names.push(other.name.clone());
            }
        }
        names
    }

    /// Which of them see the same packets.
    pub fn doubles(&self, network: &Network) -> Vec<String> {
        let indexes: Vec<u32> = self.attached().map(|target| target.index).collect();
        doubles(network, &indexes)
    }
}
