//! A sensor on an ordinary line: it asks, fetches, is administered, all by the usual programs, while
//! remote hosts scan it. Every packet that the router sends to it is captured, and counted a second time
//! by who sent it. Needs root.

use crate::common::line::{Capture, Line, Program, ROUTER_MAC, serve_time};
use crate::common::{assert_totals, calm_timezone, output, teiten};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use lab::netns::Mounts;
use lab::sensor::{INTERFACE, WIRE};
use lab::traffic::{Class, Expectation, Meaning, Port, Tool, Transport};
use lab::wait::{PATIENCE, poll, wait_until};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The sensor's own addresses, the link-local one made of its Ethernet address (RFC 4291, appendix A).
const SENSOR: [&str; 3] = ["198.18.0.1", "3fff::1", "fe80::ff:fe00:1"];
/// The remote hosts' networks; everybody else is someone that the sensor talks to.
const REMOTES: [&str; 2] = ["203.0.113.0/24", "3fff:3::/64"];
/// Where the sensor accepts connections that are no configured service.
const OPEN: u16 = 2222;

fn is_remote(address: IpAddr) -> bool {
    REMOTES.iter().any(|net| net.parse::<ipnet::IpNet>().unwrap().contains(&address))
}

/// What a frame that the router sent to the sensor must count as, by who sent it: the sensor's partners
/// only ever continue with what it has started or accepted, but for their own SYN and echo requests.
fn meaning(frame: &[u8]) -> Meaning {
    let packet = LaxSlicedPacket::from_ethernet(frame).unwrap();
    let Some(net) = &packet.net else { return Meaning::Plain(Class::NonIp) };
    let Some(header) = Header::of(net, frame) else { return Meaning::Plain(Class::NonIp) };
    if header.is_later_fragment {
        return Meaning::Plain(Class::Fragment);
    }
    if !SENSOR.iter().any(|address| address.parse() == Ok(header.dst)) {
        return Meaning::Plain(Class::OtherDestination);
    }
    let (class, is_remote) = match &packet.transport {
        Some(transport) => (alone(&header, transport), is_remote(header.src) || quotes_remote(transport)),
        // etherparse leaves the first fragment alone: only answers to pings are so long here.
        None => (Meaning::Plain(Class::Solicited), false),
    };
    match class {
        Meaning::Backscatter(_) if !is_remote => Meaning::Plain(Class::Solicited),
        // Only datagrams start nothing when they come from a partner.
        Meaning::Access { port: Port(Transport::Udp, _), .. } if !is_remote => {
            Meaning::Plain(Class::Solicited)
        }
        Meaning::Plain(Class::Other) if !is_remote && is_tcp(&packet) => Meaning::Plain(Class::Solicited),
        other => other,
    }
}

fn is_tcp(packet: &LaxSlicedPacket<'_>) -> bool {
    matches!(packet.transport, Some(TransportSlice::Tcp(_)))
}

/// What an IP header says.
struct Header {
    src: IpAddr,
    dst: IpAddr,
    id: u16,
    /// TTL or hop limit.
    hop_limit: u8,
    may_be_cut: bool,
    is_later_fragment: bool,
}

impl Header {
    fn of(net: &LaxNetSlice<'_>, frame: &[u8]) -> Option<Self> {
        match net {
            LaxNetSlice::Ipv4(ip) => Some(Self {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                id: ip.header().identification(),
                hop_limit: ip.header().ttl(),
                may_be_cut: !ip.header().dont_fragment(),
                is_later_fragment: ip.header().fragments_offset().value() != 0,
            }),
            LaxNetSlice::Ipv6(ip) => Some(Self {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                id: 0,
                hop_limit: ip.header().hop_limit(),
                may_be_cut: true,
                // A fragment header directly after the IPv6 header, offset not 0.
                is_later_fragment: frame[20] == 44 && u16::from_be_bytes([frame[56], frame[57]]) >> 3 != 0,
            }),
            LaxNetSlice::Arp(_) => None,
        }
    }
}

/// Whether an IPv4 error quotes a packet to a remote host: the router cannot deliver what the sensor's
/// kernel sent back to a scanner.
fn quotes_remote(transport: &TransportSlice<'_>) -> bool {
    let TransportSlice::Icmpv4(icmp) = transport else { return false };
    let quoted = icmp.payload().get(16..20).and_then(|dst| <[u8; 4]>::try_from(dst).ok());
    icmp.type_u8() == 3 && quoted.is_some_and(|dst| is_remote(dst.into()))
}

/// What a packet would be if the sensor had never sent anything but its answers to scanners.
fn alone(header: &Header, transport: &TransportSlice<'_>) -> Meaning {
    let src = header.src;
    let icmp = |transport, kind: u8| match (src.is_ipv4(), kind) {
        (true, 8 | 13) | (false, 128) => {
            Meaning::Access { src, port: Port(transport, kind.into()), tool: None }
        }
        // Listener and neighbour discovery.
        (false, 130..=137 | 143) => Meaning::Plain(Class::Other),
        _ => Meaning::Backscatter(Port(transport, kind.into())),
    };
    match transport {
        TransportSlice::Tcp(tcp) => {
            let port = Port(Transport::Tcp, tcp.destination_port());
            match (port.1, !tcp.ack() && !tcp.rst()) {
                (22, true) => Meaning::ServiceAccess { src, port },
                (22, false) => Meaning::Plain(Class::Service),
                (_, true) => {
                    let tool = tcp.syn().then(|| tool(header, tcp));
                    Meaning::Access { src, port, tool }
                }
                // A scanner's RST after this host's SYN+ACK.
                (OPEN, false) if tcp.rst() => Meaning::Plain(Class::Other),
                _ if tcp.rst() || tcp.syn() => Meaning::Backscatter(Port(Transport::Tcp, tcp.source_port())),
                _ => Meaning::Plain(Class::Other),
            }
        }
        TransportSlice::Udp(udp) => match (udp.source_port(), udp.destination_port()) {
            (67, 68) => Meaning::Plain(Class::Other),
            (53, _) if udp.payload().get(2).is_some_and(|flags| flags & 0x80 != 0) => {
                Meaning::Backscatter(Port(Transport::Udp, 53))
            }
            (_, port) => Meaning::Access { src, port: Port(Transport::Udp, port), tool: None },
        },
        TransportSlice::Icmpv4(message) => icmp(Transport::Icmp, message.type_u8()),
        TransportSlice::Icmpv6(message) => icmp(Transport::Icmpv6, message.type_u8()),
        TransportSlice::Igmp(_) => Meaning::Plain(Class::Other),
    }
}

/// Who made a SYN, by the tools' own source code: `ZMap`'s fixed identification, masscan's from
/// destination, port and sequence number, Mirai's sequence number, nmap's window and only option. No one
/// sends by `ZMap` 4 here, or without state.
fn tool(header: &Header, tcp: &TcpSlice<'_>) -> Tool {
    if let IpAddr::V4(dst) = header.dst {
        let dst = u32::from(dst);
        let sequence = tcp.sequence_number();
        if sequence == dst {
            return Tool::Mirai;
        } else if header.id == 54_321 {
            return Tool::Zmap;
        } else if header.id == (dst ^ u32::from(tcp.destination_port()) ^ sequence) as u16 {
            return Tool::Masscan;
        }
    }
    let only_segment_size = tcp.options() == [2, 4, 5, 0xb4];
    if tcp.window_size() == 1024 && only_segment_size && header.hop_limit < 60 && header.may_be_cut {
        Tool::Nmap
    } else {
        Tool::Other
    }
}

/// Keys for both ends, and an SSH server in `netns`, whose root has no home but this.
struct Ssh {
    mounts: Mounts,
    directory: std::path::PathBuf,
}

impl Ssh {
    fn new(directory: &Path) -> Self {
        let key = directory.join("key");
        output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        output(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(directory.join("hostkey")));
        let public = std::fs::read(key.with_extension("pub")).unwrap();
        let mounts = Mounts::new().unwrap();
        mounts
            .run(|| {
                nix::mount::mount(
                    Some("home"),
                    "/root",
                    Some("tmpfs"),
                    nix::mount::MsFlags::empty(),
                    Some("mode=0700"),
                )
                .unwrap();
                std::fs::create_dir("/root/.ssh").unwrap();
                std::fs::write("/root/.ssh/authorized_keys", public).unwrap();
            })
            .unwrap();
        Self { mounts, directory: directory.to_owned() }
    }

    /// A server at these ports.
    fn serve(&self, netns: &lab::netns::Netns, ports: &[u16]) -> Program {
        let mut dropbear = netns.command_with(&self.mounts, "dropbear");
        dropbear.args(["-F", "-E", "-r"]).arg(self.directory.join("hostkey"));
        dropbear.arg("-P").arg(self.directory.join(format!("dropbear-{}.pid", ports.len())));
        for port in ports {
            dropbear.arg("-p").arg(port.to_string());
        }
        Program::start(&mut dropbear, &self.directory.join("sshd.log"))
    }

    /// Runs `remote` at `host` by SSH from `netns`.
    fn run(&self, netns: &lab::netns::Netns, port: u16, host: &str, remote: &str) -> Command {
        let mut ssh = netns.command("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o"]);
        ssh.args(["UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i"]);
        ssh.arg(self.directory.join("key"))
            .arg("-p")
            .arg(port.to_string())
            .arg(format!("root@{host}"))
            .arg(remote);
        ssh
    }
}

/// A connection on which both ends say something now and then, as one to a message queue.
struct Idle {
    client: TcpStream,
    server: TcpStream,
}

impl Idle {
    fn new(line: &Line, address: &str) -> Self {
        let address = address.parse().unwrap();
        let listener = line.servers.run(|| TcpListener::bind(address)).unwrap().unwrap();
        let client = line.lab.sensor.connect(address, PATIENCE).unwrap();
        Self { client, server: listener.accept().unwrap().0 }
    }

    fn speak(&mut self) {
        let mut word = [0; 4];
        self.server.write_all(b"news").unwrap();
        self.client.read_exact(&mut word).unwrap();
        self.client.write_all(b"done").unwrap();
        self.server.read_exact(&mut word).unwrap();
    }
}

/// `program` in the sensor's namespace with its words separated by blanks: what it said.
fn sensor(line: &Line, command: &str) -> String {
    let mut words = command.split(' ');
    let mut program = line.lab.sensor.command(words.next().unwrap());
    output(program.args(words))
}

/// The same, for what ends without success.
fn sensor_fails(line: &Line, command: &str) -> String {
    let mut words = command.split(' ');
    let mut program = line.lab.sensor.command(words.next().unwrap());
    let output = program.args(words).output().unwrap();
    assert!(!output.status.success(), "{command} should have failed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn ask_names(line: &Line) {
    for server in ["198.19.0.2", "3fff:1::2"] {
        let dig = |rest: &str| sensor(line, &format!("dig @{server} +tries=3 +time=5 {rest}"));
        assert!(dig("+short www.example.test A").contains("192.0.2.80"));
        assert!(dig("+short www.example.test AAAA").contains("2001:db8::80"));
        assert!(dig("+tcp +short www.example.test A").contains("192.0.2.80"));
        // The answer does not fit into 512 bytes, and is asked for again over TCP.
        assert!(dig("+noedns big.example.test TXT").contains("TCP mode"));
        // No one serves at this port: an ICMP error comes back.
        sensor_fails(line, &format!("dig @{server} -p 5353 +tries=1 +time=2 www.example.test A"));
    }
}

fn ask_time(line: &Line) {
    for server in ["198.19.0.2", "3fff:1::2"] {
        let said = sensor(line, &format!("ntpdig -t 5 {server}"));
        assert!(said.contains("+/-"), "{said}");
    }
}

fn fetch(line: &Line, directory: &Path) {
    for server in ["198.19.0.2", "[3fff:1::2]", "198.19.1.2", "[3fff:2::2]"] {
        let file = directory.join("fetched");
        sensor(line, &format!("curl -sS -g -m 20 -o {} http://{server}/file", file.display()));
        assert_eq!(std::fs::metadata(file).unwrap().len(), 2_000_000);
        // Refused.
        sensor_fails(line, &format!("curl -sS -g -m 5 http://{server}:8081/"));
    }
}

fn probe(line: &Line) {
    for (family, near, nowhere) in [("-4", "198.19.0.2", "198.19.9.9"), ("-6", "3fff:1::2", "3fff:9::9")] {
        sensor(line, &format!("ping {family} -n -c 3 -i 0.1 -W 5 {near}"));
        // The answer comes in fragments.
        sensor(line, &format!("ping {family} -n -c 2 -i 0.1 -W 5 -s 4000 {near}"));
        // The router says that there is no way.
        let said = sensor_fails(line, &format!("ping {family} -n -c 1 -W 10 {nowhere}"));
        assert!(said.to_lowercase().contains("unreachable"), "{said}");
        for method in ["", "-I ", "-T -p 80 ", "-T -p 8081 "] {
            let said = sensor(line, &format!("traceroute {family} -n -q 2 -w 5 -m 4 {method}{near}"));
            assert!(said.lines().last().unwrap_or_default().contains(near), "{method}: {said}");
        }
    }
}

fn administer(line: &Line, ssh: &Ssh) {
    for far in ["198.19.0.2", "3fff:1::2"] {
        assert_eq!(output(&mut ssh.run(&line.lab.sensor, 22, far, "echo there")), "there\n");
    }
    for here in ["198.18.0.1", "3fff::1"] {
        for port in [22, OPEN] {
            assert_eq!(output(&mut ssh.run(&line.servers, port, here, "echo here")), "here\n");
        }
    }
    // More than a packet over a link that takes less than the sensor's own: the router says how much.
    for far in ["198.19.1.2", "3fff:2::2"] {
        let mut upload = ssh.run(&line.lab.sensor, 22, far, "wc -c");
        let mut upload = upload.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        upload.stdin.take().unwrap().write_all(&vec![0; 200_000]).unwrap();
        let output = upload.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "200000");
    }
}

/// Asks for the address that the sensor has already; nothing is changed.
fn lease(line: &Line) {
    let mut client = line.lab.sensor.command("busybox");
    client.args(["udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "2", "-i", INTERFACE, "-s", "/bin/true"]);
    let output = client.output().unwrap();
    // It says so on standard error.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("lease of 198.18.0.1 obtained"), "{said}");
}

/// Every scanner at once, until they are done.
fn scan(line: &Line) {
    let command = |words: &str| {
        let mut words = words.split(' ');
        let mut command = line.remotes.command(words.next().unwrap());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let blocklist = line.lab.directory().join("blocklist");
    std::fs::write(&blocklist, "").unwrap();
    let masscan = ROUTER_MAC.replace(':', "-");
    let scanners = [
        "nmap -sS -Pn -n --max-retries 0 -p1-1500,2222 198.18.0.1".to_owned(),
        "nmap -6 -sS -Pn -n --max-retries 0 -p1-500,2222 3fff::1".to_owned(),
        "nmap -sU -Pn -n --max-retries 0 --max-rtt-timeout 100ms -p53,67-69,123,161,1900,5353,40000-40040 198.18.0.1".to_owned(),
        "nmap -sX -Pn -n --max-retries 0 --max-rtt-timeout 100ms -p1-200 198.18.0.1".to_owned(),
        // Answers to nothing.
        "nmap -sA -Pn -n --max-retries 0 --max-rtt-timeout 100ms -p1-200,32768-33000 198.18.0.1".to_owned(),
        "hping3 -q -c 300 -i u2000 -SA -s 80 -p 40000 198.18.0.1".to_owned(),
        "hping3 -q -c 300 -i u2000 -2 -s 53 -p 40000 -d 40 198.18.0.1".to_owned(),
        "hping3 -q -c 100 -i u2000 -1 198.18.0.1".to_owned(),
        // Sequence number 198.18.0.1.
        "hping3 -q -c 100 -i u2000 -S -M 3323068417 -p 23 198.18.0.1".to_owned(),
        format!(
            "masscan -p 1-1000 --rate 1000 --wait 1 --retries 0 -e eth0 --adapter-ip 203.0.113.77 --router-mac {masscan} 198.18.0.1"
        ),
        format!(
            "zmap -p 443 -i eth0 -G {ROUTER_MAC} -S 203.0.113.99 -r 1000 -c 1 -o /dev/null -b {} 198.18.0.1/32",
            blocklist.display()
        ),
    ];
    let mut running: Vec<_> = scanners.iter().map(|words| (words, command(words).spawn().unwrap())).collect();
    for (words, child) in &mut running {
        let since = Instant::now();
        let ended = poll(3 * PATIENCE, || {
            if words.starts_with("masscan") && since.elapsed() > Duration::from_secs(20) {
                // It waits for as long as nothing comes.
                child.kill().unwrap();
            }
            child.try_wait().unwrap()
        });
        assert!(ended.is_some(), "{words} does not end");
    }
}

/// What a busy machine's wire loses was sent, and never received; which packets, no one knows.
const TRIES: u32 = 3;

#[test]
fn real_conversations_and_scans_at_once() {
    needs_root!();
    for program in
        ["tcpdump", "dnsmasq", "dig", "ntpdig", "curl", "busybox", "traceroute", "ssh", "dropbear", "nmap"]
    {
        if lab::command::find(program).is_none() {
            println!("skipped: {program} is not installed");
            return;
        }
    }
    assert!((0..TRIES).any(|_| is_counted_exactly()), "the wire lost packets in each of {TRIES} tries");
}

/// `false` when the wire to the sensor has lost packets, so that nothing can be compared.
fn is_counted_exactly() -> bool {
    let line = Line::new();
    let directory = line.lab.directory().to_owned();
    std::fs::write(directory.join("file"), vec![b'x'; 2_000_000]).unwrap();
    let ssh = Ssh::new(&directory);
    let txt = ["a", "b", "c", "d"]
        .map(|letter| format!(" --txt-record=big.example.test,{}", letter.repeat(200)))
        .concat();
    let lease_file = directory.join("leases");
    let dns = format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file \
         --host-record=www.example.test,192.0.2.80,2001:db8::80{txt}"
    );
    let _servers = [
        line.server(&dns),
        line.server(&format!("busybox httpd -f -p [::]:80 -h {}", directory.display())),
        ssh.serve(&line.servers, &[22]),
        ssh.serve(&line.lab.sensor, &[22, OPEN]),
    ];
    serve_time(&line.servers, "198.19.0.2:123");
    serve_time(&line.servers, "[3fff:1::2]:123");

    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--timezone", &timezone, "--series-hold", "0s"];
    let daemon = line
        .lab
        .start(teiten(), &[&flags[..], &["--drain-interval", "500ms", "--service", "22/tcp"]].concat())
        .unwrap();
    let capture = Capture::of_sent(&line.lab.internet, WIRE, directory.join("wire.pcap"));
    line.open();
    let dhcp = format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file --interface={WIRE} \
         --bind-interfaces --no-ping --dhcp-range=198.18.0.1,198.18.0.1,255.255.255.0,1h \
         --dhcp-host=02:00:00:00:00:01,198.18.0.1 --dhcp-leasefile={}",
        lease_file.display()
    );
    let mut words = dhcp.split_whitespace();
    let _dhcp = Program::start(
        line.lab.internet.command(words.next().unwrap()).args(words),
        &directory.join("dhcp.log"),
    );
    wait_until("the name server", || {
        line.lab.sensor.connect("198.19.0.2:53".parse().unwrap(), PATIENCE).is_ok()
    });

    std::thread::scope(|scope| {
        let scanners = scope.spawn(|| scan(&line));
        let mut idle = [Idle::new(&line, "198.19.0.2:5672"), Idle::new(&line, "[3fff:1::2]:5672")];
        ask_names(&line);
        idle.iter_mut().for_each(Idle::speak);
        ask_time(&line);
        fetch(&line, &directory);
        probe(&line);
        administer(&line, &ssh);
        lease(&line);
        idle.iter_mut().for_each(Idle::speak);
        scanners.join().unwrap();
    });

    let packets = |daemon: &lab::sensor::Daemon| daemon.metrics().unwrap().sum("teiten_packets_total");
    let mut last = packets(&daemon);
    wait_until("rest", || {
        std::thread::sleep(Duration::from_millis(1200));
        let now = packets(&daemon);
        std::mem::replace(&mut last, now) == now
    });
    let frames = capture.frames();
    if lost(&line) > 0 {
        return false;
    }
    let samples = daemon.wait_counted(frames.len() as u64, PATIENCE).unwrap();
    let mut expected = Expectation::default();
    for frame in &frames {
        expected.add(&meaning(frame), frame.len());
    }
    assert_totals(&samples, &expected);
    // All of it happened.
    let minimum =
        [(Class::Solicited, 4_000), (Class::Access, 3_000), (Class::Service, 40), (Class::Fragment, 8)];
    for (class, packets) in minimum.into_iter().chain([(Class::Backscatter, 250), (Class::Other, 300)]) {
        assert!(expected.packets(class) >= packets, "{}: {}", class.label(), expected.packets(class));
    }
    true
}

/// Packets that found the sensor's end of the wire full.
fn lost(line: &Line) -> u64 {
    let mut ip = line.lab.internet.command("ip");
    let shown = ip.args(["-j", "-s", "link", "show", "dev", WIRE]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown[0]["stats64"]["tx"]["dropped"].as_u64().expect("ip counts what is dropped")
}
