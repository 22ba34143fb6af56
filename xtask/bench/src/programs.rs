//! The benchmark's own programs in the kernel: what makes packets, and what Teiten is compared with.

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use std::path::Path;
use std::time::Duration;

#[allow(unreachable_pub, clippy::inline_always, reason = "a module of the programs in the kernel too")]
#[path = "../ebpf/src/feed.rs"]
mod feed;

pub(super) use feed::{FIRST_PORT, Feed, SCATTER, address};

/// Frames that the kernel hands on together.
const BATCH: u32 = 64;

/// A [`Feed`] as the map takes it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Shared(Feed);

// SAFETY: plain numbers without padding, for which all values are valid.
unsafe impl Pod for Shared {}

/// The object, loaded.
pub(super) struct Programs {
    ebpf: Ebpf,
    feed: PerCpuArray<MapData, Shared>,
    contenders: ProgramArray<MapData>,
}

impl Programs {
    /// Loads the object at `path`, its hash maps with room for so many IPv4 and IPv6 `keys`.
    pub(super) fn load(path: &Path, [v4, v6]: [u32; 2]) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("HASH_V4", v4)
            .map_max_entries("HASH_V6", v6)
            .load_file(path)
            .with_context(|| format!("load {}", path.display()))?;
        let feed = ebpf.take_map("FEED").context("find the map FEED")?.try_into()?;
        let contenders = ebpf.take_map("CONTENDERS").context("find the map CONTENDERS")?.try_into()?;
        Ok(Self { ebpf, feed, contenders })
    }

    /// Lets `feed` hand packets to `program` when its feed says `place`.
    pub(super) fn enter(&mut self, place: u32, program: &Xdp) -> Result<()> {
        self.contenders.set(place, program.fd()?, 0).with_context(|| format!("enter contender {place}"))
    }

    /// As [`Programs::enter`], for a program of the object.
    pub(super) fn enter_own(&mut self, place: u32, name: &str) -> Result<()> {
        let program = loaded(&mut self.ebpf, name)?;
        self.contenders.set(place, program.fd()?, 0).with_context(|| format!("enter {name}"))
    }

    /// What every CPU makes of its packets from now on.
    pub(super) fn set(&mut self, feed: Feed) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))?;
        let values = PerCpuValues::try_from(vec![Shared(feed); cpus])?;
        self.feed.set(0, values, 0).context("set the feed")
    }

    /// Runs `packets` packets made of `frame` through the contender of the feed; tells what the last
    /// one returned.
    pub(super) fn feed(&mut self, frame: &[u8], packets: u32) -> Result<u32> {
        let program = loaded(&mut self.ebpf, "feed")?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = packets;
        Ok(program.test_run(options).context("run the programs over packets")?.return_value)
    }

    /// Has the kernel send `packets` frames made of `frame` out of the interface `index` of the
    /// calling thread's namespace, or only make them, as the feed's verdict says.
    pub(super) fn send(&mut self, frame: &[u8], index: u32, packets: u32) -> Result<()> {
        let program = loaded(&mut self.ebpf, "send")?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, index, 0, 0].map(u32::to_ne_bytes).concat();
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.repeat = packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        program.test_run(options).context("send live frames")?;
        Ok(())
    }
}

/// The XDP program `name`, loaded once.
pub(super) fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("find the program {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("load the program {name}"))?;
    }
    Ok(program)
}

/// CPU time of the calling thread.
pub(super) fn thread_time() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .context("read the thread's CPU time")?;
    Ok(Duration::from(time))
}

/// Keeps the calling thread on `cpu`.
pub(super) fn stay_on(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).with_context(|| format!("name CPU {cpu}"))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("stay on CPU {cpu}"))
}

/// `object` with every verdict "pass" of its XDP programs' entry points made "drop", instruction by
/// instruction: the same program, for comparisons in which no one's packets continue to the network stack.
pub(super) fn with_drop_verdict(object: &[u8], program: &str) -> Result<Vec<u8>> {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    /// `r0 = XDP_PASS; exit`.
    const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let file = object::File::parse(object).context("read the BPF object")?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(program));
    let symbol = symbol.with_context(|| format!("find {program} in the BPF object"))?;
    let section = symbol.section_index().context("find the program's section")?;
    let (begin, _) = file.section_by_index(section)?.file_range().context("find the program's code")?;
    let code = (begin + symbol.address()) as usize..(begin + symbol.address() + symbol.size()) as usize;
    let mut changed = object.to_vec();
    let mut verdicts = 0;
    for at in code.step_by(8) {
        if changed[at..].starts_with(&PASS) {
            changed[at + 4] = 1;
            verdicts += 1;
        }
    }
    if verdicts == 0 {
        bail!("{program} has no instructions `r0 = XDP_PASS; exit`");
    }
    Ok(changed)
}
