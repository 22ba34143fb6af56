//! Blocks that CPUs share: the same counts, from CPUs that count at once.

use super::*;
use crate::samples::{Choice, SampleSettings};
use sensor_common::layout::{SAMPLE_BUDGET, SAMPLE_TOTAL};

/// A UDP port that is sampled.
const SAMPLED: Slot = Slot::new(Transport::Udp, 53);

fn policy() -> Policy {
    let choice = Choice { slots: [SAMPLED].into_iter().collect(), ..Choice::default() };
    Policy {
        observe: nets(&["0.0.0.0/0", "::/0"]),
        samples: SampleSettings { choice, ..SampleSettings::default() },
        ..Policy::default()
    }
}

/// Frames of all that a block counts: accesses of both families, of them one that is sampled, backscatter, frames that
/// are malformed, and more kinds of others than there are places.
fn frames() -> Vec<Vec<u8>> {
    let kinds = (0..UNREAD_KINDS as u8 + 3).map(|kind| {
        let mut frame = arp();
        frame[13] = 0x10 + kind;
        frame
    });
    [syn(), syn_ack(), udp6(), syn()[..40].to_vec()].into_iter().chain(kinds).collect()
}

/// Runs the program on each of the frames `repeat` times, on two CPUs at once where there are two.
fn run_at_once(harness: &mut Harness, frames: &[Vec<u8>], repeat: u32) {
    harness.kernel.attachments.object().load_for_test("teiten_eth");
    let program: &Xdp =
        harness.kernel.attachments.object().ebpf().program("teiten_eth").unwrap().try_into().unwrap();
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let start = &start;
            scope.spawn(move || {
                let mut set = nix::sched::CpuSet::new();
                set.set(cpu).expect("a CPU");
                // With one CPU, the two take turns on it.
                let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
                start.wait();
                for frame in frames {
                    let mut options = TestRunOptions::new();
                    options.data_in = Some(frame);
                    options.repeat = repeat;
                    assert_eq!(program.test_run(options).expect("run the program").return_value, 2);
                }
            });
        }
    });
}

#[test]
fn kernel_and_host_agree_on_every_packet_in_a_shared_block() {
    let policy = Policy { observe: nets(&["0.0.0.0/0", "::/0"]), ..Policy::default() };
    compare_over_corpus(policy, &shared(1024), 2);
}

#[test]
fn cpus_that_share_a_block_lose_and_double_nothing() {
    const REPEAT: u32 = 30_000;
    let policy = policy();
    let Some(mut harness) = Harness::with(policy.clone(), &shared(16)) else { return };
    let frames = frames();
    for frame in &frames {
        harness.run("teiten_eth", frame, 1);
    }
    let once = harness.switch(&policy).expect("switch").counted;
    harness.recycle().expect("recycle");
    run_at_once(&mut harness, &frames, REPEAT);
    let drained = harness.switch(&policy).expect("switch");
    let all = &drained.counted;

    let times = 2 * u64::from(REPEAT);
    let scaled = |counts: &[u64]| counts.iter().map(|count| count * times).collect::<Vec<_>>();
    assert_eq!(once.counts.packets.iter().sum::<u64>(), frames.len() as u64);
    assert_eq!(all.counts.packets[..], scaled(&once.counts.packets)[..]);
    assert_eq!(all.counts.bytes[..], scaled(&once.counts.bytes)[..]);
    assert_eq!(all.counts.tools[..], scaled(&once.counts.tools)[..]);
    let scaled =
        |ports: &[(Slot, u64)]| ports.iter().map(|(slot, count)| (*slot, count * times)).collect::<Vec<_>>();
    assert_eq!(all.ports, scaled(&once.ports));
    assert_eq!(all.counts.backscatter, scaled(&once.counts.backscatter));
    assert_eq!((all.records_v4.len(), all.records_v6.len()), (times as usize, times as usize));
    assert_eq!((all.table_packets, all.overflow), (0, 0));
    assert_eq!(all.records_v4, vec![once.records_v4[0]; times as usize]);
    assert_eq!(all.records_v6, vec![once.records_v6[0]; times as usize]);

    // Each kind has one place, whichever came first.
    let unread = |series: &Series| matches!(series, Series::Unread(Unread::Kind(_)));
    let kinds: Vec<u64> =
        all.counts.details.iter().filter(|(series, _)| unread(series)).map(|(_, packets)| packets).collect();
    assert_eq!(kinds, [times; UNREAD_KINDS]);
    let rest = sum_of(&all.counts.details, |series| matches!(series, Series::Unread(Unread::Rest)));
    assert_eq!(rest, 3 * times);

    assert_eq!(all.sampled, [(SAMPLED, times)]);
    let port = &drained.samples[0];
    assert_eq!(port.packets, times);
    let taken: u64 = port.contents.iter().map(|content| content.packets).sum();
    assert!((1..=u64::from(SAMPLE_BUDGET)).contains(&taken), "{taken} of one block");
    eprintln!("{} packets, {taken} samples", all.counts.packets.iter().sum::<u64>());
}

#[test]
fn a_shared_log_that_is_full_continues_in_the_table() {
    let policy = policy();
    let Some(mut harness) = Harness::with(policy.clone(), &shared(1)) else { return };
    let half = LOG_V4_RECORDS as u32 / 2 + 1_000;
    run_at_once(&mut harness, &[syn()], half);
    assert!(harness.kernel.fill() <= 1.0, "{}", harness.kernel.fill());
    let half_v6 = LOG_V6_RECORDS as u32 / 2 + 5;
    run_at_once(&mut harness, &[udp6()], half_v6);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(drained.counted.records_v4.len(), LOG_V4_RECORDS);
    assert_eq!(drained.counted.records_v6.len(), LOG_V6_RECORDS);
    let table: Vec<u64> = drained.table.iter().map(|(_, _, packets)| *packets).collect();
    assert_eq!((table, drained.counted.table_packets), (vec![2_000], 2_000));
    assert_eq!(drained.counted.overflow, 10);
    assert_eq!(drained.counted.ports[0].1, 2 * u64::from(half));
}

#[test]
fn cpus_that_share_a_block_hand_over_no_more_samples_than_it_has() {
    let every = Policy {
        samples: SampleSettings {
            choice: Choice { all: true, ..Choice::default() },
            contents: 1000,
            ..SampleSettings::default()
        },
        ..policy()
    };
    let Some(mut harness) = Harness::with(every.clone(), &shared(1024)) else { return };
    let frames: Vec<Vec<u8>> = (1..=1000_u16)
        .map(|port| {
            let mut frame = udp6();
            frame[56..58].copy_from_slice(&port.to_be_bytes());
            frame
        })
        .collect();
    run_at_once(&mut harness, &frames, 40);
    let drained = harness.switch(&every).expect("switch");
    let taken: u64 =
        drained.samples.iter().flat_map(|port| &port.contents).map(|content| content.packets).sum();
    assert!((1..=SAMPLE_TOTAL).contains(&taken), "{taken}");
    assert_eq!(drained.samples.iter().map(|port| port.packets).sum::<u64>(), 80_000);
}

/// Another number of blocks: what is pinned is set aside, read and removed; the last try is after a crash in between.
#[test]
fn generations_of_another_number_of_blocks_are_taken_over() {
    let policy = policy();
    let Some(mut harness) = Harness::with(policy.clone(), &sizes(16)) else { return };
    if !shared(16).by_cpu.are_shared() {
        eprintln!("skipped: one CPU has nothing to share");
        return;
    }
    harness.run("teiten_eth", &syn(), 3);
    harness.run("teiten_eth", &udp6(), 2);
    let first = counts(&harness.switch(&policy).expect("switch"));
    harness.run("teiten_eth", &syn_ack(), 5);
    let second = counts(&harness.kernel.generations.read_current());
    let Harness { kernel, pins, .. } = harness;
    let flows = |kernel: &Kernel| {
        sys::map_info(kernel.pins.open_map("FLOWS").expect("open").as_fd()).expect("a map").id
    };
    let known = flows(&kernel);
    drop(kernel);
    let homes = || {
        let found = pin_files::homes(pins.path()).expect("list");
        found
            .iter()
            .map(|home| home.path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let earlier = |kernel: &Kernel| kernel.earlier().expect("read").iter().map(counts).collect::<Vec<_>>();
    let open = |sizes: &MapSizes| {
        let opened = Kernel::open(pins.path(), sizes, NUMBERING, &policy).expect("take over");
        let Ready { kernel, spare, .. } = opened.observe();
        (kernel, spare)
    };

    let (kernel, spare) = open(&shared(16));
    assert!(matches!(spare, Spare::Empty(_)));
    assert_eq!((earlier(&kernel), kernel.number()), (vec![first.clone(), second.clone()], 3));
    assert_eq!((homes(), flows(&kernel)), (vec!["v1-2".to_owned(), "v1".to_owned()], known));
    assert_eq!(kernel.earlier().expect("read")[0].samples[0].packets, 2, "counted, and not kept");
    drop(kernel);

    let (kernel, _) = open(&sizes(16));
    assert_eq!((earlier(&kernel).len(), kernel.number()), (3, 4));
    assert_eq!(earlier(&kernel)[..2], [first, second]);
    assert_eq!((homes().len(), flows(&kernel)), (3, known));
    let mut kernel = kernel;
    kernel.forget_earlier().expect("forget");
    assert_eq!(homes(), ["v1"]);
    drop(kernel);
    assert!(!open(&sizes(16)).0.has_earlier());
}

/// A start that fails leaves the pins as they were.
#[test]
fn a_takeover_that_fails_is_undone() {
    let policy = policy();
    let Some(mut harness) = Harness::with(policy.clone(), &sizes(16)) else { return };
    if !shared(16).by_cpu.are_shared() {
        eprintln!("skipped: one CPU has nothing to share");
        return;
    }
    harness.run("teiten_eth", &syn(), 3);
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let too_large = Kernel::open(pins.path(), &shared(u32::MAX), NUMBERING, &policy).err();
    assert!(too_large.is_some());
    assert_eq!(pin_files::homes(pins.path()).expect("list").len(), 1);
    let again = Harness::open_with(pins, policy, &sizes(16));
    assert!(!again.kernel.has_earlier());
    assert_eq!(again.kernel.generations.read_current().counted.records_v4.len(), 3);
}
