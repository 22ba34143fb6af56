//! What a few packets are counted by besides class and port: frames that are not of IP by what they
//! hold, malformed packets by what is wrong with them, and accesses that are assumed.

use sensor_common::{Flaw, LinkProtocol};
use std::collections::BTreeMap;

/// Series of [`Detail::Unread`] at most, [`Unread::Rest`] not among them: whoever shares the line can send
/// frames of any kind, and a series stays.
pub const MAX_UNREAD: usize = 48;

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Frames of class `non_ip`: `teiten_unread_frames_total`.
    Unread(Unread),
    /// Packets of class `malformed`: `teiten_malformed_packets_total`.
    Malformed(Flaw),
    /// Accesses of which the first fragment does not tell whether they start something:
    /// `teiten_assumed_accesses_total`.
    Assumed,
}

/// What a frame holds that is not IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unread {
    /// This.
    Kind(LinkProtocol),
    /// A kind that came when there were [`MAX_UNREAD`] already, or so many others at once that the
    /// program had no place for it.
    Rest,
}

impl Detail {
    /// The kind of series, in the ledger.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Unread(_) => "unread",
            Self::Malformed(_) => "malformed",
            Self::Assumed => "assumed",
        }
    }

    /// The label's value; empty when there is no label.
    pub fn label(self) -> String {
        match self {
            Self::Unread(Unread::Kind(protocol)) => protocol.to_string(),
            Self::Unread(Unread::Rest) => "other".to_owned(),
            Self::Malformed(flaw) => flaw.name().to_owned(),
            Self::Assumed => String::new(),
        }
    }

    /// What `kind` and `label` name; `None` when they name nothing.
    pub fn parse(kind: &str, label: &str) -> Option<Self> {
        match kind {
            "unread" if label == "other" => Some(Self::Unread(Unread::Rest)),
            "unread" => LinkProtocol::from_label(label).map(|protocol| Self::Unread(Unread::Kind(protocol))),
            "malformed" => Flaw::ALL.into_iter().find(|flaw| flaw.name() == label).map(Self::Malformed),
            "assumed" => label.is_empty().then_some(Self::Assumed),
            _ => None,
        }
    }

    /// The counters of a kind that are there before anything is counted.
    pub fn fixed(kind: &str) -> Vec<Self> {
        match kind {
            "unread" => vec![Self::Unread(Unread::Rest)],
            "malformed" => Flaw::ALL.map(Self::Malformed).to_vec(),
            "assumed" => vec![Self::Assumed],
            _ => Vec::new(),
        }
    }
}

/// Counters that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(BTreeMap<Detail, u64>);

impl Details {
    /// Adds to a counter.
    pub fn add(&mut self, detail: Detail, packets: u64) {
        if packets != 0 {
            *self.0.entry(detail).or_default() += packets;
        }
    }

    /// The value of a counter.
    pub fn get(&self, detail: Detail) -> u64 {
        self.0.get(&detail).copied().unwrap_or(0)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Detail, u64)> {
        self.0.iter().map(|(detail, packets)| (*detail, *packets))
    }

    /// The counters of a kind, those that are there before anything is counted among them.
    pub fn of_kind(&self, kind: &str) -> BTreeMap<Detail, u64> {
        let counted = self.iter().filter(|(detail, _)| detail.kind() == kind);
        Detail::fixed(kind).into_iter().map(|detail| (detail, 0)).chain(counted).collect()
    }

    /// The counter that takes `detail`, now that these are there and `also` are about to be.
    pub fn bounded(&self, detail: Detail, also: &Self) -> Detail {
        let Detail::Unread(Unread::Kind(_)) = detail else { return detail };
        let kinds = |details: &Self| {
            details.0.keys().copied().filter(|it| matches!(it, Detail::Unread(Unread::Kind(_)))).collect()
        };
        let mut kinds_of_both: std::collections::BTreeSet<Detail> = kinds(self);
        kinds_of_both.append(&mut kinds(also));
        if kinds_of_both.contains(&detail) || kinds_of_both.len() < MAX_UNREAD {
            detail
        } else {
            Detail::Unread(Unread::Rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unread(ethertype: u16) -> Detail {
        Detail::Unread(Unread::Kind(LinkProtocol::ethertype(ethertype)))
    }

    #[test]
    fn every_counter_is_read_back_by_kind_and_label() {
        for kind in ["unread", "malformed", "assumed"] {
            for detail in Detail::fixed(kind) {
                assert_eq!((detail.kind(), Detail::parse(kind, &detail.label())), (kind, Some(detail)));
            }
        }
        let kind = Detail::Unread(Unread::Kind(LinkProtocol::ppp(0xc021)));
        assert_eq!(kind.label(), "0x8864/0xc021");
        assert_eq!(Detail::parse("unread", "0x8864/0xc021"), Some(kind));
        for (kind, label) in [("unread", ""), ("malformed", "other"), ("assumed", "x"), ("nonsense", "")] {
            assert_eq!(Detail::parse(kind, label), None, "{kind} {label}");
        }
    }

    #[test]
    fn kinds_beyond_the_bound_are_one() {
        let (mut kept, mut new) = (Details::default(), Details::default());
        for ethertype in 0x9900..0x9900 + MAX_UNREAD as u16 - 1 {
            kept.add(unread(ethertype), 1);
        }
        assert_eq!(kept.bounded(unread(0xaaaa), &new), unread(0xaaaa));
        new.add(unread(0xaaaa), 1);
        assert_eq!(kept.bounded(unread(0xaaaa), &new), unread(0xaaaa));
        assert_eq!(kept.bounded(unread(0x9900), &new), unread(0x9900));
        assert_eq!(kept.bounded(unread(0xbbbb), &new), Detail::Unread(Unread::Rest));
        assert_eq!(kept.bounded(Detail::Assumed, &new), Detail::Assumed);
    }
}
