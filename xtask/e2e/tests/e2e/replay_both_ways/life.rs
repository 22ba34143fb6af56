//! What happens on a sensor's line: its own conversations, those that it accepts, and remote hosts.

use lab::netns::{Interface, Mac, Netns, Route};
use lab::traffic::{Carry, Frames, Ip, Sender, Tag, Tcp, ethernet, ethertype, flag, icmp, protocol, udp};
use lab::wait::wait_until;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The sensor's addresses.
pub(crate) const SENSOR: [&str; 2] = ["198.18.0.1", "3fff::1"];
/// Who it talks to, who talks to it, and its router.
const INTERNET: [&str; 2] = ["198.18.0.2", "3fff::2"];
/// An address for which the router has no route, and one that it drops.
const UNROUTED: &str = "192.0.2.99";
const DROPPED: &str = "198.51.100.66";
/// Who sends what no one asked for.
const REMOTES: [&str; 2] = ["203.0.113.99", "2001:db8::99"];

const SENSOR_MAC: Mac = [2, 0, 0, 0, 0, 1];
const INTERNET_MAC: Mac = [2, 0, 0, 0, 0, 2];
const PATIENCE: Duration = Duration::from_secs(20);

/// The sensor and the Internet, joined.
pub(crate) struct Line {
    sensor: Netns,
    internet: Netns,
}

/// A capture that continues.
pub(crate) struct Capture {
    child: Child,
    path: PathBuf,
}

impl Capture {
    /// Ends it when it has seen the last packet.
    pub(crate) fn stop(mut self) {
        // The last packet is a datagram to port 65535; captures are written with a little delay.
        wait_until(format!("the last packet of {}", self.path.display()), || self.has_the_last());
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    fn has_the_last(&self) -> bool {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        bytes.windows(LAST.len()).any(|window| window == LAST)
    }
}

/// Payload of the last packet.
const LAST: &[u8] = b"the last packet of all";

impl Line {
    pub(crate) fn new() -> Self {
        let line = Self { sensor: Netns::new().unwrap(), internet: Netns::new().unwrap() };
        let end = |name: &str, mac: Mac, addresses: [&str; 2]| {
            let [v4, v6] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
            Interface::new(name)
                .mac(mac)
                .address((format!("{v4}/24")).parse().unwrap())
                .address((format!("{v6}/64")).parse().unwrap())
        };
        let (eth0, wire) = (end("eth0", SENSOR_MAC, SENSOR), end("wire", INTERNET_MAC, INTERNET));
        line.sensor.join(&eth0, &line.internet, &wire).unwrap();
        for gateway in INTERNET {
            let route = Route { gateway: gateway.parse().unwrap(), mac: INTERNET_MAC };
            line.sensor.default_route("eth0", route).unwrap();
        }
        line.internet.sysctl("ipv4/ip_forward", "1").unwrap();
        line.internet.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let mut ip = line.internet.command("ip");
        super::output(ip.args(["route", "add", "blackhole", DROPPED]));
        line
    }

    /// Captures on an interface of the sensor.
    pub(crate) fn capture(&self, interface: &str, path: &Path) -> Capture {
        let mut command = self.sensor.command("dumpcap");
        command.args(["-q", "-i", interface, "-w"]).arg(path).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It names the file when it has begun.
        let mut said = String::new();
        let mut errors = child.stderr.take().unwrap();
        while !said.contains("File: ") {
            let mut bytes = [0; 256];
            let read = errors.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "dumpcap on {interface}: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Capture { child, path: path.to_owned() }
    }

    /// Everything, one after the other.
    pub(crate) fn live(&self) {
        let remotes = Remotes::new(self);
        self.serve();
        for at in 0..2 {
            self.browse(INTERNET[at]);
            self.refused(INTERNET[at]);
            self.ask(INTERNET[at], SENSOR[at]);
            self.accept(SENSOR[at]);
        }
        for address in INTERNET {
            let mut ping = self.sensor.command("ping");
            super::output(ping.args(["-n", "-c", "3", "-i", "0.05", address]));
        }
        self.unreachable();
        self.scanned();
        remotes.send();
        self.browse(INTERNET[0]);
        let last = self.internet.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        last.send_to(LAST, (SENSOR[0], 65_535)).unwrap();
    }

    /// Servers on both sides, which end with the process.
    fn serve(&self) {
        let listen =
            |netns: &Netns, port: u16| netns.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
        // Echoes what it gets until the other end says no more.
        let echo = listen(&self.internet, 8080);
        std::thread::spawn(move || {
            for mut stream in echo.incoming().flatten() {
                let mut text = Vec::new();
                let _ = stream.read_to_end(&mut text);
                let _ = stream.write_all(&text);
            }
        });
        // Closes with what it received unread, which makes the kernel reset the connection.
        let resets = listen(&self.internet, 8081);
        std::thread::spawn(move || {
            resets.incoming().flatten().for_each(|stream| drop(stream.peek(&mut [0])));
        });
        // The sensor's own: greets, and closes when it received something.
        let greets = listen(&self.sensor, 8022);
        std::thread::spawn(move || {
            for mut stream in greets.incoming().flatten() {
                let _ = stream.write_all(b"SSH-2.0-none\r\n");
                let _ = stream.read(&mut [0; 64]);
            }
        });
        for (netns, port) in [(&self.internet, 53), (&self.internet, 123), (&self.sensor, 7)] {
            let socket = netns.run(|| UdpSocket::bind(("::", port))).unwrap().unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    if port == 53 {
                        bytes[2] |= 0x80;
                    }
                    let _ = socket.send_to(&bytes[..length], from);
                }
            });
        }
    }

    /// Connections of the sensor: closed by both sides, half-closed, and reset by the other.
    fn browse(&self, server: &str) {
        let connect = |port| {
            let address = SocketAddr::new(server.parse().unwrap(), port);
            self.sensor.connect(address, PATIENCE).unwrap()
        };
        for size in [1, 20_000] {
            let mut stream = connect(8080);
            stream.write_all(&vec![b'x'; size]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).unwrap();
            assert_eq!(text.len(), size);
        }
        let mut stream = connect(8081);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 64]).is_err(), "it was reset");
    }

    fn refused(&self, server: &str) {
        let address = SocketAddr::new(server.parse().unwrap(), 9);
        let error = self.sensor.connect(address, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    /// DNS from any port, NTP from its own, and a question to a port that is closed.
    fn ask(&self, server: &str, sensor: &str) {
        let socket = |port: u16| {
            let socket = self.sensor.run(|| UdpSocket::bind((sensor, port))).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        // A query for the root's name servers (RFC 1035, section 4.1.1).
        let query = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0, 0, 2, 0, 1]].concat();
        let dns = socket(0);
        for _ in 0..3 {
            dns.send_to(&query, (server, 53)).unwrap();
            dns.recv_from(&mut [0; 512]).unwrap();
        }
        let ntp = socket(123);
        let mut request = [0; 48];
        request[0] = 0x23;
        ntp.send_to(&request, (server, 123)).unwrap();
        ntp.recv_from(&mut [0; 512]).unwrap();
        let closed = socket(0);
        closed.connect((server, 33_434)).unwrap();
        closed.send(b"anybody there?").unwrap();
        assert_eq!(closed.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }

    /// Connections that the sensor accepts: closed by it, and reset by the client.
    fn accept(&self, sensor: &str) {
        let address = SocketAddr::new(sensor.parse().unwrap(), 8022);
        for is_reset in [false, true] {
            let mut stream = self.internet.connect(address, PATIENCE).unwrap();
            if is_reset {
                // Closing with the greeting unread.
                assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
                continue;
            }
            stream.read_exact(&mut [0; 14]).unwrap();
            stream.write_all(b"bye").unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
        }
    }

    /// To where the router knows no way, and to where no one is, with a SYN sent twice.
    fn unreachable(&self) {
        let to = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
        assert!(self.sensor.connect(to(UNROUTED, 443), PATIENCE).is_err());
        let mut ping = self.sensor.command("ping");
        let unreachable = ping.args(["-n", "-c", "2", "-i", "0.05", "-W", "1", UNROUTED]).output().unwrap();
        let said = String::from_utf8_lossy(&unreachable.stdout).into_owned();
        assert!(said.contains("Unreachable"), "{said}");
        assert!(self.sensor.connect(to(DROPPED, 443), Duration::from_millis(1300)).is_err());
    }

    /// Scans by nmap, at the same time: half-open, whole, stealthy and UDP, of closed ports and open ones.
    fn scanned(&self) {
        let mut scans = Vec::new();
        for scan in ["-sS", "-sT", "-sF", "-sN", "-sA", "-sU"] {
            for (family, address) in [("-4", SENSOR[0]), ("-6", SENSOR[1])] {
                let ports = if scan == "-sU" { "7,9" } else { "8020-8024" };
                let mut nmap = self.internet.command("nmap");
                nmap.args([scan, family, "-T5", "-Pn", "-n", "--max-retries", "0", "-p", ports, address]);
                scans.push(nmap.stdout(Stdio::null()).spawn().unwrap());
            }
        }
        for mut scan in scans {
            assert!(scan.wait().unwrap().success());
        }
        let mut ping = self.internet.command("ping");
        super::output(ping.args(["-n", "-c", "5", "-i", "0.05", SENSOR[0]]));
    }
}

/// Spoofed frames to the sensor.
struct Remotes {
    sender: Sender,
    frames: Frames,
}

impl Remotes {
    fn new(line: &Line) -> Self {
        let sender = Sender::new(&line.internet, "wire", &line.sensor, "eth0").unwrap();
        let mut frames = Frames::default();
        for (family, source) in REMOTES.iter().enumerate() {
            let ip = Ip::new(source.parse().unwrap(), SENSOR[family].parse().unwrap());
            let server = Ip::new(INTERNET[family].parse().unwrap(), ip.dst);
            for (number, transport) in unasked(&ip, &server) {
                let kind = if ip.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
                frames.push(&ethernet(SENSOR_MAC, INTERNET_MAC, &[], kind, &ip.packet(number, &transport)));
            }
        }
        // A SYN with a VLAN tag, a question to a group, a DHCP offer.
        let v4: IpAddr = REMOTES[0].parse().unwrap();
        let ip = Ip::new(v4, SENSOR[0].parse().unwrap());
        let tag = Tag { kind: ethertype::VLAN, id: 5 };
        let syn = Tcp { src: 40_000, dst: 23, flags: flag::SYN, ..Tcp::default() }.segment(&ip, &[]);
        let packet = ip.packet(protocol::TCP, &syn);
        frames.push(&ethernet(SENSOR_MAC, INTERNET_MAC, &[tag], ethertype::IPV4, &packet));
        let group = Ip::new(v4, Ipv4Addr::new(224, 0, 0, 251).into());
        let packet = group.packet(protocol::UDP, &udp(&group, 5353, 5353, &[0; 12]));
        let group_mac = [1, 0, 0x5e, 0, 0, 251];
        frames.push(&ethernet(group_mac, INTERNET_MAC, &[], ethertype::IPV4, &packet));
        let packet = ip.packet(protocol::UDP, &udp(&ip, 67, 68, &[0; 240]));
        frames.push(&ethernet(SENSOR_MAC, INTERNET_MAC, &[], ethertype::IPV4, &packet));
        Self { sender, frames }
    }

    fn send(mut self) {
        self.sender.send(&self.frames).unwrap();
    }
}

/// What a remote host sends: protocol and transport of each packet. `server` is on the way from whom the
/// sensor really asked.
fn unasked(ip: &Ip, server: &Ip) -> Vec<(u8, Vec<u8>)> {
    let v4 = ip.src.is_ipv4();
    let icmp_number = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let tcp = |src, dst, flags| {
        let tcp = Tcp { src, dst, flags, sequence: 77, acknowledgement: 78, ..Tcp::default() };
        (protocol::TCP, tcp.segment(ip, &[]))
    };
    let response = [7, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    // As if the sensor had asked the server from port 44,444.
    let back = Ip::new(server.dst, server.src);
    let never = back.packet(protocol::UDP, &udp(&back, 44_444, 53, &[0; 12]));
    let (reply, unreachable) = if v4 { (0, 3) } else { (129, 1) };
    vec![
        (protocol::UDP, udp(ip, 53, 123, &response)),
        (protocol::UDP, udp(ip, 123, 123, &[0x24; 48])),
        // The sensor answers from port 7; the answer finds no way back.
        (protocol::UDP, udp(ip, 5000, 7, b"echo")),
        (protocol::UDP, udp(ip, 5000, 7, b"echo again")),
        (protocol::UDP, udp(ip, 5000, 9, b"closed")),
        tcp(443, 50_000, flag::SYN | flag::ACK),
        tcp(443, 50_001, flag::RST),
        tcp(443, 50_002, flag::RST | flag::ACK),
        tcp(5001, 8022, flag::SYN),
        tcp(5002, 8022, flag::ACK),
        tcp(5003, 81, flag::SYN),
        tcp(5004, 81, flag::FIN | flag::ACK),
        (icmp_number, icmp(ip, reply, 0, [0, 9, 0, 1], &[0; 32])),
        (icmp_number, icmp(ip, unreachable, 1, [0; 4], &never)),
    ]
}
