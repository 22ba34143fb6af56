//! Totals of observations that nobody comes back to: the ledger's fold without its file.

use super::change;
use super::moment::Moment;
use super::sets::{self, DaySets};
use super::state::{Day, Generation, Settings, State};
use super::store::{PART, SET_DAYS};
use crate::country::Locate;
use crate::observation::Observation;
use crate::totals::Totals;
use jiff::civil::Date;
use sensor_common::Slot;
use std::collections::VecDeque;
use std::io;

/// Counts as a [`Ledger`](super::Ledger) does, with a series for every port and without detail by
/// region and hour.
#[derive(Debug)]
pub struct Summary {
    state: State,
    settings: Settings,
    /// Source sets of the other days used last, encoded; the latest behind.
    others: VecDeque<(Date, Vec<Vec<u8>>)>,
}

impl Summary {
    /// Nothing counted yet.
    pub fn new(settings: Settings) -> Self {
        // Some places are held back for busy ports, so that there are more places than ports.
        let settings =
            Settings { max_ports: 2 * Slot::COUNT, feature_ports: 0, features: Vec::new(), ..settings };
        Self { state: State::empty(), settings, others: VecDeque::new() }
    }

    /// Takes in an observation.
    ///
    /// # Errors
    ///
    /// There is no memory to put another day's source sets away.
    pub fn fold(&mut self, observation: &Observation, locate: &dyn Locate) -> io::Result<()> {
        let moment = Moment::of(observation.at, &self.settings.timezone);
        if moment.day != self.state.day.date {
            self.switch_to(moment.day)?;
        }
        let (state, settings) = (&self.state, &self.settings);
        let change = change::compute(state, &state.day, settings, sets::BUDGET, moment, observation, locate);
        self.state.apply(None, &change, Generation::Own(0), observation.at, &[]);
        Ok(())
    }

    /// The counters.
    pub fn totals(&self) -> &Totals {
        &self.state.totals
    }

    /// Goes on with another day.
    fn switch_to(&mut self, date: Date) -> io::Result<()> {
        let mut sets = DaySets::default();
        if let Some(at) = self.others.iter().position(|(other, _)| *other == date) {
            let (_, parts) = self.others.remove(at).unwrap_or_default();
            for part in parts {
                sets.apply(&sets::decode(&part).map_err(io::Error::other)?);
            }
        }
        let left = std::mem::replace(&mut self.state.day, Day { sets, ..Day::empty(date) });
        if self.state.heartbeat.is_some() {
            self.others.push_back((left.date, sets::encode(&left.sets.snapshot(), PART)?));
        }
        if self.others.len() >= SET_DAYS as usize {
            self.others.pop_front();
        }
        Ok(())
    }
}
