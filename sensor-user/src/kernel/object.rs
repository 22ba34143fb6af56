//! The BPF object: its maps, its programs, and how they are attached.

use super::interface::{Interface, LinkLayer};
use super::pins::{MAPS, Pins};
use super::size::{self, MapSizes};
use super::{GENERIC_MERGES, KernelError, Mode, Occupant, clsact, program_names, sys};
use crate::config::XdpMode;
use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use sensor_common::layout::PREFIX_SETS;
#[cfg(test)]
use sensor_common::recent::{RECENT_V4, RECENT_V6, RecentV4, RecentV6};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tracing::{debug, warn};

/// The object that `cargo xtask ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TEITEN_BPF_OBJECT_PATH"));

/// Prefixes that each set of a trie takes at most; memory is taken as they come.
const SET_ENTRIES: u32 = 1 << 20;

/// Attach in the network stack (`XDP_FLAGS_SKB_MODE` of `linux/if_link.h`).
const SKB_MODE: u32 = 1 << 1;
/// Attach in the driver (`XDP_FLAGS_DRV_MODE`).
const DRIVER_MODE: u32 = 1 << 2;

/// The loaded object.
pub(super) struct Object {
    ebpf: Ebpf,
    /// Interfaces whose fallback to generic mode has been logged.
    told_generic: BTreeSet<String>,
}

/// What [`prepare`] makes.
static PREPARED: Mutex<Option<JoinHandle<EbpfLoader<'static>>>> = Mutex::new(None);

/// Makes the loader of the object on a thread of its own, while the caller does something else: a loader reads the
/// kernel's own types, megabytes of them. Without it, it is made where it is needed.
pub fn prepare() {
    let thread = std::thread::Builder::new().name("load".into()).spawn(EbpfLoader::new);
    *PREPARED.lock().unwrap_or_else(PoisonError::into_inner) = thread.ok();
}

/// The loader that was prepared, or a new one.
fn loader() -> EbpfLoader<'static> {
    let prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner).take();
    prepared.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

impl Object {
    /// Loads it, with the pinned maps in place of its own where there are some.
    pub(super) fn load(pins: &Pins, sizes: &MapSizes) -> Result<Self, KernelError> {
        let block_mask = sizes.by_cpu.block_mask();
        let mut loader = loader();
        loader.override_global("BLOCK_MASK", &block_mask, true);
        for name in MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
        loader.map_max_entries("SOURCES", sizes.source_table);
        for name in ["OBSERVED_V4", "OBSERVED_V6", "EXCLUDED_V4", "EXCLUDED_V6"] {
            loader.map_max_entries(name, PREFIX_SETS * SET_ENTRIES);
        }
        loader.map_max_entries(size::BEGINNINGS, sizes.by_cpu.beginnings() as u32);
        for name in size::BY_CPU {
            loader.map_max_entries(name, sizes.by_cpu.recents() as u32);
        }
        let ebpf = loader.load(OBJECT).map_err(|error| match error {
            EbpfError::MapError(MapError::CreateError { name, io_error })
                if io_error.kind() == io::ErrorKind::OutOfMemory =>
            {
                KernelError::NoMemory { refused: sizes.refused(&name), source: io_error }
            }
            error => not_loaded("load the BPF object", error),
        })?;
        Ok(Self { ebpf, told_generic: BTreeSet::new() })
    }

    /// Takes the map of this name out, once.
    pub(super) fn take_map(&mut self, name: &str) -> Result<Map, KernelError> {
        let map = self.ebpf.take_map(name);
        map.ok_or_else(|| KernelError::Load(format!("the object has no map {name}").into()))
    }

    /// Forgets the conversations that CPUs have found a moment ago, as time does.
    #[cfg(test)]
    pub(super) fn forget_recent(&self) {
        self.empty::<RecentV4, RECENT_V4>(size::BY_CPU[0]);
        self.empty::<RecentV6, RECENT_V6>(size::BY_CPU[1]);
    }

    #[cfg(test)]
    fn empty<T: Copy + Default, const N: usize>(&self, name: &str) {
        let Some(Map::Array(map)) = self.ebpf.map(name) else { panic!("the object has no array {name}") };
        let empty: Box<[T; N]> = vec![T::default(); N].try_into().ok().expect("as many");
        for cpu in 0..sys::map_info(map.fd().as_fd()).expect("a map").max_entries {
            sys::insert(map.fd().as_fd(), &cpu, &*empty).expect("an empty table");
        }
    }

    pub(super) fn flow_counters(&mut self) -> Result<PerCpuArray<MapData, u64>, KernelError> {
        self.take_map("FLOW_COUNTERS")?.try_into().map_err(|error: MapError| KernelError::Load(error.into()))
    }

    /// Loads the two programs that an attachment to `interface` most likely takes, side by side: the kernel verifies
    /// each for a fifth of a second. What it refuses here is loaded again where it is needed, and reported there.
    pub(super) fn load_ahead(&mut self, interface: &Interface, wanted: XdpMode) {
        let is_generic = wanted == XdpMode::Generic
            || wanted == XdpMode::Auto && interface.xdp.is_some_and(|(mode, _)| mode == Mode::Generic);
        let ingress = program_names::ingress(interface.link, !is_generic);
        let egress = program_names::egress(interface.link);
        std::thread::scope(|scope| {
            for (name, program) in self.ebpf.programs_mut() {
                if (name != ingress && name != egress) || program.fd().is_ok() {
                    continue;
                }
                let load = move || {
                    let loaded = match program {
                        Program::Xdp(program) => program.load(),
                        Program::SchedClassifier(program) => program.load(),
                        _ => Ok(()),
                    };
                    if let Err(error) = loaded {
                        debug!(%error, "not loaded");
                    }
                };
                // Without a thread it is loaded where it is needed.
                let _ = std::thread::Builder::new().name("load".into()).spawn_scoped(scope, load);
            }
        });
    }

    /// Loads the program of this name, once.
    fn program(&mut self, name: &str) -> Result<BorrowedFd<'_>, KernelError> {
        let program = self.ebpf.program_mut(name);
        let program =
            program.ok_or_else(|| KernelError::Load(format!("the object has no program {name}").into()))?;
        let program: &mut Xdp =
            program.try_into().map_err(|error: ProgramError| KernelError::Load(error.into()))?;
        if program.fd().is_err() {
            program.load().map_err(|error| match error {
                // EACCES comes from the verifier.
                ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
                    KernelError::NotPermitted { doing: format!("load program {name}"), source: io_error }
                }
                error => KernelError::Load(error.into()),
            })?;
        }
        let fd = program.fd().map_err(|error| KernelError::Load(error.into()))?;
        Ok(fd.as_fd())
    }

    /// The program for what links of this kind send, loaded once.
    fn egress(&mut self, link: LinkLayer) -> Result<&mut SchedClassifier, KernelError> {
        let name = program_names::egress(link);
        let program = self.ebpf.program_mut(name);
        let program =
            program.ok_or_else(|| KernelError::Load(format!("the object has no program {name}").into()))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|error: ProgramError| KernelError::Load(error.into()))?;
        if program.fd().is_err() {
            program.load().map_err(|error| KernelError::Load(error.into()))?;
        }
        Ok(program)
    }

    /// Attaches to what `interface` sends by a TCX link.
    pub(super) fn attach_egress(&mut self, interface: &Interface) -> Result<OwnedFd, KernelError> {
        let program = self.egress(interface.link)?.fd().map_err(|error| KernelError::Load(error.into()))?;
        sys::attach_egress(program.as_fd(), interface.index)
            .map_err(KernelError::map(format!("attach to what {} sends by TCX", interface.name)))
    }

    /// Replaces the program of an existing TCX link by this object's.
    pub(super) fn replace_egress(
        &mut self,
        interface: &Interface,
        link: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        let program = self.egress(interface.link)?.fd().map_err(|error| KernelError::Load(error.into()))?;
        sys::update_link(link, program.as_fd())
            .map_err(KernelError::map(format!("replace the program for what {} sends", interface.name)))
    }

    /// Attaches to what `interface` sends by a filter of its clsact; returns whether it had none before.
    pub(super) fn attach_clsact(&mut self, interface: &Interface) -> Result<bool, KernelError> {
        clsact::attach(self.egress(interface.link)?, interface).map_err(|error| KernelError::Map {
            doing: format!("attach to what {} sends by clsact", interface.name),
            source: io::Error::other(error),
        })
    }

    /// Attaches to `interface`: in the driver with buffers in fragments, without, and then in the
    /// network stack, as far as `wanted` allows.
    pub(super) fn attach(
        &mut self,
        interface: &Interface,
        wanted: XdpMode,
    ) -> Result<(OwnedFd, Mode), KernelError> {
        let native = [(true, Mode::Native), (false, Mode::Native)];
        let generic = [(false, Mode::Generic), (true, Mode::Generic)];
        let attempts: Vec<_> = match wanted {
            XdpMode::Native => native.to_vec(),
            XdpMode::Generic => generic.to_vec(),
            XdpMode::Auto => native.into_iter().chain(generic).collect(),
        };
        let mut refused = None;
        for (frags, mode) in attempts {
            let name = program_names::ingress(interface.link, frags);
            let program = match self.program(name) {
                Ok(program) => program,
                // Kernels before 5.18 refuse the flag for buffers in fragments.
                Err(KernelError::Load(error)) if frags => {
                    debug!(program = name, %error, "not loaded");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let flags = match mode {
                Mode::Native => DRIVER_MODE,
                Mode::Generic => SKB_MODE,
            };
            match sys::attach_xdp(program, interface.index, flags) {
                Ok(link) => {
                    if wanted == XdpMode::Auto
                        && mode == Mode::Generic
                        && self.told_generic.insert(interface.name.clone())
                    {
                        let reason =
                            refused.as_ref().and_then(std::error::Error::source).map(ToString::to_string);
                        warn!(
                            interface = interface.name,
                            reason,
                            "the driver takes no XDP program; observing in generic mode: it costs more per packet, and {GENERIC_MERGES}"
                        );
                    }
                    return Ok((link, mode));
                }
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(KernelError::NotPermitted {
                        doing: format!("attach XDP to {}", interface.name),
                        source,
                    });
                }
                Err(source) if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                    return Err(KernelError::Occupied(Occupant::of(interface, None)));
                }
                Err(source) => {
                    debug!(interface = interface.name, program = name, mode = mode.name(), %source, "not attached");
                    let hint = match mode {
                        Mode::Native => "try `--xdp-mode generic`",
                        Mode::Generic => "the kernel has no generic XDP for this interface",
                    };
                    refused = Some(KernelError::Attach {
                        interface: interface.name.clone(),
                        mode: mode.name(),
                        hint,
                        source,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| KernelError::Load("no program was accepted".into())))
    }

    /// Replaces the program of an existing link by this object's; `false` when the link does not take it.
    pub(super) fn replace(
        &mut self,
        interface: &Interface,
        mode: Mode,
        link: BorrowedFd<'_>,
    ) -> Result<bool, KernelError> {
        let order = match mode {
            Mode::Native => [true, false],
            Mode::Generic => [false, true],
        };
        for frags in order {
            let program = match self.program(program_names::ingress(interface.link, frags)) {
                Ok(program) => program,
                // Kernels before 5.18 refuse the flag for buffers in fragments.
                Err(KernelError::Load(_)) if frags => continue,
                Err(error) => return Err(error),
            };
            match sys::update_link(link, program) {
                Ok(()) => return Ok(true),
                Err(error) => {
                    debug!(interface = interface.name, %error, "the pinned attachment refused the program");
                }
            }
        }
        Ok(false)
    }
}

/// The ring through which programs wake the daemon. It is opened a second time, because the object needs its
/// own descriptor for programs that are loaded later.
pub(super) fn wake(pins: &Pins) -> Result<RingBuf<MapData>, KernelError> {
    ring(pins, "WAKE")
}

/// The pinned ring of this name.
pub(super) fn ring(pins: &Pins, name: &str) -> Result<RingBuf<MapData>, KernelError> {
    let wrong = |error: MapError| KernelError::Load(error.into());
    let map = MapData::from_fd(pins.open_map(name)?).map_err(wrong)?;
    Map::RingBuf(map).try_into().map_err(wrong)
}

#[cfg(test)]
impl Object {
    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    pub(super) fn load_for_test(&mut self, name: &str) {
        self.program(name).expect("the verifier accepts the program");
    }

    pub(super) fn egress_for_test(&mut self, link: LinkLayer) -> &SchedClassifier {
        self.egress(link).expect("the verifier accepts the program")
    }
}

fn not_loaded(doing: &str, error: EbpfError) -> KernelError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return KernelError::NotPermitted {
                doing: doing.to_owned(),
                source: io::Error::from_raw_os_error(io.raw_os_error().unwrap_or(libc::EPERM)),
            };
        }
        cause = inner.source();
    }
    KernelError::Load(error.into())
}
