//! Interfaces over netlink: what a link begins its packets with, its own addresses, and changes.
//!
//! `/sys/class/net` is not asked, since after a change of network namespace it may show another
//! one's interfaces.

use super::Mode;
use futures::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::packet_route::route::RouteAttribute;
use rtnetlink::{Handle, IpVersion, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the packets of an interface begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tun, ppp, `WireGuard`, tunnels.
    Ip,
}

/// An interface that can be observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// What its packets begin with.
    pub link: LinkLayer,
    /// The XDP program that is attached: mode and program id.
    pub xdp: Option<(Mode, u32)>,
}

/// Why an interface cannot be observed.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name.
    #[error("no interface {name}; there are: {}", present.join(", "))]
    NotFound {
        /// The name.
        name: String,
        /// The interfaces that there are.
        present: Vec<String>,
    },
    /// None was named and no route is the default.
    #[error("there is no default route to tell the interface; name one with `--interface`")]
    NoDefaultRoute,
    /// Its packets begin with something else.
    #[error(
        "interface {name} has link type {link_type}, which teiten cannot parse; Ethernet and IP links can be observed"
    )]
    LinkType {
        /// The name.
        name: String,
        /// The kernel's number or word for it.
        link_type: String,
    },
    /// Netlink failed.
    #[error("ask the kernel about interfaces")]
    Netlink(#[source] io::Error),
}

fn netlink(error: rtnetlink::Error) -> InterfaceError {
    InterfaceError::Netlink(io::Error::other(error))
}

/// A netlink connection in this process's network namespace.
#[derive(Clone, Debug)]
pub struct Interfaces {
    handle: Handle,
}

impl Interfaces {
    /// Connects; the stream yields whenever an address or a link has changed. It must be polled, or
    /// what it would have told is dropped by the kernel.
    ///
    /// # Errors
    ///
    /// When no netlink socket can be had. Needs a tokio runtime.
    pub fn connect() -> io::Result<(Self, impl Stream<Item = ()> + Unpin + Send)> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, changes) = new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok((Self { handle }, changes.map(drop)))
    }

    /// The interface of this name.
    ///
    /// # Errors
    ///
    /// See [`InterfaceError`].
    pub async fn named(&self, name: &str) -> Result<Interface, InterfaceError> {
        let links = self.links().await?;
        let Some(link) = links.iter().find(|link| name_of(link) == name) else {
            let present = links.iter().map(|link| name_of(link).to_owned()).collect();
            return Err(InterfaceError::NotFound { name: name.to_owned(), present });
        };
        describe(link)
    }

    /// The interface of this index, whatever its name is now; `None` when it is gone.
    ///
    /// # Errors
    ///
    /// See [`InterfaceError`].
    pub async fn with_index(&self, index: u32) -> Result<Option<Interface>, InterfaceError> {
        let links = self.links().await?;
        links.iter().find(|link| link.header.index == index).map(describe).transpose()
    }

    async fn links(&self) -> Result<Vec<LinkMessage>, InterfaceError> {
        self.handle.link().get().execute().try_collect().await.map_err(netlink)
    }

    /// The interface of the default route with the lowest metric, IPv4 before IPv6.
    ///
    /// # Errors
    ///
    /// See [`InterfaceError`].
    pub async fn of_default_route(&self) -> Result<String, InterfaceError> {
        for version in [IpVersion::V4, IpVersion::V6] {
            let query = match version {
                IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
                IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
            };
            let routes: Vec<_> =
                self.handle.route().get(query).execute().try_collect().await.map_err(netlink)?;
            let best = routes
                .iter()
                .filter(|route| route.header.destination_prefix_length == 0)
                .filter_map(|route| {
                    let mut metric = 0;
                    let mut output = None;
                    for attribute in &route.attributes {
                        match attribute {
                            RouteAttribute::Priority(value) => metric = *value,
                            RouteAttribute::Oif(index) => output = Some(*index),
                            _ => {}
                        }
                    }
                    output.map(|index| (metric, index))
                })
                .min();
            if let Some((_, index)) = best {
                let links = self.links().await?;
                if let Some(link) = links.iter().find(|link| link.header.index == index) {
                    return Ok(name_of(link).to_owned());
                }
            }
        }
        Err(InterfaceError::NoDefaultRoute)
    }

    /// The unicast addresses of the interfaces with these indexes, each as a prefix of full length.
    /// Interfaces that are gone have none.
    ///
    /// # Errors
    ///
    /// See [`InterfaceError`].
    pub async fn addresses(&self, indexes: &[u32]) -> Result<Vec<IpNet>, InterfaceError> {
        let messages: Vec<_> = self.handle.address().get().execute().try_collect().await.map_err(netlink)?;
        let mut addresses = BTreeSet::new();
        for message in messages {
            if !indexes.contains(&message.header.index) {
                continue;
            }
            let mut own = None;
            for attribute in &message.attributes {
                match attribute {
                    // On point-to-point links the local address, elsewhere the same as `Address`.
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) if own.is_none() => own = Some(*address),
                    _ => {}
                }
            }
            addresses.extend(own.filter(IpAddr::is_unicast).map(IpNet::from));
        }
        Ok(addresses.into_iter().collect())
    }
}

/// The interface of this index as it is at this moment; `None` when it is gone. Blocks, shortly.
///
/// # Errors
///
/// See [`InterfaceError`].
pub(super) fn now(index: u32) -> Result<Option<Interface>, InterfaceError> {
    let mut found = None;
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    super::netlink::dump(NETLINK_ROUTE, request, |answer| match answer {
        RouteNetlinkMessage::NewLink(link) if link.header.index == index => found = Some(link),
        _ => {}
    })
    .map_err(InterfaceError::Netlink)?;
    found.as_ref().map(describe).transpose()
}

/// Whether an address names one host.
trait Unicast {
    fn is_unicast(&self) -> bool;
}

impl Unicast for IpAddr {
    fn is_unicast(&self) -> bool {
        let broadcast = matches!(self, Self::V4(address) if address.is_broadcast());
        !self.is_multicast() && !self.is_unspecified() && !broadcast
    }
}

/// What a link message says of an interface.
fn describe(link: &LinkMessage) -> Result<Interface, InterfaceError> {
    let link_layer = match link.header.link_layer_type {
        LinkLayerType::Ether | LinkLayerType::Eether | LinkLayerType::Loopback => LinkLayer::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre => LinkLayer::Ip,
        other => {
            return Err(InterfaceError::LinkType {
                name: name_of(link).to_owned(),
                link_type: format!("{other:?}"),
            });
        }
    };
    Ok(Interface {
        name: name_of(link).to_owned(),
        index: link.header.index,
        link: link_layer,
        xdp: attached(link),
    })
}

fn name_of(link: &LinkMessage) -> &str {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

fn attached(link: &LinkMessage) -> Option<(Mode, u32)> {
    let details = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(details) => Some(details),
        _ => None,
    })?;
    let mut mode = None;
    let mut program = 0;
    for detail in details {
        match detail {
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(Mode::Generic),
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware | XdpAttached::Multiple) => {
                mode = Some(Mode::Native);
            }
            LinkXdp::ProgId(id) => program = *id,
            _ => {}
        }
    }
    mode.map(|mode| (mode, program))
}
