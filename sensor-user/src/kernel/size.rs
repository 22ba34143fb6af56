//! How much memory the maps take, and how much there is.
//!
//! The kernel charges maps to the control group of the process that makes them (Linux 5.11), all at once.
//! Figures are of 64-bit kernels, rounded up a little.

use crate::config::LEAST_KERNEL_MEMORY;
use sensor_common::flow::{
    Asked, FlowCounter, FlowKey, FlowState, HEARD_ENTRIES, HalfOpen, MAX_ACCEPTED, MAX_FLOWS, MAX_HALF_OPEN,
    MAX_REMEMBERED,
};
use sensor_common::frame::MAX_OFFSET;
use sensor_common::layout::{Block, SAMPLE_BEGINNINGS, SAMPLE_TABLES, Sample, SourceKey};
use sensor_common::recent::{RECENT_V4, RECENT_V6, RecentV4, RecentV6};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Entries of the source table where there is memory for them.
const SOURCE_TABLE: u32 = 1 << 20;
/// Entries that it has however little memory there is.
const LEAST_SOURCE_TABLE: u32 = 1 << 14;
/// Overhead of an entry of a hash map, bytes.
const HASH_ENTRY: u64 = 48;
/// What an entry of an LRU map takes beyond that, bytes.
const LRU_ENTRY: u64 = 24;
/// Of one of a hash map's buckets, which are as many as its entries or the next power of two.
const BUCKET: u64 = 16;

const fn hash(entries: u64, key: usize, value: usize, more: u64) -> u64 {
    let entry = HASH_ENTRY + more + (key.next_multiple_of(8) + value.next_multiple_of(8)) as u64;
    entries * entry + entries.next_power_of_two() * BUCKET
}

/// Bytes that a source table of this many entries takes.
pub(super) const fn source_table(entries: u32) -> u64 {
    hash(entries as u64, size_of::<SourceKey>(), size_of::<u64>(), 0)
}

/// Bytes that two generations of so many blocks take.
const fn generations(blocks: usize) -> u64 {
    2 * (blocks * size_of::<Block>()) as u64
}

/// Bytes that the maps of flows take.
const FLOWS: u64 = hash(MAX_FLOWS as u64, size_of::<FlowKey>(), size_of::<FlowState>(), 0)
    + hash(MAX_ACCEPTED as u64, size_of::<FlowKey>(), size_of::<FlowState>(), LRU_ENTRY)
    + hash(MAX_REMEMBERED as u64, size_of::<FlowKey>(), size_of::<FlowState>(), 0)
    + hash(MAX_HALF_OPEN as u64, size_of::<FlowKey>(), size_of::<HalfOpen>(), LRU_ENTRY)
    + (HEARD_ENTRIES * size_of::<u64>() + size_of::<Asked>()) as u64;

/// The maps with an entry for each CPU that finds conversations again.
pub(super) const BY_CPU: [&str; 2] = ["RECENT_V4", "RECENT_V6"];

/// Bytes that a CPU's entries in them take.
const RECENT: u64 = (RECENT_V4 * size_of::<RecentV4>() + RECENT_V6 * size_of::<RecentV6>()) as u64;

/// The map with a CPU's tables of how contents began, which the kernel makes for each CPU.
pub(super) const BEGINNINGS: &str = "BEGINNINGS";

/// Bytes that one of these tables takes.
const BEGINNING: u64 = size_of::<[u64; SAMPLE_BEGINNINGS]>() as u64;

/// Bytes that these tables take on all CPUs, where each can have one within them.
const ALL_BEGINNINGS: u64 = 16 << 20;

/// Bytes that a CPU has in the other maps which the kernel makes for each: a sample, a counter of flows, the beginning
/// of a frame, and some room.
const EVERY: u64 = (size_of::<Sample>() + size_of::<[u64; FlowCounter::COUNT]>() + MAX_OFFSET + 1024) as u64;

/// How what grows with the number of CPUs is kept within a bound: first all CPUs have a block in each generation and a
/// table of conversations that they found a moment ago. If that is too much, tables take a quarter of the bound at most,
/// and CPUs with higher numbers have none; and the blocks are as many as fit, a power of two, which CPUs share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByCpu {
    cpus: usize,
    blocks: usize,
    recents: usize,
}

impl ByCpu {
    /// On this machine, within so many bytes.
    pub fn within(bound: u64) -> Self {
        Self::of(cpus(), bound)
    }

    /// Of so many possible CPUs. One block there is always.
    fn of(cpus: usize, bound: u64) -> Self {
        let own = Self { cpus, blocks: cpus, recents: cpus };
        if own.bytes() <= bound {
            return own;
        }
        let recents = cpus.min((bound / 4 / RECENT) as usize).max(1);
        let mut shared = Self { cpus, blocks: cpus.next_power_of_two() / 2, recents };
        while shared.blocks > 1 && shared.bytes() > bound {
            shared.blocks /= 2;
        }
        Self { blocks: shared.blocks.max(1), ..shared }
    }

    /// CPUs that there may ever be.
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// Blocks of a generation.
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// CPUs that have a table of conversations: those with the lowest numbers.
    pub(super) const fn recents(&self) -> usize {
        self.recents
    }

    /// Whether CPUs share blocks.
    pub const fn are_shared(&self) -> bool {
        self.blocks < self.cpus
    }

    /// The bits of a CPU's number that are its block's; all when each has its own.
    pub(super) const fn block_mask(&self) -> u32 {
        if self.are_shared() { self.blocks as u32 - 1 } else { u32::MAX }
    }

    /// Tables of how contents began that each CPU has.
    pub(super) const fn beginnings(&self) -> usize {
        let mut tables = SAMPLE_TABLES;
        while tables > 1 && (self.cpus * tables) as u64 * BEGINNING > ALL_BEGINNINGS {
            tables /= 2;
        }
        tables
    }

    /// Bytes of all that grows with the number of CPUs.
    pub const fn bytes(&self) -> u64 {
        let of_each = EVERY + self.beginnings() as u64 * BEGINNING;
        generations(self.blocks) + self.recents as u64 * RECENT + self.cpus as u64 * of_each
    }

    /// Entries that the source table has when no one says how many: so many that all maps take at most half of
    /// `memory`, bytes.
    pub fn default_source_table(self, memory: Option<u64>) -> u32 {
        let mut entries = SOURCE_TABLE;
        let bytes = |source_table| MapSizes { by_cpu: self, source_table }.bytes();
        while entries > LEAST_SOURCE_TABLE && memory.is_some_and(|memory| bytes(entries) > memory / 2) {
            entries /= 2;
        }
        entries
    }
}

/// How large the maps are whose size is not fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// What grows with the number of CPUs.
    pub by_cpu: ByCpu,
    /// Entries of the source table.
    pub source_table: u32,
}

impl MapSizes {
    /// Bytes that all maps take.
    pub const fn bytes(&self) -> u64 {
        self.by_cpu.bytes() + source_table(self.source_table) + FLOWS
    }

    /// What a map that was refused for lack of memory needs, and the way out.
    pub(super) fn refused(&self, map: &str) -> String {
        self.refused_of(map, memory())
    }

    fn refused_of(&self, map: &str, memory: Option<u64>) -> String {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let Self { by_cpu, source_table: entries } = *self;
        let own = match map {
            "SOURCES" => format!(" of {entries} entries, {} MB", megabytes(source_table(entries))),
            "generation" => format!(
                " of {} blocks for {} possible CPUs, {} MB",
                by_cpu.blocks,
                by_cpu.cpus,
                megabytes(generations(by_cpu.blocks) / 2)
            ),
            _ => String::new(),
        };
        let limit = memory.map_or_else(String::new, |memory| {
            format!(", and this process may use {} MB at most", megabytes(memory))
        });
        let mut text = format!(
            "not enough memory for map {map}{own}: all maps take about {} MB{limit}; raise the limit (MemoryMax= of \
             a systemd unit)",
            megabytes(self.bytes())
        );
        let less = Self { source_table: LEAST_SOURCE_TABLE, ..*self };
        if less.bytes() < self.bytes() {
            let _ = write!(
                text,
                ", or give a smaller --source-table: with {LEAST_SOURCE_TABLE} the maps take about {} MB",
                megabytes(less.bytes())
            );
        }
        let less = Self { by_cpu: ByCpu::of(by_cpu.cpus, LEAST_KERNEL_MEMORY), ..*self };
        if less.bytes() < self.bytes() {
            let _ = write!(
                text,
                ", or a smaller --kernel-memory: with {}MiB they take about {} MB, and CPUs share counters and logs",
                LEAST_KERNEL_MEMORY >> 20,
                megabytes(less.bytes())
            );
        }
        text
    }
}

/// CPUs that there may ever be.
fn cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

/// Bytes that this process may use: the machine's memory, or the least limit of the control groups that it
/// is in. `None` when that cannot be read.
pub fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .into_iter()
                .filter_map(|root| limit(Path::new(root), path, "memory.max"))
                .min(),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                limit(Path::new("/sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.chain(machine()).min()
}

/// The least limit of a control group and those that it is in. In a container the path may be one of
/// outside, where the root is the container's own.
fn limit(root: &Path, path: &str, file: &str) -> Option<u64> {
    let read = |group: PathBuf| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let group = Path::new(path.trim_start_matches('/'));
    group.ancestors().filter_map(|group| read(root.join(group))).min()
}

fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MB: u64 = 1_000_000;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_grows_with_cpus_stays_within_its_bound() {
        // Possible CPUs, bound in MiB, blocks, CPUs with a table.
        let cases = [
            (1, 256, 1, 1),
            (2, 256, 2, 2),
            (8, 256, 8, 8),
            (13, 256, 13, 13),
            (14, 256, 8, 14),
            (64, 256, 8, 64),
            (65, 256, 8, 65),
            (128, 256, 8, 78),
            (1024, 256, 8, 78),
            (64, 1024, 32, 64),
            (64, 1280, 64, 64),
            (2, 32, 1, 2),
            (3, 38, 1, 3),
            (3, 48, 2, 3),
        ];
        for (cpus, bound, blocks, recents) in cases {
            let by_cpu = ByCpu::of(cpus, bound * MIB);
            assert_eq!(by_cpu, ByCpu { cpus, blocks, recents }, "{cpus} CPUs, {bound} MiB");
            assert!(by_cpu.bytes() <= bound * MIB, "{cpus} CPUs, {bound} MiB: {} bytes", by_cpu.bytes());
            assert_eq!(by_cpu.are_shared(), blocks < cpus);
            // Each CPU finds a block, and with one of its own no other does.
            let of_cpu = |cpu: usize| (cpu as u32 & by_cpu.block_mask()) as usize;
            assert!((0..cpus).all(|cpu| of_cpu(cpu) < blocks && (by_cpu.are_shared() || of_cpu(cpu) == cpu)));
        }
    }

    #[test]
    fn one_block_there_is_however_many_cpus_need_room_beside_it() {
        let by_cpu = ByCpu::of(8192, 32 * MIB);
        assert_eq!((by_cpu.blocks, by_cpu.block_mask()), (1, 0));
        assert!(by_cpu.bytes() > 32 * MIB);
    }

    #[test]
    fn the_source_table_takes_what_half_of_the_memory_leaves() {
        let by_cpu = |cpus| ByCpu::of(cpus, 256 * MIB);
        assert_eq!(by_cpu(2).default_source_table(None), 1 << 20);
        assert_eq!(by_cpu(2).default_source_table(Some(8_000 * MB)), 1 << 20);
        for (cpus, memory) in [(1, 128), (2, 128), (2, 256), (4, 512), (64, 1024)] {
            let by_cpu = by_cpu(cpus);
            let entries = by_cpu.default_source_table(Some(memory * MB));
            let fits = |source_table| MapSizes { by_cpu, source_table }.bytes() <= memory * MB / 2;
            assert!(fits(entries) || entries == LEAST_SOURCE_TABLE, "{cpus} CPUs, {memory} MB: {entries}");
            assert!(entries == SOURCE_TABLE || !fits(2 * entries), "{cpus} CPUs, {memory} MB: {entries}");
        }
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |group: &str, value: &str| {
            fs::create_dir_all(root.path().join(group)).unwrap();
            fs::write(root.path().join(group).join("memory.max"), value).unwrap();
        };
        write("system.slice", "134217728\n");
        write("system.slice/teiten.service", "max\n");
        assert_eq!(limit(root.path(), "/system.slice/teiten.service", "memory.max"), Some(134_217_728));
        write("system.slice/teiten.service", "1000000\n");
        assert_eq!(limit(root.path(), "/system.slice/teiten.service", "memory.max"), Some(1_000_000));
        assert_eq!(limit(root.path(), "/elsewhere", "memory.max"), None);
        // A container's own root, and a path of outside.
        write("", "268435456\n");
        assert_eq!(limit(root.path(), "/docker/0123", "memory.max"), Some(268_435_456));
    }

    #[test]
    fn a_refusal_names_the_map_its_size_and_the_way_out() {
        let refused = |cpus, bound, map, source_table| {
            MapSizes { by_cpu: ByCpu::of(cpus, bound * MIB), source_table }.refused_of(map, Some(128 * MB))
        };
        let text = refused(2, 256, "SOURCES", 1 << 20);
        assert!(text.starts_with("not enough memory for map SOURCES of 1048576 entries, "), "{text}");
        assert!(text.contains("MemoryMax=") && text.contains("--source-table: with 16384 "), "{text}");
        assert!(text.contains("this process may use 128 MB at most"), "{text}");
        assert!(text.contains("--kernel-memory: with 32MiB they"), "{text}");
        assert!(!refused(2, 256, "SOURCES", 1 << 10).contains("--source-table"));
        let text = refused(64, 256, "generation", 1 << 20);
        assert!(text.contains("map generation of 8 blocks for 64 possible CPUs, 76 MB: "), "{text}");
        assert!(!refused(1, 256, "generation", 1 << 20).contains("--kernel-memory"));
    }
}
