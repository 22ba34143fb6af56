//! The connections that this host has, by the kernel's socket tables (`sock_diag`).

use super::netlink;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use sensor_common::flow::FlowKey;
use std::io;
use std::net::IpAddr;

/// Connected sockets of one protocol in this network namespace, IPv4 and IPv6, as flows: TCP with a
/// connection, also one that is ending, or UDP with a fixed peer. Those to this host itself are left
/// out.
///
/// # Errors
///
/// ENOENT when the kernel has no `sock_diag` for the protocol (`CONFIG_INET_DIAG`,
/// `CONFIG_INET_UDP_DIAG`); what netlink returns otherwise.
pub(super) fn connected(protocol: u8) -> io::Result<Vec<FlowKey>> {
    let mut keys = Vec::new();
    for family in [AF_INET, AF_INET6] {
        keys.extend(dump(family, protocol)?.iter().filter_map(|id| key(id, protocol)));
    }
    Ok(keys)
}

/// TCP.
pub(super) const TCP: u8 = IPPROTO_TCP;
/// UDP.
pub(super) const UDP: u8 = IPPROTO_UDP;

/// Connected sockets of one family and protocol.
fn dump(family: u8, protocol: u8) -> io::Result<Vec<SocketId>> {
    let mut sockets = Vec::new();
    let states = if protocol == TCP {
        StateFlags::ESTABLISHED
            | StateFlags::FIN_WAIT1
            | StateFlags::FIN_WAIT2
            | StateFlags::CLOSE_WAIT
            | StateFlags::LAST_ACK
            | StateFlags::CLOSING
    } else {
        StateFlags::ESTABLISHED
    };
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    netlink::dump(NETLINK_SOCK_DIAG, SockDiagMessage::InetRequest(request), |message| {
        if let SockDiagMessage::InetResponse(response) = message {
            sockets.push(response.header.socket_id);
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
        let ends = sockets.iter().filter(|id| id.source_port == port || id.destination_port == port);
        assert_eq!(ends.count(), 2, "{sockets:?}");
    }
}
