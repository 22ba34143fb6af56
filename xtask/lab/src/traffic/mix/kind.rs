//! What kinds of packets there are, well-formed and not.

use crate::traffic::expectation::Tool;
use crate::traffic::site::{Link, Site};

/// What kind of packet to make; how often is a matter of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ARP, LLDP, spanning tree, MPLS with something else than IP, LCP in `PPPoE`, nine VLAN tags.
    NonIp,
    /// One of [`Flaw`].
    Malformed(Flaw),
    /// A fragment other than the first, to any destination.
    LaterFragment,
    /// A first fragment of an access.
    FirstFragment,
    /// To someone else's unicast address.
    OtherUnicast,
    /// To a multicast group.
    Multicast,
    /// To 255.255.255.255.
    Broadcast,
    /// Anything well-formed from an excluded source.
    Excluded,
    /// From an excluded source to someone else: not for the sensor in the first place.
    ExcludedToOther,
    /// A packet to a service that tries to start something.
    ServiceAccess,
    /// Any other packet to a service.
    ServiceTraffic,
    /// SYN+ACK, RST.
    TcpBackscatter,
    /// ICMP answers and errors.
    IcmpBackscatter,
    /// A DNS response.
    DnsBackscatter,
    /// INIT ACK, ABORT.
    SctpBackscatter,
    /// TCP SYN of a tool.
    Syn(Tool),
    /// TCP segments with neither ACK nor RST that are no plain SYN: FIN, NULL, Xmas.
    TcpProbe,
    /// UDP.
    Udp,
    /// UDP from port 53 that is no DNS response.
    UdpFromDnsPort,
    /// UDP with a DHCP port at one end only.
    UdpNearDhcp,
    /// ICMP requests.
    IcmpRequest,
    /// SCTP INIT, or no chunk at all.
    SctpAccess,
    /// GRE, ESP and the like.
    OtherProtocol,
    /// TCP with ACK that is neither SYN+ACK nor RST.
    StrayAck,
    /// DHCP and `DHCPv6`.
    Dhcp,
    /// Neighbour discovery, MLD, router ICMP and message types without meaning.
    IcmpHousekeeping,
    /// IGMP to the sensor's own address.
    Igmp,
    /// SCTP chunks in the middle of an association.
    SctpTraffic,
}

impl Kind {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let flaws = Flaw::ALL.map(Self::Malformed);
        let tools = Tool::ALL.map(Self::Syn);
        let plain = [
            Self::NonIp,
            Self::LaterFragment,
            Self::FirstFragment,
            Self::OtherUnicast,
            Self::Multicast,
            Self::Broadcast,
            Self::Excluded,
            Self::ExcludedToOther,
            Self::ServiceAccess,
            Self::ServiceTraffic,
            Self::TcpBackscatter,
            Self::IcmpBackscatter,
            Self::DnsBackscatter,
            Self::SctpBackscatter,
            Self::TcpProbe,
            Self::Udp,
            Self::UdpFromDnsPort,
            Self::UdpNearDhcp,
            Self::IcmpRequest,
            Self::SctpAccess,
            Self::OtherProtocol,
            Self::StrayAck,
            Self::Dhcp,
            Self::IcmpHousekeeping,
            Self::Igmp,
            Self::SctpTraffic,
        ];
        flaws.into_iter().chain(tools).chain(plain).collect()
    }

    /// How often, against the others.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Syn(Tool::Other) => 60,
            Self::Udp => 40,
            Self::Syn(_) => 15,
            Self::IcmpRequest | Self::TcpBackscatter => 10,
            Self::Malformed(_) => 1,
            _ => 5,
        }
    }

    /// Whether `site` can be sent such a packet.
    pub(super) fn fits(self, site: &Site) -> bool {
        let ethernet = matches!(site.link, Link::Ethernet { .. });
        match self {
            Self::NonIp => ethernet,
            Self::Malformed(flaw) => ethernet || !flaw.needs_ethernet(),
            Self::Excluded | Self::ExcludedToOther => site.excluded_reachable().next().is_some(),
            Self::ServiceAccess | Self::ServiceTraffic => !site.services.is_empty(),
            // Tools are known by the IPv4 header, and IGMP is IPv4's.
            Self::Syn(_) | Self::Igmp | Self::Broadcast => !site.v4.is_empty(),
            _ => true,
        }
    }
}

/// What is wrong with a malformed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// The frame ends within the IP header.
    IpHeaderCut,
    /// IPv4 header length below five words.
    HeaderLength,
    /// The version is not the one of the `EtherType`.
    Version,
    /// IPv4 total length below the header's.
    TotalLength,
    /// IPv4 options that end beyond the frame.
    OptionsCut,
    /// The frame ends within the transport header.
    TransportCut,
    /// The frame is long enough, but the IP length ends within the transport header.
    TransportCutByLength,
    /// TCP data offset below five words.
    TcpOffset,
    /// TCP options that end beyond the IP packet.
    TcpOptionsCut,
    /// UDP length below eight bytes.
    UdpLengthShort,
    /// UDP length beyond the IP packet, which is no fragment.
    UdpLengthLong,
    /// The frame ends within an IPv6 extension header.
    ExtensionCut,
    /// More IPv6 extension headers than the parser follows (64).
    TooManyExtensions,
    /// An IPv6 extension header that ends beyond the IP packet.
    ExtensionTooLong,
    /// The frame ends within a VLAN tag.
    VlanCut,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::IpHeaderCut,
        Self::HeaderLength,
        Self::Version,
        Self::TotalLength,
        Self::OptionsCut,
        Self::TransportCut,
        Self::TransportCutByLength,
        Self::TcpOffset,
        Self::TcpOptionsCut,
        Self::UdpLengthShort,
        Self::UdpLengthLong,
        Self::ExtensionCut,
        Self::TooManyExtensions,
        Self::ExtensionTooLong,
        Self::VlanCut,
    ];

    /// Whether a link without Ethernet headers can carry it.
    const fn needs_ethernet(self) -> bool {
        matches!(self, Self::Version | Self::VlanCut)
    }
}
