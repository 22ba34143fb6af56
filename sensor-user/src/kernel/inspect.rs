//! What is pinned and attached, looked at from outside and without changing it: for `teiten check`.

use super::interface::Interface;
use super::keeper::Keeper;
use super::occupant::Occupant;
use super::pin_files::{Found, Home, homes};
use super::pins;
use super::{earlier, interface, sys};
use crate::system::trusted::{self, Untrusted};
use sensor_common::layout::LAYOUT_VERSION;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

/// A pin directory as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDir {
    /// It, or what it would be made in, is on a bpffs; `None` when that may not be looked at.
    pub on_bpffs: Option<bool>,
    /// Something is pinned there.
    pub pinned: Found,
    /// Why it would be refused.
    pub refused: Option<String>,
    /// The process that holds it.
    pub holder: Option<u32>,
    /// Who keeps the bpffs there, or the one that would be mounted.
    pub keeper: Keeper,
}

/// Whose XDP program is on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// No one's.
    Free,
    /// That of the pin directory, which a start would take over.
    Pinned,
    /// Another one.
    Foreign(Occupant),
    /// This user may not look at the pins; the program's id.
    NotAllowed(u32),
}

/// Looks at a pin directory.
pub fn pin_dir(path: &Path) -> PinDir {
    let place = nearest(path);
    let on_bpffs = place.map(|place| pins::is_bpffs(place).unwrap_or(false));
    let is_there = place == Some(path);
    let refused = is_there.then(|| match trusted::check(path) {
        // A sensor with a user of its own; the state directory tells that.
        Err(Untrusted::Owner { path: of, .. }) if of == path && nix::unistd::geteuid().is_root() => None,
        checked => checked.err().map(|error| crate::error_chain(&error)),
    });
    let keeper = match (place, on_bpffs) {
        (Some(place), Some(true)) => Keeper::of(place),
        (Some(place), _) => Keeper::of_new(place),
        (None, _) => Keeper::Unseen { reason: "not allowed to look at the pin directory".to_owned() },
    };
    PinDir {
        on_bpffs,
        pinned: pins::any(path),
        refused: refused.flatten().or_else(|| unknown_layout(path)),
        holder: fs::File::open(path).ok().and_then(|file| pins::holder(&file)),
        keeper,
    }
}

/// The path itself, or its nearest ancestor that exists; `None` when that may not be looked at.
pub fn nearest(path: &Path) -> Option<&Path> {
    for ancestor in path.ancestors() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match Found::of(ancestor.symlink_metadata()) {
            Ok(Found::Yes) => return Some(ancestor),
            Ok(Found::No) => {}
            Ok(Found::NotAllowed) | Err(_) => return None,
        }
    }
    None
}

fn unknown_layout(path: &Path) -> Option<String> {
    let homes = homes(path).ok()?;
    let is_known = |home: &Home| {
        home.version == LAYOUT_VERSION || earlier::SHAPES.iter().any(|shape| shape.version == home.version)
    };
    let found = format!("v{}", homes.iter().find(|home| !is_known(home))?.version);
    Some(super::KernelError::OtherLayout { path: path.to_owned(), found }.to_string())
}

/// Whose program is on `interface`, by the pins under `pin_dir`.
pub fn attached(pin_dir: &Path, interface: &Interface) -> Attached {
    let Some((_, program)) = interface.xdp else { return Attached::Free };
    match is_pinned(pin_dir, interface, program) {
        Ok(true) => Attached::Pinned,
        Ok(false) => Attached::Foreign(Occupant::of(interface, Some(program))),
        Err(_) => Attached::NotAllowed(program),
    }
}

/// Programs that are called like teiten's, on whatever interface.
pub fn attached_elsewhere() -> Vec<Occupant> {
    let interfaces = interface::all_now().unwrap_or_default();
    let attached = interfaces.iter().filter_map(|interface| Some((interface, interface.xdp?.1)));
    attached
        .map(|(interface, program)| Occupant::of(interface, Some(program)))
        .filter(Occupant::is_teitens)
        .collect()
}

/// Whether a pinned link attaches this program to this interface.
fn is_pinned(pin_dir: &Path, interface: &Interface, program: u32) -> io::Result<bool> {
    let homes = match homes(pin_dir) {
        Err(error) if Found::of(Err::<(), _>(io::Error::from(error.kind())))? == Found::No => {
            return Ok(false);
        }
        homes => homes?,
    };
    for home in homes {
        let links = home.path.join("links");
        let entries = match fs::read_dir(&links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // A note about a filter is a directory.
            if entry.file_type()?.is_dir() {
                continue;
            }
            let info = sys::link_info(sys::open_pinned(&entry.path())?.as_fd())?;
            if (info.interface, info.program) == (interface.index, program) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
