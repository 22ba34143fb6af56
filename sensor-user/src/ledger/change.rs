//! The fold itself: from one observation to what changes. Pure computation, no input or output.

use super::breadth::BreadthChange;
use super::moment::Moment;
use super::sets::{Allowance, DaySets, Delta, Fresh, HOSTS, Reach, SetKey, SetLimits, Sets};
use super::state::{Day, GENERATIONS, GenerationId, LedgerSettings, LedgerState, Promoted, rest};
use crate::counters::detail::bounded;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::country::{AsPlace, AutonomousSystem, Country, Locate, Who};
use crate::observation::{Observation, SourceCount, Target};
use crate::samples;
use crate::who::lists::{MAX_NAMES, NO_LIST, OTHER_LISTS};
use jiff::Timestamp;
use sensor_common::layout::SERVICE_BIT;
use sensor_common::{Class, Slot, Tool};
use sensor_counters::{NetworkLabel, Pair, SampleResult, Series, Value as _};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

/// What one observation changes.
#[derive(Debug)]
pub(super) struct Change {
    /// Day and hour it counts in.
    pub(super) moment: Moment,
    /// When its observation began.
    pub(super) began: Timestamp,
    /// What is added to each series, each once.
    pub(super) increments: Vec<(Series, Pair)>,
    /// By port, exact, ascending.
    pub(super) ports: Vec<(Slot, Tally)>,
    /// By what answered, exact, ascending.
    pub(super) backscatter: Vec<(Slot, u64)>,
    /// By the number of the network, exact, ascending; 0 is none.
    pub(super) networks: Vec<(u32, Tally)>,
    /// Networks that were not seen before, ascending.
    pub(super) named: Vec<AutonomousSystem>,
    /// Series of the lists in use, which are there before a source of them is met.
    pub(super) lists: Vec<Series>,
    /// New members of the day's sets.
    pub(super) delta: Delta,
    /// What the packets held.
    pub(super) samples: samples::DayOutcome,
    /// Who each source is, in the order of the observation.
    pub(super) who_v4: Vec<Who>,
    pub(super) who_v6: Vec<Who>,
    /// The labels of the source lists by [`Who::list`].
    pub(super) list_labels: Vec<String>,
    /// What IPv4 and IPv6 sources have reached in this fold.
    pub(super) reached: [Reach; 2],
    /// How that changes the day's bands.
    pub(super) breadth: BreadthChange,
}

impl LedgerState {
    /// Takes in a change that is committed. `loaded` is the day it belongs to, when that is not the
    /// current one.
    pub(super) fn apply(
        &mut self,
        loaded: Option<Day>,
        change: &Change,
        generation: GenerationId,
        at: Timestamp,
        released: &[Series],
    ) {
        if let Some(day) = loaded {
            self.day = day;
        }
        for series in &change.lists {
            self.totals.add(series, [0, 0]);
        }
        for (series, value) in &change.increments {
            self.totals.add(series, *value);
            self.day.totals.add(series, *value);
        }
        for (slot, tally) in &change.ports {
            *self.day.ports.entry(*slot).or_default() += *tally;
        }
        for (slot, packets) in &change.backscatter {
            *self.day.backscatter.entry(*slot).or_default() += packets;
        }
        for (number, tally) in &change.networks {
            *self.day.networks.entry(*number).or_default() += *tally;
        }
        self.names.extend(change.named.iter().map(|network| (network.number, Arc::clone(&network.name))));
        self.day.sets.apply(&change.delta, &change.reached);
        self.day.samples.apply(&change.samples);
        change.breadth.apply(&mut self.day.breadth);
        match generation {
            GenerationId::Own(0) => {}
            GenerationId::Own(number) => {
                self.generations.insert(number);
                while self.generations.len() > GENERATIONS {
                    self.generations.pop_first();
                }
                self.totals.generation = self.totals.generation.max(number);
            }
            GenerationId::Foreign { ledger, number } => {
                self.foreign.insert((ledger, number));
            }
        }
        self.released.extend(released.iter().cloned());
        self.since = self.since.or(Some(change.began));
        self.heartbeat = Some(at);
        self.commits += 1;
    }
}

/// Computes what `observation` changes. `day` is the ledger's view of the local day of `moment`.
///
/// # Errors
///
/// Sets of the day that are on disk cannot be read, or are damaged.
pub(super) fn compute(
    state: &LedgerState,
    day: &Day,
    settings: &LedgerSettings,
    limits: &SetLimits,
    moment: Moment,
    observation: &Observation,
    locate: &dyn Locate,
) -> io::Result<Change> {
    let mut by_source = SourceSums::new(locate);
    let mut allowance = Allowance::new(limits, &day.sets);
    let mut lost = 0;

    let mut v4 = gather(&observation.sources_v4, &mut by_source, |src| locate.who_v4(src), Some);
    let mut numbers = Numbers::new(&day.sets, allowance);
    let mut v6 =
        gather(&observation.sources_v6, &mut by_source, |src| locate.who_v6(src), |src| numbers.of(src));
    let Numbers { addresses, allowance: left, .. } = numbers;
    allowance = left;

    let mut delta = Delta { addresses, ..Delta::default() };
    let mut hosts = 0;
    let mut breadth = BreadthChange::default();
    let mut reached = [Vec::new(), Vec::new()];
    let families = [(&mut v4, &day.sets.v4, &mut delta.v4), (&mut v6, &day.sets.v6, &mut delta.v6)];
    for ((gathered, sets, fresh), reached) in families.into_iter().zip(&mut reached) {
        let mut new_pairs = Marks::new(gathered.counts);
        lost += gathered.lost + remember(&mut gathered.members, sets, &mut allowance, fresh, &mut new_pairs)?;
        // Cumulative sources by port and by country, list and network are counted from the same members.
        let mut begin = 0;
        for source in &mut gathered.sources {
            let new_ports = new_pairs.count(begin, source.end);
            begin = source.end;
            by_source.add_sources(source, new_ports.into());
            source.new_ports = u8::try_from(new_ports).unwrap_or(u8::MAX);
        }
        gathered.hosts.sort_unstable();
        let mut known = sets.hosts();
        let mut new = Vec::new();
        reached.reserve(gathered.hosts.len());
        for &(host, source) in &gathered.hosts {
            let before = known.get(host)?;
            let is_new = before.is_none() && allowance.host();
            let source = &gathered.sources[source as usize];
            if is_new {
                new.push(host);
                by_source.lists[usize::from(source.list)].hosts += 1;
            }
            lost += u64::from(before.is_none() && !is_new);
            let more = breadth.moved(before, is_new, source.new_ports, source.accesses);
            reached.extend(more.map(|more| (host, more)));
        }
        hosts += new.len() as u64;
        fresh.push(HOSTS, new);
        breadth.unknown(gathered.unnumbered);
    }
    let SourceSums { countries, lists, networks } = by_source;
    let (networks, unnamed) = by_number(&networks, locate.networks(), &state.names);

    let mut sources: HashMap<Slot, u64> = HashMap::new();
    for (key, members) in delta.v4.runs().chain(delta.v6.runs()) {
        // Keys of services and hosts are no slots.
        if let Some(slot) = Slot::from_index(key) {
            *sources.entry(slot).or_default() += members.len() as u64;
        }
    }
    let mut ports: Vec<(Slot, Tally)> = observation
        .accesses
        .iter()
        .map(|&(slot, accesses)| (slot, Tally { accesses, sources: sources.remove(&slot).unwrap_or(0) }))
        .collect();
    if !sources.is_empty() {
        ports.extend(sources.into_iter().map(|(slot, sources)| (slot, Tally { accesses: 0, sources })));
        ports.sort_unstable_by_key(|(slot, _)| *slot);
    }

    let mut features = state.features(settings);
    let promoted = Promoted::decide(state, day, settings, &features, &ports, &networks, observation);
    features.extend(&promoted.features);

    let mut sums = Increments::default();
    for class in Class::ALL {
        let at = class as usize;
        sums.add(Series::Packets(class), [observation.counts.packets[at], observation.counts.bytes[at]]);
    }
    for tool in Tool::ALL {
        sums.add(Series::Tool(tool), [observation.counts.tools[tool as usize], 0]);
    }
    for (series, packets) in bounded(&observation.counts.details, &state.totals.unread).iter() {
        sums.add(series.clone(), [packets, 0]);
    }
    for (slot, tally) in &ports {
        let own = PortLabel::Own(*slot);
        let label = if promoted.ports.contains(slot) || state.totals.ports.contains_key(&own) {
            own
        } else {
            rest(*slot)
        };
        sums.add(Series::Port(label), [tally.accesses, tally.sources]);
        let label = if features.contains(slot) { own } else { rest(*slot) };
        sums.add(Series::PortHour(label, moment.hour), [tally.accesses, 0]);
    }
    for (slot, packets) in &observation.counts.backscatter {
        let own = PortLabel::Own(*slot);
        let label = if promoted.backscatter.contains(slot) || state.totals.backscatter.contains_key(&own) {
            own
        } else {
            rest(*slot)
        };
        sums.add(Series::Backscatter(label), [*packets, 0]);
    }
    for (country, tally) in countries.list.iter().zip(&countries.tallies) {
        sums.add(Series::Country(*country), [tally.accesses, tally.sources]);
    }
    for (country, accesses) in countries.list.iter().zip(&countries.tools) {
        for tool in Tool::ALL {
            sums.add(Series::CountryTool(*country, tool), [accesses[tool as usize], 0]);
        }
    }
    let names = list_names(locate.lists(), &state.totals);
    for (name, ListSums { tally, hosts }) in names.iter().zip(&lists) {
        sums.add(Series::List((*name).to_owned()), [tally.accesses, tally.sources]);
        sums.add(Series::ListHosts((*name).to_owned()), [*hosts, 0]);
    }
    let labels = names.iter().map(|name| (*name).to_owned()).collect();
    let new_names: HashMap<u32, &Arc<str>> = unnamed.iter().map(|it| (it.number, &it.name)).collect();
    for (number, tally) in &networks {
        let name = state.names.get(number).or_else(|| new_names.get(number).copied());
        let label = match name {
            _ if *number == 0 => NetworkLabel::Nowhere,
            Some(name) => {
                let own = NetworkLabel::Own(AutonomousSystem { number: *number, name: Arc::clone(name) });
                let has_series =
                    promoted.networks.contains(number) || state.totals.networks.contains_key(&own);
                if has_series { own } else { NetworkLabel::Rest }
            }
            None => NetworkLabel::Rest,
        };
        sums.add(Series::Asn(label), [tally.accesses, tally.sources]);
    }
    let detail = Detail { settings, features: &features, countries: &countries, lists: &names };
    let mut services: HashMap<Slot, u64> = observation.services.iter().copied().collect();
    detail.add(&v4, &observation.sources_v4, &mut services, &mut sums);
    detail.add(&v6, &observation.sources_v6, &mut services, &mut sums);
    for (slot, sourceless) in services {
        sums.add(Series::Service(slot, Country::UNKNOWN), [sourceless, 0]);
    }
    sums.add(Series::Hosts, [hosts, 0]);
    sums.add(Series::Overflow, [observation.overflow, 0]);
    sums.add(Series::ServiceOverflow, [observation.service_overflow, 0]);
    sums.add(Series::SetOverflow, [lost, 0]);
    sums.add(Series::Observed, observation.observed.pair());
    let is_feature = |slot| features.contains(&slot);
    let samples = day.samples.compute(&observation.samples, &settings.samples, is_feature, locate);
    for (result, packets) in [
        (SampleResult::Kept, samples.kept),
        (SampleResult::Known, samples.known),
        (SampleResult::OverBudget, samples.over),
    ] {
        sums.add(Series::Samples(result), [packets, 0]);
    }

    let mut increments: Vec<_> = sums.0.into_iter().collect();
    increments.sort_unstable();
    Ok(Change {
        moment,
        began: observation.at.checked_sub(observation.observed).unwrap_or(Timestamp::MIN),
        increments,
        ports,
        backscatter: observation.counts.backscatter.clone(),
        networks,
        named: unnamed,
        lists: names
            .iter()
            .skip(1)
            .flat_map(|name| [Series::List((*name).to_owned()), Series::ListHosts((*name).to_owned())])
            .collect(),
        delta,
        samples,
        who_v4: std::mem::take(&mut v4.who),
        who_v6: std::mem::take(&mut v6.who),
        list_labels: labels,
        reached,
        breadth,
    })
}

/// What is added to each series.
#[derive(Default)]
struct Increments(HashMap<Series, Pair>);

impl Increments {
    fn add(&mut self, series: Series, value: Pair) {
        if value != [0, 0] {
            let sum = self.0.entry(series).or_default();
            sum[0] += value[0];
            sum[1] += value[1];
        }
    }
}

/// The sources of one list.
#[derive(Clone, Default)]
struct ListSums {
    /// Accesses that are not to services, and their sources.
    tally: Tally,
    hosts: u64,
}

/// What sources add up to, by who they are.
struct SourceSums {
    countries: Countries,
    /// By [`Who::list`].
    lists: Vec<ListSums>,
    /// By [`Who::network`].
    networks: Vec<Tally>,
}

impl SourceSums {
    fn new(locate: &dyn Locate) -> Self {
        Self {
            countries: Countries::default(),
            lists: vec![ListSums::default(); locate.lists().len() + 1],
            networks: vec![Tally::default(); locate.networks().len() + 1],
        }
    }

    fn add_accesses(&mut self, source: &FoldSource) {
        self.countries.tallies[usize::from(source.country)].accesses += source.accesses;
        self.lists[usize::from(source.list)].tally.accesses += source.accesses;
        self.networks[source.network as usize].accesses += source.accesses;
    }

    /// Adds the ports that a source reaches for the first time today.
    fn add_sources(&mut self, source: &FoldSource, new_ports: u64) {
        self.countries.tallies[usize::from(source.country)].sources += new_ports;
        self.lists[usize::from(source.list)].tally.sources += new_ports;
        self.networks[source.network as usize].sources += new_ports;
    }
}

/// The networks that were met by their numbers, ascending, and those of them that have no name yet.
fn by_number(
    sums: &[Tally],
    networks: &[AutonomousSystem],
    names: &HashMap<u32, Arc<str>>,
) -> (Vec<(u32, Tally)>, Vec<AutonomousSystem>) {
    let (nowhere, met) = sums.split_first().map_or((Tally::default(), sums), |(first, rest)| (*first, rest));
    let is_met = |tally: &Tally| *tally != Tally::default();
    let mut met: Vec<(&AutonomousSystem, Tally)> =
        networks.iter().zip(met.iter().copied()).filter(|(_, tally)| is_met(tally)).collect();
    met.sort_unstable_by_key(|(network, _)| network.number);
    let unnamed = met.iter().filter(|(network, _)| !names.contains_key(&network.number));
    let unnamed = unnamed.map(|(network, _)| (*network).clone()).collect();
    let nowhere = Some((0, nowhere)).filter(|(_, tally)| is_met(tally));
    let met = met.into_iter().map(|(network, tally)| (network.number, tally));
    (nowhere.into_iter().chain(met).collect(), unnamed)
}

/// The label of each list by [`Who::list`]. Series stay, so the ledger's names are bounded whatever lists the
/// configuration had over the years.
fn list_names<'l>(lists: &'l [String], totals: &Totals) -> Vec<&'l str> {
    let mut places = MAX_NAMES.saturating_sub(totals.lists.len());
    let label = |name: &'l String| {
        if totals.lists.contains_key(name) {
            return name.as_str();
        }
        let fits = places > 0;
        places = places.saturating_sub(1);
        if fits { name } else { OTHER_LISTS }
    };
    std::iter::once(NO_LIST).chain(lists.iter().map(label)).collect()
}

/// The countries of this fold, numbered as they come.
struct Countries {
    /// One more than the number of each country by its index; 0 for those that did not come yet.
    numbers: Box<[u16]>,
    list: Vec<Country>,
    /// Accesses that are not to services, and their sources.
    tallies: Vec<Tally>,
    /// TCP SYNs among the accesses.
    tools: Vec<[u64; Tool::COUNT]>,
}

impl Default for Countries {
    fn default() -> Self {
        let numbers = vec![0; Country::INDEXES].into_boxed_slice();
        Self { numbers, list: Vec::new(), tallies: Vec::new(), tools: Vec::new() }
    }
}

impl Countries {
    fn number(&mut self, country: Country) -> u16 {
        let number = &mut self.numbers[country.index()];
        if *number == 0 {
            self.list.push(country);
            self.tallies.push(Tally::default());
            self.tools.push([0; Tool::COUNT]);
            *number = self.list.len() as u16;
        }
        *number - 1
    }
}

/// One pair of source and target.
#[derive(Clone, Copy, Debug)]
struct Member {
    key: SetKey,
    /// What the set of `key` holds of this source.
    id: u32,
    /// The place of the first of its counts in the observation; those of other tools follow.
    index: u32,
    /// The place of the source in [`Gathered::sources`].
    source: u32,
    /// Whether the source has no member number because the sets are full.
    lost: bool,
    /// Whether it is new today.
    fresh: bool,
}

/// One source of a fold.
#[derive(Clone, Copy, Debug)]
struct FoldSource {
    country: u16,
    list: u16,
    network: AsPlace,
    /// Those that are not to services.
    accesses: u64,
    /// The place after its last count in the observation.
    end: u32,
    /// Ports that it reaches for the first time today; more than it can hold saturate.
    new_ports: u8,
}

#[derive(Default)]
struct Gathered {
    /// How many counts the observation has.
    counts: usize,
    members: Vec<Member>,
    sources: Vec<FoldSource>,
    /// What the sets hold of those that sent an access, and their places in `sources`.
    hosts: Vec<(u32, u32)>,
    lost: u64,
    /// Who each source is.
    who: Vec<Who>,
    /// Accesses of sources that the sets have no number for.
    unnumbered: u64,
}

fn key_of(target: Target) -> SetKey {
    target.slot().index() | if target.is_service() { SERVICE_BIT } else { 0 }
}

/// Locates each source once and lists its targets.
fn gather<A: Copy + PartialEq>(
    sources: &[SourceCount<A>],
    sums: &mut SourceSums,
    who: impl Fn(A) -> Who,
    mut number: impl FnMut(A) -> Option<u32>,
) -> Gathered {
    let most = sources.len();
    // Of what is reserved only what is used takes memory.
    let mut gathered = Gathered {
        counts: most,
        members: Vec::with_capacity(most),
        sources: Vec::with_capacity(most),
        hosts: Vec::with_capacity(most),
        who: Vec::with_capacity(most),
        ..Gathered::default()
    };
    let mut index = 0;
    for of_source in sources.chunk_by(|a, b| a.src == b.src) {
        let who = who(of_source[0].src);
        gathered.who.push(who);
        let Who { country, list, network } = who;
        let country = sums.countries.number(country);
        let member = number(of_source[0].src);
        let place = gathered.sources.len() as u32;
        let mut accesses = 0;
        let mut host = false;
        for of_target in of_source.chunk_by(|a, b| a.target.any_tool() == b.target.any_tool()) {
            let target = of_target[0].target;
            if !target.is_service() {
                accesses += of_target.iter().map(|count| count.packets).sum::<u64>();
                host = true;
            }
            for count in of_target {
                if let Some(tool) = count.target.tool() {
                    sums.countries.tools[usize::from(country)][tool as usize] += count.packets;
                }
            }
            gathered.members.push(Member {
                key: key_of(target),
                id: member.unwrap_or(0),
                index,
                source: place,
                lost: member.is_none(),
                fresh: false,
            });
            index += of_target.len() as u32;
        }
        let source = FoldSource { country, list, network, accesses, end: index, new_ports: 0 };
        sums.add_accesses(&source);
        gathered.sources.push(source);
        match member {
            Some(member) if host => gathered.hosts.push((member, place)),
            Some(_) => {}
            None => {
                gathered.lost += u64::from(host);
                gathered.unnumbered += accesses;
            }
        }
    }
    gathered
}

/// Numbers for IPv6 addresses: those of the day, and new ones while they fit.
struct Numbers<'a> {
    sets: &'a DaySets,
    allowance: Allowance,
    addresses: Vec<u128>,
}

impl<'a> Numbers<'a> {
    fn new(sets: &'a DaySets, allowance: Allowance) -> Self {
        Self { sets, allowance, addresses: Vec::new() }
    }

    /// Each address is asked for once.
    fn of(&mut self, address: u128) -> Option<u32> {
        if let Some(number) = self.sets.number(address) {
            return Some(number);
        }
        let number = self.sets.addresses().checked_add(self.addresses.len() as u32)?;
        if !self.allowance.address() {
            return None;
        }
        self.addresses.push(address);
        Some(number)
    }
}

/// One bit for each count of an observation. Sources are gathered in the order of the observation and decided on in
/// that of targets: bits are few enough to stay in the cache between the two.
struct Marks(Vec<u64>);

impl Marks {
    fn new(counts: usize) -> Self {
        Self(vec![0; counts.div_ceil(64)])
    }

    fn set(&mut self, place: u32) {
        self.0[place as usize / 64] |= 1 << (place % 64);
    }

    /// How many are set from `begin` on and before `end`.
    fn count(&self, begin: u32, end: u32) -> u32 {
        let (first, last) = (begin / 64, end / 64);
        let after_begin = u64::MAX << (begin % 64);
        let before_end = !(u64::MAX << (end % 64));
        // The word of `end` may be one more than there are.
        let word = |at: u32| self.0.get(at as usize).copied().unwrap_or(0);
        if first == last {
            return (word(first) & after_begin & before_end).count_ones();
        }
        let between: u32 = (first + 1..last).map(|at| word(at).count_ones()).sum();
        (word(first) & after_begin).count_ones() + between + (word(last) & before_end).count_ones()
    }
}

/// From so many members on, a table of all targets costs less than the comparisons of a sort.
const MANY_MEMBERS: usize = 1 << 16;

/// Sorts members by target; those of a target stay in their order.
fn sort_by_target(members: &mut Vec<Member>) {
    if members.len() < MANY_MEMBERS {
        members.sort_by_key(|it| it.key);
        return;
    }
    let place = |key: SetKey| {
        let of_service = if key & SERVICE_BIT == 0 { 0 } else { Slot::COUNT };
        (key & !SERVICE_BIT) as usize + of_service
    };
    let mut begins = vec![0_u32; 2 * Slot::COUNT];
    for it in &*members {
        begins[place(it.key)] += 1;
    }
    let mut begin = 0;
    for count in &mut begins {
        begin += std::mem::replace(count, begin);
    }
    let mut sorted = vec![members[0]; members.len()];
    for it in &*members {
        let next = &mut begins[place(it.key)];
        sorted[*next as usize] = *it;
        *next += 1;
    }
    *members = sorted;
}

/// Sorts the pairs by target, marks those that are new today, lists them in `fresh`, and those that are not to
/// services in `new_pairs` by the first of their counts; returns how many are new but do not fit.
fn remember(
    members: &mut Vec<Member>,
    sets: &Sets,
    allowance: &mut Allowance,
    fresh: &mut Fresh,
    new_pairs: &mut Marks,
) -> io::Result<u64> {
    // Targets are few beside members, which makes this much cheaper than to sort by both at once; of
    // each target IPv4 members are in order already.
    sort_by_target(members);
    fresh.members.reserve(members.len());
    let mut lost = 0;
    let mut known = sets.members();
    for of_target in members.chunk_by_mut(|a, b| a.key == b.key) {
        of_target.sort_unstable_by_key(|it| it.id);
        let key = of_target[0].key;
        for it in of_target.iter_mut() {
            if it.lost {
                lost += 1;
            } else if !known.has(key, it.id)? {
                it.fresh = allowance.member();
                lost += u64::from(!it.fresh);
                if it.fresh && key & SERVICE_BIT == 0 {
                    new_pairs.set(it.index);
                }
            }
        }
        fresh.push(key, of_target.iter().filter(|it| it.fresh).map(|it| it.id));
    }
    Ok(lost)
}

/// Counts by target and country, where that is wanted.
struct Detail<'a> {
    settings: &'a LedgerSettings,
    features: &'a BTreeSet<Slot>,
    countries: &'a Countries,
    lists: &'a [&'a str],
}

impl Detail<'_> {
    /// Members are sorted by target. What is counted for a service is taken off `services`.
    fn add<A: PartialEq>(
        &self,
        gathered: &Gathered,
        sources: &[SourceCount<A>],
        services: &mut HashMap<Slot, u64>,
        sums: &mut Increments,
    ) {
        let mut groups_of: HashMap<Slot, Vec<&str>> = HashMap::new();
        for group in &self.settings.groups {
            for slot in group.slots.iter().collect::<BTreeSet<_>>() {
                groups_of.entry(*slot).or_default().push(&group.name);
            }
        }
        let mut tallies = vec![Tally::default(); self.countries.list.len()];
        let mut lists = vec![Tally::default(); self.lists.len()];
        for of_target in gathered.members.chunk_by(|a, b| a.key == b.key) {
            let key = of_target[0].key;
            let Some(slot) = Slot::from_index(key & !SERVICE_BIT) else { continue };
            let service = key & SERVICE_BIT != 0;
            let feature = !service && self.features.contains(&slot);
            let groups = if service { None } else { groups_of.get(&slot) };
            if !service && !feature && groups.is_none() {
                continue;
            }
            tallies.fill(Tally::default());
            let mut tools = [0; Tool::COUNT];
            lists.fill(Tally::default());
            for it in of_target {
                let counts = &sources[it.index as usize..];
                let SourceCount { src, target, .. } = &counts[0];
                let same = |count: &&SourceCount<A>| {
                    count.src == *src && count.target.any_tool() == target.any_tool()
                };
                let mut accesses = 0;
                for count in counts.iter().take_while(same) {
                    accesses += count.packets;
                    if let Some(tool) = count.target.tool() {
                        tools[tool as usize] += count.packets;
                    }
                }
                let tally = Tally { accesses, sources: u64::from(it.fresh) };
                let source = &gathered.sources[it.source as usize];
                tallies[usize::from(source.country)] += tally;
                if feature {
                    lists[usize::from(source.list)] += tally;
                }
            }
            // Without lists all would be in `none`: what the port has already.
            let has_lists = self.lists.len() > 1;
            for (name, tally) in self.lists.iter().zip(&lists).filter(|_| has_lists) {
                sums.add(Series::PortList(slot, (*name).to_owned()), [tally.accesses, tally.sources]);
            }
            if feature {
                for tool in Tool::ALL {
                    sums.add(Series::PortTool(slot, tool), [tools[tool as usize], 0]);
                }
            }
            for (country, tally) in self.countries.list.iter().zip(&tallies) {
                let value = [tally.accesses, tally.sources];
                if service {
                    sums.add(Series::Service(slot, *country), value);
                    if let Some(left) = services.get_mut(&slot) {
                        *left = left.saturating_sub(tally.accesses);
                    }
                }
                if feature {
                    sums.add(Series::PortCountry(slot, *country), value);
                }
                if tally.accesses > 0 {
                    for group in groups.into_iter().flatten() {
                        sums.add(Series::Group((*group).to_owned(), *country), value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(key: SetKey, id: u32) -> Member {
        Member { key, id, index: id, source: id, lost: false, fresh: false }
    }

    proptest! {
        #[test]
        fn marks_are_counted_in_any_range(
            places in prop::collection::btree_set(0..300_u32, 0..100),
            a in 0..=300_u32,
            b in 0..=300_u32,
        ) {
            let mut marks = Marks::new(300);
            for place in &places {
                marks.set(*place);
            }
            let (begin, end) = (a.min(b), a.max(b));
            prop_assert_eq!(marks.count(begin, end) as usize, places.range(begin..end).count());
        }
    }

    #[test]
    fn many_members_are_sorted_as_few_are() {
        let last = Slot::COUNT as u32 - 1;
        let keys = [last, 0, 23, SERVICE_BIT, SERVICE_BIT | last, 23, 80];
        for count in [MANY_MEMBERS - 1, MANY_MEMBERS, 2 * MANY_MEMBERS + 3] {
            let mut members: Vec<Member> = (0..count as u32)
                .map(|id| member(keys[(id.wrapping_mul(2_654_435_761) >> 8) as usize % keys.len()], id))
                .collect();
            let mut expected: Vec<(SetKey, u32)> = members.iter().map(|it| (it.key, it.id)).collect();
            expected.sort_unstable();
            sort_by_target(&mut members);
            assert!(members.iter().map(|it| (it.key, it.id)).eq(expected), "{count}");
        }
    }
}
