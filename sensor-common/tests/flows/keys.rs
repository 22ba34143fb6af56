//! What flow a packet belongs to. This host is 198.51.100.7 and `2001:db8::7`; it talks to 192.0.2.53 and
//! `2001:db8:1::53`; a router on the way is 203.0.113.1 and `2001:db8:2::1`.

use super::packet;
use sensor_common::flow::FlowKey;
use sensor_common::{Link, parse};

/// `::ffff:198.51.100.7` and `::ffff:192.0.2.53`.
const HERE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7];
const THERE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 53];
/// `2001:db8::7` and `2001:db8:1::53`.
const HERE6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const THERE6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53];
/// `2001:db8:2::1`.
const ROUTER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// An IPv4 header of 20 bytes before `payload`.
fn v4(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = 20 + payload.len() as u8;
    let mut bytes = vec![0x45, 0, 0, length, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(payload);
    bytes
}

/// An IPv6 header before `payload`.
fn v6(next: u8, src: [u8; 16], dst: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(payload);
    bytes
}

const US: [u8; 4] = [198, 51, 100, 7];
const THEM: [u8; 4] = [192, 0, 2, 53];
const ROUTER: [u8; 4] = [203, 0, 113, 1];

/// 40000 > 53, 12 bytes of DNS header.
const QUESTION: [u8; 20] = [0x9c, 0x40, 0, 53, 0, 20, 0, 0, 1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// 53 > 40000, the response bit set.
const ANSWER: [u8; 20] = [0, 53, 0x9c, 0x40, 0, 20, 0, 0, 1, 2, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
/// 50000 > 443 [S], sequence 0x01020304.
const SYN: [u8; 20] = [0xc3, 0x50, 1, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];
/// 443 > 50000 [S.].
const SYN_ACK: [u8; 20] = [1, 0xbb, 0xc3, 0x50, 9, 9, 9, 9, 1, 2, 3, 5, 0x50, 0x12, 4, 0, 0, 0, 0, 0];

fn key(protocol: u8, local: [u8; 16], local_port: u16, remote: [u8; 16], remote_port: u16) -> FlowKey {
    FlowKey { local, remote, local_port, remote_port, protocol, padding: [0; 3] }
}

/// Bytes that a key must not keep.
fn used_key() -> FlowKey {
    FlowKey {
        local: [0xaa; 16],
        remote: [0xbb; 16],
        local_port: 1,
        remote_port: 2,
        protocol: 3,
        padding: [9; 3],
    }
}

fn incoming(bytes: &[u8]) -> Option<FlowKey> {
    let mut key = used_key();
    key.set_incoming(&packet(bytes)).then_some(key)
}

fn quoted(bytes: &[u8]) -> Option<FlowKey> {
    let mut key = used_key();
    key.set_quoted(bytes, &packet(bytes)).then_some(key)
}

#[test]
fn a_question_and_its_answer_have_one_key() {
    let expected = key(17, HERE, 40_000, THERE, 53);
    assert_eq!(FlowKey::of_outgoing(&packet(&v4(17, US, THEM, &QUESTION))), Some(expected));
    assert_eq!(incoming(&v4(17, THEM, US, &ANSWER)), Some(expected));

    let expected = key(17, HERE6, 40_000, THERE6, 53);
    assert_eq!(FlowKey::of_outgoing(&packet(&v6(17, HERE6, THERE6, &QUESTION))), Some(expected));
    assert_eq!(incoming(&v6(17, THERE6, HERE6, &ANSWER)), Some(expected));

    let expected = key(6, HERE, 50_000, THERE, 443);
    assert_eq!(FlowKey::of_outgoing(&packet(&v4(6, US, THEM, &SYN))), Some(expected));
    assert_eq!(incoming(&v4(6, THEM, US, &SYN_ACK)), Some(expected));

    let expected = key(6, HERE6, 50_000, THERE6, 443);
    assert_eq!(FlowKey::of_outgoing(&packet(&v6(6, HERE6, THERE6, &SYN))), Some(expected));
    assert_eq!(incoming(&v6(6, THERE6, HERE6, &SYN_ACK)), Some(expected));
}

#[test]
fn vlan_tags_extension_headers_and_options_change_no_key() {
    let expected = key(17, HERE, 40_000, THERE, 53);
    let plain = v4(17, THEM, US, &ANSWER);
    let mut options = plain.clone();
    // IHL 6: four no-operations; the length grows with them.
    options[0] = 0x46;
    options[3] += 4;
    options.splice(20..20, [1, 1, 1, 1]);
    assert_eq!(incoming(&options), Some(expected));
    let tagged = [&[0; 12], &[0x81, 0, 0, 100, 0x88, 0xa8, 0, 7, 8, 0][..], &plain].concat();
    let mut seen = used_key();
    assert!(seen.set_incoming(&parse(&tagged[..], Link::Ethernet).expect("a packet")));
    assert_eq!(seen, expected);
    // Destination options of 8 bytes, then UDP.
    let nested = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &ANSWER].concat();
    assert_eq!(incoming(&v6(60, THERE6, HERE6, &nested)), Some(key(17, HERE6, 40_000, THERE6, 53)));
}

#[test]
fn icmp_requests_and_their_answers_have_one_key_by_identifier() {
    // RFC 792: echo, timestamp, information; RFC 950: address mask.
    for (request, reply) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        let expected = key(1, HERE, 0x1234, THERE, request.into());
        let message = |kind: u8| [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(FlowKey::of_outgoing(&packet(&v4(1, US, THEM, &message(request)))), Some(expected));
        assert_eq!(incoming(&v4(1, THEM, US, &message(reply))), Some(expected));
        assert_eq!(
            FlowKey::of_outgoing(&packet(&v4(1, US, THEM, &message(reply)))),
            None,
            "answers no question"
        );
        assert_eq!(incoming(&v4(1, THEM, US, &message(request))), None, "a request answers nothing");
    }
    // RFC 4443: echo; RFC 4620: node information.
    for (request, reply) in [(128, 129), (139, 140)] {
        let expected = key(58, HERE6, 0x1234, THERE6, request.into());
        let message = |kind: u8| [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(FlowKey::of_outgoing(&packet(&v6(58, HERE6, THERE6, &message(request)))), Some(expected));
        assert_eq!(incoming(&v6(58, THERE6, HERE6, &message(reply))), Some(expected));
        assert_eq!(FlowKey::of_outgoing(&packet(&v6(58, HERE6, THERE6, &message(reply)))), None);
        assert_eq!(incoming(&v6(58, THERE6, HERE6, &message(request))), None);
    }
    // Neighbour solicitation and advertisement, SCTP, GRE.
    for kind in [135, 136] {
        assert_eq!(FlowKey::of_outgoing(&packet(&v6(58, HERE6, THERE6, &[kind, 0, 0, 0, 0, 0, 0, 0]))), None);
        assert_eq!(incoming(&v6(58, THERE6, HERE6, &[kind, 0, 0, 0, 0, 0, 0, 0])), None);
    }
    for protocol in [132, 47] {
        assert_eq!(FlowKey::of_outgoing(&packet(&v4(protocol, US, THEM, &[0; 16]))), None);
        assert_eq!(incoming(&v4(protocol, THEM, US, &[0; 16])), None);
    }
}

/// `203.0.113.1 > 198.51.100.7: ICMP time exceeded`, quoting.
fn error4(quote: &[u8]) -> Vec<u8> {
    v4(1, ROUTER, US, &[&[11, 0, 0, 0, 0, 0, 0, 0][..], quote].concat())
}

/// `2001:db8:2::1 > 2001:db8::7: ICMP6 time exceeded`, quoting.
fn error6(quote: &[u8]) -> Vec<u8> {
    v6(58, ROUTER6, HERE6, &[&[3, 0, 0, 0, 0, 0, 0, 0][..], quote].concat())
}

#[test]
fn an_icmp_error_has_the_key_of_the_packet_it_quotes() {
    let datagram = v4(17, US, THEM, &QUESTION);
    assert_eq!(quoted(&error4(&datagram)), Some(key(17, HERE, 40_000, THERE, 53)));
    // RFC 792: the header and 64 bits, no byte less.
    assert_eq!(quoted(&error4(&datagram[..28])), Some(key(17, HERE, 40_000, THERE, 53)));
    assert_eq!(quoted(&error4(&datagram[..27])), None);
    assert_eq!(quoted(&error4(&[])), None);
    let mut options = datagram.clone();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 1]);
    assert_eq!(quoted(&error4(&options)), Some(key(17, HERE, 40_000, THERE, 53)));
    assert_eq!(quoted(&error4(&v4(6, US, THEM, &SYN))), Some(key(6, HERE, 50_000, THERE, 443)));
    let echo = v4(1, US, THEM, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    assert_eq!(quoted(&error4(&echo)), Some(key(1, HERE, 0x1234, THERE, 8)));

    let datagram = v6(17, HERE6, THERE6, &QUESTION);
    assert_eq!(quoted(&error6(&datagram)), Some(key(17, HERE6, 40_000, THERE6, 53)));
    assert_eq!(quoted(&error6(&datagram[..48])), Some(key(17, HERE6, 40_000, THERE6, 53)));
    assert_eq!(quoted(&error6(&datagram[..47])), None);
    assert_eq!(quoted(&error6(&v6(6, HERE6, THERE6, &SYN))), Some(key(6, HERE6, 50_000, THERE6, 443)));
    let echo = v6(58, HERE6, THERE6, &[128, 0, 0, 0, 0x12, 0x34, 0, 1]);
    assert_eq!(quoted(&error6(&echo)), Some(key(58, HERE6, 0x1234, THERE6, 128)));
    // The first fragment of a datagram, offset 0 and more to come.
    let first = [&[17, 0, 0, 1, 0, 0, 0, 7][..], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(44, HERE6, THERE6, &first))), Some(key(17, HERE6, 40_000, THERE6, 53)));
}

#[test]
fn what_an_icmp_error_quotes_may_have_extension_headers() {
    let expected = Some(key(17, HERE6, 40_000, THERE6, 53));
    // Destination options of 8 bytes; hop-by-hop options of 16, then those, then a first fragment.
    let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &QUESTION].concat();
    let quote = v6(60, HERE6, THERE6, &options);
    assert_eq!(quoted(&error6(&quote)), expected);
    assert_eq!(quoted(&error6(&quote[..56])), expected);
    assert_eq!(quoted(&error6(&quote[..55])), None);
    let hops = [60, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let chain = [&hops[..], &[44, 0, 1, 4, 0, 0, 0, 0], &[17, 0, 0, 1, 0, 0, 0, 7], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(0, HERE6, THERE6, &chain))), expected);
    // A later fragment after them; an extension header that continues beyond the quote's end.
    let later = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 0, 8, 0, 0, 0, 7], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(60, HERE6, THERE6, &later))), None);
    let long = [&[17, 255, 1, 4, 0, 0, 0, 0][..], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(60, HERE6, THERE6, &long))), None);
    // More of them than are skipped.
    let many = [[60, 0, 1, 4, 0, 0, 0, 0], [60, 0, 1, 4, 0, 0, 0, 0], [60, 0, 1, 4, 0, 0, 0, 0]].concat();
    let many = [&many[..], &[17, 0, 1, 4, 0, 0, 0, 0], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(60, HERE6, THERE6, &many))), None);
}

#[test]
fn a_quote_that_this_host_never_sent_has_no_key() {
    // From someone else than whom the error came to.
    assert_eq!(quoted(&error4(&v4(17, THEM, US, &QUESTION))), None);
    assert_eq!(quoted(&error4(&v4(17, [198, 51, 100, 8], THEM, &QUESTION))), None);
    assert_eq!(quoted(&error6(&v6(17, THERE6, HERE6, &QUESTION))), None);
    // An answer, another error, a protocol without flows.
    for kind in [0, 3, 14] {
        assert_eq!(quoted(&error4(&v4(1, US, THEM, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1]))), None);
    }
    for kind in [129, 1, 136] {
        assert_eq!(quoted(&error6(&v6(58, HERE6, THERE6, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1]))), None);
    }
    assert_eq!(quoted(&error4(&v4(47, US, THEM, &[0; 8]))), None);
    // ICMP's echo by the other family's number.
    assert_eq!(quoted(&error4(&v4(58, US, THEM, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))), None);
    // A later fragment, whose bytes hold no port.
    let mut later = v4(17, US, THEM, &QUESTION);
    later[7] = 1;
    assert_eq!(quoted(&error4(&later)), None);
    let later = [&[17, 0, 0, 8, 0, 0, 0, 7][..], &QUESTION].concat();
    assert_eq!(quoted(&error6(&v6(44, HERE6, THERE6, &later))), None);
    // The other family's header, and a header that is too short for one.
    assert_eq!(quoted(&error4(&v6(17, HERE6, THERE6, &QUESTION))), None);
    assert_eq!(quoted(&error6(&v4(17, US, THEM, &[0; 60]))), None);
    let mut short = v4(17, US, THEM, &QUESTION);
    short[0] = 0x44;
    assert_eq!(quoted(&error4(&short)), None);
}
