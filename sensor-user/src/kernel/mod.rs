//! The kernel side as the daemon sees it: load and pin, attach to interfaces, switch generations.
//!
//! Everything lies under one directory per layout version on a bpffs, so that counting continues while
//! no daemon runs and the next one takes it over:
//!
//! ```text
//! PIN_DIR/vN/maps/…          the maps of the object, by name
//! PIN_DIR/vN/generation-a,b  the two generations: one current, one drained
//! PIN_DIR/vN/links/NAME      the attachment to interface NAME
//! PIN_DIR/vN/links/NAME%egress  the attachment to what interface NAME sends
//! PIN_DIR/vN/links/NAME%clsact  instead of it, a note that a filter of NAME's clsact is attached
//! PIN_DIR/vN-M               the same of generations with another number of blocks, the last of them number M
//! ```
//!
//! What a release with an earlier layout has left under `v…` is taken over: its attachments get this
//! release's programs, which count into maps of their own, and then its generations are read by the
//! rules of their version ([`Kernel::earlier`]); conversations are learned again. A layout that is not
//! known is left alone.
//!
//! The program knows how many blocks a generation has. When that is to change, what is pinned is set aside
//! and taken over in the same way; conversations stay known.

pub mod adapter;
mod attachments;
mod clsact;
mod drained;
mod earlier;
mod error;
mod flows;
mod generation;
mod generations;
pub mod inspect;
pub mod interface;
pub mod interfaces;
mod keeper;
mod mode;
mod netlink;
pub mod network;
mod object;
mod occupant;
mod outlook;
mod pin_files;
mod pins;
mod prefixes;
mod program_names;
mod rules;
mod samples;
mod size;
mod sockets;
mod sys;
mod table;
#[cfg(test)]
mod tests;

pub use drained::{Counted, Drained};
pub use error::KernelError;
pub use generations::{Empty, Full, NotSwitched, Spare};
pub use keeper::Keeper;
pub use mode::{GENERIC_MERGES, Mode, Tracking};
pub use object::prepare;
pub use occupant::{Kind, Occupant};
pub use outlook::Outlook;
pub use pin_files::Found;
pub use pins::{any as is_pinned, remove_pin_dir};
pub use rules::Policy;
pub use size::{ByCpu, MapSizes, memory};

use crate::config::XdpMode;
use crate::observation::{FlowStatus, Numbering};
use crate::samples::SampleSettings;
use crate::system::clock;
use attachments::{Attachments, Before};
use aya::maps::{MapData, RingBuf};
use earlier::{Earlier, Shape};
use flows::FlowTable;
use generations::Generations;
use interface::Interface;
use object::Object;
use pins::Pins;
use prefixes::Prefixes;
use rules::Compiled;
use samples::SampleRing;
use sensor_common::layout::TRACK_FLOWS;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use tracing::info;

/// The kernel side while it starts: programs and maps are there, and interfaces are attached one by one.
///
/// [`Opened::observe`] ends this; only then can generations be switched.
pub struct Opened {
    kernel: Kernel,
    wake: RingBuf<MapData>,
    /// Whether the attachments so far have counted all the time; `None` when they are new.
    unbroken: Option<bool>,
}

/// The kernel side as it is ready to be drained.
pub struct Ready {
    /// Maps, attachments and pins.
    pub kernel: Kernel,
    /// The generation that is not current.
    pub spare: Spare,
    /// The ring through which the program wakes the daemon.
    pub wake: RingBuf<MapData>,
}

/// The kernel side while it counts.
pub struct Kernel {
    pins: Pins,
    generations: Generations,
    attachments: Attachments,
    flows: FlowTable,
    /// The pinned maps, by name.
    maps: Vec<(&'static str, OwnedFd)>,
    keeper: Keeper,
    samples: RefCell<SampleRing>,
    /// How contents of generations that are read are kept.
    sampling: SampleSettings,
}

impl Opened {
    /// Attaches to an interface, or takes over the attachment that is pinned for it.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn attach(&mut self, interface: &Interface, wanted: XdpMode) -> Result<Mode, KernelError> {
        let (mode, before) = self.kernel.attach(interface, wanted)?;
        match before {
            Before::Nothing => {}
            Before::Unbroken => {
                self.unbroken.get_or_insert(true);
            }
            Before::Ended => self.unbroken = Some(false),
        }
        Ok(mode)
    }

    /// Gives pinned attachments to these interfaces the names that the interfaces have now, so that one
    /// that was renamed is taken over.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn adopt(&self, observed: &[Interface]) -> Result<(), KernelError> {
        attachments::adopt(&self.kernel.pins, observed)
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
        self.kernel.attachments.release_where(&self.kernel.pins, is_unwanted)
    }

    /// Everything to observe is attached. Observation continues when the attachments were pinned and
    /// counted all the time. It begins now when they are new, or when one of them had ended: at what time
    /// is unknown.
    pub fn observe(mut self) -> Ready {
        if self.unbroken != Some(true) {
            self.kernel.generations.begin_now();
        }
        self.ready()
    }

    /// Ends all attachments: what is left is to be drained.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn end(mut self) -> Result<Ready, KernelError> {
        self.release_where(|_| true)?;
        Ok(self.ready())
    }

    fn ready(mut self) -> Ready {
        Ready { spare: self.kernel.generations.spare(), kernel: self.kernel, wake: self.wake }
    }

    /// [`Kernel::undo`].
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn undo(self) -> Result<Vec<String>, KernelError> {
        self.kernel.undo()
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
        sizes: &MapSizes,
        numbering: Numbering,
        policy: &Policy,
    ) -> Result<Opened, KernelError> {
        Self::open_knowing(earlier::SHAPES, pin_dir, sizes, numbering, policy)
    }

    /// [`Kernel::open`], with the layouts that are known.
    fn open_knowing(
        shapes: &[Shape],
        pin_dir: &Path,
        sizes: &MapSizes,
        numbering: Numbering,
        policy: &Policy,
    ) -> Result<Opened, KernelError> {
        let mut pins = Pins::open(pin_dir, shapes)?;
        pins.set_aside_generations(sizes.by_cpu.blocks())?;
        let undo = pins.undo();
        let opened = Self::open_with(pins, sizes, numbering, policy);
        if opened.is_err() {
            undo();
        }
        opened
    }

    fn open_with(
        pins: Pins,
        sizes: &MapSizes,
        mut numbering: Numbering,
        policy: &Policy,
    ) -> Result<Opened, KernelError> {
        for earlier in &pins.earlier {
            numbering.last = numbering.last.max(earlier.last_number()?);
        }
        let maps = generations::Maps::open(&pins, sizes)?;
        let mut object = Object::load(&pins, sizes)?;
        let prefixes = Prefixes::open(|name| object.take_map(name))?;
        let mut flows = FlowTable::open(&pins, &mut object)?;
        flows.serve(&policy.services);
        let wake = object::wake(&pins)?;
        let generations = Generations::begin(maps, &pins, prefixes, numbering, policy.compile())?;
        let maps = pins::MAPS.iter().map(|name| Ok((*name, pins.open_map(name)?)));
        let kernel = Self {
            maps: maps.collect::<Result<_, KernelError>>()?,
            keeper: pins.keeper(),
            generations,
            attachments: Attachments::new(object),
            flows,
            samples: RefCell::new(SampleRing::open(&pins)?),
            sampling: policy.samples.clone(),
            pins,
        };
        // Last, when all that was to be read could be.
        kernel.pins.take_links()?;
        Ok(Opened { kernel, wake, unbroken: None })
    }

    fn attach(&mut self, interface: &Interface, wanted: XdpMode) -> Result<(Mode, Before), KernelError> {
        let Self { attachments, pins, generations, flows, .. } = self;
        attachments.attach(pins, interface, wanted, || {
            generations.use_flows();
            flows.maintain(clock::now());
        })
    }

    /// Ends the attachment to an interface, if there is one, and attaches again. What the current
    /// generation counts is observed from now on.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn attach_again(&mut self, interface: &Interface, wanted: XdpMode) -> Result<Mode, KernelError> {
        self.release(&interface.name)?;
        let (mode, _) = self.attach(interface, wanted)?;
        self.generations.begin_now();
        Ok(mode)
    }

    /// The interfaces that are attached, with their index and mode.
    pub fn attachments(&self) -> impl Iterator<Item = (&str, u32, Mode)> {
        self.attachments.modes()
    }

    /// How packets that the attached interfaces send are seen.
    pub fn tracking(&self) -> impl Iterator<Item = (&str, Tracking)> {
        self.attachments.tracking()
    }

    /// Whether the attachment to `name` is there; it ends with its interface.
    pub fn is_attached(&self, name: &str) -> bool {
        self.attachments.is_attached(name)
    }

    /// Ends the attachment to `name`.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn release(&mut self, name: &str) -> Result<(), KernelError> {
        self.attachments.release(&self.pins, name)
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
        self.attachments.release_where(&self.pins, is_unwanted)
    }

    /// Ends all attachments and removes all pins.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn detach(mut self) -> Result<(), KernelError> {
        self.release_where(|_| true)?;
        self.pins.remove_all()
    }

    /// Undoes a start that failed: ends the attachments that were made since [`Kernel::open`], and
    /// removes the pins when there were none before. Returns the interfaces on which the program of an
    /// earlier daemon is attached as before.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn undo(mut self) -> Result<Vec<String>, KernelError> {
        if self.pins.is_fresh() {
            self.detach()?;
            return Ok(Vec::new());
        }
        self.attachments.undo(&self.pins)
    }

    /// Does what is due for the flows: what is over is removed, connections that exist are kept up, and
    /// the program that learns from what is sent is attached again where it was detached.
    pub fn maintain_flows(&mut self) -> FlowStatus {
        self.attachments.restore_tracking(&self.pins);
        self.flows.maintain(clock::now());
        self.flows.status()
    }

    /// How full the fullest log of the current generation is, 0 to 1.
    pub fn fill(&self) -> f64 {
        self.generations.fill()
    }

    /// The current generation's number.
    pub fn number(&self) -> u64 {
        self.generations.number()
    }

    /// When the time of the current generation began, nanoseconds of
    /// [`monotonic_nanos`](clock::monotonic_nanos).
    pub fn began(&self) -> u64 {
        self.generations.began()
    }

    /// The last generation that an earlier daemon must have committed, when that was for this ledger.
    pub fn committed(&self) -> Option<u64> {
        if self.has_earlier() { None } else { self.generations.committed() }
    }

    /// Numbers generations for this ledger from the next one on.
    pub fn number_for(&mut self, numbering: Numbering) {
        self.generations.number_for(numbering);
    }

    fn compile(&self, policy: &Policy) -> Compiled {
        let mut compiled = policy.compile();
        if self.attachments.are_tracking() {
            compiled.rules.flags |= TRACK_FLOWS;
        }
        compiled
    }

    /// Switches to the other generation, which counts by `policy`, and returns when no program counts into
    /// the last one any more.
    ///
    /// # Errors
    ///
    /// [`NotSwitched`]: the current generation is as before, and so is what it counts by.
    pub fn switch(&mut self, spare: Empty, policy: &Policy) -> Result<Full, NotSwitched> {
        let full = self.generations.switch(spare, self.compile(policy))?;
        self.flows.serve(&policy.services);
        self.sampling.clone_from(&policy.samples);
        Ok(full)
    }

    /// Reads the generation that was switched away from. It stays as it is until [`Kernel::recycle`], but
    /// its samples are taken out of the ring: a second call has none.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn read(&self, full: &Full) -> Result<Drained, KernelError> {
        let mut drained = self.generations.read(full)?;
        drained.samples = self.samples.borrow_mut().take(&drained, &self.sampling);
        Ok(drained)
    }

    /// Empties the generation that is not current, after a ledger has taken it in.
    pub fn recycle(&mut self, full: Full) -> Empty {
        self.generations.recycle(full)
    }

    /// Empties what only drained generations needed: prefixes, and entries of the source table.
    ///
    /// # Errors
    ///
    /// See [`KernelError`]. What could not be emptied takes room until the next call, and is never read.
    pub fn tidy(&mut self, spare: &Empty) -> Result<(), KernelError> {
        self.generations.tidy(&self.pins, spare)
    }

    /// Whether an earlier layout's pins are still to be taken in.
    pub fn has_earlier(&self) -> bool {
        !self.pins.earlier.is_empty()
    }

    /// What is pinned of earlier layouts, oldest first; some of it may be in the ledger already. Every
    /// attachment must have been taken over or released before. None of their samples are there.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn earlier(&self) -> Result<Vec<Drained>, KernelError> {
        let mut drained = Vec::new();
        for earlier in &self.pins.earlier {
            let mut of_version = earlier.read(self.began())?;
            info!(
                pins = %earlier.root().display(),
                generations = of_version.len(),
                "taking over counts of earlier pins"
            );
            for drained in &mut of_version {
                drained.samples = self.samples.borrow_mut().take(drained, &self.sampling);
            }
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
}
