//! What the ledger knows in memory: the counters, the day, and the plan that the settings make.

use super::breadth::Breadth;
use super::selection::{Candidate, Reserve, choose};
use super::sets::DaySets;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::observation::Observation;
use crate::samples::{DaySamples, SampleSettings};
use jiff::Timestamp;
use jiff::civil::Date;
use sensor_common::{Slot, Transport};
use sensor_counters::{NetworkLabel, Series};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Ports that are charted as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartedPorts {
    /// The `group` label's value.
    pub name: String,
    /// Its ports.
    pub slots: Vec<Slot>,
}

/// What the configuration says about counting.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// Zone of the observation day.
    pub timezone: jiff::tz::TimeZone,
    /// Days of detail to keep.
    pub keep_days: u32,
    /// Ports with a series of their own; as many networks may have one.
    pub max_ports: usize,
    /// Feature ports in addition to the configured ones.
    pub feature_ports: usize,
    /// Ports that are always feature ports.
    pub features: Vec<Slot>,
    /// Ports that are charted as one.
    pub groups: Vec<ChartedPorts>,
    /// Name of this sensor.
    pub sensor_name: String,
    /// What packets are sampled.
    pub samples: SampleSettings,
}

/// Groups of up to this many ports give each of them a series of its own.
const SMALL_GROUP: usize = 16;

impl LedgerSettings {
    /// Ports that have a series of their own from the start: features, then the ports of small
    /// groups while these fit in half of the places.
    pub(super) fn configured_ports(&self) -> BTreeSet<Slot> {
        let mut ports: BTreeSet<Slot> = self.features.iter().copied().collect();
        for group in self.groups.iter().filter(|group| group.slots.len() <= SMALL_GROUP) {
            let more: BTreeSet<Slot> = ports.iter().chain(&group.slots).copied().collect();
            if more.len() <= self.max_ports / 2 {
                ports = more;
            }
        }
        ports
    }
}

/// One local day, as far as it has been counted.
#[derive(Debug)]
pub(super) struct Day {
    /// The day.
    pub(super) date: Date,
    /// Who has been seen.
    pub(super) sets: DaySets,
    /// Exact by port.
    pub(super) ports: HashMap<Slot, Tally>,
    /// Exact by what answered.
    pub(super) backscatter: HashMap<Slot, u64>,
    /// Exact by the number of the network; 0 is none.
    pub(super) networks: HashMap<u32, Tally>,
    /// Unique hosts and what they sent, by how many ports they have reached.
    pub(super) breadth: Breadth,
    /// What the counters grew by.
    pub(super) totals: Totals,
    /// By port, on the calendar day before.
    pub(super) ports_before: HashMap<Slot, Tally>,
    /// Backscatter, on the calendar day before.
    pub(super) backscatter_before: HashMap<Slot, u64>,
    /// What packets held.
    pub(super) samples: DaySamples,
    /// By network, on the calendar day before.
    pub(super) networks_before: HashMap<u32, Tally>,
}

impl Day {
    /// A day of which nothing is known.
    pub(super) fn empty(date: Date) -> Self {
        Self {
            date,
            sets: DaySets::default(),
            ports: HashMap::new(),
            backscatter: HashMap::new(),
            networks: HashMap::new(),
            breadth: Breadth::default(),
            totals: Totals::default(),
            ports_before: HashMap::new(),
            backscatter_before: HashMap::new(),
            samples: DaySamples::default(),
            networks_before: HashMap::new(),
        }
    }
}

/// Everything in memory that a fold changes.
#[derive(Debug)]
pub(super) struct LedgerState {
    /// Tells generations numbered for this ledger from others; never 0.
    pub(super) identity: u64,
    /// The counters.
    pub(super) totals: Totals,
    /// What networks are called, by number: the name that each had first, so that a series has one name.
    pub(super) names: HashMap<u32, Arc<str>>,
    /// Series whose value may be shown.
    pub(super) released: BTreeSet<Series>,
    /// The last generations taken in, [`GENERATIONS`] at most.
    pub(super) generations: BTreeSet<u64>,
    /// Generations taken in that another ledger had numbered: its identity, the number.
    pub(super) foreign: BTreeSet<(u64, u64)>,
    /// How many folds are in; tells whether a commit that failed to report did happen.
    pub(super) commits: u64,
    /// When the first observation began.
    pub(super) since: Option<Timestamp>,
    /// Instant of the last observation taken in.
    pub(super) heartbeat: Option<Timestamp>,
    /// The day of the last observation.
    pub(super) day: Day,
}

/// What an observation is known by, so that it counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GenerationId {
    /// A number of this ledger's; 0 is of no kernel and never taken yet.
    Own(u64),
    /// A number that another ledger gave.
    Foreign {
        /// That ledger's identity.
        ledger: u64,
        /// The number that it gave.
        number: u64,
    },
}

impl GenerationId {
    /// The number that a ledger of this identity knows the observation by.
    pub(super) fn of(observation: &Observation, identity: u64) -> Self {
        let Observation { ledger, generation: number, .. } = *observation;
        if ledger == 0 || ledger == identity { Self::Own(number) } else { Self::Foreign { ledger, number } }
    }

    /// Of this ledger's own; 0 for others.
    pub(super) fn own(self) -> u64 {
        match self {
            Self::Own(number) => number,
            Self::Foreign { .. } => 0,
        }
    }
}

/// By the standard library's random keys, which come from the system.
fn random_identity() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one("ledger") | 1
}

/// Generation numbers that are remembered one by one; lower ones count as taken.
pub(super) const GENERATIONS: usize = 256;

impl LedgerState {
    /// Nothing counted yet.
    pub(super) fn empty() -> Self {
        Self {
            identity: random_identity(),
            totals: Totals::default(),
            names: HashMap::new(),
            released: BTreeSet::new(),
            generations: BTreeSet::new(),
            foreign: BTreeSet::new(),
            commits: 0,
            since: None,
            heartbeat: None,
            day: Day::empty(Date::MIN),
        }
    }

    /// Whether this generation is already in. Numbers ascend, but one that ran out of turn (left
    /// pinned by a daemon that was killed) may still come after a higher one.
    pub(super) fn has_taken(&self, generation: GenerationId) -> bool {
        let generation = match generation {
            GenerationId::Foreign { ledger, number } => return self.foreign.contains(&(ledger, number)),
            GenerationId::Own(number) => number,
        };
        generation != 0
            && (self.generations.contains(&generation)
                || (self.generations.len() >= GENERATIONS
                    && self.generations.first().is_some_and(|lowest| generation < *lowest)))
    }

    /// Feature ports: the configured ones, and those that already have it.
    pub(super) fn features(&self, settings: &LedgerSettings) -> BTreeSet<Slot> {
        let mut features: BTreeSet<Slot> = settings.features.iter().copied().collect();
        features.extend(self.totals.port_hours.keys().filter_map(|(label, _)| match label {
            PortLabel::Own(slot) => Some(*slot),
            PortLabel::Rest(_) => None,
        }));
        features
    }

    /// Gives the configured ports their series; returns those that are new.
    pub(super) fn seed(&mut self, settings: &LedgerSettings) {
        for slot in settings.configured_ports() {
            self.totals.ports.entry(PortLabel::Own(slot)).or_default();
        }
    }
}

/// Which ports get new places in this fold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Promoted {
    pub(super) ports: BTreeSet<Slot>,
    pub(super) features: BTreeSet<Slot>,
    pub(super) backscatter: BTreeSet<Slot>,
    /// Numbers.
    pub(super) networks: BTreeSet<u32>,
}

impl Promoted {
    /// Decides over the ports and networks of one fold, which are `ports` and `networks` (with what is new)
    /// on `day`.
    pub(super) fn decide(
        state: &LedgerState,
        day: &Day,
        settings: &LedgerSettings,
        features: &BTreeSet<Slot>,
        ports: &[(Slot, Tally)],
        networks: &[(u32, Tally)],
        observation: &Observation,
    ) -> Self {
        let weigh = |(slot, news): &(Slot, Tally)| {
            let mut sum = *news;
            for tally in [day.ports.get(slot), day.ports_before.get(slot)].into_iter().flatten() {
                sum += *tally;
            }
            Candidate { key: *slot, weight: sum.sources, accesses: sum.accesses }
        };
        let own = &state.totals.ports;
        let with_accesses = || ports.iter().filter(|(_, tally)| tally.accesses > 0);
        let newcomers = with_accesses().filter(|(slot, _)| !own.contains_key(&PortLabel::Own(*slot)));
        let taken = count_own(own.keys());
        let chosen = choose(newcomers.map(weigh).collect(), settings.max_ports, taken, Reserve::Fifth);

        let configured: BTreeSet<Slot> = settings.features.iter().copied().collect();
        let newcomers = with_accesses().filter(|(slot, _)| !features.contains(slot));
        let taken = features.difference(&configured).count();
        let with_detail =
            choose(newcomers.map(weigh).collect(), settings.feature_ports, taken, Reserve::Half);

        let own = &state.totals.backscatter;
        let newcomers = observation
            .counts
            .backscatter
            .iter()
            .filter(|(slot, _)| !own.contains_key(&PortLabel::Own(*slot)))
            .map(|(slot, packets)| {
                let before = [day.backscatter.get(slot), day.backscatter_before.get(slot)];
                let weight = packets + before.into_iter().flatten().sum::<u64>();
                Candidate { key: *slot, weight, accesses: weight }
            })
            .collect();
        let taken = count_own(own.keys());
        let answered = choose(newcomers, settings.max_ports, taken, Reserve::Fifth);

        let weigh = |(number, news): &(u32, Tally)| {
            let mut sum = *news;
            for tally in [day.networks.get(number), day.networks_before.get(number)].into_iter().flatten() {
                sum += *tally;
            }
            Candidate { key: *number, weight: sum.sources, accesses: sum.accesses }
        };
        let own: BTreeSet<u32> = state
            .totals
            .networks
            .keys()
            .filter_map(|label| match label {
                NetworkLabel::Own(network) => Some(network.number),
                NetworkLabel::Rest | NetworkLabel::Nowhere => None,
            })
            .collect();
        let newcomers = networks
            .iter()
            .filter(|(number, tally)| *number != 0 && tally.accesses > 0 && !own.contains(number));
        let networks = choose(newcomers.map(weigh).collect(), settings.max_ports, own.len(), Reserve::Fifth);

        Self {
            ports: chosen.into_iter().collect(),
            features: with_detail.into_iter().collect(),
            backscatter: answered.into_iter().collect(),
            networks: networks.into_iter().collect(),
        }
    }
}

fn count_own<'a>(labels: impl Iterator<Item = &'a PortLabel>) -> usize {
    labels.filter(|label| matches!(label, PortLabel::Own(_))).count()
}

/// The rest of the transport of `slot`.
pub(super) fn rest(slot: Slot) -> PortLabel {
    let transport: Transport = slot.transport();
    PortLabel::Rest(transport)
}
