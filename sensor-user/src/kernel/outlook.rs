//! What becomes of the counting when this process ends: verified, not assumed.

use super::attachments::Attachment;
use super::generations::Generations;
use super::pin_files;
use super::pins::Pins;
use super::{Keeper, Kernel, KernelError, sys};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// What becomes of the counting when this process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Interfaces that are attached, with a pinned attachment.
    pub counting: Vec<String>,
    /// Interfaces that are not attached, or whose attachment is not pinned.
    pub lost: Vec<String>,
    /// Maps that are not pinned, so that no one could read what is counted into them.
    pub unpinned: Vec<PathBuf>,
    /// Who keeps the pins.
    pub keeper: Keeper,
}

impl Outlook {
    /// Whether every packet counts until the next start.
    pub fn is_good(&self) -> bool {
        self.keeper == Keeper::Machine && self.lost.is_empty() && self.unpinned.is_empty()
    }

    /// Whether what has been counted stays readable.
    pub fn holds_counts(&self) -> bool {
        self.keeper == Keeper::Machine && self.unpinned.is_empty()
    }

    /// Logs it.
    pub fn tell(&self) {
        if self.is_good() {
            info!(
                interfaces = self.counting.join(", "),
                "pinned program keeps counting; `teiten detach` ends it"
            );
        } else {
            warn!("{self}");
        }
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.unpinned.is_empty() {
            let paths: Vec<_> = self.unpinned.iter().map(|path| path.display().to_string()).collect();
            return write!(
                f,
                "packets are not counted until the next start: these maps are not pinned: {}",
                paths.join(", ")
            );
        }
        if !self.lost.is_empty() {
            let until = if self.counting.is_empty() {
                String::new()
            } else {
                format!("; counting continues on {}", self.counting.join(", "))
            };
            return write!(
                f,
                "packets of {} are not counted until the next start: the program is not attached and pinned there{until}",
                self.lost.join(", ")
            );
        }
        write!(f, "{}", self.keeper)
    }
}

impl Kernel {
    /// What would become of the counting if this process ended now.
    pub fn outlook(&self) -> Outlook {
        let is_pinned = |attachment: &Attachment, name: &str| {
            let (link, _) = attachment.links();
            matches!(Pin::of(&self.pins.link(name), link, link_id), Ok(Pin::InPlace))
        };
        let (mut counting, mut lost) = (Vec::new(), Vec::new());
        for (name, attachment) in self.attachments.iter() {
            let counts = attachment.is_attached() && is_pinned(attachment, name);
            if counts { &mut counting } else { &mut lost }.push(name.to_owned());
        }
        let maps = pinned_maps(&self.pins, &self.maps, &self.generations);
        let unpinned = maps.into_iter().filter_map(|(path, map)| {
            let in_place = matches!(Pin::of(&path, map, map_id), Ok(Pin::InPlace));
            (!in_place).then_some(path)
        });
        Outlook { counting, lost, unpinned: unpinned.collect(), keeper: self.keeper_now() }
    }

    /// Who keeps the pins when this process ends.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// As [`Kernel::keeper`], checked again; fewer privileges than at the start may hide a process.
    fn keeper_now(&self) -> Keeper {
        let now = self.pins.keeper();
        match (&now, &self.keeper) {
            (Keeper::ThisProcess | Keeper::Unseen { .. }, Keeper::Process { pid, .. })
                if Path::new(&format!("/proc/{pid}")).exists() =>
            {
                self.keeper.clone()
            }
            _ => now,
        }
    }

    /// Pins again what someone has removed while this daemon had it open, so that packets count without
    /// it; tells whether anything was missing.
    ///
    /// # Errors
    ///
    /// See [`KernelError`].
    pub fn keep_pinned(&mut self) -> Result<bool, KernelError> {
        let mut missing = Vec::new();
        for (path, map) in pinned_maps(&self.pins, &self.maps, &self.generations) {
            missing.extend(Pin::missing(path, map, map_id)?);
        }
        for (name, attachment) in self.attachments.iter() {
            let (link, egress) = attachment.links();
            missing.extend(Pin::missing(self.pins.link(name), link, link_id)?);
            if let Some(egress) = egress {
                missing.extend(Pin::missing(self.pins.egress(name), egress, link_id)?);
            }
        }
        if missing.is_empty() {
            return Ok(false);
        }
        self.pins.prepare()?;
        for (path, object) in &missing {
            sys::pin(*object, path).map_err(KernelError::map(format!("pin {} again", path.display())))?;
        }
        Ok(true)
    }
}

/// The maps that are pinned, and where.
fn pinned_maps<'a>(
    pins: &Pins,
    maps: &'a [(&'static str, OwnedFd)],
    generations: &'a Generations,
) -> Vec<(PathBuf, BorrowedFd<'a>)> {
    let generations = generations.maps().map(|(name, map)| (pins.generation(name), map));
    maps.iter().map(|(name, map)| (pins.map(name), map.as_fd())).chain(generations).collect()
}

fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(sys::map_info(map)?.id)
}

fn link_id(link: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(sys::link_info(link)?.id)
}

/// What is where an object should be pinned.
enum Pin {
    /// The object.
    InPlace,
    /// Nothing.
    Missing,
    /// Another object.
    Other,
}

impl Pin {
    fn of(
        path: &Path,
        object: BorrowedFd<'_>,
        id: impl Fn(BorrowedFd<'_>) -> io::Result<u32>,
    ) -> io::Result<Self> {
        match sys::open_pinned(path) {
            Ok(found) if id(found.as_fd()).ok() == Some(id(object)?) => Ok(Self::InPlace),
            Ok(_) => Ok(Self::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Missing),
            Err(error) => Err(error),
        }
    }

    /// Path and object when it is to be pinned there again.
    fn missing(
        path: PathBuf,
        object: BorrowedFd<'_>,
        id: impl Fn(BorrowedFd<'_>) -> io::Result<u32>,
    ) -> Result<Option<(PathBuf, BorrowedFd<'_>)>, KernelError> {
        match Self::of(&path, object, id).map_err(KernelError::map(format!("look at {}", path.display())))? {
            Self::InPlace => Ok(None),
            Self::Missing => Ok(Some((path, object))),
            // Whatever it is, the pin has to be ours.
            Self::Other => {
                pin_files::remove(&path)?;
                Ok(Some((path, object)))
            }
        }
    }
}
