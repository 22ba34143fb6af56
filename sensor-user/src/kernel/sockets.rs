//! The connections that this host has, by the kernel's socket tables (`sock_diag`).

use super::netlink;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use sensor_common::flow::{FlowKey, Phase};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Connected sockets of one protocol in this network namespace, IPv4 and IPv6, as flows: TCP with a
/// connection, also one that is beginning here or ending, or UDP with a fixed peer. Those to this host
/// itself are left out.
///
/// # Errors
///
/// ENOENT when the kernel has no `sock_diag` for the protocol (`CONFIG_INET_DIAG`,
/// `CONFIG_INET_UDP_DIAG`); what netlink returns otherwise.
pub(super) fn connected(protocol: u8) -> io::Result<Vec<(FlowKey, Phase)>> {
    let mut keys = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let sockets = dump(family, protocol)?;
        keys.extend(sockets.iter().filter_map(|(id, state)| {
            let phase = if protocol == TCP { phase(*state) } else { Phase::Udp };
            Some((key(id, protocol)?, phase))
        }));
    }
    Ok(keys)
}

/// TCP ports at which this host listens.
///
/// # Errors
///
/// As of [`connected`].
pub(super) fn listening() -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        let sockets = list(family, TCP, StateFlags::LISTEN)?;
        ports.extend(sockets.iter().map(|(id, _)| id.source_port));
    }
    Ok(ports)
}

/// UDP ports of sockets without a fixed peer that were chosen, not given by the kernel: most likely a
/// server's.
///
/// # Errors
///
/// As of [`connected`].
pub(super) fn served() -> io::Result<BTreeSet<u16>> {
    let given = given_ports();
    let mut ports = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        // Sockets of UDP have two states, and this is that of those without a peer.
        let sockets = list(family, UDP, StateFlags::CLOSE)?;
        ports.extend(sockets.iter().map(|(id, _)| id.source_port).filter(|port| !given.contains(port)));
    }
    Ok(ports)
}

/// The ports that the kernel gives to sockets that ask for none.
fn given_ports() -> RangeInclusive<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // The kernel's own default.
        _ => 32_768..=60_999,
    }
}

/// TCP.
pub(super) const TCP: u8 = IPPROTO_TCP;
/// UDP.
pub(super) const UDP: u8 = IPPROTO_UDP;

/// How far a TCP connection is whose socket is in this state (`linux/net/tcp_states.h`).
const fn phase(state: u8) -> Phase {
    match state {
        TCP_SYN_SENT => Phase::Opening,
        // This host has sent its FIN.
        TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_LAST_ACK | TCP_CLOSING => Phase::Closing,
        _ => Phase::Established,
    }
}

const TCP_SYN_SENT: u8 = 2;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

/// Connected sockets of one family and protocol, and their states.
fn dump(family: u8, protocol: u8) -> io::Result<Vec<(SocketId, u8)>> {
    let states = if protocol == TCP {
        StateFlags::ESTABLISHED
            | StateFlags::SYN_SENT
            | StateFlags::FIN_WAIT1
            | StateFlags::FIN_WAIT2
            | StateFlags::CLOSE_WAIT
            | StateFlags::LAST_ACK
            | StateFlags::CLOSING
    } else {
        StateFlags::ESTABLISHED
    };
    list(family, protocol, states)
}

/// Sockets of one family and protocol in any of these states, and which.
fn list(family: u8, protocol: u8, states: StateFlags) -> io::Result<Vec<(SocketId, u8)>> {
    let mut sockets = Vec::new();
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    netlink::dump(NETLINK_SOCK_DIAG, SockDiagMessage::InetRequest(request), |message| {
        if let SockDiagMessage::InetResponse(response) = message {
            sockets.push((response.header.socket_id, response.header.state));
        }
    })?;
    Ok(sockets)
}

fn key(id: &SocketId, protocol: u8) -> Option<FlowKey> {
    let (local, remote) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
    let is_ours = !remote.is_loopback() && !remote.is_unspecified() && !remote.is_multicast();
    (is_ours && local != remote).then(|| FlowKey {
        local: mapped(local),
        remote: mapped(remote),
        local_port: id.source_port,
        remote_port: id.destination_port,
        protocol,
        padding: [0; 3],
    })
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(local: &str, local_port: u16, remote: &str, remote_port: u16) -> SocketId {
        SocketId {
            source_address: local.parse().unwrap(),
            source_port: local_port,
            destination_address: remote.parse().unwrap(),
            destination_port: remote_port,
            ..SocketId::new_v4()
        }
    }

    #[test]
    fn a_socket_of_both_families_has_the_key_of_its_ipv4_packets() {
        let mapped = key(&id("::ffff:192.0.2.7", 22, "::ffff:198.51.100.1", 40_000), TCP).unwrap();
        assert_eq!(Some(mapped), key(&id("192.0.2.7", 22, "198.51.100.1", 40_000), TCP));
        assert_eq!((mapped.local_port, mapped.remote_port, mapped.protocol), (22, 40_000, 6));
        assert_eq!(mapped.remote[10..], [0xff, 0xff, 198, 51, 100, 1]);
    }

    #[test]
    fn connections_of_this_host_with_itself_are_left_out() {
        assert_eq!(key(&id("127.0.0.1", 22, "127.0.0.1", 40_000), TCP), None);
        assert_eq!(key(&id("192.0.2.7", 22, "192.0.2.7", 40_000), TCP), None);
        assert_eq!(key(&id("2001:db8::7", 22, "::1", 40_000), TCP), None);
    }

    #[test]
    fn the_kernels_tables_are_read_to_their_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = match dump(AF_INET, TCP) {
            Ok(sockets) => sockets,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                eprintln!("skipped: this kernel has no sock_diag for TCP");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        // Both ends of the connection; the listener has none.
        let ends = sockets.iter().filter(|(id, _)| id.source_port == port || id.destination_port == port);
        let states: Vec<u8> = ends.map(|(_, state)| *state).collect();
        assert_eq!(states, [1, 1], "TCP_ESTABLISHED: {sockets:?}");
    }
}
