//! How flows begin, continue and end. This host is 198.51.100.7.

use super::packet;
use super::table::{Host, SECOND};
use sensor_common::flow::{SERVED, SERVICE};
use sensor_common::parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use sensor_common::{Class, Packet, Slot, Transport};

const US: [u8; 4] = [198, 51, 100, 7];
const THEM: [u8; 4] = [192, 0, 2, 53];

fn v4(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Packet {
    let mut bytes = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 64, protocol, 0, 0];
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(payload);
    packet(&bytes)
}

fn udp(src: [u8; 4], from: u16, dst: [u8; 4], to: u16) -> Packet {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    v4(17, src, dst, &[&ports[..], &[0, 8, 0, 0]].concat())
}

/// Sequence number 1000, acknowledgement number 1001.
fn tcp(src: [u8; 4], from: u16, dst: [u8; 4], to: u16, flags: u8) -> Packet {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let rest = [0, 0, 0x03, 0xe8, 0, 0, 0x03, 0xe9, 0x50, flags, 4, 0, 0, 0, 0, 0];
    v4(6, src, dst, &[&ports[..], &rest].concat())
}

/// A segment of this host to a web server, and one back.
fn ours(flags: u8) -> Packet {
    tcp(US, 50_000, THEM, 443, flags)
}
fn theirs(flags: u8) -> Packet {
    tcp(THEM, 443, US, 50_000, flags)
}
/// A segment of a client to this host's port 22, and one back.
fn client(flags: u8) -> Packet {
    tcp(THEM, 50_000, US, 22, flags)
}
fn server(flags: u8) -> Packet {
    tcp(US, 22, THEM, 50_000, flags)
}

const SYN_ACK: u8 = TCP_SYN | TCP_ACK;
const FIN_ACK: u8 = TCP_FIN | TCP_ACK;
const RST_ACK: u8 = TCP_RST | TCP_ACK;

/// Asserts that what `answer` answers to is alive for `seconds` after what `host` sent last, and no
/// nanosecond longer.
fn lives_for(host: &Host, seconds: u64, answer: &Packet, later: Class) {
    host.wait(seconds * SECOND);
    assert_eq!(host.receives(answer), Class::Solicited, "after {seconds} s");
    host.wait(1);
    assert_eq!(host.receives(answer), later, "after {seconds} s and a nanosecond");
}

#[test]
fn flows_live_as_long_as_the_rfcs_ask() {
    let host = Host::new();
    host.sends(&udp(US, 40_000, THEM, 123));
    lives_for(&host, 120, &udp(THEM, 123, US, 40_000), Class::Access);

    let echo = |kind: u8, src, dst| v4(1, src, dst, &[kind, 0, 0, 0, 0, 7, 0, 1]);
    let host = Host::new();
    host.sends(&echo(8, US, THEM));
    lives_for(&host, 60, &echo(0, THEM, US), Class::Backscatter);

    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    lives_for(&host, 240, &theirs(SYN_ACK), Class::Backscatter);

    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends_connected(&ours(TCP_ACK));
    lives_for(&host, 7_440, &theirs(TCP_ACK), Class::Other);

    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends_connected(&ours(TCP_ACK));
    host.sends_connected(&ours(FIN_ACK));
    lives_for(&host, 240, &theirs(TCP_ACK), Class::Other);
}

#[test]
fn a_bare_syn_and_whatever_comes_to_a_silent_host_need_no_lookup() {
    let host = Host::new();
    host.receives(&udp(THEM, 53, US, 40_000));
    host.receives(&theirs(SYN_ACK));
    host.receives(&theirs(TCP_RST));
    host.receives(&v4(1, THEM, US, &[0, 0, 0, 0, 0, 7, 0, 1]));
    host.receives(&v4(1, THEM, US, &[3, 1, 0, 0, 0, 0, 0, 0]));
    host.sends(&ours(TCP_SYN));
    host.sends(&udp(US, 40_000, THEM, 123));
    for flags in [TCP_SYN, 0, TCP_FIN, TCP_FIN | 0x28] {
        assert_eq!(host.receives(&theirs(flags)), Class::Access, "flags {flags:#x}");
    }
    // To ports that were never sent from.
    host.receives(&tcp(THEM, 443, US, 50_001, SYN_ACK));
    host.receives(&udp(THEM, 123, US, 40_001));
    assert_eq!(host.lookups.get(), 0);
    host.receives(&theirs(SYN_ACK));
    assert!(host.lookups.get() > 0);
}

#[test]
fn who_spoke_first_has_started_it_for_two_minutes() {
    let (request, reply) = (udp(THEM, 5000, US, 7), udp(US, 7, THEM, 5000));
    let host = Host::new();
    assert_eq!(host.receives(&request), Class::Access);
    // The note counts in units of 2^20 ns, about a millisecond.
    host.wait(120 * SECOND - (1 << 20));
    host.sends(&reply);
    assert_eq!((host.flows(), host.replies.get()), (0, 1));
    assert_eq!(host.receives(&request), Class::Access, "still the remote host's");
    host.wait(120 * SECOND + (1 << 20));
    host.sends(&reply);
    assert_eq!((host.flows(), host.replies.get()), (1, 1), "no datagram for two minutes");
    assert_eq!(host.receives(&request), Class::Solicited);
}

#[test]
fn the_reply_to_an_excluded_source_starts_nothing() {
    let host = Host::new();
    let monitor = [10, 0, 0, 1];
    assert_eq!(host.receives(&udp(monitor, 5000, US, 161)), Class::Excluded);
    host.sends(&udp(US, 161, monitor, 5000));
    assert_eq!(host.flows(), 0);
}

const US6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const THEM6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53];

fn udp6(src: [u8; 16], from: u16, dst: [u8; 16], to: u16) -> Packet {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet(&[&[0x60, 0, 0, 0, 0, 8, 17, 64][..], &src, &dst, &ports, &[0, 8, 0, 0]].concat())
}

#[test]
fn a_reply_to_what_the_kernel_could_read_and_this_parser_not_starts_nothing() {
    let (request, reply) = (udp6(THEM6, 5000, US6, 7), udp6(US6, 7, THEM6, 5000));
    let host = Host::new();
    host.receives_unread(THEM6);
    host.sends(&reply);
    assert_eq!((host.flows(), host.replies.get()), (0, 1));
    assert_eq!(host.receives(&request), Class::Access);
    // No one else is meant, nor whom a program has chosen by itself.
    host.sends(&udp6(US6, 40_000, US6, 53));
    host.sends_connected(&udp6(US6, 40_001, THEM6, 53));
    assert_eq!((host.flows(), host.replies.get()), (2, 1));
    assert_eq!(host.receives(&udp6(THEM6, 53, US6, 40_001)), Class::Solicited);
    host.wait(120 * SECOND + (1 << 20));
    host.sends(&udp6(US6, 40_002, THEM6, 53));
    assert_eq!(host.flows(), 3, "two minutes later");
}

#[test]
fn a_server_that_was_there_before_answers_unseen_requests() {
    let host = Host::new();
    host.known.set(Some((Slot::new(Transport::Udp, 123), SERVED)));
    host.sends(&udp(US, 123, THEM, 5000));
    assert_eq!((host.flows(), host.replies.get()), (0, 1));
    assert_eq!(host.receives(&udp(THEM, 5000, US, 123)), Class::Access);
    // Servers of one port ask each other; a socket with a fixed peer has chosen it; other ports serve not.
    host.sends(&udp(US, 123, THEM, 123));
    host.sends_connected(&udp(US, 123, THEM, 5001));
    host.sends(&udp(US, 40_000, THEM, 5002));
    assert_eq!((host.flows(), host.replies.get()), (3, 1));
}

#[test]
fn dhcp_has_flows_for_what_is_said_about_it_and_a_server_of_it_starts_none() {
    let host = Host::new();
    // A lease is prolonged. The answer keeps the line, as always; an error would quote the question.
    host.sends(&udp(US, 68, THEM, 67));
    assert_eq!(host.receives(&udp(THEM, 67, US, 68)), Class::Other);
    assert_eq!(host.flows(), 1);
    // This host's own server is asked by a remote host.
    let host = Host::new();
    assert_eq!(host.receives(&udp(THEM, 68, US, 67)), Class::Other);
    host.sends(&udp(US, 67, THEM, 68));
    assert_eq!((host.flows(), host.replies.get()), (0, 1));
}

#[test]
fn other_peoples_datagrams_between_request_and_reply_do_not_hide_that_it_is_one() {
    let host = Host::new();
    let remotes = |number: u16| [203, 0, (number >> 8) as u8, number as u8];
    for number in 0..200 {
        host.receives(&udp(remotes(number), 5000, US, 7));
    }
    for number in 0..4_000_u16 {
        let [high, low] = number.to_be_bytes();
        host.receives(&udp([100, 64, high, low], 6000, US, number));
        host.wait(1000);
    }
    for number in 0..200 {
        host.sends(&udp(US, 7, remotes(number), 5000));
    }
    // With one place for each note, 4,000 of 65,536 would displace 12 of the 200.
    assert_eq!((host.flows(), host.replies.get()), (0, 200));
}

#[test]
fn no_other_address_with_other_ports_passes_for_the_one_that_is_asked() {
    // Address and ports differ from the question's in the same bits of 32, so that their exclusive or is
    // the same.
    let host = Host::new();
    assert_eq!(host.receives(&udp([193, 0, 2, 52], 52, US, 40_256)), Class::Access);
    host.sends(&udp(US, 40_000, THEM, 53));
    assert_eq!((host.flows(), host.replies.get()), (1, 0));
    assert_eq!(host.receives(&udp(THEM, 53, US, 40_000)), Class::Solicited);
}

#[test]
fn a_remote_host_that_repeats_itself_displaces_no_note() {
    let host = Host::new();
    host.receives(&udp(THEM, 5000, US, 7));
    for last in 0..64 {
        for _ in 0..1_000 {
            host.receives(&udp([203, 0, 113, last], 5000, US, 7));
        }
    }
    host.sends(&udp(US, 7, THEM, 5000));
    assert_eq!(host.flows(), 0);
}

#[test]
fn what_the_kernel_sends_back_to_a_remote_host_starts_nothing() {
    let host = Host::new();
    for flags in [TCP_RST, RST_ACK, TCP_ACK, FIN_ACK, SYN_ACK, SYN_ACK | 0x40] {
        host.sends(&server(flags));
    }
    host.sends(&v4(1, US, THEM, &[0, 0, 0, 0, 0, 7, 0, 1]));
    host.sends(&v4(1, US, THEM, &[3, 3, 0, 0, 0, 0, 0, 0]));
    assert_eq!(host.flows(), 0);
    assert_eq!(host.receives(&client(TCP_SYN)), Class::Access);
}

#[test]
fn what_the_kernel_sends_back_does_not_prolong_a_connection_that_is_over() {
    let host = Host::new();
    host.sends(&server(SYN_ACK));
    assert_eq!(host.receives(&client(TCP_ACK)), Class::Solicited);
    host.sends_connected(&server(FIN_ACK));
    // Stray segments every 100 seconds, each answered by a RST, and by an ACK without a socket.
    for (after, class) in [(100, Class::Solicited), (200, Class::Solicited), (300, Class::Other)] {
        host.wait(100 * SECOND);
        assert_eq!(host.receives(&client(TCP_ACK | 0x08)), class, "after {after} s");
        host.sends(&server(TCP_RST));
        host.sends(&server(TCP_ACK));
    }
}

#[test]
fn a_connection_closed_on_this_side_continues_while_its_socket_acknowledges() {
    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends_connected(&ours(TCP_ACK));
    host.sends_connected(&ours(FIN_ACK));
    for _ in 0..100 {
        host.wait(200 * SECOND);
        assert_eq!(host.receives(&theirs(TCP_ACK)), Class::Solicited);
        host.sends_connected(&ours(TCP_ACK));
    }
    host.wait(241 * SECOND);
    assert_eq!(host.receives(&theirs(TCP_ACK)), Class::Other);
}

#[test]
fn a_connection_that_the_other_end_resets_is_over_in_four_minutes() {
    let host = Host::new();
    host.sends(&server(SYN_ACK));
    assert_eq!(host.receives(&client(TCP_ACK)), Class::Solicited);
    assert_eq!(host.receives(&client(TCP_RST)), Class::Solicited);
    host.wait(240 * SECOND);
    assert_eq!(host.receives(&client(TCP_RST)), Class::Solicited, "the same again prolongs nothing");
    host.wait(1);
    assert_eq!(host.receives(&client(TCP_RST)), Class::Backscatter);

    // A RST does not make it live longer than without.
    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends_connected(&ours(TCP_ACK));
    host.wait(7_400 * SECOND);
    assert_eq!(host.receives(&theirs(TCP_RST)), Class::Solicited);
    host.wait(41 * SECOND);
    assert_eq!(host.receives(&theirs(TCP_ACK)), Class::Other);
}

#[test]
fn a_handshake_is_completed_in_four_minutes_by_the_right_number() {
    let host = Host::new();
    host.sends(&server(SYN_ACK));
    host.wait(241 * SECOND);
    assert_eq!(host.receives(&client(TCP_ACK)), Class::Other);
    host.sends(&server(SYN_ACK));
    host.wait(239 * SECOND);
    assert_eq!(host.receives(&client(TCP_ACK)), Class::Solicited);
}

#[test]
fn a_simultaneous_open_is_one_connection() {
    // RFC 9293, figure 7. The other end's SYN starts something, as every SYN does.
    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    assert_eq!(host.receives(&theirs(TCP_SYN)), Class::Access);
    host.sends(&ours(SYN_ACK));
    assert_eq!(host.receives(&theirs(SYN_ACK)), Class::Solicited);
    assert_eq!(host.receives(&theirs(TCP_ACK)), Class::Solicited);
    assert_eq!(host.flows(), 1);
}

#[test]
fn what_remote_hosts_open_is_kept_apart_from_what_this_host_starts() {
    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends(&server(SYN_ACK));
    assert_eq!(host.receives(&client(TCP_ACK)), Class::Solicited);
    // A connection of which no one saw the beginning.
    host.sends_connected(&tcp(US, 80, THEM, 50_000, TCP_ACK));
    assert_eq!((host.started(), host.flows()), (1, 3));
    for answer in [theirs(SYN_ACK), client(TCP_ACK), tcp(THEM, 50_000, US, 80, TCP_ACK)] {
        assert_eq!(host.receives(&answer), Class::Solicited);
    }
    // The same ends, begun by this host now: its own.
    host.sends(&tcp(US, 80, THEM, 50_000, TCP_SYN));
    assert_eq!((host.started(), host.flows()), (2, 4));
}

#[test]
fn what_a_declared_service_offers_is_not_noted() {
    let host = Host::new();
    host.known.set(Some((Slot::new(Transport::Tcp, 22), SERVICE)));
    host.sends(&server(SYN_ACK));
    assert_eq!((host.offers(), host.flows()), (0, 0));
    // What this host itself starts from there is its own.
    host.sends(&server(TCP_SYN));
    assert_eq!((host.offers(), host.started()), (0, 1));
}

#[test]
fn whatever_flags_a_segment_of_this_host_opens_with_the_answer_is_solicited() {
    const URG: u8 = 0x20;
    const PSH: u8 = 0x08;
    const ECE: u8 = 0x40;
    const CWR: u8 = 0x80;
    for flags in [
        TCP_SYN,
        TCP_SYN | TCP_FIN,
        TCP_SYN | URG,
        TCP_SYN | PSH,
        TCP_SYN | ECE | CWR,
        TCP_SYN | TCP_FIN | URG | PSH,
        // Probes: NULL, FIN, Xmas.
        0,
        TCP_FIN,
        TCP_FIN | URG | PSH,
        URG,
    ] {
        let host = Host::new();
        host.sends(&ours(flags));
        for answer in [SYN_ACK, RST_ACK, TCP_RST] {
            assert_eq!(host.receives(&theirs(answer)), Class::Solicited, "flags {flags:#x}");
        }
        assert_eq!(host.receives(&tcp(THEM, 444, US, 50_000, SYN_ACK)), Class::Backscatter);
        lives_for(&host, 240, &theirs(SYN_ACK), Class::Backscatter);
    }
    // A probe does not shorten a connection.
    let host = Host::new();
    host.sends(&ours(TCP_SYN));
    host.sends_connected(&ours(TCP_ACK));
    host.sends(&ours(0));
    lives_for(&host, 7_440, &theirs(TCP_ACK), Class::Other);
}

#[test]
fn a_peer_that_this_host_asked_before_does_not_own_the_conversation_by_speaking_first() {
    for is_collected in [false, true] {
        let host = Host::new();
        let (question, answer) = (udp(US, 40_000, THEM, 1194), udp(THEM, 1194, US, 40_000));
        host.sends(&question);
        host.wait(122 * SECOND);
        if is_collected {
            host.collect();
            assert_eq!(host.flows(), 0);
        }
        assert_eq!(host.receives(&answer), Class::Access, "two minutes after the last question");
        for _ in 0..100 {
            host.sends(&question);
            assert_eq!(host.receives(&answer), Class::Solicited);
        }
        // Another port is another conversation, and so is another peer.
        for (src, port) in [(THEM, 1195), ([192, 0, 2, 54], 1194)] {
            assert_eq!(host.receives(&udp(src, port, US, 40_000)), Class::Access);
            host.sends(&udp(US, 40_000, src, port));
            assert_eq!(host.receives(&udp(src, port, US, 40_000)), Class::Access);
        }
        // It is remembered for a day.
        host.wait(24 * 3600 * SECOND + 1);
        assert_eq!(host.receives(&answer), Class::Access);
        host.sends(&question);
        assert_eq!(host.receives(&answer), Class::Access);
    }
}

#[test]
fn a_remote_host_that_was_only_replied_to_is_not_remembered() {
    let host = Host::new();
    let (request, reply) = (udp(THEM, 5000, US, 7), udp(US, 7, THEM, 5000));
    for _ in 0..10 {
        assert_eq!(host.receives(&request), Class::Access);
        host.sends(&reply);
        host.wait(100 * SECOND);
        host.collect();
    }
    host.wait(30 * SECOND);
    assert_eq!(host.receives(&request), Class::Access);
    host.sends(&reply);
    assert_eq!(host.receives(&request), Class::Access);
    assert_eq!(host.flows(), 0);
}

/// A flood of spoofed datagrams to any port, so that every note is displaced many times.
fn flood(host: &Host) {
    for number in 0..1_000_000_u32 {
        let [a, b, c, d] = number.to_be_bytes();
        host.receives(&udp([100, 64 | b, c, d], 6000, US, u16::from(a) << 8 | u16::from(d)));
    }
}

#[test]
fn where_notes_were_displaced_a_server_does_not_hide_whom_it_replies_to() {
    let host = Host::new();
    host.receives(&udp(THEM, 4999, US, 7));
    host.sends(&udp(US, 7, THEM, 4999));
    assert_eq!((host.replies.get(), host.unsure.get(), host.displaced.get()), (1, 0, 0));
    let remotes: Vec<[u8; 4]> = (0..=255).map(|last| [203, 0, 113, last]).collect();
    for src in &remotes {
        assert_eq!(host.receives(&udp(*src, 5000, US, 7)), Class::Access);
    }
    flood(&host);
    assert!(host.displaced.get() > 900_000, "{}", host.displaced.get());
    for src in &remotes {
        host.sends(&udp(US, 7, *src, 5000));
        assert_eq!(host.receives(&udp(*src, 5000, US, 7)), Class::Access);
    }
    assert_eq!((host.flows(), host.replies.get()), (0, 257));
    assert!(host.unsure.get() > 250, "{}", host.unsure.get());
    // What this host asks from ports that serve no one is known meanwhile.
    for port in 40_000..40_100 {
        host.sends(&udp(US, port, THEM, 53));
        assert_eq!(host.receives(&udp(THEM, 53, US, port)), Class::Solicited);
    }
    // Two minutes later nothing is in doubt.
    host.wait(121 * SECOND);
    host.sends(&udp(US, 7, THEM, 5001));
    assert_eq!(host.receives(&udp(THEM, 5001, US, 7)), Class::Solicited);
}

const NEAR: [u8; 4] = [198, 51, 100, 99];

#[test]
fn answers_to_a_question_to_a_group_come_from_the_asked_port_or_from_near_for_half_a_minute() {
    // Own port, group and its port: SSDP, mDNS of a one-shot querier, LLMNR, WS-Discovery, NetBIOS.
    for (port, group, asked) in [
        (40_000, [239, 255, 255, 250], 1900),
        (40_000, [224, 0, 0, 251], 5353),
        (40_000, [224, 0, 0, 252], 5355),
        (40_000, [239, 255, 255, 250], 3702),
        (40_000, [255, 255, 255, 255], 137),
    ] {
        let host = Host::new();
        let answer = udp(NEAR, asked, US, port);
        assert_eq!(host.receives(&answer), Class::Access);
        host.sends(&udp(US, port, group, asked));
        assert_eq!(host.receives(&udp(NEAR, 49_152, US, port)), Class::Solicited, "any port, near");
        assert_eq!(host.receives(&udp([192, 168, 1, 9], 49_152, US, port)), Class::Solicited, "private");
        assert_eq!(host.receives(&udp(THEM, asked, US, port)), Class::Solicited, "the asked port");
        assert_eq!(host.receives(&udp(THEM, 49_152, US, port)), Class::Access, "neither");
        assert_eq!(host.receives(&udp(NEAR, asked, US, port + 1)), Class::Access, "another question's");
        lives_for(&host, 30, &answer, Class::Access);
    }
}

#[test]
fn a_port_that_asks_a_group_of_the_same_port_is_answered_from_near_by_that_port_only() {
    for (port, group) in [(5353, [224, 0, 0, 251]), (137, [255, 255, 255, 255]), (1900, [239, 255, 255, 250])]
    {
        let host = Host::new();
        host.sends(&udp(US, port, group, port));
        assert_eq!(host.receives(&udp(NEAR, port, US, port)), Class::Solicited);
        assert_eq!(host.receives(&udp(NEAR, 40_000, US, port)), Class::Access);
        assert_eq!(host.receives(&udp(THEM, port, US, port)), Class::Access);
        assert_eq!(host.receives(&udp(THEM, 40_000, US, port)), Class::Access);
    }
}

#[test]
fn a_broadcast_address_of_a_network_is_known_by_the_frame() {
    let question = udp(US, 40_000, [198, 51, 100, 255], 137);
    let answer = udp(NEAR, 137, US, 40_000);
    let host = Host::new();
    host.sends(&question);
    assert_eq!(host.receives(&answer), Class::Access);
    let host = Host::new();
    host.broadcasts(&question);
    assert_eq!(host.receives(&answer), Class::Solicited);
    assert_eq!(host.receives(&udp(THEM, 40_000, US, 40_000)), Class::Access);
}

#[test]
fn an_echo_request_to_a_group_is_answered_by_its_identifier() {
    let echo = |kind: u8, id: u8, src, dst| v4(1, src, dst, &[kind, 0, 0, 0, 0, id, 0, 1]);
    let host = Host::new();
    assert_eq!(host.receives(&echo(0, 7, NEAR, US)), Class::Backscatter);
    host.sends(&echo(8, 7, US, [224, 0, 0, 1]));
    assert_eq!(host.receives(&echo(0, 7, NEAR, US)), Class::Solicited);
    assert_eq!(host.receives(&echo(0, 8, NEAR, US)), Class::Backscatter);
    lives_for(&host, 60, &echo(0, 7, NEAR, US), Class::Backscatter);

    let echo6 = |kind: u8, src: [u8; 16], dst: [u8; 16]| {
        packet(&[&[0x60, 0, 0, 0, 0, 8, 58, 64][..], &src, &dst, &[kind, 0, 0, 0, 0, 7, 0, 1]].concat())
    };
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    let host = Host::new();
    host.sends(&echo6(128, US6, all_nodes));
    assert_eq!(host.receives(&echo6(129, THEM6, US6)), Class::Solicited);
}

#[test]
fn tftp_is_answered_from_any_port_of_the_server() {
    let host = Host::new();
    host.sends(&udp(US, 40_000, THEM, 69));
    assert_eq!(host.receives(&udp(THEM, 50_001, US, 40_000)), Class::Solicited);
    host.sends(&udp(US, 40_000, THEM, 50_001));
    assert_eq!(host.receives(&udp(THEM, 50_001, US, 40_000)), Class::Solicited);
    assert_eq!(host.receives(&udp([192, 0, 2, 54], 50_001, US, 40_000)), Class::Access);
    assert_eq!(host.receives(&udp(THEM, 50_001, US, 40_001)), Class::Access);
    // Other protocols answer from the port that was asked.
    let host = Host::new();
    host.sends(&udp(US, 40_000, THEM, 123));
    assert_eq!(host.receives(&udp(THEM, 50_001, US, 40_000)), Class::Access);
}
