//! The two generations: one is current, the other is empty or holds what was counted before.
//!
//! Which of the two the other one is, its holder proves by a token: a switch takes [`Empty`] and gives
//! [`Full`], which only [`Generations::recycle`] turns into [`Empty`] again. So nothing that was drained is
//! counted into before it was given back, and nothing is emptied that was not drained.

use super::drained::Drained;
use super::generation::{Generation, Whole};
use super::pins::Pins;
use super::prefixes::Prefixes;
use super::rules::{self, Compiled};
use super::size::MapSizes;
use super::table::SourceTable;
use super::{KernelError, sys};
use crate::observation::Numbering;
use crate::system::clock::monotonic_nanos;
use sensor_common::layout::{LAYOUT_VERSION, TRACK_FLOWS};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use tracing::{info, warn};

/// Names of the two, as they are pinned.
pub(super) const NAMES: [&str; 2] = ["a", "b"];

/// The generation that is not current can become it.
#[derive(Debug)]
#[must_use = "the next switch needs it"]
pub struct Empty(());

/// The generation that is not current holds counts that may not be in a ledger yet.
#[derive(Debug)]
#[must_use = "without recycling it, there is no other switch"]
pub struct Full(Whole);

/// The generation that is not current.
#[derive(Debug)]
pub enum Spare {
    /// It can become current.
    Empty(Empty),
    /// An earlier daemon ended between its switch and its commit.
    Full(Full),
}

/// Why generations were not switched; the current one is as before.
#[derive(Debug)]
pub struct NotSwitched {
    /// For the next try.
    pub spare: Empty,
    /// Why.
    pub error: KernelError,
}

/// The source tables: what the logs could not take.
struct Sources {
    table: SourceTable,
    /// A table of another size, until what it holds has been drained.
    old: Option<SourceTable>,
    /// Whether entries of drained generations may be left.
    stale: bool,
}

/// The generations, and what belongs to their configuration and their counts.
pub(super) struct Generations {
    outer: OwnedFd,
    pair: [Generation; 2],
    current: usize,
    prefixes: Prefixes,
    sources: Sources,
    /// The ledger that generations are numbered for, and the last one in it.
    numbering: Numbering,
    /// Number of the generation that was current at the start.
    opened: u64,
    /// What an earlier daemon left in the other one, until [`Generations::spare`] hands it on.
    left_over: Option<Whole>,
}

/// The maps of generations, before the object is loaded, which needs them.
pub(super) struct Maps {
    outer: OwnedFd,
    pair: [Generation; 2],
    resized: Option<OwnedFd>,
}

impl Maps {
    /// Opens or creates them.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn open(pins: &Pins, sizes: &MapSizes) -> Result<Self, KernelError> {
        let resized = pins.set_aside_table(sizes.source_table)?;
        // When nothing is pinned there, nothing counts yet.
        if let Ok(outer) = pins.open_map("GENERATION")
            && let Some(id) =
                sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the current generation"))?
        {
            pins.restore_generation(id)?;
        }
        let open = |name: &str| {
            Generation::open_or_create(
                &pins.generation(name),
                &format!("teiten_gen_{name}"),
                sizes.by_cpu.blocks(),
            )
            .map_err(|source| match source.kind() {
                io::ErrorKind::OutOfMemory => {
                    KernelError::NoMemory { refused: sizes.refused("generation"), source }
                }
                _ => {
                    KernelError::map(format!("open generation {name} under {}", pins.directory().display()))(
                        source,
                    )
                }
            })
        };
        let pair = [open(NAMES[0])?, open(NAMES[1])?];
        let outer = pins.open_or_create_outer(pair[0].map())?;
        Ok(Self { outer, pair, resized })
    }
}

impl Generations {
    /// Takes over the generation that is current, or puts a first one in place, which counts by `compiled`.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn begin(
        maps: Maps,
        pins: &Pins,
        prefixes: Prefixes,
        numbering: Numbering,
        compiled: Compiled,
    ) -> Result<Self, KernelError> {
        let Maps { outer, pair, resized } = maps;
        let in_place =
            sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the current generation"))?;
        let mut current = in_place.and_then(|id| pair.iter().position(|generation| generation.id() == id));
        if current.is_none()
            && let Some(last) = (0..2).max_by_key(|at| pair[*at].number())
            && pair[last].number() != 0
        {
            // The map that said which is current is gone; programs may still count into this one.
            warn!(
                generation = pair[last].number(),
                "generation in place is unknown; taking the last pinned one for the current one"
            );
            sys::set_inner(outer.as_fd(), pair[last].map())
                .map_err(KernelError::map("put the last generation in place"))?;
            current = Some(last);
        }
        let sources = Sources {
            table: SourceTable::new(pins.open_map("SOURCES")?),
            old: resized.map(SourceTable::new),
            // A daemon that was killed may have left some.
            stale: true,
        };
        let mut generations = Self {
            outer,
            pair,
            current: current.unwrap_or(0),
            prefixes,
            sources,
            numbering,
            opened: 0,
            left_over: None,
        };
        if current.is_none() {
            generations.put_first(compiled)?;
            info!(generation = generations.number(), "nothing was pinned; counting starts now");
        } else {
            info!(generation = generations.number(), "taking over pinned counters");
        }
        generations.opened = generations.number();
        let mut other = mapped(generations.other())?;
        if generations.is_left_over() {
            generations.left_over = Some(other);
        } else {
            // It may have been prepared and never become current.
            other.clear();
        }
        Ok(generations)
    }

    fn put_first(&mut self, mut compiled: Compiled) -> Result<(), KernelError> {
        self.prefixes.fill(0, &compiled)?;
        compiled.rules.prefixes = 0;
        let Numbering { ledger, last } = self.numbering;
        let first = &mut self.pair[self.current];
        let mut whole = mapped(first)?;
        whole.clear();
        let sampled = (!compiled.sampled.is_off()).then_some((&mut whole, &compiled.sampled));
        first.prepare(last + 1, ledger, &compiled.rules, sampled);
        first.set_began(monotonic_nanos());
        sys::set_inner(self.outer.as_fd(), first.map())
            .map_err(KernelError::map("put the first generation in place"))
    }

    /// The state of the generation that is not current. Called once, because it makes the token.
    pub(super) fn spare(&mut self) -> Spare {
        self.left_over.take().map_or(Spare::Empty(Empty(())), |whole| Spare::Full(Full(whole)))
    }

    fn current(&self) -> &Generation {
        &self.pair[self.current]
    }

    fn other(&self) -> &Generation {
        &self.pair[1 - self.current]
    }

    /// Where each is pinned, and its map.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        NAMES.into_iter().zip(self.pair.iter().map(Generation::map))
    }

    /// The current one's number.
    pub(super) fn number(&self) -> u64 {
        self.current().number()
    }

    /// When the time of the current one began, nanoseconds of [`monotonic_nanos`].
    pub(super) fn began(&self) -> u64 {
        self.current().began()
    }

    /// What the current one counts is observed from now on, and was not before.
    pub(super) fn begin_now(&mut self) {
        self.pair[self.current].set_began(monotonic_nanos());
    }

    /// How full the fullest log of the current one is, 0 to 1.
    pub(super) fn fill(&self) -> f64 {
        self.current().fill()
    }

    /// Has packets of the current one looked up among the flows, from now on.
    pub(super) fn use_flows(&mut self) {
        self.pair[self.current].set_flags(TRACK_FLOWS);
    }

    /// The last generation that an earlier daemon must have committed, when that was for this ledger.
    pub(super) fn committed(&self) -> Option<u64> {
        let ours = self.current().ledger() == self.numbering.ledger;
        ours.then(|| self.number().saturating_sub(1 + u64::from(self.is_left_over())))
    }

    fn is_left_over(&self) -> bool {
        // One with a higher number was prepared and never became current.
        let (number, version) = (self.other().number(), self.other().version());
        number != 0 && version == LAYOUT_VERSION && number < self.number()
    }

    /// Numbers generations for this ledger from the next one on.
    pub(super) fn number_for(&mut self, numbering: Numbering) {
        self.numbering = numbering;
    }

    /// Prepares the empty one to count by `compiled`. Nothing changes for the current one.
    pub(super) fn prepare(&mut self, mut compiled: Compiled) -> Result<(), KernelError> {
        compiled.rules.prefixes = self.prefixes.hold(self.current().prefix_set(), &compiled)?;
        let Numbering { ledger, last } = self.numbering;
        let number = self.number().max(last) + 1;
        let next = &mut self.pair[1 - self.current];
        let mut whole = if compiled.sampled.is_off() { None } else { Some(mapped(next)?) };
        let sampled = whole.as_mut().map(|whole| (whole, &compiled.sampled));
        next.prepare(number, ledger, &compiled.rules, sampled);
        next.set_began(monotonic_nanos());
        Ok(())
    }

    /// Makes the empty one current, and returns when no program counts into the last one any more.
    pub(super) fn switch(&mut self, spare: Empty, compiled: Compiled) -> Result<Full, NotSwitched> {
        let switched = self.prepare(compiled).and_then(|()| {
            let whole = mapped(self.current())?;
            sys::set_inner(self.outer.as_fd(), self.other().map())
                .map_err(KernelError::map("switch to the next generation"))?;
            Ok(whole)
        });
        match switched {
            Ok(whole) => {
                self.current = 1 - self.current;
                Ok(Full(whole))
            }
            Err(error) => Err(NotSwitched { spare, error }),
        }
    }

    /// Reads the full one, which counted until the current one began.
    pub(super) fn read(&self, Full(whole): &Full) -> Result<Drained, KernelError> {
        self.drained(self.other(), whole, self.began())
    }

    fn drained(&self, generation: &Generation, whole: &Whole, ended: u64) -> Result<Drained, KernelError> {
        let counted = whole.read();
        let number = generation.number();
        let mut entries = Vec::new();
        if counted.table_packets > 0 {
            for table in self.sources.old.iter().chain([&self.sources.table]) {
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

    /// Empties the full one, which a ledger has taken in.
    pub(super) fn recycle(&mut self, Full(mut whole): Full) -> Empty {
        self.sources.stale |= self.other().has_table_packets();
        whole.clear();
        Empty(())
    }

    /// Empties what the current one does not need: sets of prefixes, and entries of the source table.
    pub(super) fn tidy(&mut self, pins: &Pins, _: &Empty) -> Result<(), KernelError> {
        self.prefixes.keep_only(self.current().prefix_set())?;
        let number = self.number();
        if self.sources.stale {
            self.sources
                .table
                .retain(|generation| generation == number as u32)
                .map_err(KernelError::map("empty the source table"))?;
            self.sources.stale = false;
        }
        // The generation that was current at the start may have entries in both tables.
        if number > self.opened && self.sources.old.take().is_some() {
            pins.drop_old_table()?;
        }
        Ok(())
    }
}

/// All memory of a generation that is not current, or is about not to be.
fn mapped(generation: &Generation) -> Result<Whole, KernelError> {
    generation.whole().map_err(KernelError::map("map a generation"))
}

#[cfg(test)]
impl Generations {
    /// The current one's blocks.
    pub(super) fn current_blocks(&self) -> Vec<*const sensor_common::layout::Block> {
        self.current().block_pointers()
    }

    /// The blocks of both.
    pub(super) fn all_blocks(&self) -> Vec<*const sensor_common::layout::Block> {
        self.pair.iter().flat_map(Generation::block_pointers).collect()
    }

    /// Reads the current one, while no program runs.
    pub(super) fn read_current(&self) -> Drained {
        let whole = mapped(self.current()).expect("its memory");
        self.drained(self.current(), &whole, 0).expect("read")
    }

    /// Puts something else where the kernel looks for the current one, and returns what was there.
    pub(super) fn replace_outer(&mut self, outer: OwnedFd) -> OwnedFd {
        std::mem::replace(&mut self.outer, outer)
    }
}
