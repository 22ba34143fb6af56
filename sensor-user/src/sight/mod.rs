//! Whether the sensor can see its line: from facts to reasons why not, without input or output.
//!
//! A program that is attached and drained counts nothing where nothing arrives for it to count. So what
//! is known of the links, the addresses and the traffic is judged too, and every reason not to see has a
//! name, which `teiten_blind`, the log, the status and `teiten check` share.

pub mod targets;
pub mod traffic;
mod watch;

pub use watch::{ReasonOrigin, SightChange, Watch};

use crate::kernel::network::{Link, LinkState, Network};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why the sensor does not see its line, the label of `teiten_blind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing that an observed interface could receive counts as the sensor.
    NoAddress,
    /// An observed interface is set down.
    LinkDown,
    /// An observed interface is set up and has no carrier.
    NoCarrier,
    /// Traffic for this host goes elsewhere than over the interfaces that are observed.
    WrongInterface,
    /// The program is not attached to an interface that is to be observed.
    Detached,
    /// Most of what arrives is of a kind that cannot be read.
    Unreadable,
    /// Nothing has come for far longer than is normal here.
    Silent,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoAddress,
        Self::LinkDown,
        Self::NoCarrier,
        Self::WrongInterface,
        Self::Detached,
        Self::Unreadable,
        Self::Silent,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAddress => "no_address",
            Self::LinkDown => "link_down",
            Self::NoCarrier => "no_carrier",
            Self::WrongInterface => "wrong_interface",
            Self::Detached => "detached",
            Self::Unreadable => "unreadable",
            Self::Silent => "silent",
        }
    }

    /// Whether it is certain that nothing can be seen, so that this is no time of observation.
    ///
    /// Silence is a suspicion: quiet time of a sensor that sees belongs to its observation, and leaving it
    /// out would raise every figure "per sensor and day".
    pub const fn is_certain(self) -> bool {
        !matches!(self, Self::Silent)
    }

    /// What it means for the counts.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NoAddress => {
                "packets count as other_destination and none as an access; not counted as observed time"
            }
            Self::LinkDown | Self::NoCarrier => "no packets arrive; not counted as observed time",
            Self::WrongInterface => "packets for this host are missed; not counted as observed time",
            Self::Detached => "no packets are counted there; not counted as observed time",
            Self::Unreadable => "they count as non_ip and none as an access; not counted as observed time",
            Self::Silent => "the counts may lack everything since then; still counted as observed time",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One reason, where it holds, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// The reason.
    pub reason: Reason,
    /// The interface, when it is of one.
    pub interface: Option<String>,
    /// What has happened.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Blind {
    /// A reason that is of `interface`, or of the whole sensor.
    pub fn new(
        reason: Reason,
        interface: Option<&str>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { reason, interface: interface.map(str::to_owned), what: what.into(), advice: advice.into() }
    }

    /// What tells it from others.
    fn key(&self) -> (Reason, Option<&str>) {
        (self.reason, self.interface.as_deref())
    }
}

impl fmt::Display for Blind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.what, self.reason.meaning(), self.advice)
    }
}

/// Whether none of `blind` keeps the sensor from seeing.
pub fn sees(blind: &[Blind]) -> bool {
    !blind.iter().any(|blind| blind.reason.is_certain())
}

/// What is to be observed.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// The interfaces: the name each is observed by, and its index when it is there.
    pub interfaces: &'a [(String, Option<u32>)],
    /// Whether they are those of the default routes.
    pub follows_routes: bool,
    /// The address families whose default route is gone, and the interfaces that it led over.
    pub lost: &'a [(&'static str, Vec<&'a str>)],
    /// Whether the addresses are given by `--observe`.
    pub has_addresses: bool,
}

/// What keeps the sensor from seeing its line, by what the network is.
pub fn of_network(network: &Network, aim: Aim<'_>) -> Vec<Blind> {
    let mut blind = Vec::new();
    let observed: Vec<u32> = aim.interfaces.iter().filter_map(|(_, index)| *index).collect();
    if aim.follows_routes && aim.interfaces.is_empty() {
        blind.push(Blind::new(
            Reason::WrongInterface,
            None,
            "no default route tells which interface to observe",
            "the interface of the next default route is observed as soon as there is one; or name one with \
             `--interface`",
        ));
    }
    for (family, names) in aim.lost {
        blind.push(Blind::new(
            Reason::WrongInterface,
            Some(&names.join(", ")),
            format!("no {family} default route any more; it led over {}, which is still observed", names.join(", ")),
            "the interface of the next default route is observed as soon as there is one; if there is to be none, \
             restart teiten",
        ));
    }
    for (name, index) in aim.interfaces {
        let Some(link) = index.and_then(|index| network.with_index(index)) else {
            blind.push(Blind::new(
                Reason::Detached,
                Some(name),
                format!("interface {name} is not there"),
                if aim.follows_routes {
                    "the default route led over it; observed again as soon as there is one of this name or another \
                     default route"
                } else {
                    "observed again as soon as there is an interface of this name"
                },
            ));
            continue;
        };
        if let Some(state) = of_state(name, link) {
            // What else is wrong shows once the link is up.
            blind.push(state);
        } else if !aim.has_addresses {
            blind.extend(of_addresses(network, link, name, &observed));
        }
    }
    blind
}

fn of_state(name: &str, link: &Link) -> Option<Blind> {
    let (reason, what, advice) = match link.state {
        LinkState::Up => return None,
        LinkState::Down if link.is_ppp() => (
            Reason::LinkDown,
            format!("the PPP session of interface {name} is not established"),
            "its program (pppd) sets it up when both ends have agreed; when that takes long, look at its log"
                .to_owned(),
        ),
        LinkState::Down => (
            Reason::LinkDown,
            format!("interface {name} is set down"),
            format!("`ip link set dev {name} up`, or have the network configuration do it"),
        ),
        LinkState::NoCarrier => (
            Reason::NoCarrier,
            format!("interface {name} has no carrier"),
            "check the cable, the other end, and for a bridge or bond its ports".to_owned(),
        ),
        LinkState::Dormant => (
            Reason::NoCarrier,
            format!("interface {name} has a carrier and is dormant"),
            "check the authentication (802.1X) or association of the link".to_owned(),
        ),
    };
    Some(Blind::new(reason, Some(name), what, advice))
}

/// What is wrong with the addresses of a link that is up.
fn of_addresses(network: &Network, link: &Link, name: &str, observed: &[u32]) -> Option<Blind> {
    let above = network.above(link);
    let elsewhere = || above.iter().copied().filter(|other| other.is_reachable());
    if !link.is_reachable() {
        // Its packets are for the addresses of what is observed above it.
        if elsewhere().any(|other| observed.contains(&other.index)) {
            return None;
        }
        // Or of the PPPoE session in its frames.
        let is_session = |other: &&Link| other.is_ppp() && other.is_reachable();
        if network.pppoe.contains(&link.name)
            && network.links.iter().filter(is_session).any(|session| observed.contains(&session.index))
        {
            return None;
        }
        let has = if link.addresses.is_empty() { "has no address" } else { "has link-local addresses only" };
        let what = format!("interface {name} {has}{}", port_of(network, link));
        return Some(Blind::new(Reason::NoAddress, Some(name), what, instead(network, link, elsewhere())));
    }
    // The master takes the packets in, whatever addresses are left on the port.
    let master = link.master.and_then(|index| network.with_index(index)).filter(|master| {
        takes_addresses(master)
            && !observed.contains(&master.index)
            && master.reachable().any(|address| !link.addresses.contains(&address))
    })?;
    Some(Blind::new(
        Reason::WrongInterface,
        Some(name),
        format!("interface {name}{}, whose addresses are not observed", port_of(network, link)),
        format!("observe {0} instead: `--interface {0}`", master.name),
    ))
}

/// Whether the ports of a link like this leave their packets to it; those of a VRF do not.
fn takes_addresses(master: &Link) -> bool {
    master.kind.as_deref() != Some("vrf")
}

/// ` is a port of the bridge br0`, when it is.
fn port_of(network: &Network, link: &Link) -> String {
    match link.master.and_then(|index| network.with_index(index)) {
        Some(master) if takes_addresses(master) => {
            let kind = master.kind.as_deref().unwrap_or("interface");
            let joined = if link.is_reachable() { " is" } else { " and is" };
            format!("{joined} a port of the {kind} {}", master.name)
        }
        _ => String::new(),
    }
}

/// Where to observe instead of `link`.
fn instead<'a>(network: &Network, link: &Link, mut elsewhere: impl Iterator<Item = &'a Link>) -> String {
    let default = || {
        let links = network.default_links().into_iter().filter(|index| *index != link.index);
        links.filter_map(|index| network.with_index(index)).find(|link| link.is_reachable())
    };
    if let Some(other) = elsewhere.next() {
        format!("observe {0}, which has the addresses: `--interface {0}`", other.name)
    } else if let Some(other) = default() {
        format!(
            "the default route leads over {0}, observe that: `--interface {0}`; or say with `--observe` whose packets \
             arrive on {1}",
            other.name, link.name
        )
    } else {
        format!("give {} an address, or say with `--observe` whose packets arrive there", link.name)
    }
}

/// Pairs of observed links that see the same packets, a sentence for each.
pub fn doubles(network: &Network, observed: &[u32]) -> Vec<String> {
    let links: Vec<&Link> = observed.iter().filter_map(|index| network.with_index(*index)).collect();
    let mut found = Vec::new();
    for link in &links {
        for above in network.above(link).into_iter().filter(|above| observed.contains(&above.index)) {
            found.push(format!(
                "{0} carries what arrives on {1}, and both are observed: packets on both are counted twice; observe one \
                 of them",
                link.name, above.name
            ));
        }
        // What carries a tunnel is not always known: its packets are routed.
        let carried_by_one = |tunnel: &Link| {
            network.with_index(tunnel.lower.unwrap_or(0)).is_some_and(|lower| observed.contains(&lower.index))
        };
        if (link.is_tunnel() || link.is_tun()) && !carried_by_one(link) {
            let others: Vec<&str> = links
                .iter()
                .filter(|other| !other.is_tunnel() && !other.is_tun() && other.index != link.index)
                .map(|other| other.name.as_str())
                .collect();
            if !others.is_empty() {
                found.push(format!(
                    "{0} is a tunnel, and {1} is observed too: when {1} carries it, its packets are counted twice, inside \
                     and outside; observe one of them, or leave the far end out with `--exclude-source ADDRESS`",
                    link.name,
                    others.join(", ")
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
