//! `teiten replay` over capture files, beside what counts the same file today.

use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::programs::{FIRST_PORT, address};
use super::{Context, frames};
use anyhow::{Context as _, Result, ensure};
use lab::{apt, command};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Every tenth packet of these is a datagram with a payload; the others are SYNs.
const PAYLOAD: usize = 400;
/// Ports that packets go to.
pub(super) const PORTS: u32 = 1024;
/// 2010-07-09 00:00 UTC.
const BEGIN: u64 = 1_278_633_600;
pub(super) const DAY: u64 = 86_400;

/// What counts by source and port with tcpdump, as people do.
const TCPDUMP: &str = "tcpdump -nn -q -r \"$1\" 2>/dev/null | awk '{ counts[$3, $5]++ } END { for (pair in counts) n++; print n }'";

/// What a capture holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capture {
    pub(super) packets: u32,
    pub(super) sources: u32,
    /// Ports that packets go to; each source goes to one.
    pub(super) ports: u32,
    /// Time of the first packet, seconds since the epoch, and how long it continues.
    pub(super) begin: u64,
    pub(super) seconds: u64,
}

impl Capture {
    /// A day of 2010.
    pub(super) const fn of_a_day(packets: u32, sources: u32) -> Self {
        Self { packets, sources, ports: PORTS, begin: BEGIN, seconds: DAY }
    }
}

/// Writes a capture; tells its bytes.
pub(super) fn write(path: &Path, capture: Capture) -> Result<u64> {
    let Capture { packets, sources, ports, begin, seconds } = capture;
    let written = || format!("write {}", path.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).with_context(written)?);
    // The file header of libpcap: magic, version 2.4, zone, accuracy, snap length, Ethernet.
    let header = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1];
    out.write_all(&header.map(u32::to_ne_bytes).concat()).with_context(written)?;
    let mut syn = frames::syn_v4();
    syn.frame.resize(60, 0);
    let mut datagram = frames::udp_v4([0; 4], 4000, frames::LOCAL_V4, 53);
    // The datagram's and the packet's length grow by the payload.
    datagram.frame.resize(datagram.frame.len() + PAYLOAD, 0);
    for (at, length) in [(16, 20 + 8 + 8 + PAYLOAD), (38, 8 + 8 + PAYLOAD)] {
        datagram.frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }
    let mut bytes = 24;
    for number in 0..packets {
        let made = if number % 10 == 9 { &mut datagram } else { &mut syn };
        let source = number % sources;
        made.frame[made.source_at as usize..][..4].copy_from_slice(&address(source));
        made.frame[made.port_at as usize..][..2]
            .copy_from_slice(&((FIRST_PORT + source % ports) as u16).to_be_bytes());
        let length = made.frame.len() as u32;
        let micros = u64::from(number) * seconds * 1_000_000 / u64::from(packets);
        let record = [(begin + micros / 1_000_000) as u32, (micros % 1_000_000) as u32, length, length];
        out.write_all(&record.map(u32::to_ne_bytes).concat()).with_context(written)?;
        out.write_all(&made.frame).with_context(written)?;
        bytes += 16 + u64::from(length);
    }
    out.flush().with_context(written)?;
    Ok(bytes)
}

/// Seconds that `teiten replay` takes, when it has counted all packets.
fn teiten(context: &Context, path: &Path, packets: u32, sources: u32) -> Result<f64> {
    let mut replay = Command::new(&context.teiten);
    replay.args(["replay", "--json", "--timezone", "UTC"]).arg(path);
    let begin = Instant::now();
    let output = command::output(&mut replay)?;
    let seconds = begin.elapsed().as_secs_f64();
    let report: serde_json::Value = serde_json::from_str(&output).context("read the report")?;
    ensure!(
        report["packets"] == packets && report["accesses"] == packets && report["hosts"] == sources,
        "{packets} packets of {sources} hosts: replay counted {}, {} accesses of {}",
        report["packets"],
        report["accesses"],
        report["hosts"]
    );
    Ok(seconds)
}

fn timed(mut tool: Command) -> Result<f64> {
    let begin = Instant::now();
    let status = tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("start `{}`", command::line(&tool)))?;
    ensure!(status.success(), "`{}` failed: {status}", command::line(&tool));
    Ok(begin.elapsed().as_secs_f64())
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let tools = [("tcpdump", "tcpdump"), ("tshark", "tshark")];
    let missing: Vec<_> = tools.into_iter().filter(|(tool, _)| command::find(tool).is_none()).collect();
    apt::install(
        &missing.iter().map(|(_, package)| *package).collect::<Vec<_>>(),
        "the comparison of replays",
    )?;
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    let mut table = Table::new(
        "Replay: a capture of a day",
        "Wall clock of the whole command. Nine of ten packets are SYNs of 60 bytes, every tenth a datagram \
         of 450; the file lies in the page cache. tshark: `-q -n -z endpoints,ip`; tcpdump: `-nn -q`, \
         its lines counted by awk by source and destination.",
        &[
            "packets",
            "sources",
            "file",
            "teiten replay",
            "packets",
            "bytes",
            "tshark",
            "tcpdump, awk",
            "tshark / teiten",
            "tcpdump / teiten",
        ],
    );
    for (nth, &(packets, sources)) in context.scale.captures.iter().enumerate() {
        let path = directory.path().join(format!("{packets}.pcap"));
        let bytes = write(&path, Capture::of_a_day(packets, sources))?;
        // The others take long: they are asked about the first file only.
        let compare = nth == 0;
        let [mut own, mut tshark, mut tcpdump] = [Unit::Seconds; 3].map(Rounds::new);
        for _ in 0..context.rounds {
            own.push(teiten(context, &path, packets, sources)?);
            if compare {
                let mut tool = Command::new("tshark");
                tool.args(["-q", "-n", "-z", "endpoints,ip", "-r"]).arg(&path);
                tshark.push(timed(tool)?);
                let mut tool = Command::new("sh");
                tool.args(["-c", TCPDUMP, "count"]).arg(&path);
                tcpdump.push(timed(tool)?);
            }
        }
        let per_second = |unit, amount: f64| Rounds::of(unit, own.values().iter().map(|time| amount / time));
        let rate = per_second(Unit::PacketsPerSecond, packets.into());
        if compare {
            results.target("replay: tshark / teiten", Bound::AtLeast(5.0), tshark.per(&own));
            results.target("replay: tcpdump and awk / teiten", Bound::AtLeast(5.0), tcpdump.per(&own));
        }
        if nth == context.scale.captures.len() - 1 {
            results.target("replay", Bound::AtLeast(3e6), rate.clone());
        }
        table.row([
            u64::from(packets).into(),
            u64::from(sources).into(),
            Rounds::of(Unit::Bytes, [bytes as f64]).into(),
            own.clone().into(),
            rate.into(),
            per_second(Unit::BytesPerSecond, bytes as f64).into(),
            tshark.clone().into(),
            tcpdump.clone().into(),
            tshark.per(&own).into(),
            tcpdump.per(&own).into(),
        ]);
    }
    results.tables.push(table);
    Ok(())
}
