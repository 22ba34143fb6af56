//! Networks as netlink tells them, and what a sensor on them sees. Written in `ip link`'s terms.

use super::*;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
};
use std::net::IpAddr;

/// An Ethernet link that is up, with more of the caller's.
fn link(index: u32, name: &str, more: impl IntoIterator<Item = LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Carrier(1));
    message.attributes.extend(more);
    message
}

fn kind(kind: InfoKind) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
}

fn master(index: u32) -> LinkAttribute {
    LinkAttribute::Controller(index)
}

fn lower(index: u32) -> LinkAttribute {
    LinkAttribute::Link(index)
}

fn address(index: u32, address: &str) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address.parse::<IpAddr>().unwrap()));
    message
}

fn route(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.kind = RouteType::Unicast;
    message.header.table = 254;
    message.attributes = attributes;
    message
}

fn over(index: u32, metric: u32) -> Vec<RouteAttribute> {
    vec![RouteAttribute::Oif(index), RouteAttribute::Priority(metric)]
}

const V4: AddressFamily = AddressFamily::Inet;
const V6: AddressFamily = AddressFamily::Inet6;

/// What keeps a sensor that is configured to observe `names` from seeing.
fn blind(network: &Network, names: &[&str]) -> Vec<String> {
    told(network, names, false)
}

fn told(network: &Network, names: &[&str], has_addresses: bool) -> Vec<String> {
    let index = |name: &&str| ((*name).to_owned(), network.named(name).map(|link| link.index));
    let interfaces: Vec<_> = names.iter().map(index).collect();
    let aim = Aim { interfaces: &interfaces, follows_routes: false, lost: &[], has_addresses };
    of_network(network, aim)
        .into_iter()
        .map(|blind| format!("{}: {}; {}", blind.reason, blind.what, blind.advice))
        .collect()
}

#[test]
fn a_port_of_a_bridge_or_bond_leaves_its_packets_to_the_master() {
    for (of, word) in [(InfoKind::Bridge, "bridge"), (InfoKind::Bond, "bond"), (InfoKind::Team, "team")] {
        let links = [link(2, "eth0", [master(3)]), link(3, "up0", [kind(of)])];
        let network = Network::new(&links, &[address(3, "192.0.2.1")], &[]);
        assert_eq!(
            blind(&network, &["eth0"]),
            [format!(
                "no_address: interface eth0 has no address and is a port of the {word} up0; observe up0, which has the \
                 addresses: `--interface up0`"
            )]
        );
        assert_eq!(blind(&network, &["up0"]), [""; 0]);
        assert_eq!(blind(&network, &["up0", "eth0"]), [""; 0], "the master's addresses are observed");
        assert_eq!(told(&network, &["eth0"], true), [""; 0], "a tap needs none");

        // The address was left on the port, or only a link-local one is there.
        let left = [address(3, "192.0.2.1"), address(2, "192.0.2.7")];
        assert_eq!(
            blind(&Network::new(&links, &left, &[]), &["eth0"]),
            [format!(
                "wrong_interface: interface eth0 is a port of the {word} up0, whose addresses are not observed; observe \
                 up0 instead: `--interface up0`"
            )]
        );
        let local = [address(3, "192.0.2.1"), address(2, "fe80::1")];
        let said = blind(&Network::new(&links, &local, &[]), &["eth0"]);
        assert!(
            said[0].starts_with("no_address: interface eth0 has link-local addresses only and is a port of")
        );
    }
}

#[test]
fn a_port_of_a_vrf_keeps_its_packets() {
    let links = [link(2, "eth0", [master(3)]), link(3, "red", [kind(InfoKind::Vrf)])];
    let addresses = [address(2, "192.0.2.1"), address(3, "198.51.100.1")];
    assert_eq!(blind(&Network::new(&links, &addresses, &[]), &["eth0"]), [""; 0]);
}

#[test]
fn the_parent_of_what_has_the_addresses_has_none() {
    for of in [InfoKind::Vlan, InfoKind::MacVlan, InfoKind::IpVlan] {
        let links = [link(2, "eth0", []), link(3, "over0", [lower(2), kind(of)])];
        let network = Network::new(&links, &[address(3, "2001:db8::1")], &[]);
        assert_eq!(
            blind(&network, &["eth0"]),
            [
                "no_address: interface eth0 has no address; observe over0, which has the addresses: `--interface over0`"
            ]
        );
        assert_eq!(blind(&network, &["eth0", "over0"]), [""; 0], "its packets are looked for below too");
    }
    // A VLAN on a bond of which it is a port; the nearest with addresses is named.
    let links = [
        link(2, "eth0", [master(3)]),
        link(3, "bond0", [kind(InfoKind::Bond)]),
        link(4, "bond0.7", [lower(3), kind(InfoKind::Vlan)]),
    ];
    let said = blind(&Network::new(&links, &[address(4, "192.0.2.1")], &[]), &["eth0"]);
    assert!(said[0].ends_with("observe bond0.7, which has the addresses: `--interface bond0.7`"), "{said:?}");
}

#[test]
fn the_way_out_of_no_address_is_one_that_exists() {
    // PPPoE: netlink does not tell what a PPP session runs over.
    let links = [link(2, "eth0", []), link(3, "ppp0", [kind(InfoKind::Other("ppp".to_owned()))])];
    let routes = [route(V4, over(3, 0))];
    let network = Network::new(&links, &[address(3, "192.0.2.1")], &routes);
    let said = blind(&network, &["eth0"]);
    assert!(
        said[0].contains("the default route leads over ppp0, observe that: `--interface ppp0`"),
        "{said:?}"
    );
    let alone = Network::new(&links[..1], &[], &[]);
    assert_eq!(
        blind(&alone, &["eth0"]),
        [
            "no_address: interface eth0 has no address; give eth0 an address, or say with `--observe` whose packets \
             arrive there"
        ]
    );
}

#[test]
fn a_link_must_be_up_with_carrier_and_need_not_tell_more() {
    let state = |flags: LinkFlags, attributes: Vec<LinkAttribute>| {
        let mut message = link(2, "eth0", attributes);
        message.header.flags = flags;
        let network = Network::new(&[message], &[address(2, "192.0.2.1")], &[]);
        let reasons = |has_addresses| -> Vec<String> {
            let said = told(&network, &["eth0"], has_addresses);
            said.iter().map(|text| text.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(reasons(true), reasons(false), "a tap's link is no other");
        reasons(false)
    };
    let up = LinkFlags::Up | LinkFlags::LowerUp;
    assert_eq!(state(up, vec![LinkAttribute::OperState(State::Up)]), [""; 0]);
    // Point-to-point links, tunnels, loopback.
    assert_eq!(state(up, vec![LinkAttribute::OperState(State::Unknown)]), [""; 0]);
    // The kernel brings the operational state up to date a moment later than the carrier.
    assert_eq!(state(up, vec![LinkAttribute::OperState(State::Down)]), [""; 0]);
    assert_eq!(state(LinkFlags::empty(), vec![]), ["link_down"]);
    assert_eq!(state(LinkFlags::Up, vec![LinkAttribute::Carrier(0)]), ["no_carrier"]);
    assert_eq!(state(up, vec![LinkAttribute::OperState(State::Dormant)]), ["no_carrier"]);
}

#[test]
fn of_several_interfaces_the_blind_one_is_named() {
    let mut down = link(3, "eth1", []);
    down.header.flags = LinkFlags::empty();
    let network = Network::new(&[link(2, "eth0", []), down], &[address(2, "192.0.2.1")], &[]);
    let said = blind(&network, &["eth0", "eth1", "eth2"]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("link_down: interface eth1 is set down"), "{said:?}");
    assert!(said[1].starts_with("detached: interface eth2 is not there"), "{said:?}");
}

fn defaults(routes: &[RouteMessage]) -> [Vec<u32>; 2] {
    let links: Vec<_> = (1..9).map(|index| link(index, &format!("if{index}"), [])).collect();
    let network = Network::new(&links, &[], routes);
    [false, true].map(|is_v6| network.default_of(is_v6).into_iter().collect())
}

#[test]
fn the_default_route_is_that_of_the_main_table_with_the_lowest_metric() {
    // As wg-quick adds one in a table of its own.
    let mut aside = route(V4, over(7, 0));
    aside.attributes.push(RouteAttribute::Table(51_820));
    let mut unreachable = route(V6, over(1, 4_294_967_295));
    unreachable.header.kind = RouteType::Unreachable;
    let mut network = route(V4, over(6, 0));
    network.header.destination_prefix_length = 24;
    let routes = [
        route(V4, over(3, 600)),
        route(V4, over(2, 100)),
        aside.clone(),
        unreachable,
        network,
        route(V6, over(5, 1024)),
    ];
    assert_eq!(defaults(&routes), [vec![2], vec![5]]);
    assert_eq!(defaults(&[aside]), [vec![7], Vec::<u32>::new()], "better than none");
    assert_eq!(defaults(&[]), [Vec::<u32>::new(), Vec::new()]);
}

#[test]
fn a_multipath_default_route_leads_over_all_its_links() {
    let hop = |index, flags| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.flags = flags;
        hop
    };
    let hops = vec![
        hop(2, RouteNextHopFlags::empty()),
        hop(3, RouteNextHopFlags::empty()),
        hop(4, RouteNextHopFlags::Dead),
    ];
    // IPv6 tells its ways as routes of one metric.
    let routes = [
        route(V4, vec![RouteAttribute::MultiPath(hops)]),
        route(V6, over(5, 1024)),
        route(V6, over(6, 1024)),
    ];
    assert_eq!(defaults(&routes), [vec![2, 3], vec![5, 6]]);
}

#[test]
fn links_that_see_the_same_packets_are_named() {
    let links = [
        link(2, "eth0", []),
        link(3, "eth0.7", [lower(2), kind(InfoKind::Vlan)]),
        link(4, "wg0", [kind(InfoKind::Wireguard)]),
        link(5, "ip6tnl1", [lower(2), kind(InfoKind::Ip6Tnl)]),
        link(6, "eth1", [lower(2), kind(InfoKind::Veth)]),
    ];
    let network = Network::new(&links, &[], &[]);
    assert_eq!(doubles(&network, &[2, 6]), [""; 0], "the other end of a cable is no link below");
    assert_eq!(doubles(&network, &[4]), [""; 0]);
    let starts = |observed: &[u32]| {
        let said = doubles(&network, observed).into_iter();
        said.map(|text| text.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(starts(&[2, 3]), ["eth0 carries what arrives on eth0.7, and both are observed"]);
    assert_eq!(starts(&[2, 5]), ["eth0 carries what arrives on ip6tnl1, and both are observed"]);
    assert_eq!(starts(&[2, 4]), ["wg0 is a tunnel, and eth0 is observed too"]);
}

mod following {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::{Config, Environment};
    use crate::sight::targets::Targets;
    use jiff::tz::TimeZone;
    use std::collections::BTreeMap;

    fn config(arguments: &[&str]) -> Config {
        let environment = Environment {
            variables: BTreeMap::new(),
            host_name: "dark-1".to_owned(),
            timezone: TimeZone::UTC,
        };
        let arguments = ["teiten", "run"].iter().chain(arguments);
        let Command::Run(arguments) = Cli::try_from_args(arguments).unwrap().command else { unreachable!() };
        Config::load(&arguments.flags, &environment).unwrap()
    }

    fn network(routes: &[RouteMessage], links: &[u32]) -> Network {
        let messages: Vec<_> = links.iter().map(|index| link(*index, &format!("if{index}"), [])).collect();
        let addresses: Vec<_> =
            links.iter().map(|index| address(*index, &format!("192.0.2.{index}"))).collect();
        Network::new(&messages, &addresses, routes)
    }

    fn reasons(targets: &Targets, network: &Network) -> Vec<(Reason, Option<String>)> {
        targets
            .blind(network, &config(&[]))
            .into_iter()
            .map(|blind| (blind.reason, blind.interface))
            .collect()
    }

    #[test]
    fn both_families_are_followed_wherever_their_routes_lead() {
        // IPv6 comes first, then IPv4 over a PPP session.
        let v6_only = network(&[route(V6, over(2, 1024))], &[2, 3, 4]);
        let mut targets = Targets::new(&v6_only, &config(&[])).unwrap();
        assert_eq!(targets.names(), ["if2"]);
        let both = network(&[route(V6, over(2, 1024)), route(V4, over(3, 0))], &[2, 3, 4]);
        assert!(targets.follow(&both));
        assert_eq!(targets.names(), ["if2", "if3"]);
        assert!(!targets.follow(&both));
        assert_eq!(reasons(&targets, &both), []);
        // IPv4 moves.
        let moved = network(&[route(V6, over(2, 1024)), route(V4, over(4, 0))], &[2, 3, 4]);
        assert!(targets.follow(&moved));
        assert_eq!(targets.names(), ["if2", "if4"]);
        // Both lead over one.
        assert!(targets.follow(&network(&[route(V6, over(4, 1024)), route(V4, over(4, 0))], &[2, 3, 4])));
        assert_eq!(targets.names(), ["if4"]);
    }

    #[test]
    fn a_family_without_a_route_is_observed_where_it_led() {
        let both = network(&[route(V6, over(2, 1024)), route(V4, over(3, 0))], &[2, 3]);
        let mut targets = Targets::new(&both, &config(&[])).unwrap();
        let v6_only = network(&[route(V6, over(2, 1024))], &[2, 3]);
        assert!(!targets.follow(&v6_only));
        assert_eq!(targets.names(), ["if2", "if3"]);
        let lost = (Reason::WrongInterface, Some("if3".to_owned()));
        assert_eq!(reasons(&targets, &v6_only), [lost]);
        // The interface goes with its route, as at the end of a PPP session: one reason.
        let gone = network(&[route(V6, over(2, 1024))], &[2]);
        assert!(!targets.follow(&gone));
        assert_eq!(reasons(&targets, &gone), [(Reason::Detached, Some("if3".to_owned()))]);
        // The next session has another index and the same name: what is observed is the same.
        let mut again = vec![link(2, "if2", []), link(9, "if3", [])];
        let routes = [route(V6, over(2, 1024)), route(V4, over(9, 0))];
        let network = Network::new(&again, &[address(2, "2001:db8::1"), address(9, "192.0.2.9")], &routes);
        assert!(!targets.follow(&network), "a target is known by its name");
        assert_eq!(targets.interfaces(&network)[1].1.as_ref().unwrap().index, 9);
        assert_eq!(reasons(&targets, &network), []);
        // The next one another name.
        again[1] = link(10, "ppp1", []);
        let routes = [route(V6, over(2, 1024)), route(V4, over(10, 0))];
        assert!(targets.follow(&Network::new(&again, &[], &routes)));
        assert_eq!(targets.names(), ["if2", "ppp1"]);
    }

    #[test]
    fn a_pppoe_session_is_counted_on_the_link_that_carries_it_when_both_are_to_be_observed() {
        let ppp = link(3, "ppp0", [kind(InfoKind::Other("ppp".to_owned()))]);
        let routes = [route(V6, over(2, 1024)), route(V4, over(3, 0))];
        let addresses = [address(2, "2001:db8::1"), address(3, "192.0.2.1")];
        let mut network = Network::new(&[link(2, "eth0", []), ppp.clone()], &addresses, &routes);
        network.pppoe = vec!["eth0".to_owned()];
        let mut targets = Targets::new(&network, &config(&[])).unwrap();
        assert_eq!(targets.names(), ["eth0"]);
        assert_eq!(targets.interfaces(&network).len(), 1);
        assert_eq!(targets.indexes(), [2, 3], "the session's addresses count");
        assert_eq!(targets.doubles(&network), [""; 0]);
        assert_eq!(reasons(&targets, &network), []);
        // IPv6 that is delegated to other links leaves no address on this one, which sees the session.
        let mut delegated = Network::new(&[link(2, "eth0", []), ppp.clone()], &addresses[1..], &routes);
        delegated.pppoe = vec!["eth0".to_owned()];
        let targets = Targets::new(&delegated, &config(&[])).unwrap();
        assert_eq!(targets.names(), ["eth0"]);
        assert_eq!(reasons(&targets, &delegated), []);
        let targets = Targets::new(&delegated, &config(&["--interface", "eth0"])).unwrap();
        assert_eq!(reasons(&targets, &delegated), [(Reason::NoAddress, Some("eth0".to_owned()))]);
        // Alone it is observed itself.
        let mut network = Network::new(&[link(2, "eth0", []), ppp], &addresses, &routes[1..]);
        network.pppoe = vec!["eth0".to_owned()];
        assert_eq!(Targets::new(&network, &config(&[])).unwrap().names(), ["ppp0"]);
    }

    #[test]
    fn a_session_that_is_not_established_is_its_programs_matter() {
        let mut ppp = link(3, "ppp0", [kind(InfoKind::Other("ppp".to_owned()))]);
        ppp.header.flags = LinkFlags::empty();
        let network = Network::new(&[ppp], &[], &[]);
        let targets = Targets::new(&network, &config(&["--interface", "ppp0"])).unwrap();
        let blind = targets.blind(&network, &config(&[]));
        assert_eq!(blind[0].reason, Reason::LinkDown);
        assert!(blind[0].advice.contains("pppd") && !blind[0].advice.contains("ip link set"), "{blind:?}");
    }

    #[test]
    fn programs_above_and_on_the_ports_of_a_bond_are_in_the_way() {
        let links = [
            link(2, "eth0", [master(3)]),
            link(3, "bond0", [kind(InfoKind::Bond)]),
            link(4, "bond0.7", [kind(InfoKind::Vlan), lower(3)]),
            link(5, "eth1", [master(6)]),
            link(6, "br0", [kind(InfoKind::Bridge)]),
        ];
        let network = Network::new(&links, &[], &[]);
        let in_the_way =
            |name| Targets::new(&network, &config(&["--interface", name])).unwrap().in_the_way(&network);
        assert_eq!(in_the_way("bond0"), ["bond0.7", "eth0"]);
        assert_eq!(in_the_way("eth0"), ["bond0", "bond0.7"]);
        assert_eq!(in_the_way("eth1"), ["br0"]);
        assert_eq!(in_the_way("br0"), [""; 0]);
    }

    #[test]
    fn what_sees_the_same_packets_is_released_first() {
        let links = [
            link(2, "eth0", [master(3)]),
            link(3, "br0", [kind(InfoKind::Bridge)]),
            link(4, "br0.7", [kind(InfoKind::Vlan), lower(3)]),
            link(5, "eth1", []),
            link(6, "tun0", [kind(InfoKind::Tun)]),
            link(7, "ppp0", [kind(InfoKind::Other("ppp".to_owned()))]),
        ];
        let mut network = Network::new(&links, &[], &[]);
        network.pppoe = vec!["eth1".to_owned()];
        let released_first =
            |name| Targets::new(&network, &config(&["--interface", name])).unwrap().released_first(&network);
        assert_eq!(released_first("eth0"), ["br0", "br0.7", "tun0"]);
        assert_eq!(released_first("br0"), ["br0.7", "eth0", "tun0"]);
        assert_eq!(released_first("eth1"), ["tun0", "ppp0"]);
        assert_eq!(released_first("ppp0"), ["eth1", "tun0"]);
        assert_eq!(released_first("tun0"), ["eth0", "br0", "br0.7", "eth1", "ppp0"]);
    }

    #[test]
    fn without_any_default_route_it_waits_for_one() {
        let none = network(&[], &[2]);
        let mut targets = Targets::new(&none, &config(&[])).unwrap();
        assert_eq!(targets.names(), [""; 0]);
        assert_eq!(reasons(&targets, &none), [(Reason::WrongInterface, None)]);
        assert!(targets.follow(&network(&[route(V4, over(2, 100))], &[2])));
        assert_eq!(targets.names(), ["if2"]);
    }

    #[test]
    fn an_interface_that_is_named_may_be_another_than_the_default() {
        let elsewhere = network(&[route(V4, over(2, 0))], &[2, 3]);
        let mut targets = Targets::new(&elsewhere, &config(&["--interface", "if3"])).unwrap();
        assert!(!targets.follow(&elsewhere));
        assert_eq!(targets.names(), ["if3"]);
        assert_eq!(reasons(&targets, &elsewhere), []);
        assert!(Targets::new(&elsewhere, &config(&["--interface", "if7"])).is_err());
    }
}
