//! What is observed, and whether the sensor can see it.

use super::notices::tell_sight;
use super::state::DrainState;
use super::{Drain, Scene};
use crate::kernel::interface::Interface;
use crate::kernel::{KernelError, Policy};
use crate::sight::{Blind, Reason, ReasonOrigin};
use crate::system::clock;
use tracing::{debug, error, info, warn};

impl Drain {
    /// Observes what is to be observed now.
    pub(super) fn observe(&mut self, scene: Scene, state: &mut DrainState) {
        let Scene { names, policy, interfaces, released_first, blind } = scene;
        let (has_moved, is_changed) = (names != self.interfaces, policy != self.policy);
        if is_changed {
            self.policy = policy;
        }
        if has_moved || is_changed {
            self.step(state);
        }
        if is_changed {
            // What is shown is counted by already.
            self.show_monitored();
            self.tell_policy(state);
        }
        if has_moved {
            // An unwanted one that is gone is no gap.
            self.interfaces.retain(|name| names.contains(name));
            self.release_where(|name| released_first.contains(name) && !names.contains(name));
        }
        for interface in &interfaces {
            self.attach(interface, state);
        }
        if has_moved {
            // Only now: until the new interfaces are attached, the ones of before count.
            self.release_where(|name| !names.contains(name));
        }
        // With those that are not there.
        self.interfaces = names;
        self.watch.set(ReasonOrigin::Network, blind, clock::monotonic_nanos());
        self.look(state);
        if state.attached && !self.is_attached() {
            self.step(state);
        }
    }

    pub(super) fn attach(&mut self, interface: &Interface, state: &mut DrainState) {
        if self.kernel.is_attached(&interface.name) {
            return;
        }
        let is_known = self.kernel.attachments().any(|(name, ..)| name == interface.name);
        if is_known {
            self.look(state);
        }
        // What has been counted so far lies before a gap.
        state.attached = false;
        self.step(state);
        // What the current generation counts from now on is observed, be it begun just now or, when the
        // step failed, in the midst of the gap.
        match self.kernel.attach_again(interface, self.mode) {
            // That a known one is attached again is logged with the end of that state.
            Ok(_) if is_known => {}
            Ok(mode) => info!(interface = interface.name, mode = mode.name(), "observing"),
            // The link was on its way down; it is looked at again when it is back.
            Err(KernelError::Gone { .. }) => {
                debug!(interface = interface.name, "gone before it was attached again");
                return;
            }
            Err(error) => {
                // It is tried again with every drain, and logged once.
                let told = error.to_string();
                if state.refused.get(&interface.name) != Some(&told) {
                    error!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "cannot attach again"
                    );
                    state.refused.insert(interface.name.clone(), told);
                }
                self.look(state);
                return;
            }
        }
        state.refused.remove(&interface.name);
        if !self.interfaces.contains(&interface.name) {
            self.interfaces.push(interface.name.clone());
        }
        state.attached = self.is_attached();
        self.exposition.health().set_attached(state.attached);
        self.look(state);
    }

    /// Ends the attachments to the interfaces that are not wanted.
    pub(super) fn release_where(&mut self, is_unwanted: impl Fn(&String) -> bool) {
        match self.kernel.release_where(is_unwanted) {
            Ok(released) => {
                for name in released {
                    info!(interface = name, "no longer observed; its attachment has ended");
                }
            }
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "an attachment could not be ended; what arrives there is still counted"
            ),
        }
    }

    /// Whether every interface is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.interfaces.iter().all(|name| self.kernel.is_attached(name))
    }

    /// Brings up to date whether the sensor can see, and tells what has changed.
    pub(super) fn look(&mut self, state: &DrainState) {
        let detached = self.interfaces.iter().filter(|name| !self.kernel.is_attached(name)).map(|name| {
            let advice = match state.refused.get(name) {
                Some(error) => format!("attaching failed and is tried again with every drain: {error}"),
                None => "it is attached as soon as it can be".to_owned(),
            };
            let what = format!("the program is not attached to interface {name}");
            Blind::new(Reason::Detached, Some(name), what, advice)
        });
        let detached = detached.collect();
        self.watch.set(ReasonOrigin::Attachments, detached, clock::monotonic_nanos());
        let (health, blind) = (self.exposition.health(), self.watch.blind());
        if health.blind() != blind {
            health.set_blind(blind);
        }
        for change in self.watch.changes(clock::now()) {
            tell_sight(&change);
        }
    }

    /// Keeps up the flows and shows how they are.
    pub(super) fn maintain_flows(&mut self) {
        let status = self.kernel.maintain_flows();
        let tracking: Vec<_> = self.kernel.tracking().map(|(name, by)| (name, by.name())).collect();
        let health = self.exposition.health();
        health.set_flow_tracking(tracking.into_iter());
        health.set_flows(&status);
    }

    /// Shows how many addresses are observed.
    pub fn show_monitored(&self) {
        let (v4, v6) = self.policy.monitored_addresses();
        self.exposition.health().set_monitored_addresses(v4, v6);
    }

    /// Tells from when the rules hold; a generation that cannot be committed keeps the old ones.
    pub(super) fn tell_policy(&self, state: &DrainState) {
        let Policy { observe, excluded, services, .. } = &self.policy;
        if state.pending.is_some() || state.fault.is_failing() {
            warn!(
                "rules changed but not applied, because the last generation cannot be committed; they apply with the next drain that can"
            );
        } else {
            info!(
                observed = observe.len(),
                excluded = excluded.len(),
                services = services.len(),
                "counting by the changed rules from now on"
            );
        }
    }
}
