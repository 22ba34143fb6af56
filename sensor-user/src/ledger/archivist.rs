//! What keeps the sources of each fold beside the ledger.

use crate::country::{AutonomousSystem, Who};
use crate::observation::Observation;
use jiff::civil::Date;
use std::fmt;

/// Keeps the sources of each fold beside the ledger, which only counts them.
///
/// The ledger calls [`Archivist::keep`] before each commit, again when the commit is repeated, and
/// [`Archivist::committed`] after it. So what is kept and what the ledger has differ at most by the last call.
pub trait Archivist: fmt::Debug + Send {
    /// Keeps a fold that is about to be committed; when this returns, it is on the disk. Returns its packets.
    ///
    /// # Errors
    ///
    /// Nothing of the fold is kept then.
    fn keep(&mut self, fold: &ArchivedFold<'_>) -> Result<u64, NotArchived>;

    /// Makes folds visible that are about to be committed together. Those committed for themselves are.
    ///
    /// # Errors
    ///
    /// None of them is visible then.
    fn publish(&mut self) -> Result<(), NotArchived>;

    /// What was kept is in the ledger, which has so many commits.
    fn committed(&mut self, commits: u64);
}

/// One fold as it is about to be committed.
#[derive(Clone, Copy, Debug)]
pub struct ArchivedFold<'a> {
    /// What is folded.
    pub observation: &'a Observation,
    /// Identity of the ledger.
    pub ledger: u64,
    /// How many commits the ledger has with this one: with the identity the name of the fold. An attempt that
    /// failed and the one that repeats it have the same.
    pub commit: u64,
    /// Local day that it counts in.
    pub day: Date,
    /// Local hour, 0 to 23.
    pub hour: u8,
    /// When that hour began, seconds since the epoch.
    pub hour_began: i64,
    /// Name of the sensor.
    pub sensor: &'a str,
    /// Its IANA time zone.
    pub timezone: &'a str,
    /// Who each IPv4 source is, in the order of the observation, each once.
    pub who_v4: &'a [Who],
    /// Who each IPv6 source is.
    pub who_v6: &'a [Who],
    /// The labels of the source lists by [`Who::list`].
    pub lists: &'a [String],
    /// The networks, by [`Who::network`] from 1 on.
    pub networks: &'a [AutonomousSystem],
    /// The databases that it is known from, with what tells their state.
    pub databases: &'a [(String, String)],
}

/// A fold that is not kept, and is not to be looked for.
#[derive(Debug, thiserror::Error)]
#[error("the archive lacks {packets} packets")]
pub struct NotArchived {
    /// Packets that are lost to it.
    pub packets: u64,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
