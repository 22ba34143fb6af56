//! A set of numbers that grows by ascending runs and is asked in ascending order: the sources of one
//! target.
//!
//! Sources of most targets lie far apart. A bitmap container for nearly each of them takes many times
//! the four bytes of the number itself, and every question a look into another corner of memory, so
//! they are kept as a sorted list until they lie close enough.

use roaring::RoaringBitmap;

/// Bytes of a member in a bitmap container, estimated: array containers take two, bitmaps fewer.
pub(super) const MEMBER: u64 = 2;
/// Bytes of a container, estimated: the descriptor and its allocation.
pub(super) const CONTAINER: u64 = 80;
/// Members of a container, on average, up to which a list takes no more than the estimate, which is
/// made for bitmaps: four bytes each, of which two are counted.
const SPARSE: u64 = CONTAINER / (4 - MEMBER);

/// The set.
#[derive(Clone, Debug)]
pub(super) struct Members {
    kept: Kept,
    /// Different upper halves of members.
    containers: u64,
}

#[derive(Clone, Debug)]
enum Kept {
    /// Ascending, without room to spare.
    List(Vec<u32>),
    Bitmap(RoaringBitmap),
}

impl Default for Members {
    fn default() -> Self {
        Self { kept: Kept::List(Vec::new()), containers: 0 }
    }
}

impl Members {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        match &self.kept {
            Kept::List(list) => list.len() as u64,
            Kept::Bitmap(bitmap) => bitmap.len(),
        }
    }

    /// Bytes in memory, estimated from above.
    pub(super) fn cost(&self) -> u64 {
        self.len() * MEMBER + self.containers * CONTAINER
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let (list, bitmap) = match &self.kept {
            Kept::List(list) => (Some(list), None),
            Kept::Bitmap(bitmap) => (None, Some(bitmap)),
        };
        list.into_iter().flatten().copied().chain(bitmap.into_iter().flatten())
    }

    /// For questions in ascending order.
    pub(super) fn ascending(&self) -> Ascending<'_> {
        match &self.kept {
            Kept::List(list) => Ascending::List(list),
            Kept::Bitmap(bitmap) => Ascending::Bitmap(bitmap),
        }
    }

    /// Adds ascending members.
    pub(super) fn add(&mut self, members: &[u32]) {
        match &mut self.kept {
            Kept::List(list) => {
                let (merged, containers) =
                    if list.is_empty() { alone(members) } else { merge(list, members) };
                self.containers += containers;
                self.kept = if merged.len() as u64 <= SPARSE * self.containers {
                    Kept::List(merged)
                } else {
                    Kept::Bitmap(merged.into_iter().collect())
                };
            }
            Kept::Bitmap(bitmap) => {
                if members.len() < 32 {
                    bitmap.extend(members);
                } else {
                    *bitmap |= members.iter().copied().collect::<RoaringBitmap>();
                }
                self.containers = u64::from(bitmap.statistics().n_containers);
            }
        }
    }
}

/// Ascending members as they are, and how many containers they have.
fn alone(members: &[u32]) -> (Vec<u32>, u64) {
    let borders = members.windows(2).filter(|pair| pair[0] >> 16 != pair[1] >> 16).count() as u64;
    (members.to_vec(), borders + u64::from(!members.is_empty()))
}

/// The union of two ascending lists, and how many containers it has more than `known`. Where only few
/// are added, what lies between them is copied as it is.
fn merge(known: &[u32], added: &[u32]) -> (Vec<u32>, u64) {
    let container = |member: &u32| member >> 16;
    let mut merged: Vec<u32> = Vec::with_capacity(known.len() + added.len());
    let mut containers = 0;
    let mut rest = known;
    for member in added {
        let (before, behind) = rest.split_at(below(rest, *member));
        merged.extend_from_slice(before);
        rest = behind.strip_prefix(&[*member]).unwrap_or(behind);
        let neighbours = [merged.last(), behind.first()];
        containers +=
            u64::from(!neighbours.into_iter().flatten().any(|it| container(it) == container(member)));
        merged.push(*member);
    }
    merged.extend_from_slice(rest);
    (merged, containers)
}

/// How many of an ascending list are below `member`. Cheap when they are few.
#[inline]
fn below(list: &[u32], member: u32) -> usize {
    let mut end = 1;
    while list.get(end - 1).is_some_and(|&it| it < member) {
        end *= 2;
    }
    let begin = end / 2;
    begin + list[begin..list.len().min(end)].partition_point(|&it| it < member)
}

/// Answers questions in ascending order.
#[derive(Clone, Copy)]
pub(super) enum Ascending<'a> {
    /// What is not below the last question.
    List(&'a [u32]),
    Bitmap(&'a RoaringBitmap),
}

impl Ascending<'_> {
    /// Whether `member` is in the set; it is not below the one before.
    #[inline]
    pub(super) fn contains(&mut self, member: u32) -> bool {
        match self {
            Self::List(rest) => {
                *rest = &rest[below(rest, member)..];
                rest.first() == Some(&member)
            }
            Self::Bitmap(bitmap) => bitmap.contains(member),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Near each other, so that lists become bitmaps, and anywhere.
    fn some() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            prop::collection::btree_set(any::<u32>(), 0..40),
            prop::collection::btree_set(0..0x2_0000_u32, 0..200),
            prop::collection::btree_set(0xffff_ff00..=u32::MAX, 0..100),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_was_added_and_nothing_else(
            steps in prop::collection::vec(some(), 1..6), questions in some(),
        ) {
            let mut members = Members::default();
            let mut model = BTreeSet::new();
            for step in steps {
                members.add(&step.iter().copied().collect::<Vec<_>>());
                model.extend(step);
                let containers = model.iter().map(|member| member >> 16).collect::<BTreeSet<_>>().len() as u64;
                prop_assert_eq!(members.len(), model.len() as u64);
                prop_assert_eq!(members.cost(), MEMBER * members.len() + CONTAINER * containers);
            }
            prop_assert!(members.iter().eq(model.iter().copied()));
            let mut known = members.ascending();
            for question in questions.union(&model) {
                prop_assert_eq!(known.contains(*question), model.contains(question));
            }
        }
    }

    #[test]
    fn far_apart_they_are_a_list_of_four_bytes_each_and_close_a_bitmap() {
        let mut members = Members::default();
        members.add(&(0..1000).map(|number| number << 20).collect::<Vec<_>>());
        let Kept::List(list) = &members.kept else { panic!("{members:?}") };
        assert_eq!(list.capacity(), 1000);
        members.add(&(1..50_000).collect::<Vec<_>>());
        assert!(matches!(members.kept, Kept::Bitmap(_)));
    }
}
