//! An ordinary line: a sensor behind a router, servers that it talks to, and remote hosts.
//!
//! ```text
//! sensor eth0 ── wire ROUTER up0 ── servers       198.19.0.0/24, 3fff:1::/64
//!  198.18.0.1          │    far0 ── servers       198.19.1.0/24, 3fff:2::/64, MTU 1280
//!  3fff::1             └─── out0 ── remote hosts     203.0.113.0/24, 3fff:3::/64
//! ```

use super::output;
use lab::netns::{Interface, Mac, Netns};
use lab::sensor::{ADDRESSES, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WIRE};
use lab::wait::wait_until;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The router's Ethernet address towards the remote hosts.
pub(crate) const ROUTER_MAC: &str = "02:00:00:00:03:fe";

/// The line.
pub(crate) struct Line {
    /// The sensor's namespace, and as `internet` the router's.
    pub(crate) lab: Lab,
    /// Where the servers are.
    pub(crate) servers: Netns,
    /// Where scanners are.
    pub(crate) remotes: Netns,
}

fn ip(netns: &Netns, words: &str) {
    output(netns.command("ip").args(words.split(' ')));
}

/// Joins the router to a namespace behind it by `PREFIX0` and `eth0`: `.254` and `::fe` here, `.2` and
/// `::2` there.
fn join_leg(router: &Netns, other: &Netns, (here, there): (&str, &str), v4: &str, v6: &str, mtu: u32) {
    let ends = |last: [&str; 2]| [format!("{v4}.{}/24", last[0]), format!("{v6}::{}/64", last[1])];
    let end = |name: &str, last| {
        let interface = Interface::new(name).mtu(mtu);
        ends(last).iter().fold(interface, |interface, net| interface.address(net.parse().unwrap()))
    };
    router.join(&end(here, ["254", "fe"]), other, &end(there, ["2", "2"])).unwrap();
}

impl Line {
    /// A line on which nothing is sent towards the sensor before [`Line::open`], so that who counts and
    /// who captures can begin together.
    pub(crate) fn new() -> Self {
        let lab = Lab::without_link(1500).unwrap();
        let (servers, remotes) = (Netns::new().unwrap(), Netns::new().unwrap());
        let router = &lab.internet;
        let eth0 = ADDRESSES.iter().fold(Interface::new(INTERFACE).mac(SENSOR_MAC), |interface, net| {
            interface.address(net.parse().unwrap())
        });
        router.join(&Interface::new(WIRE).mac(INTERNET_MAC).silent(), &lab.sensor, &eth0).unwrap();
        join_leg(router, &servers, ("up0", "eth0"), "198.19.0", "3fff:1", 1500);
        join_leg(router, &servers, ("far0", "eth1"), "198.19.1", "3fff:2", 1280);
        join_leg(router, &remotes, ("out0", "eth0"), "203.0.113", "3fff:3", 1500);
        ip(router, &format!("link set out0 address {ROUTER_MAC}"));
        for (parameter, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Every error is sent, however many there are.
            ("ipv4/icmp_ratemask", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            router.sysctl(parameter, value).unwrap();
        }
        for (netns, v4, v6) in [
            (&lab.sensor, "198.18.0.254", "3fff::fe"),
            (&servers, "198.19.0.254", "3fff:1::fe"),
            (&remotes, "203.0.113.254", "3fff:3::fe"),
        ] {
            ip(netns, &format!("route add default via {v4}"));
            ip(netns, &format!("-6 route add default via {v6}"));
        }
        // Packets are counted one by one at both ends.
        output(lab.internet.command("ethtool").args(["-K", WIRE, "tso", "off", "gso", "off", "gro", "off"]));
        Self { lab, servers, remotes }
    }

    /// Lets the router speak on the wire.
    pub(crate) fn open(&self) {
        let router = &self.lab.internet;
        router.sysctl(&format!("ipv6/conf/{WIRE}/disable_ipv6"), "0").unwrap();
        ip(router, &format!("link set {WIRE} arp on"));
        ip(router, &format!("address add 198.18.0.254/24 dev {WIRE}"));
        ip(router, &format!("address add 3fff::fe/64 dev {WIRE} nodad"));
    }

    /// A program among the servers, with its words separated by blanks.
    pub(crate) fn server(&self, command: &str) -> Program {
        let mut words = command.split(' ');
        let mut program = self.servers.command(words.next().unwrap());
        Program::start(program.args(words), &self.lab.directory().join("servers.log"))
    }
}

/// A program in the background, killed when dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts `command`, which writes what it says to the end of `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A capture of what an interface sends or receives.
pub(crate) struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures what `interface` sends from now on.
    pub(crate) fn of_sent(netns: &Netns, interface: &str, file: PathBuf) -> Self {
        Self::of(netns, interface, "out", file)
    }

    /// Captures what `interface` receives from now on.
    pub(crate) fn of_received(netns: &Netns, interface: &str, file: PathBuf) -> Self {
        Self::of(netns, interface, "in", file)
    }

    fn of(netns: &Netns, interface: &str, direction: &str, file: PathBuf) -> Self {
        let mut tcpdump = netns.command("tcpdump");
        // As root it would write as another user, who may not get at the file.
        tcpdump
            .args([
                "-i", interface, "-Q", direction, "-n", "-U", "-s", "0", "-B", "65536", "-Z", "root", "-w",
            ])
            .arg(&file);
        let mut tcpdump = tcpdump.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let said = BufReader::new(tcpdump.stderr.as_mut().unwrap()).read_line(&mut line);
        assert!(said.is_ok() && line.contains("listening on"), "tcpdump: {line}");
        Self { tcpdump, file }
    }

    /// Waits until it has `count` frames to the Ethernet address `to`: tcpdump reads them when it comes to it.
    pub(crate) fn wait_for(&self, to: Mac, count: u64) {
        wait_until(format_args!("{count} captured frames"), || {
            let frames = frames(&std::fs::read(&self.file).unwrap());
            frames.iter().filter(|frame| frame.starts_with(&to)).count() as u64 >= count
        });
    }

    /// Ends it; the frames it has, none missing.
    pub(crate) fn frames(mut self) -> Vec<Vec<u8>> {
        let pid = nix::unistd::Pid::from_raw(self.tcpdump.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut said = String::new();
        io::Read::read_to_string(self.tcpdump.stderr.as_mut().unwrap(), &mut said).unwrap();
        self.tcpdump.wait().unwrap();
        assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
        frames(&std::fs::read(&self.file).unwrap())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// The frames of a capture file as tcpdump writes it: a header of 24 bytes, and before each frame 16
/// bytes, of which the third word is the length captured. A last frame that is not all there is left out.
fn frames(pcap: &[u8]) -> Vec<Vec<u8>> {
    if pcap.len() < 24 {
        return Vec::new();
    }
    assert_eq!(pcap[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "a pcap file of this machine");
    let mut frames = Vec::new();
    let mut rest = &pcap[24..];
    while let Some((header, behind)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        let Some((frame, behind)) = behind.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

/// Answers NTP requests (RFC 4330: mode 4, this machine's time, stratum 1) on `socket` as long as the
/// process lives.
pub(crate) fn serve_time(netns: &Netns, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut request = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut request) {
            if length < 48 {
                continue;
            }
            // Seconds since 1900, and a binary fraction.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let seconds = (now.as_secs() + 2_208_988_800) as u32;
            let fraction = ((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000) as u32;
            let stamp = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
            let mut answer = [0; 48];
            answer[..4].copy_from_slice(&[request[0] & 0x38 | 4, 1, 4, 0xec]);
            answer[12..16].copy_from_slice(b"GPS\0");
            answer[24..32].copy_from_slice(&request[40..48]);
            for at in [16, 32, 40] {
                answer[at..at + 8].copy_from_slice(&stamp);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
}
