//! Stretches of time that do not overlap.

use std::collections::BTreeMap;

/// A set of instants, nanoseconds since the epoch, as stretches from a first instant to a last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Ends by begins; disjoint, and not touching.
    ends: BTreeMap<i64, i64>,
}

impl Spans {
    /// Adds a stretch.
    pub fn add(&mut self, begin: i64, end: i64) {
        let (mut begin, mut end) = (begin, end.max(begin));
        while let Some((&from, &to)) = self.ends.range(..=end).next_back().filter(|&(_, &to)| to >= begin) {
            self.ends.remove(&from);
            (begin, end) = (begin.min(from), end.max(to));
        }
        self.ends.insert(begin, end);
    }

    /// Adds all stretches of another set.
    pub fn extend(&mut self, other: &Self) {
        for (begin, end) in other.iter() {
            self.add(begin, end);
        }
    }

    /// The parts of a stretch that are not in the set, ascending.
    pub fn missing(&self, begin: i64, end: i64) -> Vec<(i64, i64)> {
        let mut missing = Vec::new();
        let mut at = begin;
        let before = self.ends.range(..=begin).next_back();
        for (&from, &to) in before.into_iter().chain(self.ends.range(begin.saturating_add(1)..)) {
            if from >= end {
                break;
            }
            if from > at {
                missing.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            missing.push((at, end));
        }
        missing
    }

    /// Up to which instant nothing from `at` on is in the set; `at` itself when that is in it.
    pub fn clear_until(&self, at: i64) -> i64 {
        let inside = self.ends.range(..=at).next_back().is_some_and(|(_, &end)| end > at);
        if inside {
            return at;
        }
        self.ends.range(at.saturating_add(1)..).next().map_or(i64::MAX, |(&begin, _)| begin)
    }

    /// Begins and ends, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.ends.iter().map(|(&begin, &end)| (begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_union_of_what_was_added(
            added in prop::collection::vec((0_i64..60, 0_i64..20), 0..12), asked in (0_i64..80, 0_i64..40),
        ) {
            let mut spans = Spans::default();
            let mut model = [false; 200];
            for (begin, length) in added {
                spans.add(begin, begin + length);
                model[begin as usize..(begin + length) as usize].fill(true);
            }
            let (begin, end) = (asked.0, asked.0 + asked.1);
            let missing = spans.missing(begin, end);
            for at in begin..end {
                let is_missing = missing.iter().any(|&(from, to)| (from..to).contains(&at));
                prop_assert_eq!(is_missing, !model[at as usize], "{} of {:?}", at, missing);
            }
            let clear = spans.clear_until(begin);
            prop_assert!(clear >= begin);
            prop_assert!((begin..clear.min(200)).all(|at| !model[at as usize]));
            let ends: Vec<i64> = spans.iter().flat_map(|(begin, end)| [begin, end]).collect();
            prop_assert!(ends.chunks(2).zip(ends.chunks(2).skip(1)).all(|(one, next)| one[1] < next[0]));
        }
    }
}
