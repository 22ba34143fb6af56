//! The program in the kernel, run packet by packet, against the same code on the host.
//!
//! Root is needed; without it each test says that it was skipped.

mod both_ways;
mod configuration;
mod flows;
mod pieces;
mod samples;
mod shared;

use super::*;
use crate::counters::detail::Details;
use crate::system::clock::monotonic_nanos;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use interface::LinkLayer;
use ipnet::IpNet;
use pcap_parser::{Block as PcapBlock, Linktype, PcapBlockOwned, PcapError};
use sensor_common::classify::{Conversation, Intent};
use sensor_common::layout::{Block, LAYOUT_VERSION, LOG_V4_RECORDS, LOG_V6_RECORDS, UNREAD_KINDS, target};
use sensor_common::{
    Address, AddressBytes, Class, Flaw, Link, LinkProtocol, Packet, Slot, Tool, Transport, Unparsed, Verdict,
    World, judge, parse,
};
use sensor_counters::{Series, Unread};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

/// A pin directory of the test's own, removed with it.
struct PinDir(tempfile::TempDir);

impl PinDir {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: loading BPF programs needs root");
            return None;
        }
        Some(Self(tempfile::tempdir().expect("a temporary directory")))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        // Ends what is pinned there, too.
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A policy, asked on the host.
struct HostWorld<'a>(&'a Policy);

/// With a source table of so many entries, and a block for each CPU.
fn sizes(source_table: u32) -> MapSizes {
    MapSizes { by_cpu: ByCpu::within(u64::MAX), source_table }
}

/// The same with one block, which CPUs share where there are several; so little memory has no room for more.
fn shared(source_table: u32) -> MapSizes {
    MapSizes { by_cpu: ByCpu::within(0), source_table }
}

/// Of a ledger that is empty.
const NUMBERING: Numbering = Numbering { ledger: 1, last: 0 };

fn ip(address: &Address) -> IpAddr {
    match address.bytes() {
        AddressBytes::V4(bytes) => Ipv4Addr::from(bytes).into(),
        AddressBytes::V6(bytes) => Ipv6Addr::from(bytes).into(),
    }
}

impl World for HostWorld<'_> {
    fn observes(&self, dst: &Address) -> bool {
        self.0.observe.iter().any(|net| net.contains(&ip(dst)))
    }
    fn excludes(&self, src: &Address) -> bool {
        self.0.excluded.iter().any(|net| net.contains(&ip(src)))
    }
    fn serves(&self, slot: Slot) -> bool {
        self.0.services.contains(&slot)
    }
    fn conversation(&self, _: &Packet, _: Intent) -> Conversation {
        Conversation::None
    }
}

struct Harness {
    kernel: Kernel,
    /// `None` only within a switch.
    spare: Option<Spare>,
    policy: Policy,
    pins: PinDir,
}

/// What is compared after each packet.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Snapshot {
    packets: [u64; Class::COUNT],
    bytes: [u64; Class::COUNT],
    tools: [u64; Tool::COUNT],
    malformed: [u64; Flaw::COUNT],
    assumed: u64,
    unread: u64,
    log_v4: u64,
    log_v6: u64,
}

impl Harness {
    fn new(policy: Policy, source_table: u32) -> Option<Self> {
        Self::with(policy, &sizes(source_table))
    }

    fn with(policy: Policy, sizes: &MapSizes) -> Option<Self> {
        let pins = PinDir::new()?;
        let mut harness = Self::open_with(pins, policy, sizes);
        // Whatever serves on the machine that tests.
        harness.kernel.flows.forget_servers();
        Some(harness)
    }

    /// What a daemon takes over that starts with these pins.
    fn open(pins: PinDir, policy: Policy, source_table: u32) -> Self {
        Self::open_with(pins, policy, &sizes(source_table))
    }

    fn open_with(pins: PinDir, policy: Policy, sizes: &MapSizes) -> Self {
        let opened = Kernel::open(pins.path(), sizes, NUMBERING, &policy);
        let Ready { kernel, spare, .. } = opened.expect("open the kernel side").observe();
        Self { kernel, spare: Some(spare), policy, pins }
    }

    /// Switches when the last generation was recycled, and reads the last one.
    fn switch(&mut self, policy: &Policy) -> Result<Drained, KernelError> {
        let full = match self.spare.take().expect("there is one") {
            Spare::Full(full) => full,
            Spare::Empty(spare) => match self.kernel.switch(spare, policy) {
                Ok(full) => full,
                Err(NotSwitched { spare, error }) => {
                    self.spare = Some(Spare::Empty(spare));
                    return Err(error);
                }
            },
        };
        let drained = self.kernel.read(&full);
        self.spare = Some(Spare::Full(full));
        drained
    }

    /// As after a commit.
    fn recycle(&mut self) -> Result<(), KernelError> {
        let spare = match self.spare.take().expect("there is one") {
            Spare::Full(full) => self.kernel.recycle(full),
            Spare::Empty(spare) => spare,
        };
        let tidied = self.kernel.tidy(&spare);
        self.spare = Some(Spare::Empty(spare));
        tidied
    }

    /// Runs `program` on a frame `repeat` times.
    fn run(&mut self, program: &str, frame: &[u8], repeat: u32) {
        self.kernel.attachments.object().load_for_test(program);
        let program: &Xdp =
            self.kernel.attachments.object().ebpf().program(program).unwrap().try_into().unwrap();
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = program.test_run(options).expect("run the program");
        assert_eq!(result.return_value, 2, "the verdict is XDP_PASS");
    }

    /// Runs the egress program on a frame that this host sends.
    fn send(&mut self, link: LinkLayer, frame: &[u8]) {
        let program = self.kernel.attachments.object().egress_for_test(link);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        let result = program.test_run(options).expect("run the program");
        assert_eq!(result.return_value as i32, -1, "the next program decides");
    }

    fn blocks(&self) -> Vec<*const Block> {
        self.kernel.generations.current_blocks()
    }

    fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for block in self.blocks() {
            // SAFETY: the program runs only within `run`, so no one writes the block now.
            let block = unsafe { &*block };
            for class in 0..Class::COUNT {
                sum.packets[class] += block.counters.packets[class];
                sum.bytes[class] += block.counters.bytes[class];
            }
            for tool in 0..Tool::COUNT {
                sum.tools[tool] += block.counters.tools[tool];
            }
            for (sum, packets) in sum.malformed.iter_mut().zip(block.counters.malformed) {
                *sum += packets;
            }
            sum.assumed += block.counters.assumed;
            sum.unread += block.counters.unread.iter().map(|kind| kind.frames).sum::<u64>();
            sum.unread += block.counters.unread_other;
            sum.log_v4 += block.log_v4_len;
            sum.log_v6 += block.log_v6_len;
        }
        sum
    }

    /// What the host makes of a frame, and why when it could not be parsed.
    fn judge(&self, frame: &[u8], link: Link) -> (Verdict, Option<Unparsed>) {
        let parsed = parse(frame, link);
        (judge(frame, &parsed, &HostWorld(&self.policy)), parsed.err())
    }
}

/// What a packet must change, by the host's verdict.
fn expected(before: &Snapshot, (verdict, unparsed): &(Verdict, Option<Unparsed>), length: usize) -> Snapshot {
    let mut after = *before;
    match unparsed {
        Some(Unparsed::NotIp) => after.unread += 1,
        Some(why) => {
            if let Some(flaw) = why.flaw() {
                after.malformed[flaw as usize] += 1;
            }
        }
        None => {}
    }
    after.packets[verdict.class as usize] += 1;
    after.bytes[verdict.class as usize] += length as u64;
    if let Some(access) = verdict.access() {
        match access.src.bytes() {
            AddressBytes::V4(_) => after.log_v4 += 1,
            AddressBytes::V6(_) => after.log_v6 += 1,
        }
        if let Some(tool) = access.tool {
            after.tools[tool as usize] += 1;
        }
        after.assumed += u64::from(access.is_assumed && verdict.class == Class::Access);
    }
    after
}

/// Packets of the project's own captures and of all in the test data, of 14 to 3,000 bytes, with their link type.
fn corpus() -> Vec<(String, bool, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data =
        std::env::var("TEITEN_TEST_DATA").map_or_else(|_| here.join("../../shared/data"), PathBuf::from);
    if !data.is_dir() {
        eprintln!("left out: no captures under {}; TEITEN_TEST_DATA names their place", data.display());
    }
    let mut packets = Vec::new();
    let mut directories = vec![here.join("tests/captures"), data];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                read_capture(&path, &mut packets);
            }
        }
    }
    assert!(packets.len() >= 2000, "only {} packets", packets.len());
    packets
}

fn read_capture(path: &Path, packets: &mut Vec<(String, bool, Vec<u8>)>) {
    let Ok(file) = std::fs::File::open(path) else { return };
    let Ok(mut reader) = pcap_parser::create_reader(1 << 20, file) else { return };
    let mut link = Linktype(-1);
    loop {
        match reader.next() {
            Ok((used, block)) => {
                let data = match &block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        link = header.network;
                        None
                    }
                    PcapBlockOwned::Legacy(packet) => Some(packet.data.to_vec()),
                    PcapBlockOwned::NG(PcapBlock::InterfaceDescription(interface)) => {
                        link = interface.linktype;
                        None
                    }
                    PcapBlockOwned::NG(PcapBlock::EnhancedPacket(packet)) => {
                        Some(packet.data[..packet.caplen.min(packet.data.len() as u32) as usize].to_vec())
                    }
                    PcapBlockOwned::NG(_) => None,
                };
                reader.consume(used);
                let ethernet = link == Linktype::ETHERNET;
                let raw = link == Linktype::RAW || link.0 == 12;
                if let Some(data) = data
                    && (ethernet || raw)
                    && (14..=3000).contains(&data.len())
                {
                    packets.push((path.display().to_string(), ethernet, data));
                }
            }
            Err(PcapError::Incomplete(_)) => {
                if reader.refill().is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn nets(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

/// A small deterministic generator (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Cuts `frame` short or changes up to four of its first 96 bytes.
fn mutate(frame: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if random.below(3) == 0 {
        frame.truncate(14 + random.below(frame.len() - 13));
    }
    for _ in 0..random.below(5) {
        let at = random.below(frame.len().min(96));
        frame[at] = random.next() as u8;
    }
    frame
}

fn compare_over_corpus(policy: Policy, sizes: &MapSizes, mutations: usize) {
    let packets = corpus();
    let Some(mut harness) = Harness::with(policy, sizes) else { return };
    let mut random = SplitMix(1);
    let mut compared = 0;
    let mut total = Snapshot::default();
    for (file, ethernet, original) in &packets {
        for round in 0..=mutations {
            let frame = if round == 0 { original.clone() } else { mutate(original, &mut random) };
            let (link, programs) = if *ethernet {
                (Link::Ethernet, ["teiten_eth", "teiten_eth_frags"])
            } else {
                (Link::Ip, ["teiten_ip", "teiten_ip_frags"])
            };
            let verdict = harness.judge(&frame, link);
            let before = harness.snapshot();
            harness.run(programs[round % 2], &frame, 1);
            let after = harness.snapshot();
            let wanted = expected(&before, &verdict, frame.len());
            assert_eq!(after, wanted, "{file}, {} bytes: {verdict:?}\n{frame:02x?}", frame.len());
            total = after;
            compared += 1;
        }
    }
    if compared == 0 {
        return;
    }
    // The same, as a drained generation tells it.
    let drained = harness.switch(&Policy::default()).expect("switch");
    assert_eq!(drained.counted.counts.packets, total.packets);
    assert_eq!(drained.counted.counts.packets.iter().sum::<u64>(), compared);
    let by_port: u64 = drained.counted.ports.iter().map(|(_, count)| count).sum();
    assert_eq!(by_port, (drained.counted.records_v4.len() + drained.counted.records_v6.len()) as u64);
    let backscatter: u64 = drained.counted.counts.backscatter.iter().map(|(_, count)| count).sum();
    assert_eq!(backscatter, drained.counted.counts.packets[Class::Backscatter as usize]);
    let unread = sum_of(&drained.counted.counts.details, |series| matches!(series, Series::Unread(_)));
    assert_eq!(unread, drained.counted.counts.packets[Class::NonIp as usize]);
    let malformed = sum_of(&drained.counted.counts.details, |series| matches!(series, Series::Malformed(_)));
    assert_eq!(malformed, drained.counted.counts.packets[Class::Malformed as usize]);
    eprintln!("{compared} packets compared");
}

fn sum_of(details: &Details, is_meant: impl Fn(&Series) -> bool) -> u64 {
    details.iter().filter(|(series, _)| is_meant(series)).map(|(_, packets)| packets).sum()
}

#[test]
fn kernel_and_host_agree_on_every_packet_when_all_destinations_count() {
    compare_over_corpus(
        Policy { observe: nets(&["0.0.0.0/0", "::/0"]), ..Policy::default() },
        &sizes(1024),
        3,
    );
}

#[test]
fn kernel_and_host_agree_on_prefixes_exclusions_and_services() {
    let policy = Policy {
        // More than fit inline, so that the tries are asked as well.
        observe: nets(&[
            "10.0.0.0/9",
            "127.0.0.0/8",
            "192.168.0.0/17",
            "172.16.0.0/13",
            "131.0.0.0/8",
            "192.0.0.0/9",
            "2001::/16",
            "fe80::/10",
            "3ffe::/16",
            "2000::/7",
            "fc00::/7",
            "::1/128",
        ]),
        excluded: nets(&["10.0.0.0/16", "192.168.1.0/24", "2001:db8::/32", "fe80::/65"]),
        services: BTreeSet::from([
            Slot::new(Transport::Tcp, 22),
            Slot::new(Transport::Tcp, 80),
            Slot::new(Transport::Udp, 53),
            Slot::new(Transport::Sctp, 2905),
        ]),
        ..Policy::default()
    };
    compare_over_corpus(policy, &sizes(1024), 1);
}

/// `192.0.2.1 > 198.51.100.7: TCP 40000 > 445 [S]`
fn syn() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    frame.extend([0x9c, 0x40, 0x01, 0xbd, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 4, 0, 0, 0, 0, 0]);
    frame
}

/// Not of IP.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6];
    frame.extend([0; 46]);
    frame
}

/// The same, as an answer to what no one asked.
fn syn_ack() -> Vec<u8> {
    let mut frame = syn();
    frame[47] = 0x12;
    frame
}

/// `2001:db8::1 > 2001:db8::7: UDP 40000 > 53`
fn udp6() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend([0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    frame
}

#[test]
fn a_full_log_continues_in_the_table_and_a_full_table_in_the_overflow() {
    let policy = Policy { observe: nets(&["0.0.0.0/0", "::/0"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy.clone(), 1) else { return };
    // One CPU, so that one log fills.
    pin_to_one_cpu();
    let (v4, v6) = (LOG_V4_RECORDS as u32 + 1_000, LOG_V6_RECORDS as u32 + 10);
    harness.run("teiten_eth", &syn(), v4);
    harness.run("teiten_eth", &udp6(), v6);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(drained.counted.counts.packets[Class::Access as usize], u64::from(v4 + v6));
    assert_eq!(drained.counted.records_v4.len(), LOG_V4_RECORDS);
    assert_eq!(drained.counted.records_v6.len(), LOG_V6_RECORDS);
    // The table has room for one key: the IPv4 source took it.
    let mapped = "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets();
    let smb = target(Slot::new(Transport::Tcp, 445), Some(Tool::Other), false);
    assert_eq!(drained.table, [(mapped, smb, 1_000)]);
    assert_eq!(drained.counted.overflow, 10);
    let ports =
        [(Slot::new(Transport::Tcp, 445), u64::from(v4)), (Slot::new(Transport::Udp, 53), u64::from(v6))];
    assert_eq!(drained.counted.ports, ports);

    // Recycling gives the room back.
    harness.recycle().expect("recycle");
    harness.run("teiten_eth", &udp6(), v6);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(drained.counted.overflow, 0);
    let source = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    assert_eq!(drained.table, [(source, target(Slot::new(Transport::Udp, 53), None, false), 10)]);
}

#[test]
fn a_daemon_that_ends_between_switch_and_commit_leaves_the_generation_to_the_next() {
    let policy = Policy { observe: nets(&["0.0.0.0/0"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    harness.run("teiten_eth", &syn(), 3);
    let first = harness.switch(&policy).expect("switch");
    harness.run("teiten_eth", &syn(), 4);
    assert_eq!((first.number, first.counted.counts.packets[Class::Access as usize]), (1, 3));
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);

    let mut harness = Harness::open(pins, policy.clone(), 16);
    let Some(Spare::Full(full)) = &harness.spare else { panic!("generation 1 is still there") };
    let left = harness.kernel.read(full).expect("read");
    assert_eq!((left.number, left.counted.counts.packets[Class::Access as usize]), (1, 3));
    harness.recycle().expect("recycle");
    let second = harness.switch(&policy).expect("switch");
    assert_eq!((second.number, second.counted.counts.packets[Class::Access as usize]), (2, 4));
}

#[test]
fn a_generation_that_was_not_recycled_is_read_again_and_not_counted_into() {
    let policy = Policy { observe: nets(&["0.0.0.0/0"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    harness.run("teiten_eth", &syn(), 3);
    let accesses =
        |drained: Drained| (drained.number, drained.counted.counts.packets[Class::Access as usize]);
    assert_eq!(accesses(harness.switch(&policy).expect("switch")), (1, 3));
    harness.run("teiten_eth", &syn(), 4);
    assert_eq!(accesses(harness.switch(&policy).expect("read again")), (1, 3));
    harness.recycle().expect("recycle");
    assert_eq!(accesses(harness.switch(&policy).expect("switch")), (2, 4));
    harness.recycle().expect("recycle");
    assert_eq!(accesses(harness.switch(&policy).expect("switch")), (3, 0));
}

#[test]
fn numbers_go_on_above_those_of_a_ledger_that_has_more() {
    let Some(mut harness) = Harness::new(Policy::default(), 16) else { return };
    harness.kernel.number_for(Numbering { ledger: 2, last: 500 });
    let first = harness.switch(&Policy::default()).expect("switch");
    assert_eq!((first.number, first.ledger), (1, NUMBERING.ledger));
    harness.recycle().expect("recycle");
    let second = harness.switch(&Policy::default()).expect("switch");
    assert_eq!((second.number, second.ledger), (501, 2));
    assert_eq!(harness.kernel.committed(), Some(500), "501 may still have to be taken in");
}

#[test]
fn a_source_table_of_another_size_keeps_what_the_old_one_holds() {
    let policy = Policy { observe: nets(&["0.0.0.0/0"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    pin_to_one_cpu();
    harness.run("teiten_eth", &syn(), LOG_V4_RECORDS as u32 + 5);
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let mut harness = Harness::open(pins, policy.clone(), 32);
    let drained = harness.switch(&policy).expect("switch");
    let packets: u64 = drained.table.iter().map(|(_, _, packets)| packets).sum();
    assert_eq!((packets, drained.counted.overflow), (5, 0));
    harness.recycle().expect("recycle");
    assert!(!harness.kernel.pins.map("SOURCES_old").exists());
}

#[test]
fn a_second_daemon_is_refused_the_pin_directory() {
    let Some(harness) = Harness::new(Policy::default(), 16) else { return };
    let refused = Kernel::open(harness.pins.path(), &sizes(16), NUMBERING, &Policy::default()).err();
    assert!(matches!(refused, Some(KernelError::PinDirInUse { .. })), "{refused:?}");
}

#[test]
fn pins_of_another_layout_are_refused_by_name() {
    let Some(pins) = PinDir::new() else { return };
    drop(Kernel::open(pins.path(), &sizes(16), NUMBERING, &Policy::default()).expect("open"));
    std::fs::create_dir(pins.path().join("v999")).expect("a directory on the bpffs");
    let refused = Kernel::open(pins.path(), &sizes(16), NUMBERING, &Policy::default()).err();
    assert!(matches!(refused, Some(KernelError::OtherLayout { found, .. }) if found == "v999"));
}

/// Everything but when it was.
fn counts(drained: &Drained) -> String {
    let Drained { number, ledger, counted, services, table, .. } = drained;
    format!("{:?}", (number, ledger, counted, services, table))
}

/// Pins as a release of another version would have left them, which has this one's layout: what is
/// read by the rules that stand for it is what this release reads itself.
#[test]
fn what_an_earlier_layout_counted_is_read_by_the_rules_of_its_version() {
    let ssh = Slot::new(Transport::Tcp, 22);
    let policy = Policy {
        observe: nets(&["0.0.0.0/0", "::/0"]),
        services: BTreeSet::from([ssh, Slot::new(Transport::Udp, 53)]),
        ..Policy::default()
    };
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    pin_to_one_cpu();
    harness.run("teiten_eth", &syn(), 3);
    harness.run("teiten_eth", &syn_ack(), 2);
    harness.run("teiten_eth", &udp6(), 4);
    harness.run("teiten_eth", &arp(), 6);
    harness.run("teiten_eth", &syn()[..40], 7);
    let first = counts(&harness.switch(&policy).expect("switch"));
    harness.run("teiten_eth", &syn(), LOG_V4_RECORDS as u32 + 5);
    let Harness { kernel, pins, .. } = harness;
    let second = counts(&kernel.generations.read_current());
    assert!(first.contains("53") && second.contains("5)"), "{first} {second}");
    assert!(first.contains("Unread(Kind(LinkProtocol(134610944))): 6"), "{first}");
    assert!(first.contains("Malformed(Truncated): 7"), "{first}");

    let shape = earlier::SHAPES.iter().find(|shape| shape.version == LAYOUT_VERSION);
    let mut shape = *shape.expect("this version's layout is described");
    shape.version = 77;
    for block in kernel.generations.all_blocks() {
        // SAFETY: the mapping may be written, and nothing else uses it now.
        unsafe { (&raw mut (*block.cast_mut()).version).write(77) };
    }
    drop(kernel);
    let root = pins.path();
    std::fs::rename(root.join(format!("v{LAYOUT_VERSION}")), root.join("v77")).expect("rename the pins");
    let unknown = Kernel::open(root, &sizes(16), NUMBERING, &policy).err();
    assert!(matches!(unknown, Some(KernelError::OtherLayout { .. })), "{unknown:?}");
    assert_eq!(is_pinned(root), Found::Yes);

    let open = || {
        let opened = Kernel::open_knowing(&[shape], root, &sizes(16), NUMBERING, &policy);
        opened.expect("take over").observe().kernel
    };
    for _ in 0..2 {
        // The second time as after a crash.
        let kernel = open();
        let read: Vec<String> = kernel.earlier().expect("read").iter().map(counts).collect();
        assert_eq!(read, [first.as_str(), second.as_str()]);
        assert_eq!(kernel.number(), 3, "above all that may be in the ledger already");
        assert_eq!(kernel.committed(), None, "what is pinned does not tell");
    }
    open().forget_earlier().expect("forget");
    assert!(!root.join("v77").exists());
    assert!(!open().has_earlier());
}

/// A map of blocks of another size, or that says another version, under a known name.
#[test]
fn what_is_not_what_it_is_called_is_not_read() {
    let Some(harness) = Harness::new(Policy::default(), 16) else { return };
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let root = pins.path();
    std::fs::rename(root.join(format!("v{LAYOUT_VERSION}")), root.join("v77")).expect("rename the pins");
    for block in [earlier::V1.block, earlier::V1.block - 4096] {
        let mut shape = earlier::V1;
        (shape.version, shape.block) = (77, block);
        let refused = Kernel::open_knowing(&[shape], root, &sizes(16), NUMBERING, &Policy::default()).err();
        assert!(matches!(refused, Some(KernelError::Map { .. })), "{refused:?}");
    }
    assert!(root.join("v77/generation-a").exists());
}

#[test]
fn the_version_of_the_layout_changes_with_it() {
    use sensor_common::layout::{Counters, RecordV4, RecordV6, Rules, SourceKey};
    use sensor_common::{Slot, Tool};
    use std::mem::offset_of;
    let layout = format!(
        "block {} version {} generation {} ledger {} began {} v4 {} v6 {} counters {} rules {} ports {} \
         backscatter {} log v4 {} log v6 {}; counters {} bytes {} tools {} overflow {} service {} table {} \
         malformed {} assumed {} unread {} of {} other {}; flaws {}; \
         rules {} services {}; records {} {}; key {} {} {}; slots {}; classes {}; tools {}",
        size_of::<Block>(),
        offset_of!(Block, version),
        offset_of!(Block, generation),
        offset_of!(Block, ledger),
        offset_of!(Block, began),
        offset_of!(Block, log_v4_len),
        offset_of!(Block, log_v6_len),
        offset_of!(Block, counters),
        offset_of!(Block, rules),
        offset_of!(Block, ports),
        offset_of!(Block, backscatter),
        offset_of!(Block, log_v4),
        offset_of!(Block, log_v6),
        size_of::<Counters>(),
        offset_of!(Counters, bytes),
        offset_of!(Counters, tools),
        offset_of!(Counters, overflow),
        offset_of!(Counters, service_overflow),
        offset_of!(Counters, table_packets),
        offset_of!(Counters, malformed),
        offset_of!(Counters, assumed),
        offset_of!(Counters, unread),
        UNREAD_KINDS,
        offset_of!(Counters, unread_other),
        Flaw::ALL.map(Flaw::name).join(" "),
        size_of::<Rules>(),
        offset_of!(Rules, services),
        size_of::<RecordV4>(),
        size_of::<RecordV6>(),
        size_of::<SourceKey>(),
        offset_of!(SourceKey, target),
        offset_of!(SourceKey, generation),
        Slot::COUNT,
        Class::ALL.map(Class::name).join(" "),
        Tool::ALL.map(Tool::name).join(" "),
    );
    let known = "block 9478144 version 0 generation 8 ledger 16 began 24 v4 32 v6 40 counters 48 rules 592 \
         ports 25336 backscatter 1604344 log v4 3183352 log v6 7377656; counters 544 bytes 80 tools 160 \
         overflow 216 service 224 table 232 malformed 240 assumed 272 unread 280 of 16 other 536; \
         flaws truncated bad_header extensions unknown; \
         rules 24744 services 168; records 8 20; key 24 16 20; slots 197376; \
         classes non_ip malformed fragment other_destination excluded service solicited backscatter access other; \
         tools other zmap masscan mirai zmap4 nmap stateless";
    assert_eq!(
        (LAYOUT_VERSION, layout.as_str()),
        (1, known),
        "pins of the layout before would be misread: raise LAYOUT_VERSION, describe the new one in earlier.rs, \
         then change this"
    );
}

/// Keeps this thread, and so its test runs, on the CPU it is on.
fn pin_to_one_cpu() {
    let mut set = nix::sched::CpuSet::new();
    set.set(0).expect("CPU 0");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("stay on CPU 0");
}

/// What the caller knows of an interface may be older than the interface: a link that is dialled again is
/// taken down first, and gone a moment later.
#[test]
fn an_interface_is_attached_to_as_it_is_and_not_as_it_was() {
    let Some(pins) = PinDir::new() else { return };
    let mut opened =
        Kernel::open(pins.path(), &sizes(16), NUMBERING, &Policy::default()).expect("open the kernel side");
    let alone = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network of its own");
        let mut interface = Interface {
            name: "lo".to_owned(),
            index: 1,
            link: LinkLayer::Ethernet,
            xdp: Some((Mode::Generic, 1)),
        };
        assert_eq!(opened.attach(&interface, XdpMode::Generic).expect("nothing is attached"), Mode::Generic);
        assert!(opened.kernel.is_attached("lo"));
        opened.kernel.release("lo").expect("release");
        interface.index = 4_000_000;
        let gone = opened.attach(&interface, XdpMode::Generic);
        assert!(matches!(gone, Err(KernelError::Gone { .. })), "{gone:?}");
    });
    alone.join().expect("the assertions hold");
}

/// Verifiers stop after a million instructions (Linux 5.2), and those of other releases look at more
/// paths than this machine's.
#[test]
fn verifiers_have_room_to_spare() {
    for sizes in [sizes(16), shared(16)] {
        let Some(mut harness) = Harness::with(Policy::default(), &sizes) else { return };
        eprintln!("{} blocks", sizes.by_cpu.blocks());
        assert_all_have_room(&mut harness);
    }
}

fn assert_all_have_room(harness: &mut Harness) {
    for name in ["teiten_eth", "teiten_eth_frags", "teiten_ip", "teiten_ip_frags"] {
        harness.kernel.attachments.object().load_for_test(name);
        let program: &Xdp =
            harness.kernel.attachments.object().ebpf().program(name).unwrap().try_into().unwrap();
        assert_room(name, &program.info().expect("what the kernel knows of it"));
    }
    for link in [LinkLayer::Ethernet, LinkLayer::Ip] {
        let program = harness.kernel.attachments.object().egress_for_test(link);
        assert_room(&format!("egress of {link:?}"), &program.info().expect("what the kernel knows of it"));
    }
}

fn assert_room(name: &str, info: &aya::programs::ProgramInfo) {
    let verified = info.verified_instruction_count().expect("Linux 5.16 counts them");
    eprintln!("{name}: {verified} instructions verified");
    assert!(verified < 250_000, "{name}: {verified} instructions");
}

#[test]
fn kinds_of_frames_beyond_the_places_of_a_block_are_one() {
    let Some(mut harness) = Harness::new(Policy::default(), 16) else { return };
    pin_to_one_cpu();
    for kind in 0..UNREAD_KINDS as u8 + 3 {
        let mut frame = arp();
        frame[13] = 0x10 + kind;
        harness.run("teiten_eth", &frame, u32::from(kind) + 1);
        harness.run("teiten_eth_frags", &frame, 1);
    }
    // Each of the first 16 once more than its number says; the three that came then together.
    let drained = harness.switch(&Policy::default()).expect("switch");
    let counted: Vec<_> =
        drained.counted.counts.details.iter().map(|(series, packets)| (series.clone(), packets)).collect();
    let kinds = (0..UNREAD_KINDS as u16).map(|kind| {
        let protocol = LinkProtocol::ethertype(0x0810 + kind);
        (Series::Unread(Unread::Kind(protocol)), u64::from(kind) + 2)
    });
    let rest = (Series::Unread(Unread::Rest), 18 + 19 + 20);
    assert_eq!(counted, kinds.chain([rest]).collect::<Vec<_>>());
}
