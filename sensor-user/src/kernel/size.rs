//! How much memory the maps take, and how much there is.
//!
//! The kernel charges maps to the control group of the process that makes them (Linux 5.11), all at once.
//! Figures are of 64-bit kernels, rounded up a little.

use sensor_common::flow::{
    Asked, FlowKey, FlowState, HEARD_ENTRIES, HalfOpen, MAX_ACCEPTED, MAX_FLOWS, MAX_HALF_OPEN,
    MAX_REMEMBERED,
};
use sensor_common::layout::{Block, SourceKey};
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

/// Bytes that the two generations take on this many possible CPUs.
pub(super) const fn generations(cpus: usize) -> u64 {
    2 * (cpus * size_of::<Block>()) as u64
}

/// Bytes that the maps of flows take.
const FLOWS: u64 = hash(MAX_FLOWS as u64, size_of::<FlowKey>(), size_of::<FlowState>(), 0)
    + hash(MAX_ACCEPTED as u64, size_of::<FlowKey>(), size_of::<FlowState>(), LRU_ENTRY)
    + hash(MAX_REMEMBERED as u64, size_of::<FlowKey>(), size_of::<FlowState>(), 0)
    + hash(MAX_HALF_OPEN as u64, size_of::<FlowKey>(), size_of::<HalfOpen>(), LRU_ENTRY)
    + (HEARD_ENTRIES * size_of::<u64>() + size_of::<Asked>()) as u64;

/// The maps that have an entry for each possible CPU.
pub(super) const BY_CPU: [&str; 2] = ["RECENT_V4", "RECENT_V6"];

/// Bytes that they take on this many possible CPUs.
const fn recent(cpus: usize) -> u64 {
    (cpus * (RECENT_V4 * size_of::<RecentV4>() + RECENT_V6 * size_of::<RecentV6>())) as u64
}

/// Bytes that all maps take.
pub(super) const fn all(cpus: usize, table: u32) -> u64 {
    generations(cpus) + source_table(table) + FLOWS + recent(cpus)
}

/// What the maps need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// Bytes of all.
    pub all: u64,
    /// Bytes of all generations for one CPU.
    pub per_cpu: u64,
    /// CPUs that there may ever be.
    pub cpus: usize,
}

/// What the maps need with a source table of so many entries.
pub fn map_memory(source_table: u32) -> MapMemory {
    let cpus = cpus();
    MapMemory { all: all(cpus, source_table), per_cpu: generations(1), cpus }
}

/// CPUs that there may ever be: each has its part of a generation.
pub(super) fn cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

/// Entries that the source table has when no one says how many: so many that all maps take at most half of
/// `memory`, bytes.
pub fn default_source_table(memory: Option<u64>) -> u32 {
    default_for(cpus(), memory)
}

fn default_for(cpus: usize, memory: Option<u64>) -> u32 {
    let mut entries = SOURCE_TABLE;
    while entries > LEAST_SOURCE_TABLE && memory.is_some_and(|memory| all(cpus, entries) > memory / 2) {
        entries /= 2;
    }
    entries
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

/// What a map that was refused for lack of memory needs, and the way out.
pub(super) fn refused(map: &str, table: u32) -> String {
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let cpus = cpus();
    let (own, all) = match map {
        "SOURCES" => {
            (format!(" of {table} entries, {} MB", megabytes(source_table(table))), all(cpus, table))
        }
        "generation" => {
            (format!(" for {cpus} possible CPUs, {} MB", megabytes(generations(cpus) / 2)), all(cpus, table))
        }
        _ => (String::new(), all(cpus, table)),
    };
    let limit = memory().map_or_else(String::new, |memory| {
        format!(", and this process may use {} MB at most", megabytes(memory))
    });
    let mut text = format!(
        "not enough memory for map {map}{own}: all maps take about {} MB{limit}; raise the limit (MemoryMax= of \
         a systemd unit)",
        megabytes(all)
    );
    let least = self::all(cpus, LEAST_SOURCE_TABLE);
    if least < all {
        let least = megabytes(least);
        let _ = write!(
            text,
            ", or give a smaller --source-table: with {LEAST_SOURCE_TABLE} the maps take about {least} MB"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MB: u64 = 1_000_000;

    #[test]
    fn the_source_table_takes_what_half_of_the_memory_leaves() {
        assert_eq!(default_for(2, None), 1 << 20);
        assert_eq!(default_for(2, Some(8_000 * MB)), 1 << 20);
        for (cpus, memory) in [(1, 128), (2, 128), (2, 256), (4, 512), (64, 1024)] {
            let entries = default_for(cpus, Some(memory * MB));
            let fits = |entries| all(cpus, entries) <= memory * MB / 2;
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
        let text = refused("SOURCES", 1 << 20);
        assert!(text.starts_with("not enough memory for map SOURCES of 1048576 entries, "), "{text}");
        assert!(text.contains("MemoryMax=") && text.contains("--source-table: with 16384 "), "{text}");
        assert!(!refused("SOURCES", 1 << 10).contains("--source-table"));
    }
}
