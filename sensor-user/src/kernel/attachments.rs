//! The programs' attachments to interfaces: XDP to what arrives, and a classifier to what departs.

use super::interface::{self, Interface};
use super::object::Object;
use super::pin_files::remove;
use super::pins::Pins;
use super::{KernelError, Mode, Occupant, Tracking, clsact, sys};
use crate::config::XdpMode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tracing::{debug, warn};

/// One interface's.
pub(super) struct Attachment {
    link: OwnedFd,
    interface: Interface,
    mode: Mode,
    tracking: Tracking,
    /// The TCX link.
    egress: Option<OwnedFd>,
}

impl Attachment {
    /// Whether its XDP program is there; it ends with the interface.
    pub(super) fn is_attached(&self) -> bool {
        sys::link_info(self.link.as_fd()).is_ok_and(|info| info.interface == self.interface.index)
    }

    /// Whether what the interface sends is still seen. Any process may remove a filter or end a link.
    fn is_tracking(&self) -> bool {
        match self.tracking {
            Tracking::Tcx => self.egress.as_ref().is_some_and(|link| {
                sys::link_info(link.as_fd()).is_ok_and(|info| info.interface == self.interface.index)
            }),
            Tracking::Clsact => clsact::is_attached(self.interface.index),
            Tracking::None => true,
        }
    }

    /// The XDP link, and the TCX link.
    pub(super) fn links(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.link.as_fd(), self.egress.as_ref().map(AsFd::as_fd))
    }
}

/// What was pinned of an attachment before it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// An attachment that has counted all the time.
    Unbroken,
    /// An attachment that ended with its interface, at an unknown time.
    Ended,
}

/// All of them, and the programs.
pub(super) struct Attachments {
    object: Object,
    by_name: BTreeMap<String, Attachment>,
    /// The interfaces that this process attached to and that had no attachment before.
    made: BTreeSet<String>,
}

impl Attachments {
    #[cfg(test)]
    pub(super) fn forget_recent(&self) {
        self.object.forget_recent();
    }

    pub(super) fn new(object: Object) -> Self {
        Self { object, by_name: BTreeMap::new(), made: BTreeSet::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Attachment)> {
        self.by_name.iter().map(|(name, attachment)| (name.as_str(), attachment))
    }

    /// The interfaces with their index and mode.
    pub(super) fn modes(&self) -> impl Iterator<Item = (&str, u32, Mode)> {
        self.iter().map(|(name, attachment)| (name, attachment.interface.index, attachment.mode))
    }

    /// How packets that they send are seen.
    pub(super) fn tracking(&self) -> impl Iterator<Item = (&str, Tracking)> {
        self.iter().map(|(name, attachment)| (name, attachment.tracking))
    }

    /// Whether what any of them sends is seen.
    pub(super) fn are_tracking(&self) -> bool {
        self.tracking().any(|(_, tracking)| tracking != Tracking::None)
    }

    /// Whether the attachment to `name` is there; it ends with its interface.
    pub(super) fn is_attached(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(Attachment::is_attached)
    }

    /// Attaches to an interface, or takes over the attachment that is pinned for it: first to what it
    /// sends, so that no answer comes to a question that was not seen. `track` is called between the two,
    /// when what it sends is seen.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn attach(
        &mut self,
        pins: &Pins,
        interface: &Interface,
        wanted: XdpMode,
        track: impl FnOnce(),
    ) -> Result<(Mode, Before), KernelError> {
        let interface = &as_it_is(interface)?;
        if pins.has_no_link(&interface.name) {
            self.made.insert(interface.name.clone());
        }
        self.attach_now(pins, interface, wanted, track).map_err(|error| {
            match interface::now(interface.index) {
                Ok(None) => KernelError::Gone { interface: interface.name.clone() },
                _ => error,
            }
        })
    }

    fn attach_now(
        &mut self,
        pins: &Pins,
        interface: &Interface,
        wanted: XdpMode,
        track: impl FnOnce(),
    ) -> Result<(Mode, Before), KernelError> {
        self.object.load_ahead(interface, wanted);
        let (tracking, egress) = self.track(pins, interface)?;
        if tracking != Tracking::None {
            track();
        }
        match self.attach_xdp(pins, interface, wanted) {
            Ok((link, mode, before)) => {
                let attachment = Attachment { link, interface: interface.clone(), mode, tracking, egress };
                self.by_name.insert(interface.name.clone(), attachment);
                Ok((mode, before))
            }
            Err(error) => {
                if pins.has_no_link(&interface.name) {
                    // What is learned would not be looked up. The first error is the one to report.
                    let _ = self.release(pins, &interface.name);
                }
                Err(error)
            }
        }
    }

    /// Attaches to what `interface` sends, or takes over the attachment that is pinned for it. Without
    /// it packets are counted all the same.
    fn track(
        &mut self,
        pins: &Pins,
        interface: &Interface,
    ) -> Result<(Tracking, Option<OwnedFd>), KernelError> {
        let path = pins.egress(&interface.name);
        if let Ok(link) = sys::open_pinned(&path) {
            let is_there = sys::link_info(link.as_fd()).is_ok_and(|info| info.interface == interface.index);
            if is_there && self.object.replace_egress(interface, link.as_fd()).is_ok() {
                return Ok((Tracking::Tcx, Some(link)));
            }
            remove(&path)?;
        }
        let no_tcx = match self.object.attach_egress(interface) {
            Ok(link) => {
                sys::pin(link.as_fd(), &path)
                    .map_err(KernelError::map(format!("pin the attachment at {}", path.display())))?;
                release_clsact(pins, &interface.name)?;
                return Ok((Tracking::Tcx, Some(link)));
            }
            Err(error) => error,
        };
        match self.object.attach_clsact(interface) {
            Ok(is_new) => {
                debug!(interface = interface.name, tcx = &no_tcx as &dyn std::error::Error, "using clsact");
                pins.note_clsact(&interface.name, is_new)?;
                Ok((Tracking::Clsact, None))
            }
            Err(no_clsact) => {
                warn!(
                    interface = interface.name,
                    tcx = &no_tcx as &dyn std::error::Error,
                    clsact = &no_clsact as &dyn std::error::Error,
                    "cannot see what this host sends; answers to it count as backscatter and accesses"
                );
                Ok((Tracking::None, None))
            }
        }
    }

    /// Attaches again where the program that learns from what is sent was detached.
    pub(super) fn restore_tracking(&mut self, pins: &Pins) {
        // An interface that is gone sends nothing.
        let lost =
            self.by_name.values().filter(|attachment| attachment.is_attached() && !attachment.is_tracking());
        let lost: Vec<_> = lost.map(|attachment| attachment.interface.clone()).collect();
        for interface in lost {
            let (tracking, egress) = match self.track(pins, &interface) {
                Ok(tracked) => tracked,
                Err(error) => {
                    warn!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "cannot see what this host sends"
                    );
                    (Tracking::None, None)
                }
            };
            warn!(
                interface = interface.name,
                method = tracking.name(),
                "egress program was detached by another process; attaching it again"
            );
            if let Some(attachment) = self.by_name.get_mut(&interface.name) {
                (attachment.tracking, attachment.egress) = (tracking, egress);
            }
        }
    }

    /// The XDP part of [`Attachments::attach`].
    fn attach_xdp(
        &mut self,
        pins: &Pins,
        interface: &Interface,
        wanted: XdpMode,
    ) -> Result<(OwnedFd, Mode, Before), KernelError> {
        let path = pins.link(&interface.name);
        let (taken_over, before) = self.take_over(interface, wanted, &path)?;
        if let Some((link, mode)) = taken_over {
            return Ok((link, mode, before));
        }
        if let Some((_, program)) = interface.xdp.filter(|_| before != Before::Unbroken) {
            return Err(KernelError::Occupied(Occupant::of(interface, Some(program))));
        }
        let (link, mode) = self.object.attach(interface, wanted)?;
        sys::pin(link.as_fd(), &path)
            .map_err(KernelError::map(format!("pin the attachment at {}", path.display())))?;
        Ok((link, mode, before))
    }

    /// The pinned attachment of this interface with this object's program, unless there is none or it does
    /// not fit; and what there was.
    fn take_over(
        &mut self,
        interface: &Interface,
        wanted: XdpMode,
        path: &Path,
    ) -> Result<(Option<(OwnedFd, Mode)>, Before), KernelError> {
        let link = match sys::open_pinned(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Before::Nothing)),
            Err(error) => return Err(KernelError::map(format!("open {}", path.display()))(error)),
        };
        let info =
            sys::link_info(link.as_fd()).map_err(KernelError::map(format!("inspect {}", path.display())))?;
        let mode = match interface.xdp {
            Some((mode, _)) if info.interface == interface.index => mode,
            _ => {
                warn!(
                    interface = interface.name,
                    "pinned attachment belongs to an interface that is gone; observation begins now"
                );
                remove(path)?;
                return Ok((None, Before::Ended));
            }
        };
        let fits = match wanted {
            XdpMode::Auto => true,
            XdpMode::Native => mode == Mode::Native,
            XdpMode::Generic => mode == Mode::Generic,
        };
        if fits && self.object.replace(interface, mode, link.as_fd())? {
            return Ok((Some((link, mode)), Before::Unbroken));
        }
        warn!(
            interface = interface.name,
            "XDP mode has changed; attaching again, packets until then are not seen"
        );
        remove(path)?;
        drop(link);
        Ok((None, Before::Unbroken))
    }

    /// Ends the attachment to `name`.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn release(&mut self, pins: &Pins, name: &str) -> Result<(), KernelError> {
        self.by_name.remove(name);
        remove(&pins.link(name))?;
        remove(&pins.egress(name))?;
        release_clsact(pins, name)
    }

    /// Ends the pinned attachments to interfaces that are not wanted; returns their names.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn release_where(
        &mut self,
        pins: &Pins,
        is_unwanted: impl Fn(&String) -> bool,
    ) -> Result<Vec<String>, KernelError> {
        let mut released = pins.links()?;
        released.retain(is_unwanted);
        for name in &released {
            self.release(pins, name)?;
        }
        Ok(released)
    }

    /// Ends the attachments that this process made where there were none; returns the interfaces to which
    /// the program of an earlier process is attached as before.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub(super) fn undo(&mut self, pins: &Pins) -> Result<Vec<String>, KernelError> {
        for name in std::mem::take(&mut self.made) {
            self.release(pins, &name)?;
        }
        let mut left = pins.links()?;
        left.retain(|name| {
            let link = sys::open_pinned(&pins.link(name));
            link.and_then(|link| sys::link_info(link.as_fd())).is_ok_and(|info| info.interface != 0)
        });
        Ok(left)
    }
}

/// Gives pinned attachments to these interfaces the names that the interfaces have now, so that one
/// that was renamed is taken over.
///
/// # Errors
///
/// See [`KernelError`].
pub(super) fn adopt(pins: &Pins, observed: &[Interface]) -> Result<(), KernelError> {
    let is_observed = |name: &String| observed.iter().any(|interface| interface.name == *name);
    for name in pins.links()?.iter().filter(|name| !is_observed(name)) {
        let Ok(link) = sys::open_pinned(&pins.link(name)) else { continue };
        let Ok(info) = sys::link_info(link.as_fd()) else { continue };
        if let Some(interface) = observed.iter().find(|interface| interface.index == info.interface) {
            pins.rename(name, &interface.name)?;
        }
    }
    Ok(())
}

/// The interface as it is at this moment: what the caller knows may be out of date, the program that
/// is attached above all, which ends with its interface.
fn as_it_is(interface: &Interface) -> Result<Interface, KernelError> {
    match interface::now(interface.index) {
        Ok(Some(now)) => Ok(Interface { name: interface.name.clone(), ..now }),
        Ok(None) => Err(KernelError::Gone { interface: interface.name.clone() }),
        // What the caller knows is the best there is.
        Err(_) => Ok(interface.clone()),
    }
}

/// Removes a clsact filter of ours, and the clsact when it was made for it.
fn release_clsact(pins: &Pins, name: &str) -> Result<(), KernelError> {
    let Some(made) = pins.noted_clsact(name) else { return Ok(()) };
    // With the interface went its filters.
    if let Some(index) = sys::interface_index(name) {
        clsact::detach(index, made)
            .map_err(KernelError::map(format!("remove the clsact filter of {name}")))?;
    }
    pins.forget_clsact(name)
}

#[cfg(test)]
impl Attachments {
    pub(super) fn object(&mut self) -> &mut Object {
        &mut self.object
    }
}
