//! Names of the programs in the object.

use super::interface::LinkLayer;

/// Names of the programs that learn what is sent.
pub(super) const EGRESS: [&str; 2] = [egress(LinkLayer::Ethernet), egress(LinkLayer::Ip)];

/// The program for what is sent, by link layer.
pub(super) const fn egress(link: LinkLayer) -> &'static str {
    match link {
        LinkLayer::Ethernet => "teiten_egress_eth",
        LinkLayer::Ip => "teiten_egress_ip",
    }
}

/// The program for what arrives, by link layer.
pub(super) const fn ingress(link: LinkLayer, frags: bool) -> &'static str {
    match (link, frags) {
        (LinkLayer::Ethernet, false) => "teiten_eth",
        (LinkLayer::Ethernet, true) => "teiten_eth_frags",
        (LinkLayer::Ip, false) => "teiten_ip",
        (LinkLayer::Ip, true) => "teiten_ip_frags",
    }
}
