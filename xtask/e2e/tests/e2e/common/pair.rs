//! A sensor and another ordinary host on one link.

use super::{calm_timezone, teiten};
use lab::netns::{Interface, Netns, Route};
use lab::sensor::{ADDRESSES, Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WIRE};
use lab::wait::{PATIENCE, poll};
use std::net::{SocketAddr, UdpSocket};

/// The other host.
pub(crate) const PEER: &str = "198.18.0.2";
/// The same over IPv6.
pub(crate) const PEER_V6: &str = "3fff::2";

/// A lab whose other end is an ordinary host.
pub(crate) fn joined() -> Lab {
    let lab = Lab::without_link(1500).unwrap();
    rejoin(&lab);
    lab
}

/// Joins the two once more, when an end of their link is gone.
pub(crate) fn rejoin(lab: &Lab) {
    let end = |name: &str, mac, addresses: [&str; 2]| {
        let interface = Interface::new(name).mac(mac);
        addresses.iter().fold(interface, |interface, net| interface.address(net.parse().unwrap()))
    };
    let wire = end(WIRE, INTERNET_MAC, ["198.18.0.2/24", "3fff::2/64"]);
    lab.internet.join(&wire, &lab.sensor, &end(INTERFACE, SENSOR_MAC, ADDRESSES)).unwrap();
    // No one asks for Ethernet addresses: whatever arrives was sent by a test.
    for (here, there) in [("198.18.0.1", PEER), ("3fff::1", PEER_V6)] {
        let route = |address: &str, mac| Route { gateway: address.parse().unwrap(), mac };
        lab.sensor.neighbour(INTERFACE, route(there, INTERNET_MAC)).unwrap();
        lab.internet.neighbour(WIRE, route(here, SENSOR_MAC)).unwrap();
    }
}

/// Starts the daemon; it drains twice a second.
pub(crate) fn start(lab: &Lab, flags: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let fixed = ["--series-hold", "0s", "--drain-interval", "500ms", "--timezone", &timezone];
    lab.start(teiten(), &[&fixed[..], flags].concat()).unwrap()
}

/// Packets of `class`.
pub(crate) fn packets(daemon: &Daemon, class: &str) -> u64 {
    daemon.metrics().unwrap().counter("teiten_packets_total", &[("class", class)]).unwrap_or(0)
}

/// Waits until `class` has this many packets; it never has more.
pub(crate) fn wait_class(daemon: &Daemon, class: &str, count: u64) {
    poll(PATIENCE, || (packets(daemon, class) >= count).then_some(()));
    assert_eq!(packets(daemon, class), count, "{class}");
}

/// A socket in `netns`.
pub(crate) fn socket(netns: &Netns, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A question of the sensor and its answer; both arrive.
pub(crate) fn ask(sensor: &UdpSocket, peer: &UdpSocket) {
    let mut word = [0; 8];
    sensor.send_to(b"question", peer.local_addr().unwrap()).unwrap();
    let (_, from) = peer.recv_from(&mut word).unwrap();
    peer.send_to(b"answer", from).unwrap();
    sensor.recv_from(&mut word).unwrap();
}

/// Two partners that talk over UDP.
pub(crate) fn partners(lab: &Lab) -> [UdpSocket; 2] {
    [socket(&lab.sensor, "198.18.0.1:40000"), socket(&lab.internet, &format!("{PEER}:123"))]
}
