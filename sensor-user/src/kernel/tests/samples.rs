//! What the program hands over of packets to chosen ports, against what the host chooses of the same packets.

use super::*;
use crate::samples::{Choice, Chosen, PortSamples, SampleSettings, Samples};
use sensor_common::layout::{SAMPLE_ALIKE, SAMPLE_BUDGET, SAMPLE_FIRST, SAMPLE_TOTAL, SAMPLE_TOTAL_FIRST};
use std::collections::BTreeMap;

fn policy(choice: Choice) -> Policy {
    Policy {
        observe: nets(&["0.0.0.0/0", "::/0"]),
        samples: SampleSettings { choice, contents: 1000, ..SampleSettings::default() },
        ..Policy::default()
    }
}

fn to(slots: impl IntoIterator<Item = Slot>) -> Choice {
    Choice { slots: slots.into_iter().collect(), ..Choice::default() }
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let builder = etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [203, 0, 113, 77], 64);
    builder.udp(40_000, port).write(&mut frame, payload).unwrap();
    frame
}

/// Packets and contents of each port.
fn sums(samples: &Samples) -> Vec<(Slot, u64, usize)> {
    samples.iter().map(|PortSamples { slot, packets, contents }| (*slot, *packets, contents.len())).collect()
}

/// Packets whose content was handed over.
fn taken(port: &PortSamples) -> u64 {
    port.contents.iter().map(|content| content.packets).sum()
}

const MESSENGER: Slot = Slot::new(Transport::Udp, 1026);

#[test]
fn kernel_and_host_choose_the_same_packets_and_bytes() {
    let policy = policy(Choice { all: true, ..Choice::default() });
    let Some(mut harness) = Harness::new(policy.clone(), 1024) else { return };
    let mut expected = BTreeMap::<Slot, Vec<Vec<u8>>>::new();
    let flush = |harness: &mut Harness, expected: &mut BTreeMap<Slot, Vec<Vec<u8>>>| {
        let drained = harness.switch(&policy).expect("switch");
        harness.recycle().expect("recycle");
        let slots: Vec<_> = expected.iter().map(|(slot, frames)| (*slot, frames.len() as u64)).collect();
        assert_eq!(drained.counted.sampled, slots);
        for port in &drained.samples {
            let of_host = &expected[&port.slot];
            let most = of_host.len() as u64;
            let range = most.min(SAMPLE_FIRST.into())..=most.min(SAMPLE_BUDGET.into());
            assert!(range.contains(&taken(port)), "{}: {} of {most}", port.slot, taken(port));
            for content in &port.contents {
                assert!(of_host.contains(&content.packet.bytes), "{}: {content:?}", port.slot);
            }
        }
        expected.clear();
        drained.samples.iter().map(taken).sum::<u64>()
    };
    let (mut chosen, mut handed_over) = (0, 0);
    for (_, ethernet, frame) in corpus() {
        let (program, link) = if ethernet { ("teiten_eth", Link::Ethernet) } else { ("teiten_ip", Link::Ip) };
        let (verdict, _) = harness.judge(&frame, link);
        harness.run(program, &frame, 1);
        if verdict.class != Class::Access {
            continue;
        }
        let packet = parse(&frame[..], link).unwrap();
        if let Some(sample) = Chosen::new(&frame, link, &packet, SampleSettings::BYTES) {
            chosen += 1;
            expected.entry(Slot::new(packet.transport, packet.port)).or_default().push(sample.bytes);
        }
        if expected.values().map(Vec::len).sum::<usize>() as u64 >= SAMPLE_TOTAL_FIRST {
            handed_over += flush(&mut harness, &mut expected);
        }
    }
    handed_over += flush(&mut harness, &mut expected);
    assert!(chosen > 200 && handed_over > 200, "{handed_over} of {chosen}");
}

#[test]
fn a_flood_costs_no_more_than_its_budget_and_every_packet_is_counted() {
    let other = Slot::new(Transport::Udp, 27_649);
    let policy = policy(to([MESSENGER, other]));
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    harness.run("teiten_eth", &udp(1026, b"flood of one content"), 100_000);
    harness.run("teiten_eth", &udp(27_649, b"one"), 1);
    harness.run("teiten_eth", &udp(5060, b"not chosen"), 3);
    harness.run("teiten_eth", &syn(), 3);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(sums(&drained.samples), [(MESSENGER, 100_000, 1), (other, 1, 1)]);
    // Each CPU on which the kernel ran the program may take its own.
    let least = u64::from(SAMPLE_FIRST) + SAMPLE_ALIKE;
    let most = least * sizes(16).by_cpu.cpus() as u64;
    assert!((least..=most).contains(&taken(&drained.samples[0])), "{}", taken(&drained.samples[0]));
    assert_eq!(drained.samples[0].contents[0].packet.content(), b"flood of one content");
    harness.recycle().expect("recycle");
    // The next generation has its own budget; one that samples nothing has none.
    harness.run("teiten_eth", &udp(1026, b"again"), 2);
    let drained = harness.switch(&self::policy(Choice::default())).expect("switch");
    assert_eq!(sums(&drained.samples), [(MESSENGER, 2, 1)]);
    harness.recycle().expect("recycle");
    harness.run("teiten_eth", &udp(1026, b"off"), 2);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!((sums(&drained.samples), &drained.counted.sampled), (Vec::new(), &Vec::new()));
    harness.recycle().expect("recycle");
    harness.run("teiten_eth", &udp(27_649, b"on"), 1);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(sums(&drained.samples), [(other, 1, 1)]);
}

#[test]
fn what_is_repeated_beside_a_flood_of_random_contents_is_handed_over() {
    const GENERATIONS: u64 = 10;
    const PACKETS: u64 = 4_000;
    let policy = policy(to([MESSENGER]));
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    // They begin alike, as messages of one protocol do.
    let texts =
        ["alpha", "beta", "gamma", "delta"].map(|name| udp(1026, format!("message {name}").as_bytes()));
    let mut state = 20_051_101_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut seen = BTreeMap::<Vec<u8>, u64>::new();
    for _ in 0..GENERATIONS {
        for _ in 0..PACKETS {
            if random() % 20 == 0 {
                harness.run("teiten_eth", &texts[random() as usize % 4], 1);
            } else {
                let content: Vec<u8> = (0..6).flat_map(|_| (random() as u32).to_be_bytes()).collect();
                harness.run("teiten_eth", &udp(1026, &content), 1);
            }
        }
        let drained = harness.switch(&policy).expect("switch");
        harness.recycle().expect("recycle");
        let [port] = &drained.samples[..] else { panic!("{:?}", drained.samples) };
        assert_eq!((port.slot, port.packets), (MESSENGER, PACKETS));
        assert!(taken(port) <= u64::from(SAMPLE_BUDGET) * sizes(16).by_cpu.cpus() as u64, "{}", taken(port));
        for content in &port.contents {
            *seen.entry(content.packet.content().to_vec()).or_default() += content.packets;
        }
    }
    let texts: u64 = seen.iter().filter(|(content, _)| content.starts_with(b"message")).map(|(_, n)| n).sum();
    let different = seen.keys().filter(|content| content.starts_with(b"message")).count();
    // Of the first twelve of a generation there is one text on average; more come because they are repeated.
    assert!(different == 4 && texts >= 3 * GENERATIONS, "{texts} packets of {different} texts");
}

#[test]
fn a_rare_probe_of_few_bytes_is_found_beside_a_flood_of_random_contents() {
    const GENERATIONS: u64 = 40;
    const PACKETS: u64 = 2_000;
    let policy = policy(to([MESSENGER]));
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    let probes: [&[u8]; 3] = [b"abcd", b"\x01", b""];
    let mut state = 20_051_101_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut seen = [0_u64; 3];
    for _ in 0..GENERATIONS {
        for number in 0..PACKETS {
            // None is among the first of a generation.
            if number > 100 && random() % 20 == 0 {
                harness.run("teiten_eth", &udp(1026, probes[random() as usize % 3]), 1);
            } else {
                let content: Vec<u8> = (0..6).flat_map(|_| (random() as u32).to_be_bytes()).collect();
                harness.run("teiten_eth", &udp(1026, &content), 1);
            }
        }
        let drained = harness.switch(&policy).expect("switch");
        harness.recycle().expect("recycle");
        let [port] = &drained.samples[..] else { panic!("{:?}", drained.samples) };
        assert_eq!((port.slot, port.packets), (MESSENGER, PACKETS));
        for content in &port.contents {
            if let Some(nth) = probes.iter().position(|probe| *probe == content.packet.content()) {
                seen[nth] += content.packets;
            }
        }
    }
    // One in 32 is looked at, so of each probe about one in each generation.
    assert!(seen.iter().all(|seen| *seen >= GENERATIONS / 4), "{seen:?}");
}

#[test]
fn all_ports_together_have_a_bound() {
    let policy = policy(Choice { all: true, ..Choice::default() });
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    for port in 1..=1000 {
        harness.run("teiten_eth", &udp(port, b"scan"), 1);
    }
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(drained.samples.len(), 1000);
    let handed_over: u64 = drained.samples.iter().map(taken).sum();
    assert!(
        (SAMPLE_TOTAL_FIRST..=SAMPLE_TOTAL * sizes(16).by_cpu.cpus() as u64).contains(&handed_over),
        "{handed_over}"
    );
    assert_eq!(drained.samples.iter().map(|port| port.packets).sum::<u64>(), 1000);
}

#[test]
fn a_daemon_that_starts_after_a_kill_counts_the_packets_and_has_what_the_ring_holds() {
    let policy = policy(to([MESSENGER]));
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    harness.run("teiten_eth", &udp(1026, b"before"), 3);
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let mut harness = Harness::open(pins, policy.clone(), 16);
    harness.run("teiten_eth", &udp(1026, b"after"), 2);
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(sums(&drained.samples), [(MESSENGER, 5, 2)]);
    // It was read, and its commit did not come.
    harness.run("teiten_eth", &udp(1026, b"next"), 1);
    let Harness { kernel, pins, .. } = harness;
    drop(kernel);
    let mut harness = Harness::open(pins, policy.clone(), 16);
    let drained = harness.switch(&policy).expect("the generation that is left over");
    assert_eq!(sums(&drained.samples), [(MESSENGER, 5, 0)]);
    harness.recycle().expect("recycle");
    let drained = harness.switch(&policy).expect("switch");
    assert_eq!(sums(&drained.samples), [(MESSENGER, 1, 1)]);
}

#[test]
fn the_beginning_of_a_frame_in_pieces_is_handed_over() {
    let policy = policy(to([MESSENGER]));
    let Some(mut harness) = Harness::new(policy.clone(), 16) else { return };
    harness.run("teiten_eth_frags", &udp(1026, &[b'x'; 8000]), 1);
    let drained = harness.switch(&policy).expect("switch");
    let content = &drained.samples[0].contents[0];
    assert_eq!((content.packet.length, content.packet.content().len()), (8000, 768));
}
