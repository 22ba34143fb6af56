//! What a packet costs in the kernel, by `BPF_PROG_TEST_RUN`: Teiten's own object beside its parser
//! alone and beside a preallocated hash map by source and port.
//!
//! A test run repeats one packet, so a program in front gives each its source and port and then tail
//! calls the program to be measured. All pay the same for that; what an empty program costs there
//! tells how much. Only the calls are timed, by the CPU time of a thread that stays on one CPU; between
//! them generations change as the daemon changes them, when a log has filled to a quarter.

use super::Context;
use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::frames::{self, LOCAL_V4, LOCAL_V6};
use super::generation::{Generations, rules};
use super::programs::{Feed, Programs, SCATTER, address, loaded, stay_on, thread_time};
use anyhow::{Context as _, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use lab::netns::Mounts;
use lab::traffic::flag;
use nix::mount::{MsFlags, mount};
use sensor_common::Class;
use sensor_common::layout::{
    EXCLUDE_V4, LOG_V4_RECORDS, LOG_V6_RECORDS, OBSERVE_TRIE, Rules, SAMPLE, SET_BITS, TrieKeyV4, trie_key_v4,
};
use std::path::Path;

/// `XDP_PASS`.
const PASS: u32 = 2;
/// Ports that packets go to.
const PORTS: u32 = 1024;
/// Flows that answers may belong to.
const FLOWS: u32 = 10_000;
/// The port of this host that it asked from.
const ASKED_PORT: u16 = 40_000;
/// Prefixes that sources are excluded by.
const EXCLUDED: u32 = 1000;

/// What sees what this host sends.
const EGRESS: &str = "teiten_egress_eth";

/// What is measured, by its place among the contenders.
const CONTENDERS: [&str; 4] = ["empty_pass", "parse", "hash", "Teiten"];
const EMPTY: u32 = 0;
const PARSE: u32 = 1;
const HASH: u32 = 2;
const TEITEN: u32 = 3;
/// The program of another revision.
const OTHER: u32 = 4;

/// One kind of packet.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    feed: Feed,
    class: Class,
    rules: Box<Rules>,
    is_v6: bool,
}

/// Teiten's object, with generations and without a daemon.
struct Sensor {
    ebpf: Ebpf,
    generations: Generations,
}

impl Sensor {
    /// Loads `object` with its generations, which are pinned below `pins`.
    fn load(object: &[u8], pins: &Path, rules: &Rules) -> Result<Self> {
        Self::load_with(object, pins, rules, None)
    }

    /// [`Sensor::load`], with the bits of a CPU's number that are its block's, when it is not to have its own.
    fn load_with(object: &[u8], pins: &Path, rules: &Rules, block_mask: Option<u32>) -> Result<Self> {
        let path = pins.join("GENERATION");
        let generations = Generations::new(&path, rules)?;
        let mut loader = EbpfLoader::new();
        loader.map_pin_path("GENERATION", &path);
        if let Some(mask) = &block_mask {
            loader.override_global("BLOCK_MASK", mask, true);
        }
        for name in ["OBSERVED_V4", "EXCLUDED_V4"] {
            loader.map_max_entries(name, 1 << 20);
        }
        let ebpf = loader.load(object).context("load Teiten's object")?;
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        Ok(Self { ebpf, generations })
    }

    /// Puts a prefix into the trie `name`, in the set that [`rules`] name. An object whose tries have
    /// addresses alone in their keys takes it too.
    fn insert(&mut self, name: &str, length: u32, network: [u8; 4]) -> Result<()> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("find the map {name}"))?;
        let doing = || format!("put a prefix into the map {name}");
        if let Ok(mut trie) = LpmTrie::<_, TrieKeyV4, u8>::try_from(&mut *map) {
            let key = Key::new(SET_BITS + length, trie_key_v4(0, network));
            return trie.insert(&key, 1, 0).with_context(doing);
        }
        let mut trie: LpmTrie<_, [u8; 4], u8> = map.try_into().with_context(doing)?;
        trie.insert(&Key::new(length, network), 1, 0).with_context(doing)
    }

    /// Whether it follows this host's conversations.
    fn tracks(&self) -> bool {
        self.ebpf.program(EGRESS).is_some()
    }

    /// Lets this host send `frame`.
    fn send(&mut self, frame: &[u8]) -> Result<()> {
        let program = self.ebpf.program_mut(EGRESS).context("find the egress program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load().context("load the egress program")?;
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        program.test_run(options).context("run the egress program")?;
        Ok(())
    }
}

/// All contenders.
struct Ring {
    programs: Programs,
    sensors: Vec<Sensor>,
    contenders: Vec<u32>,
}

impl Ring {
    fn new(context: &Context, pins: &Path, keys: [u32; 2], rules: &Rules) -> Result<Self> {
        let mut programs = Programs::load(&context.bench_object, keys)?;
        for (place, name) in CONTENDERS.iter().enumerate().take(3) {
            programs.enter_own(place as u32, name)?;
        }
        let mut objects = vec![std::fs::read(&context.object).context("read Teiten's object")?];
        objects.extend(context.other_object.clone());
        let mut sensors = Vec::new();
        for (nth, object) in objects.iter().enumerate() {
            let mut sensor = Sensor::load(object, pins, rules)?;
            programs.enter(TEITEN + nth as u32, loaded(&mut sensor.ebpf, "teiten_eth")?)?;
            sensors.push(sensor);
        }
        let contenders = (0..TEITEN + sensors.len() as u32).collect();
        Ok(Self { programs, sensors, contenders })
    }

    /// Nanoseconds that `contender` takes for a packet of `case`, over `packets` of them.
    fn cost(&mut self, case: &Case, contender: u32, packets: u32) -> Result<f64> {
        self.programs.set(Feed { contender, ..case.feed })?;
        let quarter = (if case.is_v6 { LOG_V6_RECORDS } else { LOG_V4_RECORDS } / 4) as u32;
        let mut left = packets;
        let mut time = std::time::Duration::ZERO;
        while left > 0 {
            let chunk = left.min(quarter);
            let mut sensor = contender.checked_sub(TEITEN).map(|nth| &mut self.sensors[nth as usize]);
            if let Some(sensor) = &mut sensor {
                sensor.generations.next(&case.rules)?;
            }
            let before = thread_time()?;
            let verdict = self.programs.feed(&case.frame, chunk)?;
            time += thread_time()?.saturating_sub(before);
            ensure!(verdict == PASS, "{}: contender {contender} returned {verdict}", case.name);
            if let Some(sensor) = sensor {
                let counted = sensor.generations.packets();
                ensure!(
                    counted.iter().sum::<u64>() == u64::from(chunk)
                        && counted[case.class as usize] == u64::from(chunk),
                    "{}: {chunk} packets that contender {contender} saw should be of class {}, and are \
                     {counted:?} by class",
                    case.name,
                    case.class.name()
                );
            }
            left -= chunk;
        }
        Ok(time.as_nanos() as f64 / f64::from(packets))
    }

    /// Puts every source of the pool into the hash, so that packets find theirs.
    fn fill_hash(&mut self, case: &Case) -> Result<()> {
        self.programs.set(Feed { contender: HASH, scattered: 0, ..case.feed })?;
        let verdict = self.programs.feed(&case.frame, case.feed.pool)?;
        ensure!(verdict == PASS, "{}: the hash took no more", case.name);
        Ok(())
    }

    /// Rounds of all contenders, in turn.
    fn rounds(&mut self, case: &Case, context: &Context) -> Result<Vec<Rounds>> {
        let packets = context.scale.test_runs;
        let contenders = self.contenders.clone();
        let mut rounds = vec![Rounds::new(Unit::Nanoseconds); contenders.len()];
        for &contender in &contenders {
            // Into the caches.
            self.cost(case, contender, packets / 8 + 1)?;
        }
        for _ in 0..context.rounds {
            for (rounds, &contender) in rounds.iter_mut().zip(&contenders) {
                rounds.push(self.cost(case, contender, packets)?);
            }
        }
        Ok(rounds)
    }
}

fn feed(frame: frames::Made, pool: u32) -> (Vec<u8>, Feed) {
    let frames::Made { frame, source_at, port_at } = frame;
    (frame, Feed { pool, source_at, port_at, ports: PORTS, scattered: 1, ..Feed::default() })
}

fn case(name: &'static str, made: frames::Made, pool: u32, class: Class, rules: &Rules) -> Case {
    let is_v6 = made.is_v6();
    let (frame, feed) = feed(made, pool);
    Case { name, frame, feed, class, rules: Box::new(*rules), is_v6 }
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let pins = directory.path();
    // A thread of its own, since it stays on its CPU; and no one else sees its bpffs.
    Mounts::new()?.run(|| {
        stay_on(0)?;
        mount(Some("bpf"), pins, Some("bpf"), MsFlags::empty(), None::<&str>).context("mount a bpffs")?;
        pools(context, pins, results)?;
        kinds(context, pins, results)?;
        samples(context, pins, results)?;
        shared_blocks(context, pins, results)?;
        prefixes(context, pins, results)
    })?
}

/// SYNs, by how many sources they come from.
fn pools(context: &Context, pins: &Path, results: &mut Results) -> Result<()> {
    let rules = rules(LOCAL_V4, LOCAL_V6);
    let mut table = Table::new(
        "Kernel: a TCP SYN, by number of sources",
        "CPU time of one packet in `BPF_PROG_TEST_RUN`. The source jumps through the pool, each source goes \
         to one of 1,024 ports. `empty` is a program that does nothing: what the test run, the program that \
         makes the packets different and the tail call from it cost, which the others pay too. `parse` is \
         Teiten's parser alone; `hash` is the parser and a preallocated hash map by source and port that \
         holds all of them already; Teiten is the object that is installed, with conversations tracked. The \
         last column takes `empty` off both; a processor does some of a short program's work while it still \
         waits for what surrounds it, so this makes `parse` look cheaper than it is.",
        &[
            "packets",
            "sources",
            "empty",
            "parse",
            "hash",
            "Teiten",
            "Teiten / parse",
            "hash / Teiten",
            "Teiten / parse, less empty",
        ],
    );
    let mut one = None;
    for is_v6 in [false, true] {
        for &pool in context.scale.pools {
            let keys = if is_v6 { [1, pool] } else { [pool, 1] };
            let mut ring = Ring::new(context, pins, keys, &rules)?;
            let (name, made) =
                if is_v6 { ("IPv6 SYN", frames::syn_v6()) } else { ("IPv4 SYN", frames::syn_v4()) };
            let case = case(name, made, pool, Class::Access, &rules);
            ring.fill_hash(&case)?;
            let rounds = ring.rounds(&case, context)?;
            let at = |place: u32| &rounds[place as usize];
            let (empty, parse, hash, teiten) = (at(EMPTY), at(PARSE), at(HASH), at(TEITEN));
            table.row([
                name.into(),
                u64::from(pool).into(),
                empty.clone().into(),
                parse.clone().into(),
                hash.clone().into(),
                teiten.clone().into(),
                teiten.per(parse).into(),
                hash.per(teiten).into(),
                teiten.less(empty).per(&parse.less(empty)).into(),
            ]);
            if !is_v6 {
                if pool == 1_000_000 {
                    let (cost, gain) = (teiten.per(parse), hash.per(teiten));
                    results.target("SYN, 1 M sources: Teiten / parse", Bound::AtMost(2.5), cost);
                    results.target("SYN, 1 M sources: hash / Teiten", Bound::AtLeast(5.0), gain);
                }
                match &one {
                    None => one = Some(teiten.clone()),
                    Some(one) if pool == 16_000_000 => {
                        results.target("SYN: 16 M sources / 1 source", Bound::AtMost(1.5), teiten.per(one));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    results.tables.push(table);
    Ok(())
}

/// Every kind of packet that takes another way through the program.
fn kinds(context: &Context, pins: &Path, results: &mut Results) -> Result<()> {
    let pool = context.scale.pool();
    let plain = rules(LOCAL_V4, LOCAL_V6);
    let mut untracked = plain;
    untracked.flags = 0;
    let mut excluding = plain;
    excluding.flags |= EXCLUDE_V4;
    let answer = |port| frames::udp_v4([192, 0, 2, 1], port, LOCAL_V4, ASKED_PORT).with_port_kept();
    let segment = frames::segment_v4([192, 0, 2, 1], 443, LOCAL_V4, ASKED_PORT, flag::ACK).with_port_kept();
    let unasked = frames::udp_v4([192, 0, 2, 1], 123, LOCAL_V4, 53);
    let cases = [
        case("SYN", frames::syn_v4(), pool, Class::Access, &plain),
        case("SYN, conversations not tracked", frames::syn_v4(), pool, Class::Access, &untracked),
        case("SYN, VLAN tag", frames::syn_vlan(), pool, Class::Access, &plain),
        case("SYN, IPv6", frames::syn_v6(), pool, Class::Access, &plain),
        case("UDP to a port never sent from", unasked, pool, Class::Access, &plain),
        case("TCP segment, connection of this host (flow hit)", segment, FLOWS, Class::Solicited, &plain),
        // Before the other one, since who was heard unasked is answered, not asked.
        case("UDP, answer (flow hit)", answer(123), FLOWS, Class::Solicited, &plain),
        case("UDP, no conversation (flow miss)", answer(124), pool, Class::Access, &plain),
        case("SYN+ACK, backscatter", frames::syn_ack_v4(), pool, Class::Backscatter, &plain),
        case("SYN, excluded source", frames::syn_v4(), pool, Class::Excluded, &excluding),
        case("SYN to another address", frames::syn_elsewhere(), pool, Class::OtherDestination, &plain),
        case("ARP", frames::arp(), pool, Class::NonIp, &plain),
    ];
    let mut columns = vec!["packets", "empty", "parse", "Teiten", "Teiten / parse", "Teiten, less empty"];
    if let Some(name) = &context.other_name {
        columns.extend([name.as_str(), "Teiten / that"]);
    }
    let mut table = Table::new(
        "Kernel: kinds of packets",
        &format!(
            "As above, from {pool} sources. Answers belong to one of {FLOWS} conversations; a source is \
             excluded by one of {} prefixes.",
            EXCLUDED + 1
        ),
        &columns,
    );
    let mut ring = Ring::new(context, pins, [1, 1], &plain)?;
    ring.contenders.retain(|&contender| contender != HASH);
    for case in &cases {
        if case.class == Class::Solicited {
            ask(&mut ring)?;
        }
        if case.class == Class::Excluded {
            for sensor in &mut ring.sensors {
                sensor.insert("EXCLUDED_V4", 0, [0; 4])?;
                for number in 0..EXCLUDED {
                    sensor.insert("EXCLUDED_V4", 24, (number.wrapping_mul(SCATTER) & !0xff).to_be_bytes())?;
                }
            }
        }
        let all = ring.contenders.clone();
        // A revision before conversations takes an answer for an access.
        if case.class == Class::Solicited && ring.sensors.iter().any(|sensor| !sensor.tracks()) {
            ring.contenders.retain(|&contender| contender != OTHER);
        }
        // The parser alone returns "aborted" for what it cannot parse.
        if case.class == Class::NonIp {
            ring.contenders.retain(|&contender| contender != PARSE);
        }
        let rounds = ring.rounds(case, context)?;
        let at = |place: u32| {
            ring.contenders.iter().position(|&entered| entered == place).map(|at| rounds[at].clone())
        };
        let empty = at(EMPTY).context("the empty program is always among them")?;
        let teiten = at(TEITEN).context("Teiten is always among them")?;
        let parse = at(PARSE);
        let mut row = vec![
            case.name.into(),
            empty.clone().into(),
            parse.clone().map_or("—".into(), Into::into),
            teiten.clone().into(),
            parse.map_or("—".into(), |parse| teiten.per(&parse).into()),
            teiten.less(&empty).into(),
        ];
        if context.other_name.is_some() {
            let other = at(OTHER);
            let ratio = other.as_ref().map(|other| teiten.per(other));
            row.extend([other, ratio].map(|cell| cell.map_or("—".into(), Into::into)));
        }
        ring.contenders = all;
        table.row(row);
    }
    results.tables.push(table);
    Ok(())
}

/// What it costs that every port is sampled, when of each has been sampled what may be: nothing for a packet
/// that holds nothing, and little for one that does.
fn samples(context: &Context, pins: &Path, results: &mut Results) -> Result<()> {
    let off = rules(LOCAL_V4, LOCAL_V6);
    let mut on = off;
    on.flags |= SAMPLE;
    let pool = context.scale.pool();
    // What the budget costs, and nanoseconds by which two measurements of the same differ.
    let kinds = [
        ("UDP to a port never sent from", 5.0, frames::udp_v4([192, 0, 2, 1], 123, LOCAL_V4, 53)),
        ("SYN without data", 1.0, frames::syn_v4()),
    ];
    let mut table = Table::new(
        "Kernel: samples",
        &format!(
            "As above, from {pool} sources; off, and with every port sampled and the budget of the generation \
             spent. Both in the same rounds."
        ),
        &["packets", "off", "budget spent", "difference"],
    );
    let mut ring = Ring::new(context, pins, [1, 1], &off)?;
    for (name, most, made) in kinds {
        let both = [&off, &on].map(|rules| case(name, made.clone(), pool, Class::Access, rules));
        let packets = context.scale.test_runs;
        for case in &both {
            // Into the caches.
            ring.cost(case, TEITEN, packets / 8 + 1)?;
        }
        let mut rounds = [Rounds::new(Unit::Nanoseconds), Rounds::new(Unit::Nanoseconds)];
        for _ in 0..context.rounds {
            for (rounds, case) in rounds.iter_mut().zip(&both) {
                rounds.push(ring.cost(case, TEITEN, packets)?);
            }
        }
        let [off, on] = rounds;
        let difference = on.less(&off);
        table.row([name.into(), off.into(), on.into(), difference.clone().into()]);
        results.target(&format!("{name}: samples, budget spent, less off"), Bound::AtMost(most), difference);
    }
    results.tables.push(table);
    Ok(())
}

/// What it costs that CPUs share a block, while no other CPU counts into it.
fn shared_blocks(context: &Context, pins: &Path, results: &mut Results) -> Result<()> {
    let plain = rules(LOCAL_V4, LOCAL_V6);
    let mut table = Table::new(
        "Kernel: blocks that CPUs share",
        "As above: in a block of this CPU's own, and in one that all CPUs share, as on machines with many; no other CPU \
         counts at the same time. Both in the same rounds.",
        &["packets", "own block", "shared block", "difference"],
    );
    let mut ring = Ring::new(context, pins, [1, 1], &plain)?;
    let object = std::fs::read(&context.object).context("read Teiten's object")?;
    let mut shared = Sensor::load_with(&object, pins, &plain, Some(0))?;
    let place = TEITEN + ring.sensors.len() as u32;
    ring.programs.enter(place, loaded(&mut shared.ebpf, "teiten_eth")?)?;
    ring.sensors.push(shared);
    let pool = context.scale.pool();
    let cases = [
        case("SYN", frames::syn_v4(), pool, Class::Access, &plain),
        case("SYN, IPv6", frames::syn_v6(), pool, Class::Access, &plain),
        case("SYN+ACK, backscatter", frames::syn_ack_v4(), pool, Class::Backscatter, &plain),
        case("SYN to another address", frames::syn_elsewhere(), pool, Class::OtherDestination, &plain),
        case("ARP", frames::arp(), pool, Class::NonIp, &plain),
    ];
    ring.contenders = vec![TEITEN, place];
    for case in &cases {
        let rounds = ring.rounds(case, context)?;
        let [own, shared] = &rounds[..] else { unreachable!("one for each of two contenders") };
        table.row([case.name.into(), own.clone().into(), shared.clone().into(), shared.less(own).into()]);
    }
    results.tables.push(table);
    Ok(())
}

/// This host asks [`FLOWS`] others, by UDP and by TCP, from one port; they will answer.
fn ask(ring: &mut Ring) -> Result<()> {
    for sensor in ring.sensors.iter_mut().filter(|sensor| sensor.tracks()) {
        for number in 0..FLOWS {
            sensor.send(&frames::udp_v4(LOCAL_V4, ASKED_PORT, address(number), 123).frame)?;
            sensor.send(&frames::segment_v4(LOCAL_V4, ASKED_PORT, address(number), 443, flag::SYN).frame)?;
        }
    }
    Ok(())
}

/// SYNs, by how many prefixes are observed.
fn prefixes(context: &Context, pins: &Path, results: &mut Results) -> Result<()> {
    let plain = rules(LOCAL_V4, LOCAL_V6);
    let mut table = Table::new(
        "Growth: a SYN, by number of observed prefixes",
        "Up to four prefixes of each family are compared one by one; more are looked up in a trie.",
        &["prefixes", "Teiten", "Teiten, less empty"],
    );
    let mut ring = Ring::new(context, pins, [1, 1], &plain)?;
    ring.contenders = vec![EMPTY, TEITEN];
    let mut inserted = 0;
    for prefixes in [1_u32, 4, 5, 100, 10_000] {
        let mut rules = plain;
        if prefixes > 4 {
            rules.flags |= OBSERVE_TRIE;
            // The address is found only after all that are compared one by one.
            rules.observed_v4[0] = rules.observed_v4[1];
            ring.sensors[0].insert("OBSERVED_V4", 32, LOCAL_V4)?;
            for number in inserted..prefixes {
                let network = (number.wrapping_mul(SCATTER) & !0xff).to_be_bytes();
                ring.sensors[0].insert("OBSERVED_V4", 24, network)?;
            }
            inserted = prefixes;
        } else {
            rules.observed_v4.swap(0, prefixes as usize - 1);
        }
        let case = case("SYN", frames::syn_v4(), context.scale.pool(), Class::Access, &rules);
        let rounds = ring.rounds(&case, context)?;
        table.row([u64::from(prefixes).into(), rounds[1].clone().into(), rounds[1].less(&rounds[0]).into()]);
    }
    results.tables.push(table);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::programs::FIRST_PORT;
    use super::*;

    #[test]
    fn ports_begin_where_no_frame_has_its_own() {
        assert!(FIRST_PORT > 53 && FIRST_PORT + PORTS < u32::from(ASKED_PORT));
    }
}
