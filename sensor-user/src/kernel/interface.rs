//! Interfaces over netlink: what a link begins its packets with, its own addresses, and changes.
//!
//! `/sys/class/net` is not asked, since after a change of network namespace it may show another
//! one's interfaces.

use super::Mode;
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use std::io;

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
    /// Name, as `ip link` shows it.
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
        /// Name, as it was given.
        name: String,
        /// The interfaces that there are.
        present: Vec<String>,
    },
    /// It cannot be observed; the text says why.
    #[error("{0}")]
    Unusable(String),
    /// Its packets begin with something else.
    #[error(
        "interface {name} has link type {link_type}, which teiten cannot parse; Ethernet and IP links can be observed"
    )]
    LinkType {
        /// Name, as it was given.
        name: String,
        /// The kernel's number or word for it.
        link_type: String,
    },
    /// Netlink failed.
    #[error("ask the kernel about interfaces")]
    Netlink(#[source] io::Error),
}

/// The interface of this index as it is at this moment; `None` when it is gone. Blocks, shortly.
///
/// # Errors
///
/// See [`InterfaceError`].
pub(super) fn now(index: u32) -> Result<Option<Interface>, InterfaceError> {
    let links = links_now()?;
    links.iter().find(|link| link.header.index == index).map(describe).transpose()
}

/// All interfaces that can be observed. Blocks, shortly.
///
/// # Errors
///
/// See [`InterfaceError`].
pub(super) fn all_now() -> Result<Vec<Interface>, InterfaceError> {
    Ok(links_now()?.iter().filter_map(|link| describe(link).ok()).collect())
}

fn links_now() -> Result<Vec<LinkMessage>, InterfaceError> {
    let mut links = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    super::netlink::dump(NETLINK_ROUTE, request, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            links.push(link);
        }
    })
    .map_err(InterfaceError::Netlink)?;
    Ok(links)
}

/// What a link message says of an interface.
pub(super) fn describe(link: &LinkMessage) -> Result<Interface, InterfaceError> {
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

pub(super) fn name_of(link: &LinkMessage) -> &str {
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
