//! Which ports and networks get a series of their own, when there can only be so many.
//!
//! Most places go to those that come first; the rest are a reserve with a rising bar. Once only
//! the reserve is free, a newcomer must have been reached by 4 cumulative sources yesterday and
//! today, and four times as many each time that the free places halve. A scan of every port by a few
//! hosts therefore ends far from the last place, however often it returns, while a port that a worm
//! discovers still gets one. A place is never taken back: its series must not end or go down.

use std::cmp::Reverse;

/// A port, or a network, that asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<K> {
    /// Which one.
    pub(super) key: K,
    /// What the bar is compared with: cumulative sources, yesterday and today (packets for
    /// backscatter, which has no sources of interest).
    pub(super) weight: u64,
    /// What ranks candidates of equal weight: accesses, yesterday and today.
    pub(super) accesses: u64,
}

/// How many of the places are the reserve.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reserve {
    /// Ports, backscatter and networks: the last fifth of `--max-ports`.
    Fifth,
    /// Feature ports, few and costly: half of `--feature-ports`.
    Half,
}

impl Reserve {
    fn of(self, places: usize) -> usize {
        match self {
            Self::Fifth => places / 5,
            Self::Half => places / 2,
        }
    }
}

/// The weight that a candidate needs when `free` places are left.
fn bar(free: usize, reserve: usize) -> u64 {
    if free > reserve {
        return 0;
    }
    let halvings = (reserve / free.max(1)).max(1).ilog2();
    4_u64.saturating_pow(halvings + 1)
}

/// The candidates that get one of `places`, of which `taken` are gone: the weightiest first, then
/// by accesses, then the lower port or number.
pub(super) fn choose<K: Ord>(
    mut candidates: Vec<Candidate<K>>,
    places: usize,
    taken: usize,
    reserve: Reserve,
) -> Vec<K> {
    let mut free = places.saturating_sub(taken);
    if free == 0 {
        return Vec::new();
    }
    candidates.sort_unstable_by(|a, b| {
        let order = |it: &Candidate<K>| (Reverse(it.weight), Reverse(it.accesses));
        order(a).cmp(&order(b)).then_with(|| a.key.cmp(&b.key))
    });
    let mut chosen = Vec::new();
    for candidate in candidates {
        // The bar only rises and the weights only fall, so the first to fail ends it.
        if free == 0 || candidate.weight < bar(free, reserve.of(places)) {
            break;
        }
        chosen.push(candidate.key);
        free -= 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::{Slot, Transport};

    fn candidate(port: u16, weight: u64) -> Candidate<Slot> {
        Candidate { key: Slot::new(Transport::Tcp, port), weight, accesses: weight }
    }

    #[test]
    fn the_bar_rises_fourfold_as_free_places_halve() {
        // 500 places: a reserve of 100.
        assert_eq!(bar(500, 100), 0);
        assert_eq!(bar(101, 100), 0);
        assert_eq!(bar(100, 100), 4);
        assert_eq!(bar(51, 100), 4);
        assert_eq!(bar(50, 100), 16);
        assert_eq!(bar(25, 100), 64);
        assert_eq!(bar(12, 100), 256);
        assert_eq!(bar(1, 100), 16_384);
    }

    #[test]
    fn a_scan_of_all_ports_leaves_the_reserve_and_a_busy_newcomer_gets_in() {
        let scan = (0..=u16::MAX).map(|port| candidate(port, 1)).collect();
        let taken = choose(scan, 500, 0, Reserve::Fifth).len();
        assert_eq!(taken, 400);
        let again = (0..=u16::MAX).map(|port| candidate(port, 3)).collect();
        assert_eq!(choose(again, 500, taken, Reserve::Fifth), []);
        let newcomer = vec![candidate(1, 3), candidate(9415, 40)];
        assert_eq!(choose(newcomer, 500, taken, Reserve::Fifth), [Slot::new(Transport::Tcp, 9415)]);
    }

    #[test]
    fn ever_larger_scans_never_take_more_than_the_places() {
        let mut taken = 0;
        for weight in 1..200 {
            let scan = (0..=u16::MAX).map(|port| candidate(port, weight)).collect();
            taken += choose(scan, 500, taken, Reserve::Fifth).len();
        }
        // 199 sources on every port: 16 < 64 <= 199 < 256, so the last 12 places stay free.
        assert_eq!(taken, 488);
    }

    #[test]
    fn rank_is_by_sources_then_accesses_then_lower_port() {
        let few = Candidate { accesses: 90, ..candidate(7, 1) };
        let busy = Candidate { accesses: 20, ..candidate(9, 2) };
        let lower = Candidate { accesses: 90, ..candidate(5, 1) };
        let order: Vec<u16> =
            choose(vec![few, busy, lower], 30, 0, Reserve::Half).iter().map(|slot| slot.port()).collect();
        assert_eq!(order, [9, 5, 7]);
    }

    #[test]
    fn no_place_is_given_when_none_is_left_or_the_bound_was_lowered() {
        assert_eq!(choose(vec![candidate(1, 1 << 40)], 0, 0, Reserve::Fifth), []);
        assert_eq!(choose(vec![candidate(1, 1 << 40)], 10, 25, Reserve::Fifth), []);
    }
}
