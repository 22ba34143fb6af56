//! The pin directory: what of the kernel side outlives the daemon, and where.

use super::earlier::{Earlier, Shape};
use super::keeper::{self, Keeper};
use super::pin_files::{Found, Home, homes, remove, remove_tree};
use super::{KernelError, sys};
use crate::system::trusted;
use sensor_common::layout::{Block, LAYOUT_VERSION};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// `f_type` of a bpffs (`BPF_FS_MAGIC` of `linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The maps that are pinned, by their names in the object.
pub(super) const MAPS: [&str; 15] = [
    "GENERATION",
    "SOURCES",
    "OBSERVED_V4",
    "OBSERVED_V6",
    "EXCLUDED_V4",
    "EXCLUDED_V6",
    "WAKE",
    "SAMPLES",
    "FLOWS",
    "ACCEPTED",
    "PEERS",
    "HALF_OPEN",
    "ASKED",
    "HEARD",
    "FLOW_COUNTERS",
];

/// Where the kernel expects a bpffs. As long as none is mounted there, it is a directory of the sysfs,
/// in which no one can make another.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The source that `/proc/mounts` shows of a bpffs that was mounted here.
const MOUNT_SOURCE: &str = "teiten";

/// Follows the interface in the name of an egress attachment. A `%` of the interface's own is
/// written otherwise.
const EGRESS: &str = "%egress";

/// The same for a directory that says that a clsact filter is attached, which cannot be pinned itself.
const CLSACT: &str = "%clsact";
/// In that directory: the clsact was made for the filter, and goes with it.
const MADE: &str = "made";

/// The maps of what is known of conversations, which do not belong to a generation.
const CONVERSATIONS: [&str; 7] =
    ["FLOWS", "ACCEPTED", "PEERS", "HALF_OPEN", "ASKED", "HEARD", "FLOW_COUNTERS"];

/// Name of a source table that is set aside.
const OLD_TABLE: &str = "SOURCES_old";

/// A pin directory that this process has locked.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    /// Holds the lock until it is closed.
    lock: File,
    /// Of which versions before this one there are pins too.
    pub(super) earlier: Vec<Earlier>,
    /// Nothing was pinned when it was opened.
    fresh: bool,
    /// Nothing was pinned of this layout.
    fresh_layout: bool,
    /// The directories that were made for it, the lowest first.
    made: Vec<PathBuf>,
    /// Where what was pinned of this layout has been set aside since it was opened.
    aside: Option<PathBuf>,
}

impl Pins {
    /// Makes `root` a directory on a bpffs, mounting one there when it is not, and locks it. What is
    /// pinned there of other layouts must be among `known`.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDir`], [`KernelError::PinDirInUse`], [`KernelError::OtherLayout`].
    pub(super) fn open(root: &Path, known: &[Shape]) -> Result<Self, KernelError> {
        let missing = root.ancestors().filter(|directory| is_missing(directory));
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let opened = Self::open_in(root, known, &made);
        // Any process that holds the directory may be about to pin there.
        if opened.as_ref().is_err_and(|error| !matches!(error, KernelError::PinDirInUse { .. })) {
            give_back(root, &made);
        }
        opened
    }

    fn open_in(root: &Path, known: &[Shape], made: &[PathBuf]) -> Result<Self, KernelError> {
        let lock = lock(root)?;
        let fresh = any(root) == Found::No;
        let fresh_layout = is_missing(&root.join(format!("v{LAYOUT_VERSION}/maps/GENERATION")));
        let mut earlier = Vec::new();
        let own = root.join(format!("v{LAYOUT_VERSION}"));
        for home in homes(root).map_err(|source| failed(root, source))? {
            if home.path == own {
                continue;
            }
            if home.version == LAYOUT_VERSION {
                earlier.push(Earlier::of_this_version(&home.path));
                continue;
            }
            let found = format!("v{}", home.version);
            let other = || KernelError::OtherLayout { path: root.to_owned(), found };
            earlier.push(Earlier::find(home, known).ok_or_else(other)?);
        }
        let pins = Self { root: own, lock, earlier, fresh, fresh_layout, made: made.to_vec(), aside: None };
        pins.make_directories()?;
        Ok(pins)
    }

    /// When the generations that are pinned have not as many blocks, sets all pins of this layout aside, to be taken
    /// over like those of an earlier one. What is known of conversations is kept.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` and the file system return.
    pub(super) fn set_aside_generations(&mut self, blocks: usize) -> Result<(), KernelError> {
        if let Ok(outer) = self.open_map("GENERATION")
            && let Some(id) =
                sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the current generation"))?
        {
            self.restore_generation(id)?;
        }
        let has_others = |name: &str| -> io::Result<bool> {
            let map = match sys::open_pinned(&self.generation(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                map => map?,
            };
            let info = sys::map_info(map.as_fd())?;
            Ok(info.value_size as usize == size_of::<Block>() && info.max_entries as usize != blocks)
        };
        let failed = |path: &Path| KernelError::map(format!("set aside {}", path.display()));
        if !has_others("a").and_then(|a| Ok(a || has_others("b")?)).map_err(failed(&self.root))? {
            return Ok(());
        }
        let mut number = Earlier::of_this_version(&self.root).last_number()?;
        let mut aside = self.root.with_file_name(format!("v{LAYOUT_VERSION}-{number}"));
        while !is_missing(&aside) {
            number += 1;
            aside.set_file_name(format!("v{LAYOUT_VERSION}-{number}"));
        }
        fs::rename(&self.root, &aside).map_err(failed(&self.root))?;
        info!(
            blocks,
            pins = %aside.display(),
            "the pinned generations have another number of blocks; they are taken over"
        );
        self.earlier.push(Earlier::of_this_version(&aside));
        self.fresh_layout = true;
        self.make_directories()?;
        for name in CONVERSATIONS {
            match sys::open_pinned(&aside.join("maps").join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                map => map.and_then(|map| sys::pin(map.as_fd(), &self.map(name))),
            }
            .map_err(failed(&aside))?;
        }
        self.aside = Some(aside);
        Ok(())
    }

    /// Takes the attachments that are pinned for earlier layouts: they stay attached, and their program can
    /// be replaced like one of this layout.
    pub(super) fn take_links(&self) -> Result<(), KernelError> {
        self.earlier.iter().try_for_each(|earlier| self.take_links_of(earlier.root()))
    }

    fn take_links_of(&self, root: &Path) -> Result<(), KernelError> {
        let (from, to) = (root.join("links"), self.root.join("links"));
        let entries = match fs::read_dir(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| failed(&from, source))?,
        };
        for entry in entries {
            let name = entry.map_err(|source| failed(&from, source))?.file_name();
            let doing = || format!("take over {}", from.join(&name).display());
            fs::rename(from.join(&name), to.join(&name)).map_err(KernelError::map(doing()))?;
        }
        Ok(())
    }

    fn make_directories(&self) -> Result<(), KernelError> {
        ["maps", "links"].into_iter().try_for_each(|directory| {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(|source| failed(&path, source))
        })
    }

    /// The pin directory.
    pub(super) fn directory(&self) -> &Path {
        self.root.parent().expect("a directory of its own in the pin directory")
    }

    /// Whether nothing was pinned when it was opened.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// How to remove again what was pinned since it was opened, as long as nothing is attached.
    pub(super) fn undo(&self) -> impl FnOnce() + use<> {
        let (root, directory, made) = (self.root.clone(), self.directory().to_owned(), self.made.clone());
        let (fresh_layout, aside) = (self.fresh_layout, self.aside.clone());
        let clear = move || {
            remove_tree(&root)?;
            let Some(aside) = aside else { return Ok(()) };
            let doing = format!("put back {}", aside.display());
            fs::rename(&aside, &root).map_err(KernelError::map(doing))
        };
        move || {
            if fresh_layout && let Err(error) = clear() {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "pins could not be removed; `teiten detach` removes them"
                );
            }
            give_back(&directory, &made);
        }
    }

    /// Who keeps the pins when this process ends.
    pub(super) fn keeper(&self) -> Keeper {
        Keeper::of(self.directory())
    }

    /// Makes the directories again that someone has removed, and locks what is there now.
    pub(super) fn prepare(&mut self) -> Result<(), KernelError> {
        let root = self.directory();
        let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let held = self.lock.metadata().as_ref().map(identity).ok();
        if held != fs::metadata(root).as_ref().map(identity).ok() {
            self.lock = lock(root)?;
        }
        self.make_directories()
    }

    /// Pins the map of this id as a generation again when no generation is: it is the one that counts,
    /// and its pin was removed.
    pub(super) fn restore_generation(&self, id: u32) -> Result<(), KernelError> {
        let paths = ["a", "b"].map(|name| self.generation(name));
        for path in &paths {
            let is_it = |map: &OwnedFd| sys::map_info(map.as_fd()).is_ok_and(|info| info.id == id);
            if sys::open_pinned(path).is_ok_and(|map| is_it(&map)) {
                return Ok(());
            }
        }
        let Some(path) = paths.iter().find(|path| !path.exists()) else { return Ok(()) };
        let map = sys::map_by_id(id).map_err(KernelError::map("open the generation that counts"))?;
        warn!(path = %path.display(), "the generation that counts was not pinned any more; pinned again");
        sys::pin(map.as_fd(), path).map_err(KernelError::map(format!("pin {} again", path.display())))
    }

    /// Where the map of this name is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Where this generation is pinned.
    pub(super) fn generation(&self, name: &str) -> PathBuf {
        self.root.join(format!("generation-{name}"))
    }

    /// Where the attachment to this interface is pinned. Names on a bpffs have no dots, which
    /// interfaces may have (`eth0.100`).
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.root.join("links").join(interface.replace('%', "%25").replace('.', "%2e"))
    }

    /// Whether it is certain that no attachment to this interface is pinned.
    pub(super) fn has_no_link(&self, interface: &str) -> bool {
        Found::of(self.link(interface).symlink_metadata()).ok() == Some(Found::No)
    }

    /// Where the attachment to what this interface sends is pinned.
    pub(super) fn egress(&self, interface: &str) -> PathBuf {
        let mut path = self.link(interface).into_os_string();
        path.push(EGRESS);
        path.into()
    }

    fn clsact(&self, interface: &str) -> PathBuf {
        let mut path = self.link(interface).into_os_string();
        path.push(CLSACT);
        path.into()
    }

    /// Notes that a clsact filter is attached to this interface, and whether the clsact was made for it.
    pub(super) fn note_clsact(&self, interface: &str, made: bool) -> Result<(), KernelError> {
        let mut path = self.clsact(interface);
        if made {
            path.push(MADE);
        }
        fs::create_dir_all(&path).map_err(KernelError::map(format!("make {}", path.display())))
    }

    /// Whether a clsact filter was attached to this interface; if so, whether clsact was made for it.
    pub(super) fn noted_clsact(&self, interface: &str) -> Option<bool> {
        let path = self.clsact(interface);
        path.is_dir().then(|| path.join(MADE).is_dir())
    }

    /// Forgets a clsact filter.
    pub(super) fn forget_clsact(&self, interface: &str) -> Result<(), KernelError> {
        remove_tree(&self.clsact(interface))
    }

    /// The interfaces that have a pinned attachment.
    pub(super) fn links(&self) -> Result<Vec<String>, KernelError> {
        let directory = self.root.join("links");
        let names = fs::read_dir(&directory).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        });
        let names: Vec<String> =
            names.map_err(|source| KernelError::PinDir { path: directory.clone(), source })?;
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| name.strip_suffix(EGRESS).or(name.strip_suffix(CLSACT)).unwrap_or(name))
            .map(|name| name.replace("%2e", ".").replace("%25", "%"))
            .collect();
        Ok(names.into_iter().collect())
    }

    /// Gives what is pinned for one interface the name of another, which has nothing pinned.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), KernelError> {
        for place in [Self::link, Self::egress, Self::clsact] {
            let (from, to) = (place(self, from), place(self, to));
            if is_missing(&from) || !is_missing(&to) {
                continue;
            }
            let doing = format!("rename {} to {}", from.display(), to.display());
            fs::rename(&from, &to).map_err(KernelError::map(doing))?;
        }
        Ok(())
    }

    /// Opens a pinned map.
    pub(super) fn open_map(&self, name: &str) -> Result<OwnedFd, KernelError> {
        let path = self.map(name);
        sys::open_pinned(&path).map_err(KernelError::map(format!("open {}", path.display())))
    }

    /// Opens the array that holds the current generation, or makes one for maps like `template`.
    ///
    /// It is made here and not from the object, whose template would carry type information: before
    /// Linux 6.2 a map without it was taken for another kind and refused.
    pub(super) fn open_or_create_outer(&self, template: BorrowedFd<'_>) -> Result<OwnedFd, KernelError> {
        let path = self.map("GENERATION");
        let opened = match sys::open_pinned(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sys::create_array_of_maps("GENERATION", template)
                    .and_then(|outer| sys::pin(outer.as_fd(), &path).map(|()| outer))
            }
            opened => opened,
        };
        opened.map_err(KernelError::map(format!("open {}", path.display())))
    }

    /// When the pinned source table has another size than `entries`, sets it aside, so that a new
    /// one is made; returns the one set aside, also by an earlier start, until it is dropped.
    pub(super) fn set_aside_table(&self, entries: u32) -> Result<Option<OwnedFd>, KernelError> {
        let (path, aside) = (self.map("SOURCES"), self.map(OLD_TABLE));
        let failed = |doing: &str| KernelError::map(format!("{doing} {}", path.display()));
        if let Ok(old) = sys::open_pinned(&aside) {
            return Ok(Some(old));
        }
        let table = match sys::open_pinned(&path) {
            Ok(table) => table,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open")(error)),
        };
        if sys::map_info(table.as_fd()).map_err(failed("inspect"))?.max_entries == entries {
            return Ok(None);
        }
        fs::rename(&path, &aside).map_err(failed("set aside"))?;
        Ok(Some(table))
    }

    /// Drops the table that was set aside.
    pub(super) fn drop_old_table(&self) -> Result<(), KernelError> {
        remove(&self.map(OLD_TABLE))
    }

    /// Removes everything, links first, so that no program runs without its maps being reachable; then
    /// the pin directory, when it is empty.
    pub(super) fn remove_all(self) -> Result<(), KernelError> {
        remove_tree(&self.root.join("links"))?;
        remove_tree(&self.root)?;
        let mut made = self.made.clone();
        if !made.iter().any(|made| made == self.directory()) {
            made.insert(0, self.directory().to_owned());
        }
        let root = self.directory().to_owned();
        // The lock is a descriptor on the bpffs, which could not be unmounted.
        drop(self);
        give_back(&root, &made);
        Ok(())
    }
}

/// Whether there is nothing at `path` for sure.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Removes the directories that were `made` for the pin directory `root`, the lowest first, as far as they
/// are empty; and unmounts the bpffs below it when nothing is in that and teiten had mounted it.
fn give_back(root: &Path, made: &[PathBuf]) {
    let mounted = keeper::mounted_from(root, MOUNT_SOURCE).ok().flatten().map(PathBuf::from);
    // What is not empty, or a mount, or in a directory of another user, stays.
    for directory in made {
        let _ = fs::remove_dir(directory);
    }
    let Some(mount) = mounted.filter(|mount| is_empty_bpffs(mount)) else { return };
    match nix::mount::umount(&mount) {
        Ok(()) => {
            for directory in made {
                let _ = fs::remove_dir(directory);
            }
        }
        Err(error) => info!(
            path = %mount.display(),
            error = error.desc(),
            "the bpffs that teiten mounted stays, empty; `umount` removes it"
        ),
    }
}

/// Removes a pin directory that is empty, and an empty bpffs below it that teiten had mounted.
pub fn remove_pin_dir(root: &Path) {
    if is_missing(root) {
        return;
    }
    give_back(root, &[root.to_owned()]);
}

/// Whether nothing is pinned on a bpffs: of the kernel's own there may be these two files.
fn is_empty_bpffs(mount: &Path) -> bool {
    fs::read_dir(mount).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry
                .is_ok_and(|entry| ["progs.debug", "maps.debug"].map(Into::into).contains(&entry.file_name()))
        })
    })
}

/// Whether anything of this layout or another is pinned under `pin_dir`.
pub fn any(pin_dir: &Path) -> Found {
    let homes = match homes(pin_dir) {
        Ok(homes) => homes,
        // What is not a directory holds no pins.
        Err(error) => return Found::of(Err::<(), _>(error)).unwrap_or(Found::No),
    };
    let pinned = |home: Home| {
        let path = home.path.join("maps").join("GENERATION");
        Found::of(path.symlink_metadata()).unwrap_or(Found::No)
    };
    let found: Vec<_> = homes.into_iter().map(pinned).collect();
    let order = [Found::Yes, Found::NotAllowed];
    order.into_iter().find(|it| found.contains(it)).unwrap_or(Found::No)
}

/// Makes `root` a directory on a bpffs and locks it.
fn lock(root: &Path) -> Result<File, KernelError> {
    let failed = |source| failed(root, source);
    make_on_bpffs(root).map_err(failed)?;
    trusted::check(root)?;
    let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let lock = File::options().read(true).custom_flags(flags).open(root).map_err(failed)?;
    // SAFETY: flock takes no pointers.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let holder = holder(&lock).map_or("another process".to_owned(), |pid| format!("process {pid}"));
        return Err(KernelError::PinDirInUse { path: root.to_owned(), holder });
    }
    Ok(lock)
}

fn failed(path: &Path, source: io::Error) -> KernelError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        KernelError::NotPermitted { doing: format!("prepare pin directory {}", path.display()), source }
    } else {
        KernelError::PinDir { path: path.to_owned(), source }
    }
}

/// The process that has locked this file. A file on a bpffs has no room for its number.
pub(super) fn holder(file: &File) -> Option<u32> {
    let status = file.metadata().ok()?;
    let (major, minor) = (nix::sys::stat::major(status.dev()), nix::sys::stat::minor(status.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", status.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 1234 00:2d:2 0 EOF`; 0 for one of another PID namespace.
    let fields = locks.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let pid = fields.into_iter().find_map(|fields| match fields[..] {
        [_, "FLOCK", _, "WRITE", pid, file, ..] if file == id => pid.parse().ok(),
        _ => None,
    });
    pid.filter(|pid| *pid != 0)
}

/// Makes `root` a directory on a bpffs, mounting one where there is none: at the kernel's own place for
/// it when `root` lies below that, else at `root`.
fn make_on_bpffs(root: &Path) -> io::Result<()> {
    // What a link leads to is not touched; it is refused later.
    if root.is_symlink() {
        return Ok(());
    }
    let usual = Path::new(MOUNT_POINT);
    if root.starts_with(usual) && is_bpffs(usual).is_ok_and(|mounted| !mounted) {
        mount_bpffs(usual)?;
    }
    fs::create_dir_all(root)?;
    if !is_bpffs(root)? {
        mount_bpffs(root)?;
    }
    Ok(())
}

pub(super) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let status = nix::sys::statfs::statfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
    Ok(i64::from(status.filesystem_type().0) & 0xffff_ffff == BPF_FS_MAGIC)
}

fn mount_bpffs(path: &Path) -> io::Result<()> {
    nix::mount::mount(
        Some(MOUNT_SOURCE),
        path,
        Some("bpf"),
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};

    /// As under `ip netns exec`, or on a machine whose init mounts no bpffs.
    #[test]
    fn the_usual_place_is_mounted_where_only_a_sysfs_is() {
        let alone = std::thread::spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
                println!("skipped: mounting needs root: {error}");
                return;
            }
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
            umount2("/sys", MntFlags::MNT_DETACH).expect("nothing is at /sys");
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("a bare /sys");
            assert!(!is_bpffs(Path::new(MOUNT_POINT)).unwrap());

            let root = Path::new("/sys/fs/bpf/some/where");
            let pins = Pins::open(root, &[]).expect("pins below the usual place");
            assert!(is_bpffs(Path::new(MOUNT_POINT)).unwrap());
            assert_eq!(pins.links().unwrap(), Vec::<String>::new());
            // The second time it is there, and is not mounted over.
            drop(pins);
            fs::create_dir(root.join("mark")).unwrap();
            drop(Pins::open(root, &[]).expect("pins at the same place"));
            assert!(root.join("mark").is_dir());
        });
        alone.join().expect("the mounts went with the thread");
    }
}
