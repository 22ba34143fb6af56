//! Generations as the daemon keeps them, for programs that run without a daemon.

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use sensor_common::layout::{
    Block, INLINE_PREFIXES, LAYOUT_VERSION, PrefixV4, PrefixV6, Rules, SAMPLE, SAMPLE_BUDGET, SAMPLE_TOTAL,
    SERVICE_WORDS, TRACK_FLOWS,
};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;

/// Of `linux/bpf.h`.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_OBJ_PIN: libc::c_int = 6;

/// The bytes of a [`Block`].
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Raw([u8; size_of::<Block>()]);

// SAFETY: bytes, for which all values are valid.
unsafe impl Pod for Raw {}

/// The first members of `union bpf_attr` for [`BPF_MAP_CREATE`].
#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// Those for [`BPF_OBJ_PIN`].
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Calls `bpf(2)`.
///
/// # Safety
///
/// `attributes` must be a prefix of what the command reads, and every pointer in it valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the attributes; the size is that of the memory passed.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A map; aya gives out no descriptor of those that it creates.
fn create(attributes: &Create) -> io::Result<OwnedFd> {
    // SAFETY: the attributes hold no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, attributes) }?;
    // SAFETY: the kernel has just opened it for this process, and no one else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn pin(map: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Pin { pathname: path.as_ptr() as u64, bpf_fd: map.as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: the path is a C string that lives across the call.
    unsafe { bpf(BPF_OBJ_PIN, &attributes) }.map(drop)
}

/// One generation.
struct Generation {
    fd: OwnedFd,
    map: Array<MapData, Raw>,
    blocks: NonNull<Block>,
    cpus: usize,
}

/// Two of them in turn, in the slot that a loaded object looks at.
pub(super) struct Generations {
    outer: ArrayOfMaps<MapData, Array<MapData, Raw>>,
    both: [Generation; 2],
    current: usize,
}

impl Generation {
    fn new() -> Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))?;
        let fd = create(&Create {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size_of::<Block>() as u32,
            max_entries: cpus as u32,
            map_flags: BPF_F_MMAPABLE,
            ..Create::default()
        })
        .context("create a generation")?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                cpus * size_of::<Block>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("map a generation");
        }
        let blocks = NonNull::new(start.cast()).context("map a generation")?;
        let map = Map::Array(MapData::from_fd(fd.try_clone()?)?).try_into()?;
        Ok(Self { fd, map, blocks, cpus })
    }

    fn each(&self) -> impl Iterator<Item = *mut Block> {
        // SAFETY: the mapping holds `cpus` blocks.
        (0..self.cpus).map(|cpu| unsafe { self.blocks.as_ptr().add(cpu) })
    }

    fn begin(&mut self, number: u64, rules: &Rules) {
        for block in self.each() {
            // SAFETY: no program runs in a generation that is not current, and none runs on its own.
            unsafe {
                (*block).log_v4_len = 0;
                (*block).log_v6_len = 0;
                (&raw mut (*block).counters).write_bytes(0, 1);
                (&raw mut (*block).ports).write_bytes(0, 1);
                (&raw mut (*block).backscatter).write_bytes(0, 1);
                (&raw mut (*block).rules).write(*rules);
                if rules.flags & SAMPLE != 0 {
                    // Every port is sampled, and what may be of it was.
                    (*block).samples.fill(SAMPLE_BUDGET + 1);
                    (*block).sampled = SAMPLE_TOTAL;
                }
                (*block).version = LAYOUT_VERSION;
                (*block).generation = number;
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped.
        unsafe { libc::munmap(self.blocks.as_ptr().cast(), self.cpus * size_of::<Block>()) };
    }
}

impl Generations {
    /// Pins the map that is to be an object's `GENERATION` at `path` on a bpffs, made for generations
    /// like these as the daemon makes it.
    pub(super) fn new(path: &Path, rules: &Rules) -> Result<Self> {
        let both = [Generation::new()?, Generation::new()?];
        let outer = create(&Create {
            map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            inner_map_fd: both[0].fd.as_raw_fd() as u32,
            ..Create::default()
        })
        .context("create the map GENERATION")?;
        pin(&outer, path).with_context(|| format!("pin the map GENERATION at {}", path.display()))?;
        let outer = Map::ArrayOfMaps(MapData::from_fd(outer)?).try_into()?;
        let mut generations = Self { outer, both, current: 0 };
        generations.next(rules)?;
        Ok(generations)
    }

    /// Switches to the other generation, emptied.
    pub(super) fn next(&mut self, rules: &Rules) -> Result<()> {
        self.current ^= 1;
        let next = &mut self.both[self.current];
        next.begin(1, rules);
        self.outer.set(0, &next.map, 0).context("switch generations")
    }

    /// Packets of the current generation by class.
    pub(super) fn packets(&self) -> [u64; sensor_common::Class::COUNT] {
        let mut sum = [0; sensor_common::Class::COUNT];
        for block in self.both[self.current].each() {
            // SAFETY: no program runs now.
            let packets = unsafe { (&raw const (*block).counters.packets).read() };
            for (sum, packets) in sum.iter_mut().zip(packets) {
                *sum += packets;
            }
        }
        sum
    }
}

/// What the daemon makes of one observed address of each family, with conversations tracked.
#[expect(clippy::large_stack_arrays, reason = "24 KiB, on threads with megabytes")]
pub(super) fn rules(v4: [u8; 4], v6: [u8; 16]) -> Rules {
    let mut rules = Rules {
        flags: TRACK_FLOWS,
        prefixes: 0,
        observed_v4: [PrefixV4::NONE; INLINE_PREFIXES],
        observed_v6: [PrefixV6::NONE; INLINE_PREFIXES],
        services: [0; SERVICE_WORDS],
    };
    rules.observed_v4[0] = PrefixV4 { network: u32::from_ne_bytes(v4), mask: u32::MAX };
    let word = |at: usize| u64::from_ne_bytes(v6[at..at + 8].try_into().expect("eight bytes"));
    rules.observed_v6[0] = PrefixV6 { network: [word(0), word(8)], mask: [u64::MAX; 2] };
    rules
}
