//! The kernel side as the daemon sees it: load and pin, attach to interfaces, switch generations.
//!
//! Everything lies under one directory per layout version on a bpffs, so that counting goes on while
//! no daemon runs and the next one takes it over:
//!
//! ```text
//! PIN_DIR/vN/maps/…          the maps of the object, by name
//! PIN_DIR/vN/generation-a,b  the two generations: one current, one drained
//! PIN_DIR/vN/links/NAME      the attachment to interface NAME
//! PIN_DIR/vN/links/NAME%egress  the attachment to what interface NAME sends
//! PIN_DIR/vN/links/NAME%clsact  instead of it, a note that a filter of NAME's clsact is attached
//! ```
//!
//! What a release with an earlier layout has left under `v…` is taken over: its attachments get this
//! release's programs, which count into maps of their own, and then its generations are read by the
//! rules of their version ([`Kernel::earlier`]); conversations are learned anew. A layout that is not
//! known is left alone.

mod clsact;
mod earlier;
mod flows;
mod generation;
pub mod inspect;
pub mod interface;
mod keeper;
mod netlink;
pub mod network;
mod object;
mod occupant;
mod outlook;
mod pins;
mod prefixes;
mod rules;
mod size;
mod sockets;
mod sys;
mod table;
#[cfg(test)]
mod tests;

pub use keeper::Keeper;
pub use occupant::{Kind, Occupant};
pub use outlook::Outlook;
pub use pins::{Found, any as is_pinned, remove_pin_dir};
pub use rules::Policy;
pub use size::{default_source_table, memory};

use crate::config::XdpMode;
use crate::counters::detail::Details;
use crate::observation::aggregate::{AccessV4, AccessV6};
use crate::observation::{FlowStatus, Numbering};
use crate::system::clock::{self, monotonic_nanos};
use aya::maps::{MapData, RingBuf};
use earlier::{Earlier, Shape};
use flows::FlowTable;
use generation::{Counted, Generation};
use object::Object;
use pins::Pins;
use prefixes::Prefixes;
use sensor_common::layout::{LAYOUT_VERSION, TRACK_FLOWS};
use sensor_common::{Class, Slot, Tool};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use table::{Entry, Table};
use tracing::{debug, info, warn};

/// Why the kernel side could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The pin directory is not usable.
    #[error("prepare pin directory {path}")]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can write to the pin directory.
    #[error("pin directory refused")]
    Untrusted(#[from] crate::system::trusted::Untrusted),
    /// Another daemon holds the pin directory.
    #[error("pin directory {path} is in use by {holder}; stop that daemon, or give another --pin-dir")]
    PinDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, as far as the kernel tells.
        holder: String,
    },
    /// Maps of a layout that is not known are pinned.
    #[error(
        "{path} holds counts of another teiten's layout ({found}, this one's is v{LAYOUT_VERSION}); \
         run the release that pinned them or a newer one, or its `teiten detach` first, which takes them into \
         the ledger"
    )]
    OtherLayout {
        /// The pin directory.
        path: PathBuf,
        /// Name of what was found.
        found: String,
    },
    /// A privilege is missing.
    #[error(
        "{doing}: not permitted; teiten needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON (and CAP_SYS_ADMIN to mount a bpffs)"
    )]
    NotPermitted {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The BPF object was not accepted.
    #[error("load the BPF object")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A map operation failed.
    #[error("{doing}")]
    Map {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is not enough memory for a map.
    #[error("{refused}")]
    NoMemory {
        /// Which map, what it takes, and the way out.
        refused: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface is gone.
    #[error("interface {interface} is gone")]
    Gone {
        /// The interface.
        interface: String,
    },
    /// An XDP program of somebody else is attached.
    #[error("{0}")]
    Occupied(Occupant),
    /// The driver did not take the program.
    #[error("attach XDP to {interface} in {mode} mode; {hint}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode tried last.
        mode: &'static str,
        /// What to do.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl KernelError {
    fn map(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let doing = doing.into();
            if source.kind() == io::ErrorKind::PermissionDenied {
                Self::NotPermitted { doing, source }
            } else {
                Self::Map { doing, source }
            }
        }
    }
}

/// What generic mode does to the counts. It runs after the kernel has merged packets, and an XDP program
/// is not told of how many segments a packet is made.
pub const GENERIC_MERGES: &str = "packets that were merged (GRO, LRO) or came unsegmented over a virtual link \
                                  count as one";

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has built a packet buffer.
    Generic,
}

impl Mode {
    /// The word for it in labels and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How it is learned what is sent by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// By a TCX link (Linux 6.6).
    Tcx,
    /// By a filter of the clsact qdisc.
    Clsact,
    /// Not at all: answers to this host count as if nobody had asked.
    None,
}

impl Tracking {
    /// The word for it in labels and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::None => "none",
        }
    }
}

/// A generation that was current and no longer is.
#[derive(Debug)]
pub struct Drained {
    /// Its number.
    pub number: u64,
    /// Identity of the ledger that numbered it.
    pub ledger: u64,
    /// When its time began, nanoseconds of [`monotonic_nanos`].
    pub began: u64,
    /// Time for which it was current, nanoseconds without suspend.
    pub nanos: u64,
    /// Packets by class.
    pub packets: [u64; Class::COUNT],
    /// Octets by class.
    pub bytes: [u64; Class::COUNT],
    /// Accesses by tool.
    pub tools: [u64; Tool::COUNT],
    /// Accesses without a source.
    pub overflow: u64,
    /// Service accesses without a source.
    pub service_overflow: u64,
    /// What is counted besides class and port.
    pub details: Details,
    /// Accesses and service accesses by port.
    pub ports: Vec<(Slot, u64)>,
    /// What were services while it counted.
    pub services: BTreeSet<Slot>,
    /// Backscatter by what answered.
    pub backscatter: Vec<(Slot, u64)>,
    /// IPv4 accesses.
    pub records_v4: Vec<AccessV4>,
    /// IPv6 accesses.
    pub records_v6: Vec<AccessV6>,
    /// Accesses that the source table took: source address (IPv4 mapped into IPv6, network byte
    /// order), target, packets.
    pub table: Vec<([u8; 16], u32, u64)>,
    /// Whether the source table took any.
    pub table_used: bool,
}

impl Drained {
    /// From its number and that of its ledger, when it began and how long it was current, what it
    /// counted, and its entries in the source table.
    fn new(
        (number, ledger): (u64, u64),
        (began, nanos): (u64, u64),
        counted: Counted,
        services: BTreeSet<Slot>,
        table: Vec<Entry>,
    ) -> Self {
        Self {
            number,
            ledger,
            began,
            nanos,
            packets: counted.packets,
            bytes: counted.bytes,
            tools: counted.tools,
            overflow: counted.overflow,
            service_overflow: counted.service_overflow,
            details: counted.details,
            ports: counted.ports,
            services,
            backscatter: counted.backscatter,
            records_v4: counted.records_v4,
            records_v6: counted.records_v6,
            table: table.into_iter().map(|entry| (entry.src, entry.target, entry.packets)).collect(),
            table_used: counted.table_packets > 0,
        }
    }
}

/// The loaded programs, the maps and the attachments.
pub struct Kernel {
    pins: Pins,
    object: Object,
    outer: OwnedFd,
    /// The pinned maps, by name.
    maps: Vec<(&'static str, OwnedFd)>,
    generations: [Generation; 2],
    current: usize,
    table: Table,
    /// A table of another size, until what it holds has been drained.
    old_table: Option<Table>,
    prefixes: Prefixes,
    links: BTreeMap<String, Attachment>,
    /// The interfaces among them that were not attached before [`Kernel::open`].
    new: BTreeSet<String>,
    keeper: Keeper,
    flows: FlowTable,
    /// The ledger that generations are numbered for, and the last one in it.
    numbering: Numbering,
    /// Number of the generation that was current at the start.
    opened: u64,
    /// Whether the attachments made since the last [`Kernel::observe`] had stood before; `None` when
    /// there are none or when they are new.
    stood: Option<bool>,
    /// Whether entries of drained generations may be left in the source table.
    stale_entries: bool,
}

struct Attachment {
    link: OwnedFd,
    interface: interface::Interface,
    mode: Mode,
    tracking: Tracking,
    /// The TCX link.
    egress: Option<OwnedFd>,
}

impl Attachment {
    /// Whether its XDP program is there; it ends with the interface.
    fn stands(&self) -> bool {
        sys::link_info(self.link.as_fd()).is_ok_and(|info| info.interface == self.interface.index)
    }

    /// Whether what the interface sends is still seen. Anybody may remove a filter or end a link.
    fn is_tracking(&self) -> bool {
        match self.tracking {
            Tracking::Tcx => self.egress.as_ref().is_some_and(|link| {
                sys::link_info(link.as_fd()).is_ok_and(|info| info.interface == self.interface.index)
            }),
            Tracking::Clsact => clsact::is_attached(self.interface.index),
            Tracking::None => true,
        }
    }
}

impl Kernel {
    /// Loads the programs and opens or creates the maps under `pin_dir`. Attaches nothing.
    ///
    /// `numbering` is that of the ledger that will take the counts in, `policy` what a first
    /// generation counts by.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn open(
        pin_dir: &Path,
        source_table: u32,
        numbering: Numbering,
        policy: &Policy,
    ) -> Result<Self, KernelError> {
        Self::open_knowing(earlier::SHAPES, pin_dir, source_table, numbering, policy)
    }

    /// [`Kernel::open`], with the layouts that are known.
    fn open_knowing(
        shapes: &[Shape],
        pin_dir: &Path,
        source_table: u32,
        numbering: Numbering,
        policy: &Policy,
    ) -> Result<Self, KernelError> {
        let pins = Pins::open(pin_dir, shapes)?;
        let undo = pins.undo();
        let opened = Self::open_with(pins, source_table, numbering, policy);
        if opened.is_err() {
            undo();
        }
        opened
    }

    fn open_with(
        pins: Pins,
        source_table: u32,
        mut numbering: Numbering,
        policy: &Policy,
    ) -> Result<Self, KernelError> {
        for earlier in &pins.earlier {
            numbering.last = numbering.last.max(earlier.last_number()?);
        }
        let resized = pins.set_aside_table(source_table)?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, source)| KernelError::Map { doing: format!("read {path}"), source })?;
        // When nothing is pinned there, nothing counts yet.
        if let Ok(outer) = pins.open_map("GENERATION")
            && let Some(id) =
                sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the current generation"))?
        {
            pins.restore_generation(id)?;
        }
        let open = |name: &str| {
            Generation::open_or_create(&pins.generation(name), &format!("teiten_gen_{name}"), cpus).map_err(
                |source| match source.kind() {
                    io::ErrorKind::OutOfMemory => {
                        KernelError::NoMemory { refused: size::refused("generation", source_table), source }
                    }
                    _ => KernelError::map(format!(
                        "open generation {name} under {}",
                        pins.directory().display()
                    ))(source),
                },
            )
        };
        let generations = [open("a")?, open("b")?];
        let outer = pins.open_or_create_outer(generations[0].map())?;
        let mut object = Object::load(&pins, source_table)?;
        let in_place =
            sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the current generation"))?;
        let mut current =
            in_place.and_then(|id| generations.iter().position(|generation| generation.id() == id));
        if current.is_none()
            && let Some(last) = (0..2).max_by_key(|at| generations[*at].number())
            && generations[last].number() != 0
        {
            // The map that said which is current is gone; programs may still count into this one.
            warn!(
                generation = generations[last].number(),
                "taking the last pinned generation for the current one"
            );
            sys::set_inner(outer.as_fd(), generations[last].map())
                .map_err(KernelError::map("put the last generation in place"))?;
            current = Some(last);
        }
        let prefixes = Prefixes::open(|name| object.take_map(name))?;
        let mut flows = FlowTable::open(&pins, &mut object)?;
        flows.serve(&policy.services);
        let maps = pins::MAPS.iter().map(|name| Ok((*name, pins.open_map(name)?)));
        let mut kernel = Self {
            maps: maps.collect::<Result<_, KernelError>>()?,
            table: Table::new(pins.open_map("SOURCES")?),
            old_table: resized.map(Table::new),
            keeper: pins.keeper(),
            pins,
            object,
            outer,
            generations,
            current: current.unwrap_or(0),
            prefixes,
            links: BTreeMap::new(),
            new: BTreeSet::new(),
            flows,
            numbering,
            opened: 0,
            stood: None,
            // A daemon that was killed may have left some.
            stale_entries: true,
        };
        if current.is_none() {
            kernel.begin(numbering.last + 1, policy)?;
            info!(generation = kernel.number(), "nothing was pinned; counting starts now");
        } else {
            info!(generation = kernel.number(), "taking over pinned counters");
        }
        kernel.opened = kernel.number();
        // Last, when all that was to be read could be.
        kernel.pins.take_links()?;
        Ok(kernel)
    }

    /// Puts the first generation in place.
    fn begin(&mut self, number: u64, policy: &Policy) -> Result<(), KernelError> {
        let mut compiled = policy.compile();
        self.prefixes.fill(0, &compiled)?;
        compiled.rules.prefixes = 0;
        let first = &mut self.generations[self.current];
        first.clear();
        first.prepare(number, self.numbering.ledger, &compiled.rules);
        first.set_began(monotonic_nanos());
        sys::set_inner(self.outer.as_fd(), first.map())
            .map_err(KernelError::map("put the first generation in place"))
    }

    /// The interfaces that are attached, with their index and mode.
    pub fn attachments(&self) -> impl Iterator<Item = (&str, u32, Mode)> {
        self.links.iter().map(|(name, link)| (name.as_str(), link.interface.index, link.mode))
    }

    /// How it is learned what the attached interfaces send.
    pub fn tracking(&self) -> impl Iterator<Item = (&str, Tracking)> {
        self.links.iter().map(|(name, link)| (name.as_str(), link.tracking))
    }

    /// Attaches to what `interface` sends, or takes over the attachment that is pinned for it. Without
    /// it packets are counted all the same.
    fn track(
        &mut self,
        interface: &interface::Interface,
    ) -> Result<(Tracking, Option<OwnedFd>), KernelError> {
        let path = self.pins.egress(&interface.name);
        if let Ok(link) = sys::open_pinned(&path) {
            let stands = sys::link_info(link.as_fd()).is_ok_and(|info| info.interface == interface.index);
            if stands && self.object.replace_egress(interface, link.as_fd()).is_ok() {
                return Ok((Tracking::Tcx, Some(link)));
            }
            pins::remove(&path)?;
        }
        let no_tcx = match self.object.attach_egress(interface) {
            Ok(link) => {
                sys::pin(link.as_fd(), &path)
                    .map_err(KernelError::map(format!("pin the attachment at {}", path.display())))?;
                self.release_clsact(&interface.name)?;
                return Ok((Tracking::Tcx, Some(link)));
            }
            Err(error) => error,
        };
        match self.object.attach_clsact(interface) {
            Ok(is_new) => {
                debug!(interface = interface.name, tcx = &no_tcx as &dyn std::error::Error, "using clsact");
                self.pins.note_clsact(&interface.name, is_new)?;
                Ok((Tracking::Clsact, None))
            }
            Err(no_clsact) => {
                warn!(
                    interface = interface.name,
                    tcx = &no_tcx as &dyn std::error::Error,
                    clsact = &no_clsact as &dyn std::error::Error,
                    "cannot see what this host sends; answers to it count as backscatter and accesses"
                );
                Ok((Tracking::None, None))
            }
        }
    }

    /// Attaches anew where somebody has removed what learns from what is sent.
    fn restore_tracking(&mut self) {
        // An interface that is gone sends nothing.
        let lost = self.links.values().filter(|attachment| attachment.stands() && !attachment.is_tracking());
        let lost: Vec<_> = lost.map(|attachment| attachment.interface.clone()).collect();
        for interface in lost {
            let (tracking, egress) = match self.track(&interface) {
                Ok(tracked) => tracked,
                Err(error) => {
                    warn!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "cannot see what this host sends"
                    );
                    (Tracking::None, None)
                }
            };
            warn!(
                interface = interface.name,
                method = tracking.name(),
                "somebody had detached the program that learns what this host sends"
            );
            if let Some(attachment) = self.links.get_mut(&interface.name) {
                (attachment.tracking, attachment.egress) = (tracking, egress);
            }
        }
    }

    /// Removes a clsact filter of ours, and the clsact when it was made for it.
    fn release_clsact(&self, name: &str) -> Result<(), KernelError> {
        let Some(made) = self.pins.noted_clsact(name) else { return Ok(()) };
        // With the interface went its filters.
        if let Some(index) = sys::interface_index(name) {
            clsact::detach(index, made)
                .map_err(KernelError::map(format!("remove the clsact filter of {name}")))?;
        }
        self.pins.forget_clsact(name)
    }

    /// Has packets looked up among the flows, from now on.
    fn use_flows(&mut self) {
        self.generations[self.current].set_flags(TRACK_FLOWS);
        self.flows.maintain(clock::now());
    }

    /// Does what is due for the flows: what is over is removed, connections that exist are kept up, and
    /// whoever learns from what is sent is attached.
    pub fn maintain_flows(&mut self) -> FlowStatus {
        self.restore_tracking();
        self.flows.maintain(clock::now());
        self.flows.status()
    }

    /// Attaches to an interface, or takes over the attachment that is pinned for it: first to what it
    /// sends, so that no answer comes to a question that was not seen.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn attach(&mut self, interface: &interface::Interface, wanted: XdpMode) -> Result<Mode, KernelError> {
        let interface = &Self::as_it_is(interface)?;
        if Found::of(self.pins.link(&interface.name).symlink_metadata()).ok() == Some(Found::No) {
            self.new.insert(interface.name.clone());
        }
        self.attach_now(interface, wanted).map_err(|error| match interface::now(interface.index) {
            Ok(None) => KernelError::Gone { interface: interface.name.clone() },
            _ => error,
        })
    }

    /// The interface as it is at this moment: what the caller knows may be out of date, the program that
    /// is attached above all, which ends with its interface.
    fn as_it_is(interface: &interface::Interface) -> Result<interface::Interface, KernelError> {
        match interface::now(interface.index) {
            Ok(Some(now)) => Ok(interface::Interface { name: interface.name.clone(), ..now }),
            Ok(None) => Err(KernelError::Gone { interface: interface.name.clone() }),
            // What the caller knows is the best there is.
            Err(_) => Ok(interface.clone()),
        }
    }

    fn attach_now(&mut self, interface: &interface::Interface, wanted: XdpMode) -> Result<Mode, KernelError> {
        let (tracking, egress) = self.track(interface)?;
        if tracking != Tracking::None {
            self.use_flows();
        }
        match self.attach_xdp(interface, wanted) {
            Ok((link, mode)) => {
                let attachment = Attachment { link, interface: interface.clone(), mode, tracking, egress };
                self.links.insert(interface.name.clone(), attachment);
                Ok(mode)
            }
            Err(error) => {
                if Found::of(self.pins.link(&interface.name).symlink_metadata()).ok() == Some(Found::No) {
                    // Nobody would look up what is learned. The first error is the one to tell.
                    let _ = self.release(&interface.name);
                }
                Err(error)
            }
        }
    }

    /// The XDP part of [`Kernel::attach`].
    fn attach_xdp(
        &mut self,
        interface: &interface::Interface,
        wanted: XdpMode,
    ) -> Result<(OwnedFd, Mode), KernelError> {
        let path = self.pins.link(&interface.name);
        if let Some(taken_over) = self.take_over(interface, wanted, &path)? {
            return Ok(taken_over);
        }
        if let Some((_, program)) = interface.xdp {
            return Err(KernelError::Occupied(Occupant::of(interface, Some(program))));
        }
        let (link, mode) = self.object.attach(interface, wanted)?;
        sys::pin(link.as_fd(), &path)
            .map_err(KernelError::map(format!("pin the attachment at {}", path.display())))?;
        Ok((link, mode))
    }

    /// Says that everything to observe is attached. Observation goes on when the attachments were
    /// pinned and stood all the time, and begins now when they are new or one of them had ended: when
    /// that was, nobody knows.
    pub fn observe(&mut self) {
        self.new.clear();
        if self.stood.take() != Some(true) {
            self.generations[self.current].set_began(monotonic_nanos());
        }
    }

    /// The pinned attachment of this interface with our program behind it; `None` when there is
    /// none, or none that fits.
    fn take_over(
        &mut self,
        interface: &interface::Interface,
        wanted: XdpMode,
        path: &Path,
    ) -> Result<Option<(OwnedFd, Mode)>, KernelError> {
        let link = match sys::open_pinned(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KernelError::map(format!("open {}", path.display()))(error)),
        };
        let info =
            sys::link_info(link.as_fd()).map_err(KernelError::map(format!("inspect {}", path.display())))?;
        let mode = match interface.xdp {
            Some((mode, _)) if info.interface == interface.index => mode,
            _ => {
                warn!(
                    interface = interface.name,
                    "the pinned attachment is of an interface that is gone; observation begins anew"
                );
                self.stood = Some(false);
                pins::remove(path)?;
                return Ok(None);
            }
        };
        self.stood.get_or_insert(true);
        let fits = match wanted {
            XdpMode::Auto => true,
            XdpMode::Native => mode == Mode::Native,
            XdpMode::Generic => mode == Mode::Generic,
        };
        if fits && self.object.replace(interface, mode, link.as_fd())? {
            return Ok(Some((link, mode)));
        }
        warn!(
            interface = interface.name,
            "attaching anew, because the mode has changed; packets until then are not seen"
        );
        pins::remove(path)?;
        drop(link);
        Ok(None)
    }

    /// Gives pinned attachments to these interfaces the names that the interfaces have now, so that one
    /// that was renamed is taken over.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn adopt(&self, observed: &[interface::Interface]) -> Result<(), KernelError> {
        let is_observed = |name: &String| observed.iter().any(|interface| interface.name == *name);
        for name in self.pins.links()?.iter().filter(|name| !is_observed(name)) {
            let Ok(link) = sys::open_pinned(&self.pins.link(name)) else { continue };
            let Ok(info) = sys::link_info(link.as_fd()) else { continue };
            if let Some(interface) = observed.iter().find(|interface| interface.index == info.interface) {
                self.pins.rename(name, &interface.name)?;
            }
        }
        Ok(())
    }

    /// Whether the attachment to `name` still stands; it ends with its interface.
    pub fn is_attached(&self, name: &str) -> bool {
        self.links.get(name).is_some_and(Attachment::stands)
    }

    /// Ends the attachment to `name`.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn release(&mut self, name: &str) -> Result<(), KernelError> {
        self.links.remove(name);
        pins::remove(&self.pins.link(name))?;
        pins::remove(&self.pins.egress(name))?;
        self.release_clsact(name)
    }

    /// Ends pinned attachments to interfaces other than `wanted`; returns their names.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn release_others(&mut self, wanted: &[String]) -> Result<Vec<String>, KernelError> {
        self.release_where(|name| !wanted.contains(name))
    }

    /// Ends the pinned attachments to interfaces that are not wanted; returns their names.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn release_where(
        &mut self,
        is_unwanted: impl Fn(&String) -> bool,
    ) -> Result<Vec<String>, KernelError> {
        let mut released = self.pins.links()?;
        released.retain(is_unwanted);
        for name in &released {
            self.release(name)?;
        }
        Ok(released)
    }

    /// Ends all attachments and removes all pins.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn detach(mut self) -> Result<(), KernelError> {
        for name in self.pins.links()? {
            self.release(&name)?;
        }
        self.pins.remove_all()
    }

    /// How full the fullest log of the current generation is, 0 to 1.
    pub fn fill(&self) -> f64 {
        self.generations[self.current].fill()
    }

    /// The current generation's number.
    pub fn number(&self) -> u64 {
        self.generations[self.current].number()
    }

    /// The last generation that an earlier daemon must have committed, when that was for this ledger.
    pub fn committed(&self) -> Option<u64> {
        if self.has_earlier() {
            return None;
        }
        let ours = self.generations[self.current].ledger() == self.numbering.ledger;
        let left_over = u64::from(self.is_left_over());
        ours.then(|| self.number().saturating_sub(1 + left_over))
    }

    /// When the time of the current generation began, nanoseconds of [`monotonic_nanos`].
    pub fn began(&self) -> u64 {
        self.generations[self.current].began()
    }

    /// A generation that was switched away from and may not have been taken into a ledger: one that
    /// a daemon left when it was killed between the two.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn left_over(&self) -> Result<Option<Drained>, KernelError> {
        if !self.is_left_over() {
            return Ok(None);
        }
        self.read(&self.generations[1 - self.current], self.began()).map(Some)
    }

    fn is_left_over(&self) -> bool {
        let spare = &self.generations[1 - self.current];
        // One with a higher number was prepared and never became current.
        spare.number() != 0 && spare.version() == LAYOUT_VERSION && spare.number() < self.number()
    }

    /// Numbers generations for this ledger from the next one on.
    pub fn number_for(&mut self, numbering: Numbering) {
        self.numbering = numbering;
    }

    /// Switches to the next generation, which counts by `policy`, and reads the last one. That stays
    /// as it is until [`Kernel::recycle`]; without one since, it is read again and nothing switched.
    ///
    /// # Errors
    ///
    /// See [`KernelError`]. When the switch itself failed, the current generation is as before;
    /// when reading failed, the next call reads it again.
    pub fn switch(&mut self, policy: &Policy) -> Result<Drained, KernelError> {
        if let Some(drained) = self.left_over()? {
            return Ok(drained);
        }
        let now = self.prepare(policy)?;
        let (last, next) = (self.current, 1 - self.current);
        sys::set_inner(self.outer.as_fd(), self.generations[next].map())
            .map_err(KernelError::map("switch to the next generation"))?;
        self.flows.serve(&policy.services);
        self.current = next;
        self.read(&self.generations[last], now)
    }

    /// Prepares the generation that is not current to count by `policy`, from now on; returns what time
    /// it is, nanoseconds of [`monotonic_nanos`]. Nothing changes for the current one.
    fn prepare(&mut self, policy: &Policy) -> Result<u64, KernelError> {
        let mut compiled = policy.compile();
        if self.tracking().any(|(_, tracking)| tracking != Tracking::None) {
            compiled.rules.flags |= TRACK_FLOWS;
        }
        compiled.rules.prefixes =
            self.prefixes.hold(self.generations[self.current].prefix_set(), &compiled)?;
        let Numbering { ledger, last } = self.numbering;
        let number = self.number().max(last) + 1;
        let spare = &mut self.generations[1 - self.current];
        spare.prepare(number, ledger, &compiled.rules);
        let now = monotonic_nanos();
        spare.set_began(now);
        Ok(now)
    }

    fn read(&self, generation: &Generation, ended: u64) -> Result<Drained, KernelError> {
        let counted = generation.read();
        let number = generation.number();
        let mut entries = Vec::new();
        if counted.table_packets > 0 {
            for table in self.old_table.iter().chain([&self.table]) {
                table.read(number, &mut entries).map_err(KernelError::map("read the source table"))?;
            }
        }
        let began = generation.began();
        Ok(Drained::new(
            (number, generation.ledger()),
            (began, ended.saturating_sub(began)),
            counted,
            rules::services(&generation.rules()),
            entries,
        ))
    }

    /// Whether an earlier layout's pins are still to be taken in.
    pub fn has_earlier(&self) -> bool {
        !self.pins.earlier.is_empty()
    }

    /// What is pinned of earlier layouts, oldest first; some of it may be in the ledger already. Every
    /// attachment must have been taken over or released before.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn earlier(&self) -> Result<Vec<Drained>, KernelError> {
        let mut drained = Vec::new();
        for earlier in &self.pins.earlier {
            let of_version = earlier.read(self.began())?;
            info!(
                layout = earlier.version(),
                generations = of_version.len(),
                "taking over an earlier layout's counts"
            );
            drained.extend(of_version);
        }
        Ok(drained)
    }

    /// Removes the pins of earlier layouts, which the ledger has taken in.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn forget_earlier(&mut self) -> Result<(), KernelError> {
        self.pins.earlier.drain(..).try_for_each(Earlier::remove)
    }

    /// Empties what is not current, after the ledger has taken it in. `used_table` says whether the
    /// drained generation had entries in the source table.
    ///
    /// # Errors
    ///
    /// See [`KernelError`]. Entries that could not be deleted take room in the source table until the
    /// next call; they are of a generation that nobody will read again.
    pub fn recycle(&mut self, used_table: bool) -> Result<(), KernelError> {
        self.generations[1 - self.current].clear();
        self.prefixes.keep_only(self.generations[self.current].prefix_set())?;
        let current = self.number() as u32;
        self.stale_entries |= used_table;
        if self.stale_entries {
            self.table
                .retain(|generation| generation == current)
                .map_err(KernelError::map("empty the source table"))?;
            self.stale_entries = false;
        }
        // The generation that was current at the start may have entries in both tables.
        if self.number() > self.opened && self.old_table.take().is_some() {
            self.pins.drop_old_table()?;
        }
        Ok(())
    }

    /// The ring through which the program wakes the daemon.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn wake(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        self.object.wake()
    }
}
