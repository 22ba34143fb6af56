//! Conversations that are older than the daemon, or than its successor; imitations of answers to real
//! ones; and more conversations than can be kept. Needs root.

use crate::common::pair::{PEER, PEER_V6, ask, joined, packets, socket, start, wait_class};
use crate::common::{output, teiten};
use lab::netns::{Interface, Netns, Route};
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WIRE};
use lab::traffic::{Carry as _, Frames, Ip, Sender, Tcp, flag, icmp, protocol, udp};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

/// A connection from `client` to `server`, which listens at `address`: both ends.
fn connection(client: &Netns, server: &Netns, address: &str) -> [TcpStream; 2] {
    let address: SocketAddr = address.parse().unwrap();
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let client = client.connect(reachable(address), PATIENCE).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    [client, server]
}

/// Where a listener at `address` is reached: one for all addresses by IPv4.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { ([198, 18, 0, 1], address.port()).into() } else { address }
}

/// Both say something, the peer first.
fn speak([peer, sensor]: [&mut TcpStream; 2]) {
    let mut word = [0; 4];
    peer.write_all(b"news").unwrap();
    sensor.read_exact(&mut word).unwrap();
    sensor.write_all(b"done").unwrap();
    peer.read_exact(&mut word).unwrap();
}

/// Connections between the sensor and its peer: started by either, over both families, and accepted by a
/// socket of both families. Each as the peer's end and the sensor's.
fn connections(lab: &Lab) -> Vec<[TcpStream; 2]> {
    let (sensor, peer) = (&lab.sensor, &lab.internet);
    let mut ends = Vec::new();
    for address in [format!("{PEER}:5671"), format!("[{PEER_V6}]:5671")] {
        let [ours, theirs] = connection(sensor, peer, &address);
        ends.push([theirs, ours]);
    }
    for address in ["198.18.0.1:2222", "[3fff::1]:2222", "[::]:2223"] {
        ends.push(connection(peer, sensor, address));
    }
    ends
}

fn speak_all(connections: &mut [[TcpStream; 2]]) {
    for [peer, sensor] in connections {
        speak([peer, sensor]);
    }
}

/// Nothing of what reached the sensor is anything but part of its conversations.
fn assert_all_solicited(daemon: &Daemon, at_least: u64) {
    wait_until("what was said", || packets(daemon, "solicited") >= at_least);
    for class in ["access", "backscatter", "other"] {
        assert_eq!(packets(daemon, class), 0, "{class}");
    }
}

fn kill(daemon: Daemon) {
    daemon.stop(Signal::SIGKILL).unwrap();
}

#[test]
fn conversations_older_than_the_daemon_are_learned() {
    needs_root!();
    let lab = joined();
    let mut connections = connections(&lab);
    speak_all(&mut connections);
    // With a fixed peer, UDP is in the socket tables too.
    let fixed = |here: &str, there: &str| {
        let (ours, theirs) = (socket(&lab.sensor, here), socket(&lab.internet, there));
        ours.connect(theirs.local_addr().unwrap()).unwrap();
        [theirs, ours]
    };
    let pairs = [
        fixed("198.18.0.1:4500", &format!("{PEER}:4500")),
        fixed("[3fff::1]:4500", &format!("[{PEER_V6}]:4500")),
    ];
    let (loose, asked) =
        (socket(&lab.sensor, "198.18.0.1:40501"), socket(&lab.internet, &format!("{PEER}:4501")));
    loose.send_to(b"question", asked.local_addr().unwrap()).unwrap();

    let daemon = start(&lab, &["--interface", INTERFACE]);
    for [theirs, ours] in &pairs {
        theirs.send_to(b"more", ours.local_addr().unwrap()).unwrap();
    }
    wait_class(&daemon, "solicited", 2);
    // Of each connection: what the peer says, and its ACK at some time.
    speak_all(&mut connections);
    assert_all_solicited(&daemon, 2 + 5);

    // Without a fixed peer no one knows whom it asked, until it asks again.
    asked.send_to(b"late", loose.local_addr().unwrap()).unwrap();
    wait_class(&daemon, "access", 1);
    // What is sent to a host that was just heard unasked is a reply; another port is asked.
    ask(&loose, &socket(&lab.internet, &format!("{PEER}:4502")));
    wait_until("the answer", || packets(&daemon, "solicited") >= 8);
    assert_eq!(packets(&daemon, "access"), 1);

    // They end as they went on: with a FIN of each.
    let before = packets(&daemon, "solicited");
    drop(connections);
    wait_until("their ends", || packets(&daemon, "solicited") >= before + 5);
    assert_eq!(packets(&daemon, "backscatter") + packets(&daemon, "other"), 0);
}

/// A server on the sensor is asked without a pause, also while the daemon starts: what it answers first
/// answers what no one has seen.
#[test]
fn who_asked_a_server_before_the_start_does_not_hide_behind_its_answers() {
    needs_root!();
    let mut word = [0; 8];
    for (here, there) in
        [("198.18.0.1:7", format!("{PEER}:5000")), ("[3fff::1]:7", format!("[{PEER_V6}]:5000"))]
    {
        let lab = joined();
        let (server, remote) = (socket(&lab.sensor, here), socket(&lab.internet, &there));
        // A link that was just joined may lose the first.
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let from = std::iter::repeat_with(|| {
            remote.send_to(b"request", server.local_addr().unwrap()).unwrap();
            server.recv_from(&mut word)
        })
        .take(100)
        .find_map(Result::ok)
        .expect("a request arrives")
        .1;
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let daemon = start(&lab, &["--interface", INTERFACE]);
        server.send_to(b"reply", from).unwrap();
        for round in 1..=3 {
            remote.send_to(b"request", server.local_addr().unwrap()).unwrap();
            wait_class(&daemon, "access", round);
            server.send_to(b"reply", from).unwrap();
        }
        // Servers of one port ask each other, and a socket that comes later is no server of before.
        let (ours, theirs) = match from {
            SocketAddr::V4(_) => ("198.18.0.1:8", format!("{PEER}:9")),
            SocketAddr::V6(_) => ("[3fff::1]:8", format!("[{PEER_V6}]:9")),
        };
        ask(&server, &socket(&lab.internet, &there.replace("5000", "7")));
        ask(&socket(&lab.sensor, ours), &socket(&lab.internet, &theirs));
        wait_class(&daemon, "solicited", 2);
        assert_eq!(packets(&daemon, "access"), 3);
    }
}

/// The sensor has sent a SYN when the daemon starts, and is answered by someone who takes his time.
#[test]
fn a_connection_that_is_being_opened_is_learned() {
    needs_root!();
    let lab = joined();
    let slow: Ipv4Addr = "198.18.0.3".parse().unwrap();
    let neighbour = Route { gateway: slow.into(), mac: INTERNET_MAC };
    lab.sensor.neighbour(INTERFACE, neighbour).unwrap();
    let (socket, port) = lab
        .sensor
        .run(|| {
            let socket = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Inet,
                nix::sys::socket::SockType::Stream,
                nix::sys::socket::SockFlag::SOCK_NONBLOCK,
                None,
            )
            .unwrap();
            let to = nix::sys::socket::SockaddrIn::from(std::net::SocketAddrV4::new(slow, 443));
            let begun = nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &to);
            assert_eq!(begun, Err(nix::errno::Errno::EINPROGRESS));
            let stream = TcpStream::from(socket);
            let port = stream.local_addr().unwrap().port();
            (stream, port)
        })
        .unwrap();
    let daemon = start(&lab, &["--interface", INTERFACE]);
    let ip = Ip::new(slow.into(), "198.18.0.1".parse().unwrap());
    let answer = Tcp { src: 443, dst: port, flags: flag::SYN | flag::ACK, ..Tcp::default() };
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let mut frames = Frames::default();
    frames.push(&lab.site().frame(&mut rng, &ip.packet(protocol::TCP, &answer.segment(&ip, &[]))));
    lab.sender().unwrap().send(&frames).unwrap();
    wait_class(&daemon, "solicited", 1);
    assert_eq!(packets(&daemon, "backscatter"), 0);
    drop(socket);
}

#[test]
fn what_begins_while_no_daemon_runs_is_known_to_the_next() {
    needs_root!();
    let lab = joined();
    let mut older = connections(&lab);
    // Killed, and stopped: what the kernel keeps continues, also for another process.
    for (round, end) in [Signal::SIGKILL, Signal::SIGTERM].into_iter().enumerate() {
        let daemon = start_after(&lab, end, 4600 + round as u16);
        let before = packets(&daemon, "solicited");
        speak_all(&mut older);
        assert_all_solicited(&daemon, before + 5);
        assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    }
}

/// Starts a daemon, ends it by `signal`, has the sensor ask and be answered meanwhile, and starts the next.
fn start_after(lab: &Lab, signal: Signal, port: u16) -> Daemon {
    let daemon = start(lab, &["--interface", INTERFACE]);
    if signal == Signal::SIGKILL {
        kill(daemon);
    } else {
        assert!(daemon.stop(signal).unwrap().success());
    }
    let ours = socket(&lab.sensor, &format!("198.18.0.1:{port}"));
    let theirs = socket(&lab.internet, &format!("{PEER}:{port}"));
    ask(&ours, &theirs);
    let mut new = connection(&lab.sensor, &lab.internet, &format!("{PEER}:{}", port + 1000));
    let daemon = start(lab, &["--interface", INTERFACE]);
    let before = packets(&daemon, "solicited");
    theirs.send_to(b"more", ours.local_addr().unwrap()).unwrap();
    let [sensor, peer] = &mut new;
    speak([peer, sensor]);
    assert_all_solicited(&daemon, before + 2);
    daemon
}

/// A host whose packets the sensor's machine forwards.
const INNER: &str = "198.18.7.2";

#[test]
fn connections_that_are_forwarded_are_learned_from_the_inner_host() {
    needs_root!();
    let lab = joined();
    let inner = Netns::new().unwrap();
    let end = |name, address: &str| Interface::new(name).address(address.parse().unwrap());
    lab.sensor.join(&end("inner", "198.18.7.1/24"), &inner, &end("outer", "198.18.7.2/24")).unwrap();
    lab.sensor.sysctl("ipv4/ip_forward", "1").unwrap();
    for (netns, route) in [
        (&inner, ["route", "add", "default", "via", "198.18.7.1"]),
        (&lab.internet, ["route", "add", "198.18.7.0/24", "via", "198.18.0.1"]),
    ] {
        output(netns.command("ip").args(route));
    }
    let mut connections = [
        connection(&inner, &lab.internet, &format!("{PEER}:5671")),
        connection(&lab.internet, &inner, &format!("{INNER}:2222")),
    ];
    connections[1].reverse();
    for [inner, peer] in &mut connections {
        speak([inner, peer]);
    }
    // What a remote host asks of a datagram server there is not made its own by the reply.
    let (server, remote) =
        (socket(&inner, &format!("{INNER}:4900")), socket(&lab.internet, &format!("{PEER}:4900")));

    let daemon = start(&lab, &["--interface", INTERFACE, "--observe", "198.18.7.0/24"]);
    // The inner host speaks first, and the answers are its own.
    for [inner, peer] in &mut connections {
        speak([inner, peer]);
        speak([inner, peer]);
    }
    assert_all_solicited(&daemon, 4);
    ask(&remote, &server);
    ask(&remote, &server);
    wait_class(&daemon, "access", 2);
}

#[test]
fn conversations_from_an_address_that_comes_while_it_runs() {
    needs_root!();
    let lab = joined();
    let daemon = start(&lab, &["--interface", INTERFACE]);
    let monitored =
        || daemon.metrics().unwrap().counter("teiten_monitored_addresses", &[("family", "ipv4")]).unwrap();
    assert_eq!(monitored(), 1);
    let address = |verb: &str| {
        let words = ["address", verb, "198.18.0.77/24", "dev", INTERFACE];
        output(lab.sensor.command("ip").args(words));
    };
    address("add");
    let neighbour = Route { gateway: "198.18.0.77".parse().unwrap(), mac: SENSOR_MAC };
    lab.internet.neighbour(WIRE, neighbour).unwrap();
    wait_until("the address", || monitored() == 2);
    let ours = socket(&lab.sensor, "198.18.0.77:4700");
    let theirs = socket(&lab.internet, &format!("{PEER}:4700"));
    ask(&ours, &theirs);
    wait_class(&daemon, "solicited", 1);
    // When it goes, what is sent to it is for someone else; when it comes back, the conversation is known.
    address("del");
    wait_until("the address to go", || monitored() == 1);
    let before = packets(&daemon, "other_destination");
    theirs.send_to(b"more", "198.18.0.77:4700").unwrap();
    wait_class(&daemon, "other_destination", before + 1);
    address("add");
    wait_until("the address to come back", || monitored() == 2);
    theirs.send_to(b"more", "198.18.0.77:4700").unwrap();
    wait_class(&daemon, "solicited", 2);
    assert_eq!(packets(&daemon, "access"), 0);
}

/// The sensor's real sockets ask; a third host answers in the place of the one that was asked.
#[test]
fn imitated_answers_count_as_unasked() {
    needs_root!();
    let lab = joined();
    let daemon = start(&lab, &["--interface", INTERFACE]);
    let (sensor, peer, third): (Ipv4Addr, Ipv4Addr, Ipv4Addr) =
        ("198.18.0.1".parse().unwrap(), PEER.parse().unwrap(), "198.18.0.66".parse().unwrap());
    let ours = socket(&lab.sensor, "198.18.0.1:4800");
    let theirs = socket(&lab.internet, &format!("{PEER}:53"));
    ask(&ours, &theirs);
    let mut ping = lab.sensor.command("ping");
    output(ping.args(["-n", "-c", "1", "-e", "4242", PEER]));
    let [tcp, _listener] = connection(&lab.sensor, &lab.internet, &format!("{PEER}:443"));
    let port = tcp.local_addr().unwrap().port();
    wait_class(&daemon, "solicited", 3);

    let dns = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    let from = |src: Ipv4Addr| Ip::new(src.into(), sensor.into());
    let datagram = |src, from_port, to_port, payload: &[u8]| {
        let ip = from(src);
        ip.packet(protocol::UDP, &udp(&ip, from_port, to_port, payload))
    };
    let segment = |src, from_port, to_port, flags| {
        let ip = from(src);
        let tcp = Tcp { src: from_port, dst: to_port, flags, acknowledgement: 1, ..Tcp::default() };
        ip.packet(protocol::TCP, &tcp.segment(&ip, &[]))
    };
    let message = |src, kind, rest: [u8; 4], payload: &[u8]| {
        let ip = from(src);
        ip.packet(protocol::ICMP, &icmp(&ip, kind, 0, rest, payload))
    };
    let never = |dst: Ipv4Addr, to_port| {
        let ip = Ip::new(sensor.into(), dst.into());
        ip.packet(protocol::UDP, &udp(&ip, 4800, to_port, &[]))
    };
    let id = |id: u16| [id.to_be_bytes(), [0, 1]].concat().try_into().unwrap();
    let imitations = [
        ("access", datagram(third, 5300, 4800, b"right port, wrong address")),
        ("access", datagram(peer, 5301, 4800, b"right address, wrong port")),
        ("access", datagram(peer, 5300, 4801, b"to a port that never asked")),
        ("backscatter", datagram(third, 53, 4800, &dns)),
        ("backscatter", datagram(third, 53, 4801, &dns)),
        ("backscatter", segment(third, 443, port, flag::SYN | flag::ACK)),
        ("backscatter", segment(peer, 444, port, flag::SYN | flag::ACK)),
        ("backscatter", segment(peer, 443, port ^ 1, flag::SYN | flag::ACK)),
        ("backscatter", segment(third, 443, port, flag::RST)),
        ("other", segment(third, 443, port, flag::ACK)),
        ("access", segment(third, 443, port, flag::SYN)),
        ("backscatter", message(peer, 0, id(4243), b"wrong identifier")),
        ("backscatter", message(third, 0, id(4242), b"wrong address")),
        ("backscatter", message(peer, 14, id(4242), b"wrong kind")),
        ("backscatter", message(third, 3, [0; 4], &never(third, 53))),
        ("backscatter", message(third, 11, [0; 4], &never(peer, 54))),
        ("backscatter", message(peer, 3, [0; 4], &[])),
        // A router on the way about what really was sent.
        ("solicited", message(third, 11, [0; 4], &never(peer, 53))),
    ];
    let before = daemon.metrics().unwrap().by("teiten_packets_total", ["class"]);
    let mut sender = lab.sender().unwrap();
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    for (index, (class, packet)) in imitations.iter().enumerate() {
        let mut frames = Frames::default();
        frames.push(&lab.site().frame(&mut rng, packet));
        sender.send(&frames).unwrap();
        let earlier = imitations[..=index].iter().filter(|(other, _)| other == class).count() as u64;
        let count = before.get(&[(*class).to_owned()]).copied().unwrap_or(0) + earlier;
        wait_until(format!("{class} {index}"), || packets(&daemon, class) >= count);
        assert_eq!(packets(&daemon, class), count, "{class} {index}");
    }
}

/// 70,000 conversations at once, of which 65,536 can be kept.
#[test]
fn more_conversations_than_can_be_kept_are_counted_and_shown() {
    needs_root!();
    let lab = joined();
    let daemon = start(&lab, &["--interface", INTERFACE]);
    let first = [socket(&lab.sensor, "198.18.0.1:4900"), socket(&lab.internet, &format!("{PEER}:4900"))];
    ask(&first[0], &first[1]);
    let site = lab.site();
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let mut frames = Frames::default();
    for number in 1..70_000_u32 {
        let dst = Ipv4Addr::from(0x1000_0000 + number);
        let ip = Ip::new(Ipv4Addr::new(198, 18, 0, 1).into(), dst.into());
        frames.push(&site.frame(&mut rng, &ip.packet(protocol::UDP, &udp(&ip, 4901, 53, b"flood"))));
    }
    Sender::as_host(&lab.sensor, INTERFACE, &lab.internet, WIRE).unwrap().send(&frames).unwrap();
    let value = |metric: &str| daemon.metrics().unwrap().sum(metric);
    wait_until("all of it", || {
        value("teiten_flows_created_total") + value("teiten_flow_failures_total") >= 70_000
    });
    assert_eq!(value("teiten_flows_created_total"), 65_536);
    assert_eq!(value("teiten_flow_failures_total"), 4_464);
    wait_until("the number kept", || value("teiten_flows") == 65_536);
    let mut status = lab.command(teiten());
    let said = output(status.args(["status"]));
    assert!(said.contains("4464 conversations of this host were not kept"), "{said}");
    // `teiten status | head -1`
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut status = lab.command(teiten());
    let said = status.arg("status").stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let said = said.wait_with_output().unwrap();
    assert_eq!((said.status.signal(), said.stderr), (Some(libc::SIGPIPE), Vec::new()));

    // No one had to make room: the first is known as before; one that comes now is not.
    first[1].send_to(b"more", first[0].local_addr().unwrap()).unwrap();
    wait_class(&daemon, "solicited", 2);
    let late = [socket(&lab.sensor, "198.18.0.1:4902"), socket(&lab.internet, &format!("{PEER}:4902"))];
    ask(&late[0], &late[1]);
    wait_class(&daemon, "access", 1);
    assert_eq!(value("teiten_flow_failures_total"), 4_465);
}
