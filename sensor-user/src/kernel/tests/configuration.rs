//! Packets of a generation are judged by the configuration of that generation, and by no other.

use super::*;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// `source > destination: TCP 40000 > 445 [S]`
fn syn_from(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = syn();
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    frame
}

/// Four prefixes are compared inline, so the fifth is in a trie.
fn policy(observed: &str, excluded: &str) -> Policy {
    Policy {
        observe: nets(&["10.0.0.1/32", "10.0.0.3/32", "10.0.0.5/32", "10.0.0.7/32", observed]),
        excluded: nets(&[excluded]),
        ..Policy::default()
    }
}

const SCANNERS: [[u8; 4]; 2] = [[192, 0, 2, 1], [203, 0, 113, 1]];
const ADDRESSES: [[u8; 4]; 2] = [[198, 51, 100, 7], [198, 51, 100, 9]];

fn before() -> Policy {
    policy("198.51.100.7/32", "203.0.113.0/24")
}

fn after() -> Policy {
    policy("198.51.100.9/32", "192.0.2.0/24")
}

/// The classes of what both scanners send to both addresses.
const JUDGED_BEFORE: [Class; 4] =
    [Class::Access, Class::OtherDestination, Class::Excluded, Class::OtherDestination];
const JUDGED_AFTER: [Class; 4] =
    [Class::OtherDestination, Class::Excluded, Class::OtherDestination, Class::Access];

fn judged(harness: &mut Harness) -> [Class; 4] {
    let pairs = SCANNERS.map(|source| ADDRESSES.map(|destination| syn_from(source, destination)));
    let [[a, b], [c, d]] = pairs;
    [a, b, c, d].map(|frame| {
        let before = harness.snapshot().packets;
        harness.run("teiten_eth", &frame, 1);
        let after = harness.snapshot().packets;
        let class = Class::ALL.into_iter().find(|class| after[*class as usize] != before[*class as usize]);
        class.expect("each packet has a class")
    })
}

/// The kernel refuses to put anything into what is not an array of maps.
#[test]
fn a_switch_that_fails_changes_nothing() {
    let Some(mut harness) = Harness::new(before(), 16) else { return };
    assert_eq!(judged(&mut harness), JUDGED_BEFORE);
    let nothing = std::fs::File::open("/dev/null").expect("open").into();
    let outer = harness.kernel.generations.replace_outer(nothing);
    for _ in 0..2 {
        let failed = harness.switch(&after()).expect_err("nothing was switched");
        assert!(matches!(failed, KernelError::Map { .. }), "{failed:?}");
        assert_eq!((harness.kernel.number(), judged(&mut harness)), (1, JUDGED_BEFORE));
    }
    harness.kernel.generations.replace_outer(outer);
    let drained = harness.switch(&after()).expect("switch");
    let classes = [Class::OtherDestination, Class::Excluded, Class::Access];
    assert_eq!(classes.map(|class| drained.counted.counts.packets[class as usize]), [6, 3, 3]);
    assert_eq!(judged(&mut harness), JUDGED_AFTER);
}

#[test]
fn a_prepared_generation_changes_nothing_before_the_switch() {
    let Some(mut harness) = Harness::new(before(), 16) else { return };
    harness.kernel.generations.prepare(after().compile()).expect("prepare");
    assert_eq!(judged(&mut harness), JUDGED_BEFORE);
    // A daemon that ends now, and one that takes over.
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let mut harness = Harness::open(pins, after(), 16);
    assert_eq!((harness.kernel.number(), judged(&mut harness)), (1, JUDGED_BEFORE));
    harness.recycle().expect("recycle");
    assert_eq!(judged(&mut harness), JUDGED_BEFORE);
    harness.switch(&after()).expect("switch");
    assert_eq!(judged(&mut harness), JUDGED_AFTER);
}

#[test]
fn tries_hold_no_prefixes_but_those_of_the_current_generation() {
    let Some(mut harness) = Harness::new(before(), 16) else { return };
    let in_kernel = |harness: &Harness| {
        let map = |name| MapData::from_pin(harness.kernel.pins.map(name)).expect("it is pinned");
        ["OBSERVED_V4", "EXCLUDED_V4"].map(|name| {
            let trie =
                aya::maps::lpm_trie::LpmTrie::<_, [u32; 2], u8>::try_from(aya::maps::Map::LpmTrie(map(name)));
            let keys: Result<Vec<_>, _> = trie.expect("a trie").keys().collect();
            keys.expect("read").iter().map(|key| key.data()[1]).collect::<Vec<u32>>()
        })
    };
    let address = |bytes| u32::from_ne_bytes(bytes);
    for (policy, observed, excluded) in [
        (before(), ADDRESSES[0], [203, 0, 113, 0]),
        (after(), ADDRESSES[1], [192, 0, 2, 0]),
        (after(), ADDRESSES[1], [192, 0, 2, 0]),
        (before(), ADDRESSES[0], [203, 0, 113, 0]),
    ] {
        harness.switch(&policy).expect("switch");
        harness.recycle().expect("recycle");
        assert_eq!(in_kernel(&harness), [vec![address(observed)], vec![address(excluded)]]);
    }
    harness.switch(&Policy::default()).expect("switch");
    harness.recycle().expect("recycle");
    assert_eq!(in_kernel(&harness), [Vec::<u32>::new(), Vec::new()]);
}

/// Two scanners send in turn, of which each configuration excludes one. Were a packet judged by a mixture
/// of two configurations, a generation would have more packets of one of the two classes.
#[test]
fn packets_are_counted_while_thousands_of_prefixes_change() {
    let [first, second] = SCANNERS;
    let many = |at: u8, excluded: &str| {
        let more = (0..3_000_u32)
            .map(|number| format!("{at}.{}.{}.1/32", number / 200, number % 200).parse().expect("a prefix"));
        Policy { excluded: nets(&[excluded]).into_iter().chain(more).collect(), ..before() }
    };
    let policies = [many(20, "203.0.113.0/24"), many(30, "192.0.2.0/24")];
    let Some(mut harness) = Harness::new(policies[0].clone(), 1024) else { return };
    harness.kernel.attachments.object().load_for_test("teiten_eth");
    let program: &Xdp =
        harness.kernel.attachments.object().ebpf().program("teiten_eth").unwrap().try_into().unwrap();
    let program = program.fd().unwrap().as_fd().try_clone_to_owned().expect("another descriptor");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let frames = [first, second].map(|source| syn_from(source, ADDRESSES[0]));
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for frame in &frames {
                    run_once(program.as_fd(), frame);
                    sent += 1;
                }
            }
            sent
        });
        // Also when an assertion fails.
        let stopped = Stop(&stop);
        let mut counted = 0;
        let mut check = |drained: &Drained| {
            let [excluded, accesses] =
                [Class::Excluded, Class::Access].map(|class| drained.counted.counts.packets[class as usize]);
            assert!(excluded.abs_diff(accesses) <= 1, "{excluded} excluded, {accesses} accesses");
            assert!(accesses > 0, "packets came all the time");
            counted += excluded + accesses;
        };
        for round in 0..12 {
            // Let some packets come, however slow the machine is.
            while harness.snapshot().packets[Class::Access as usize] < 20 {
                std::thread::yield_now();
            }
            let drained = harness.switch(&policies[(round + 1) % 2]).expect("switch");
            harness.recycle().expect("recycle");
            check(&drained);
        }
        while harness.snapshot().packets[Class::Access as usize] < 20 {
            std::thread::yield_now();
        }
        drop(stopped);
        let sent = sender.join().expect("the sender ends");
        check(&harness.switch(&policies[0]).expect("switch"));
        (sent, counted)
    });
    assert_eq!(sent.0, sent.1, "each packet is counted once");
}

/// Dropped, it ends a thread that would never end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a program on a frame; [`Harness::run`] for another thread.
fn run_once(program: std::os::fd::BorrowedFd<'_>, frame: &[u8]) {
    /// The beginning of `bpf_attr.test`.
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    const BPF_PROG_TEST_RUN: libc::c_int = 10;
    let mut attributes = Attributes {
        prog_fd: program.as_raw_fd() as u32,
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the frame lives across the call, and the attributes are of this command.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>())
    };
    assert_eq!((result, attributes.retval), (0, 2), "{}", io::Error::last_os_error());
}
