//! The whole path: frames that the kernel sends out of one namespace (XDP live frames) into another,
//! over a veth pair, and what receives them there.
//!
//! Sender and receiving softirq share CPU 0; what else runs in userspace may use the others. The
//! figure of the sender alone, which makes the same frames and drops them, tells its part.

use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::packet_ring::PacketRing;
use super::programs::{Feed, Programs, loaded, stay_on, thread_time, with_drop_verdict};
use super::{Context, frames, process};
use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lab::netns::InterfaceCounters;
use lab::sensor::{Daemon, INTERFACE, Lab, WIRE};
use lab::{apt, command};
use std::time::Duration;

/// XDP actions.
const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
/// Ports that packets go to, as in the kernel's part.
const PORTS: u32 = 1024;
/// From which contender on packets continue to the network stack.
const PASSING: usize = 7;
/// What was sent is through, and what was received counted, after this long at the latest.
const PATIENCE: Duration = Duration::from_mins(1);
/// Counts at the first hook after the driver, and ends the packet there.
const NFT_COUNTER: &str = "table netdev bench {
    chain ingress { type filter hook ingress device eth0 priority 0; policy drop; counter drop; }
}";
/// The same, by source and port.
const NFT_SET: &str = "table netdev bench {
    set pairs { type ipv4_addr . inet_service; size 2000000; flags dynamic; counter; }
    chain ingress {
        type filter hook ingress device eth0 priority 0; policy drop;
        update @pairs { ip saddr . tcp dport } counter drop;
    }
}";
/// The same where firewalls count: in front of the host's own sockets.
const NFT_SET_INPUT: &str = "table inet bench {
    set pairs { type ipv4_addr . inet_service; size 2000000; flags dynamic; counter; }
    chain ingress {
        type filter hook input priority 0; policy drop;
        update @pairs { ip saddr . tcp dport } counter drop;
    }
}";

/// What one round saw.
struct Round {
    received: u64,
    counted: Option<u64>,
    /// CPU time of the sender and of the softirq that receives, which interrupts it.
    kernel: Duration,
    /// CPU time of who counts in userspace.
    user: Duration,
}

/// Who receives.
enum Kind {
    /// Only the program or the classifier that is attached.
    NoProgram,
    /// The daemon, and how many packets it had counted before.
    Teiten { daemon: Daemon, before: u64 },
    /// nftables, and whether its set begins each round empty, as a generation does.
    Nft { family: &'static str, before: u64, is_fresh: bool },
    /// A packet socket.
    Ring { ring: PacketRing },
}

/// A lab with one contender in it.
struct Contender {
    name: &'static str,
    lab: Lab,
    kind: Kind,
    frames: u32,
    index: u32,
    here: InterfaceCounters,
    there: InterfaceCounters,
    /// What is attached stays so.
    _attached: Vec<Ebpf>,
}

impl Contender {
    fn new(
        name: &'static str,
        kind: impl FnOnce(&Lab) -> Result<(Kind, Vec<Ebpf>)>,
        frames: u32,
    ) -> Result<Self> {
        let lab = Lab::new(1500)?;
        let (kind, attached) = kind(&lab).with_context(|| format!("set up {name}"))?;
        let index = lab.internet.index(WIRE)?;
        let here = InterfaceCounters::open(&lab.internet, WIRE)?;
        let there = InterfaceCounters::open(&lab.sensor, INTERFACE)?;
        Ok(Self { name, lab, kind, frames, index, here, there, _attached: attached })
    }

    /// Sends a round's frames and waits until they are counted.
    fn round(&mut self, programs: &mut Programs) -> Result<Round> {
        let frame = frames::syn_v4().frame;
        if let Kind::Nft { family, is_fresh: true, .. } = self.kind {
            command::output(self.lab.command("nft").args(["flush", "set", family, "bench", "pairs"]))?;
        }
        let before = (self.here.read()?, self.there.read()?);
        let user_before = self.user()?;
        let (index, count) = (self.index, self.frames);
        let kernel = self.lab.internet.run(|| send(programs, &frame, index, count))??;
        let now = (self.here.read()?, self.there.read()?);
        // A veth counts as sent what the other end has taken.
        let lost = now.0.tx_dropped - before.0.tx_dropped;
        let received = u64::from(count) - lost;
        let counted = self.counted(received).with_context(|| format!("count what {} received", self.name))?;
        let user = self.user()?.checked_sub(user_before).unwrap_or_default();
        Ok(Round { received, counted, kernel, user })
    }

    /// CPU time of who counts in userspace, so far.
    fn user(&self) -> Result<Duration> {
        match &self.kind {
            Kind::NoProgram | Kind::Nft { .. } => Ok(Duration::ZERO),
            Kind::Teiten { daemon, .. } => process::cpu(daemon.id()),
            Kind::Ring { ring } => process::thread_cpu(std::process::id(), ring.thread),
        }
    }

    /// Waits until all of `received` are counted, and tells how many were, in this round.
    fn counted(&mut self, received: u64) -> Result<Option<u64>> {
        match &mut self.kind {
            Kind::NoProgram => Ok(None),
            Kind::Teiten { daemon, before } => {
                let samples = daemon.wait_counted(*before + received, PATIENCE)?;
                let broken = samples.broken_identities();
                ensure!(broken.is_empty(), "identities do not hold: {}", broken.join("; "));
                let now = samples.sum("teiten_packets_total");
                let counted = now - std::mem::replace(before, now);
                Ok(Some(counted))
            }
            Kind::Nft { family, before, .. } => {
                let now = nft_counted(&self.lab, family)?;
                Ok(Some(now - std::mem::replace(before, now)))
            }
            Kind::Ring { ring } => Ok(Some(settled(ring))),
        }
    }
}

/// Waits until a packet socket's count no longer changes.
fn settled(ring: &PacketRing) -> u64 {
    let mut last = ring.counted();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = ring.counted();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Sends from the calling thread's namespace, on CPU 0; tells the CPU time of that.
fn send(programs: &mut Programs, frame: &[u8], index: u32, count: u32) -> Result<Duration> {
    stay_on(0)?;
    let before = thread_time()?;
    programs.send(frame, index, count)?;
    Ok(thread_time()?.saturating_sub(before))
}

/// Has the veth of the sensor receive by NAPI without an XDP program too, as frames of XDP need it.
fn receive_by_napi(lab: &Lab) -> Result<()> {
    command::output(lab.command("ethtool").args(["-K", INTERFACE, "gro", "on"])).map(drop)
}

fn nft(lab: &Lab, rules: &str, is_fresh: bool) -> Result<(Kind, Vec<Ebpf>)> {
    receive_by_napi(lab)?;
    let path = lab.directory().join("rules.nft");
    std::fs::write(&path, rules).with_context(|| format!("write {}", path.display()))?;
    command::output(lab.command("nft").arg("-f").arg(&path))?;
    let family = if rules.contains("netdev") { "netdev" } else { "inet" };
    Ok((Kind::Nft { family, before: 0, is_fresh }, Vec::new()))
}

/// What nftables has counted, over all rules or all elements of the set.
fn nft_counted(lab: &Lab, family: &str) -> Result<u64> {
    fn packets(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::Object(map) => map
                .iter()
                .map(|(name, value)| match (name.as_str(), value.get("packets")) {
                    ("counter", Some(packets)) => packets.as_u64().unwrap_or(0),
                    _ => packets(value),
                })
                .sum(),
            serde_json::Value::Array(values) => values.iter().map(packets).sum(),
            _ => 0,
        }
    }
    let listed =
        command::output(lab.command("nft").args(["-j", "list", "chain", family, "bench", "ingress"]))?;
    Ok(packets(&serde_json::from_str(&listed)?))
}

fn attach_xdp(lab: &Lab, context: &Context, name: &str) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load_file(&context.bench_object)?;
    lab.sensor.run(|| -> Result<()> {
        loaded(&mut ebpf, name)?.attach(INTERFACE, XdpMode::Driver)?;
        Ok(())
    })??;
    Ok(ebpf)
}

/// Ends every packet at the first hook after `AF_PACKET`, so that the network stack's part is the same
/// for all, and small.
fn attach_shut(lab: &Lab, context: &Context) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load_file(&context.bench_object)?;
    lab.sensor.run(|| -> Result<()> {
        let program = ebpf.program_mut("shut").context("find the program shut")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        let attached = program.attach_with_options(
            INTERFACE,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::default()),
        );
        if attached.is_err() {
            aya::programs::tc::qdisc_add_clsact(INTERFACE)?;
            program.attach_with_options(
                INTERFACE,
                TcAttachType::Ingress,
                TcAttachOptions::Netlink(NlOptions::default()),
            )?;
        }
        Ok(())
    })??;
    Ok(ebpf)
}

/// Starts the daemon.
fn teiten(lab: &Lab, context: &Context) -> Result<Daemon> {
    let timezone = super::calm_timezone();
    let arguments = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "1s", "--timezone"];
    Ok(lab.start(&context.teiten, &[&arguments[..], &[&timezone]].concat())?)
}

/// Puts a program that differs in its verdict alone after the daemon's attachment; it counts into the
/// daemon's maps, and the daemon drains them.
fn drop_verdict(lab: &Lab, context: &Context) -> Result<Ebpf> {
    const PROGRAM: &str = "teiten_eth_frags";
    let object = std::fs::read(&context.object).context("read Teiten's object")?;
    let object = with_drop_verdict(&object, PROGRAM)?;
    let pins = lab.layout_dir();
    lab.mounts.run(|| -> Result<Ebpf> {
        // The daemon has pinned each map under the name that it has in the object.
        let maps = std::fs::read_dir(pins.join("maps"))?.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = maps.iter().map(|map| map.file_name().to_string_lossy().into_owned()).collect();
        let mut loader = EbpfLoader::new();
        for (name, map) in names.iter().zip(&maps) {
            loader.map_pin_path(name, map.path());
        }
        let mut ebpf = loader.load(&object)?;
        let link: FdLink = PinnedLink::from_pin(pins.join("links").join(INTERFACE))?.into();
        let link = XdpLink::try_from(link)?;
        let program: &mut Xdp = loaded(&mut ebpf, PROGRAM)?;
        program.attach_to_link(link)?;
        Ok(ebpf)
    })?
}

fn tools() -> Result<()> {
    let missing: Vec<&str> = [("nft", "nftables"), ("ethtool", "ethtool")]
        .into_iter()
        .filter(|(program, _)| command::find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    apt::install(&missing, "the comparison with nftables")
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    tools()?;
    let frames = context.scale.frames;
    let mut programs = Programs::load(&context.bench_object, [1, 1])?;
    let made = frames::syn_v4();
    let feed = Feed {
        pool: context.scale.pool(),
        source_at: made.source_at,
        // The network stack looks at it, where packets continue to that.
        checksum_at: made.source_at - 2,
        port_at: made.port_at,
        ports: PORTS,
        scattered: 1,
        verdict: XDP_TX,
        ..Feed::default()
    };
    let user_cpu = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    let alone = |lab: &Lab, name: &str| Ok((Kind::NoProgram, vec![attach_xdp(lab, context, name)?]));
    let mut contenders = [
        Contender::new("empty XDP program, drop (floor)", |lab| alone(lab, "empty_drop"), frames)?,
        Contender::new(
            "Teiten, drop verdict",
            |lab| {
                let daemon = teiten(lab, context)?;
                Ok((Kind::Teiten { daemon, before: 0 }, vec![drop_verdict(lab, context)?]))
            },
            frames,
        )?,
        Contender::new("nftables counter, ingress hook", |lab| nft(lab, NFT_COUNTER, false), frames)?,
        Contender::new("nftables dynamic set, ingress hook", |lab| nft(lab, NFT_SET, false), frames / 4)?,
        Contender::new("nftables dynamic set, input hook", |lab| nft(lab, NFT_SET_INPUT, false), frames / 4)?,
        Contender::new("nftables dynamic set, pairs new", |lab| nft(lab, NFT_SET, true), frames / 4)?,
        Contender::new(
            "AF_PACKET v3 and a hash",
            |lab| {
                receive_by_napi(lab)?;
                let shut = attach_shut(lab, context)?;
                Ok((Kind::Ring { ring: PacketRing::start(&lab.sensor, INTERFACE, user_cpu)? }, vec![shut]))
            },
            frames,
        )?,
        Contender::new(
            "empty XDP program, pass",
            |lab| {
                Ok((
                    Kind::NoProgram,
                    vec![attach_xdp(lab, context, "empty_pass")?, attach_shut(lab, context)?],
                ))
            },
            frames,
        )?,
        Contender::new(
            "Teiten as installed, pass",
            |lab| {
                let daemon = teiten(lab, context)?;
                Ok((Kind::Teiten { daemon, before: 0 }, vec![attach_shut(lab, context)?]))
            },
            frames,
        )?,
    ];
    let unit = [Unit::PacketsPerSecond, Unit::Nanoseconds, Unit::Nanoseconds];
    let mut measured = vec![(unit.map(Rounds::new), 0_u64, 0_u64, None::<u64>); contenders.len()];
    let mut sender = Rounds::new(Unit::Nanoseconds);
    // The first round fills tables and caches, and is not shown.
    for nth in 0..=context.rounds {
        programs.set(Feed { verdict: XDP_DROP, ..feed })?;
        let frame = made.frame.clone();
        let index = contenders[0].index;
        let cpu = contenders[0].lab.internet.run(|| send(&mut programs, &frame, index, frames))??;
        if nth > 0 {
            sender.push(cpu.as_nanos() as f64 / f64::from(frames));
        }
        for (contender, (rounds, sent, received, counted)) in contenders.iter_mut().zip(&mut measured) {
            programs.set(feed)?;
            let ring_before = if let Kind::Ring { ring } = &contender.kind { ring.counted() } else { 0 };
            let round = contender.round(&mut programs)?;
            let new = round.counted.map(|counted| counted - ring_before);
            if let (Kind::Teiten { .. }, Some(new)) = (&contender.kind, new)
                && new != round.received
            {
                bail!("{}: received {} frames and counted {new}", contender.name, round.received);
            }
            if nth == 0 {
                continue;
            }
            let packets = round.received as f64;
            rounds[0].push(packets / round.kernel.as_secs_f64());
            rounds[1].push(round.kernel.as_nanos() as f64 / packets);
            rounds[2].push(round.user.as_nanos() as f64 / packets);
            *sent += u64::from(contender.frames);
            *received += round.received;
            if let Some(new) = new {
                *counted.get_or_insert(0) += new;
            }
        }
    }
    let mut table = Table::new(
        "Whole path: SYNs over a veth pair",
        &format!(
            "XDP live frames from another namespace, from {} sources. Sender and receiving softirq share a \
             CPU: the rate is for one second of it, the next column but one for one packet; the sender \
             alone takes {sender} of that. CPU in \
             userspace is that of the daemon, or of the reader. Every contender but the last two ends \
             packets as early as it can; Teiten's program is then the installed one but for its verdict. \
             A set holds all pairs already, or begins each round empty, as a generation of Teiten's does. \
             The last two hand packets to the network stack, where a classifier ends them.",
            feed.pool
        ),
        &[
            "receiver",
            "rate",
            "of its floor",
            "CPU, kernel",
            "CPU, userspace",
            "sent",
            "received",
            "counted",
            "lost",
        ],
    );
    for (nth, (contender, (rounds, sent, received, counted))) in contenders.iter().zip(&measured).enumerate()
    {
        let floor = if nth < PASSING { 0 } else { PASSING };
        table.row([
            contender.name.into(),
            rounds[0].clone().into(),
            rounds[0].per(&measured[floor].0[0]).into(),
            rounds[1].clone().into(),
            if matches!(contender.kind, Kind::NoProgram | Kind::Nft { .. }) {
                "—".into()
            } else {
                rounds[2].clone().into()
            },
            (*sent).into(),
            (*received).into(),
            counted.map_or("—".into(), Into::into),
            counted.map_or("—".into(), |counted| (received - counted).into()),
        ]);
    }
    results.tables.push(table);
    let rate = |nth: usize| &measured[nth].0[0];
    results.target("veth, drop: Teiten / floor", Bound::AtLeast(0.65), rate(1).per(rate(0)));
    for (at, what) in [(3, "ingress hook"), (4, "input hook"), (5, "pairs new")] {
        let name = format!("veth: Teiten / nftables set, {what}");
        results.target(&name, Bound::AtLeast(8.0), rate(1).per(rate(at)));
    }
    results.target("veth: Teiten / AF_PACKET v3", Bound::AtLeast(2.0), rate(1).per(rate(6)));
    let lost: u64 = [1, PASSING + 1].map(|nth| measured[nth].2 - measured[nth].3.unwrap_or(0)).iter().sum();
    results.target(
        "veth: lost of what Teiten's program received",
        Bound::AtMost(0.0),
        Rounds::of(Unit::Count, [lost as f64]),
    );
    Ok(())
}
