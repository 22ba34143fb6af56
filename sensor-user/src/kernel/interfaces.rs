//! The netlink connection that surveys the network and yields its changes.

use super::interface::InterfaceError;
use super::network::{Network, pppoe_links};
use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

fn netlink(error: rtnetlink::Error) -> InterfaceError {
    InterfaceError::Netlink(io::Error::other(error))
}

/// A netlink connection in this process's network namespace.
#[derive(Clone, Debug)]
pub struct Interfaces {
    handle: Handle,
}

impl Interfaces {
    /// Connects; the stream yields whenever an address, a link or a default route has changed. It must be
    /// polled, or the kernel drops its messages.
    ///
    /// # Errors
    ///
    /// When no netlink socket can be had. Needs a tokio runtime.
    pub fn connect() -> io::Result<(Self, impl Stream<Item = ()> + Unpin + Send)> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, changes) = new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok((Self { handle }, changes.filter(|(message, _)| std::future::ready(matters(message))).map(drop)))
    }

    /// The network as it is now.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Netlink`].
    pub async fn survey(&self) -> Result<Network, InterfaceError> {
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(netlink)?;
        let addresses: Vec<_> = self.handle.address().get().execute().try_collect().await.map_err(netlink)?;
        let mut routes = Vec::new();
        for query in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let mut stream = self.handle.route().get(query).execute();
            // A router has a million others.
            while let Some(route) = stream.try_next().await.map_err(netlink)? {
                if route.header.destination_prefix_length == 0 {
                    routes.push(route);
                }
            }
        }
        let mut network = Network::new(&links, &addresses, &routes);
        // Of this thread's network namespace; there is none without PPPoE in the kernel.
        let sessions = std::fs::read_to_string("/proc/thread-self/net/pppoe").unwrap_or_default();
        network.pppoe = pppoe_links(&sessions);
        Ok(network)
    }
}

/// Whether a notice is one of those that change what is observed: of routes, the default ones.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => route.header.destination_prefix_length == 0,
        _ => true,
    }
}
