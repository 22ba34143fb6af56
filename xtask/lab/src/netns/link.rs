//! Interfaces, addresses, neighbours and routes, over rtnetlink.

use super::{Netns, NetnsError, Result};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder, new_connection};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What one end of a link is given.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its Ethernet address; the kernel's choice when `None`.
    pub mac: Option<Mac>,
    /// Bytes of an IP packet; the kernel's choice when `None`.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Whether the kernel itself may send on it (ARP, neighbour discovery, router solicitation, MLD).
    /// A sender of exactly known traffic must be silent.
    pub silent: bool,
}

/// The way out of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Next hop; it need not exist: its Ethernet address is entered for good.
    pub gateway: IpAddr,
    /// The next hop's Ethernet address.
    pub mac: Mac,
}

impl Interface {
    /// An interface of this name that the kernel configures as it likes.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), mac: None, mtu: None, addresses: Vec::new(), silent: false }
    }

    /// With this Ethernet address.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// With this MTU, bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// With one more address.
    #[must_use]
    pub fn address(mut self, address: IpNet) -> Self {
        self.addresses.push(address);
        self
    }

    /// On which the kernel sends nothing of its own.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }
}

impl Netns {
    /// Joins this namespace and `other` by a pair of virtual Ethernet interfaces, both up.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`] names the step and the interface.
    pub fn join(&self, here: &Interface, other: &Self, there: &Interface) -> Result<()> {
        self.netlink(&here.name, async |handle| {
            handle.link().add(LinkVeth::new(&here.name, &there.name).build()).execute().await?;
            let moved = LinkUnspec::new_with_name(&there.name).setns_by_fd(other.fd.as_raw_fd()).build();
            handle.link().set(moved).execute().await
        })?;
        self.configure(here)?;
        other.configure(there)
    }

    /// A VLAN sub-interface of `parent` (802.1Q), up.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`]; with "operation not supported" the kernel was built without VLANs.
    pub fn vlan(&self, parent: &str, id: u16, interface: &Interface) -> Result<()> {
        let index = self.index(parent)?;
        self.netlink(&interface.name, async |handle| {
            handle.link().add(LinkVlan::new(&interface.name, index, id).build()).execute().await
        })?;
        self.configure(interface)
    }

    /// Applies everything that `interface` says to the interface of its name, and brings it up.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`], [`NetnsError::File`] for its kernel parameters.
    pub fn configure(&self, interface: &Interface) -> Result<()> {
        let name = &interface.name;
        let index = self.index(name)?;
        // Addresses serve at once, not after a second of duplicate detection.
        self.ipv6_parameter(name, "accept_dad", "0")?;
        self.ipv6_parameter(name, "router_solicitations", "0")?;
        if interface.silent {
            self.ipv6_parameter(name, "disable_ipv6", "1")?;
        }
        self.netlink(name, async |handle| {
            let mut wanted = LinkUnspec::new_with_index(index);
            if let Some(mac) = interface.mac {
                wanted = wanted.address(mac.to_vec());
            }
            if let Some(mtu) = interface.mtu {
                wanted = wanted.mtu(mtu);
            }
            if interface.silent {
                wanted = wanted.arp(false);
            }
            handle.link().set(wanted.build()).execute().await?;
            for address in &interface.addresses {
                let mut add = handle.address().add(index, address.addr(), address.prefix_len());
                if address.addr().is_ipv6() {
                    // Without detection too, an address is tentative until a worker of the kernel has run.
                    add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                }
                add.execute().await?;
            }
            handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
        })
    }

    /// Enters the Ethernet address of a neighbour for good, so that no one is asked for it.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`].
    pub fn neighbour(&self, interface: &str, neighbour: Route) -> Result<()> {
        let index = self.index(interface)?;
        self.netlink(interface, async |handle| {
            handle
                .neighbours()
                .add(index, neighbour.gateway)
                .link_layer_address(&neighbour.mac)
                .state(NeighbourState::Permanent)
                .execute()
                .await
        })
    }

    /// Makes `route` the default route of its address family, over `interface`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`].
    pub fn default_route(&self, interface: &str, route: Route) -> Result<()> {
        let index = self.index(interface)?;
        self.neighbour(interface, route)?;
        self.netlink(interface, async |handle| {
            let message = match route.gateway {
                IpAddr::V4(gateway) => {
                    RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
                }
                IpAddr::V6(gateway) => {
                    RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
                }
            };
            handle.route().add(message).execute().await
        })
    }

    /// A route over `interface` to everywhere, for links without Ethernet addresses.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`].
    pub fn default_route_over(&self, interface: &str) -> Result<()> {
        let index = self.index(interface)?;
        self.netlink(interface, async |handle| {
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).build();
            handle.route().add(v4).execute().await?;
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build();
            handle.route().add(v6).execute().await
        })
    }

    pub(super) fn loopback_up(&self) -> Result<()> {
        let index = self.index("lo")?;
        self.netlink("lo", async |handle| {
            handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
        })
    }

    /// The kernel's number of `interface`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`] when there is none of this name.
    pub fn index(&self, interface: &str) -> Result<u32> {
        self.run(|| nix::net::if_::if_nametoindex(interface))?.map_err(|source| NetnsError::Interface {
            action: "find".to_owned(),
            interface: interface.to_owned(),
            source: source.into(),
        })
    }

    /// The Ethernet address of `interface`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`] when there is none.
    pub fn mac(&self, interface: &str) -> Result<Mac> {
        let link = self.netlink(interface, async |handle| {
            handle.link().get().match_name(interface).execute().try_next().await
        })?;
        link.into_iter()
            .flat_map(|link| link.attributes)
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(address) => address.try_into().ok(),
                _ => None,
            })
            .ok_or_else(|| NetnsError::Interface {
                action: "read the Ethernet address".to_owned(),
                interface: interface.to_owned(),
                source: io::ErrorKind::NotFound.into(),
            })
    }

    /// A host without IPv6 has nothing to configure there.
    fn ipv6_parameter(&self, interface: &str, name: &str, value: &str) -> Result<()> {
        match self.sysctl(&format!("ipv6/conf/{interface}/{name}"), value) {
            Err(NetnsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Runs one conversation with the kernel's routing socket of this namespace.
    fn netlink<T: Send>(
        &self,
        interface: &str,
        talk: impl AsyncFnOnce(Handle) -> std::result::Result<T, rtnetlink::Error> + Send,
    ) -> Result<T> {
        let failed = |source| NetnsError::Interface {
            action: "configure".to_owned(),
            interface: interface.to_owned(),
            source,
        };
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = new_connection()?;
                tokio::spawn(connection);
                talk(handle).await.map_err(|error| match error {
                    rtnetlink::Error::NetlinkError(message) => message.to_io(),
                    other => io::Error::other(other),
                })
            })
        })?
        .map_err(failed)
    }
}
