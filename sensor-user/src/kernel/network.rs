//! The network of this namespace as netlink reports it: links and what they are stacked on, their
//! addresses, and where the default routes lead. Decoded once, so that what is decided from it does
//! no input or output.

use super::interface::{Interface, InterfaceError, describe, name_of};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The kernel's table for local addresses and broadcasts.
const TABLE_LOCAL: u32 = 255;
/// Links that can be stacked on one another; deeper is a loop that the kernel would not make.
const DEEPEST: usize = 8;

/// Whether a link can carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It can, as far as it tells: point-to-point links and tunnels tell nothing more.
    Up,
    /// It is set down.
    Down,
    /// It is set up, and nothing is at the other end.
    NoCarrier,
    /// It has carrier, and waits for something before it carries packets: 802.1X, an association.
    Dormant,
}

/// One link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Name, as `ip link` shows it.
    pub name: String,
    /// Index.
    pub index: u32,
    /// What kind of virtual link it is, as `ip link add type` calls it; `None` for hardware.
    pub kind: Option<String>,
    /// Whether it can carry packets.
    pub state: LinkState,
    /// Index of the bridge, bond, team or VRF that it is a port of.
    pub master: Option<u32>,
    /// Index of the link of this namespace that it is stacked on: the parent of a VLAN, the underlay
    /// of a tunnel that is bound to one.
    pub lower: Option<u32>,
    /// Its unicast addresses.
    pub addresses: Vec<IpAddr>,
    /// How it would be observed, or why it cannot be.
    pub interface: Result<Interface, String>,
}

impl Link {
    /// Addresses at which a host that is not on this link can reach it.
    pub fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(|address| !is_link_local(*address))
    }

    /// Whether it has such an address.
    pub fn is_reachable(&self) -> bool {
        self.reachable().next().is_some()
    }

    /// Whether its packets travel inside those of another link, so that both links see them.
    pub fn is_tunnel(&self) -> bool {
        const TUNNELS: [&str; 17] = [
            "ipip",
            "ip6tnl",
            "sit",
            "gre",
            "ip6gre",
            "gretap",
            "ip6gretap",
            "erspan",
            "ip6erspan",
            "vti",
            "vti6",
            "vxlan",
            "geneve",
            "wireguard",
            "gtp",
            "bareudp",
            "xfrm",
        ];
        self.kind.as_deref().is_some_and(|kind| TUNNELS.contains(&kind)) || self.is_ppp()
    }

    /// Whether it is a PPP session, whose packets travel in frames of another link.
    pub fn is_ppp(&self) -> bool {
        self.kind.as_deref() == Some("ppp")
    }

    /// Whether it is a tun or tap device, of a program that sends its packets on.
    pub fn is_tun(&self) -> bool {
        self.kind.as_deref() == Some("tun")
    }
}

/// An address that is of no use beyond the link: RFC 4291 and RFC 3927.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A default route, or one way of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultRoute {
    /// Whether it is one of IPv6.
    pub is_v6: bool,
    /// Whether it is of another table than the main one.
    pub is_aside: bool,
    /// Its metric; the lowest is used.
    pub metric: u32,
    /// Index of the link that it leads over.
    pub link: u32,
}

/// Links and default routes.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// All links.
    pub links: Vec<Link>,
    /// All default routes, each way of a multipath route by itself.
    pub routes: Vec<DefaultRoute>,
    /// The links that carry the kernel's `PPPoE` sessions, by name. The kernel does not say which session
    /// belongs to which link.
    pub pppoe: Vec<String>,
}

/// The links in the kernel's table of `PPPoE` sessions (`/proc/net/pppoe`): number, address and link, below
/// a line of titles.
pub(super) fn pppoe_links(table: &str) -> Vec<String> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

impl Network {
    /// From what a dump of links, addresses and routes of both families returns.
    pub fn new(links: &[LinkMessage], addresses: &[AddressMessage], routes: &[RouteMessage]) -> Self {
        let mut by_link: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for message in addresses {
            by_link.entry(message.header.index).or_default().extend(own_address(message));
        }
        let links = links.iter().map(|message| {
            let own = by_link.remove(&message.header.index).unwrap_or_default();
            link(message, own.into_iter().collect())
        });
        Self {
            links: links.collect(),
            routes: routes.iter().flat_map(default_routes).collect(),
            pppoe: Vec::new(),
        }
    }

    /// The link of this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link of this index.
    pub fn with_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The interface of this name.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::NotFound`] when there is none, [`InterfaceError::Unusable`] when it cannot be
    /// observed.
    pub fn interface(&self, name: &str) -> Result<Interface, InterfaceError> {
        let Some(link) = self.named(name) else {
            let present = self.links.iter().map(|link| link.name.clone()).collect();
            return Err(InterfaceError::NotFound { name: name.to_owned(), present });
        };
        link.interface.clone().map_err(InterfaceError::Unusable)
    }

    /// The links that the default routes of one family lead over: of the routes in the main table those
    /// with the lowest metric, else the same of other tables.
    pub fn default_of(&self, is_v6: bool) -> BTreeSet<u32> {
        let routes = || self.routes.iter().filter(|route| route.is_v6 == is_v6);
        let best = routes().map(|route| (route.is_aside, route.metric)).min();
        routes()
            .filter(|route| Some((route.is_aside, route.metric)) == best)
            .map(|route| route.link)
            .collect()
    }

    /// The links that the default routes of both families lead over.
    pub fn default_links(&self) -> BTreeSet<u32> {
        let mut links = self.default_of(false);
        links.extend(self.default_of(true));
        links.retain(|index| self.with_index(*index).is_some());
        links
    }

    /// The links that carry what arrives at `link` further up: its bridge, bond or team, what is stacked
    /// on it, and what is on top of those; the nearest first.
    pub fn above(&self, link: &Link) -> Vec<&Link> {
        let mut found: Vec<&Link> = Vec::new();
        let mut level = vec![link.index];
        for _ in 0..DEEPEST {
            let masters: Vec<u32> =
                level.iter().filter_map(|index| self.with_index(*index)?.master).collect();
            let next: Vec<&Link> = self
                .links
                .iter()
                .filter(|other| {
                    masters.contains(&other.index) || other.lower.is_some_and(|lower| level.contains(&lower))
                })
                .filter(|other| {
                    other.index != link.index && found.iter().all(|known| known.index != other.index)
                })
                .collect();
            if next.is_empty() {
                break;
            }
            level = next.iter().map(|link| link.index).collect();
            found.extend(next);
        }
        found
    }
}

fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links the local address, elsewhere the same as `Address`.
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) if own.is_none() => own = Some(*address),
            _ => {}
        }
    }
    own.filter(is_unicast)
}

/// Whether an address names one host.
fn is_unicast(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !broadcast
}

fn link(message: &LinkMessage, addresses: Vec<IpAddr>) -> Link {
    let flags = message.header.flags;
    // Drivers that know nothing of a carrier are taken to have one, by the kernel too.
    let mut has_carrier = flags.contains(LinkFlags::LowerUp);
    let (mut master, mut lower, mut kind, mut is_dormant, mut is_elsewhere) =
        (None, None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Carrier(carrier) => has_carrier = *carrier != 0,
            LinkAttribute::OperState(state) => is_dormant = *state == State::Dormant,
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Link(index) => lower = Some(*index),
            // What it is stacked on lies in another namespace, where indexes are others.
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(found) = info {
                        kind = Some(found.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    let state = if !flags.contains(LinkFlags::Up) {
        LinkState::Down
    } else if !has_carrier {
        LinkState::NoCarrier
    } else if is_dormant {
        LinkState::Dormant
    } else {
        LinkState::Up
    };
    // The other end of a veth is no link below.
    let is_pair = matches!(kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
    Link {
        name: name_of(message).to_owned(),
        index: message.header.index,
        kind,
        state,
        master: master.filter(|index| *index != 0),
        lower: lower
            .filter(|index| *index != 0 && *index != message.header.index && !is_elsewhere && !is_pair),
        addresses,
        interface: describe(message).map_err(|error| error.to_string()),
    }
}

fn default_routes(route: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.source_prefix_length != 0
        || header.kind != RouteType::Unicast
        || !matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6)
    {
        return Vec::new();
    }
    let (mut table, mut metric) = (u32::from(header.table), 0);
    let mut ways = Vec::new();
    // The flags of a way begin with the same bits as those of a route.
    let is_dead = |flags: u32| flags & u32::from(RouteNextHopFlags::Dead.bits()) != 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(index) if !is_dead(header.flags.bits()) => ways.push(*index),
            RouteAttribute::MultiPath(hops) => ways.extend(
                hops.iter()
                    .filter(|hop| !is_dead(u32::from(hop.flags.bits())))
                    .map(|hop| hop.interface_index),
            ),
            _ => {}
        }
    }
    if table == TABLE_LOCAL {
        return Vec::new();
    }
    let of = |link| DefaultRoute {
        is_v6: header.address_family == AddressFamily::Inet6,
        is_aside: table != u32::from(RouteHeader::RT_TABLE_MAIN),
        metric,
        link,
    };
    ways.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_links_below_pppoe_sessions_are_read() {
        let table = "Id       Address              Device\n0000002A 02:00:00:00:00:01     eth0\n";
        assert_eq!(super::pppoe_links(table), ["eth0"]);
        assert_eq!(super::pppoe_links("Id       Address              Device\n"), [""; 0]);
        assert_eq!(super::pppoe_links(""), [""; 0]);
    }
}
