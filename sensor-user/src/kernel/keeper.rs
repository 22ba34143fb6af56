//! Who keeps a bpffs, and with it the pins and the attached program, once this process has ended.
//!
//! A bpffs lives as long as one mount of it does, and a mount as long as its mount namespace. Under `ip
//! netns exec`, in a container or in a unit with private mounts, a bpffs that was mounted there may end
//! with the last process of that namespace.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Who keeps the bpffs of a pin directory mounted, apart from this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The machine (or the container) itself: its first process has it mounted, or the mount belongs to
    /// a peer group outside.
    Machine,
    /// Another process, as long as that lives.
    Process {
        /// Its number.
        pid: u32,
        /// Its command.
        name: String,
    },
    /// Only this process: the bpffs ends with it.
    ThisProcess,
    /// It cannot be seen.
    Unseen {
        /// Why not.
        reason: String,
    },
}

impl Keeper {
    /// Of the bpffs on which `path` lies.
    pub(super) fn of(path: &Path) -> Self {
        match find(path) {
            Ok(keeper) => keeper,
            Err(error) => Self::Unseen { reason: format!("mounts cannot be read from /proc: {error}") },
        }
    }

    /// Of a bpffs that this process would mount at `path`.
    pub(super) fn of_new(path: &Path) -> Self {
        match find_for_new(path) {
            Ok(keeper) => keeper,
            Err(error) => Self::Unseen { reason: format!("mounts cannot be read from /proc: {error}") },
        }
    }

    /// What becomes of the counting when this process ends, if that is not for sure that it continues.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Machine => None,
            Self::Process { .. } | Self::ThisProcess | Self::Unseen { .. } => {
                Some(format!("{self}; {WAY_OUT}"))
            }
        }
    }
}

/// What to do so that the pins outlive the process.
const WAY_OUT: &str = "to keep counting, give the sensor a bpffs of the machine's own mount namespace: \
                       `mount -t bpf bpf /sys/fs/bpf` outside; then `nsenter --net=/run/netns/NAME teiten run` instead of \
                       `ip netns exec`, and in containers and units with private mounts a bind mount of /sys/fs/bpf";

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the pins stay when the daemon ends"),
            Self::Process { pid, name } => write!(
                f,
                "the bpffs of the pins is mounted in a private mount namespace, which process {pid} ({name}) keeps: \
                 after the daemon ends packets are counted only as long as that process lives"
            ),
            Self::ThisProcess => f.write_str(
                "the bpffs of the pins is mounted in a mount namespace that no other process is in: after the daemon \
                 ends (stop, crash or kill) packets are not counted until the next start",
            ),
            Self::Unseen { reason } => write!(
                f,
                "whether the bpffs of the pins stays mounted when the daemon ends cannot be seen ({reason}): packets \
                 may not be counted until the next start"
            ),
        }
    }
}

fn find(path: &Path) -> io::Result<Keeper> {
    let device = fs::metadata(path)?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let own_pid = std::process::id();
    let own = mounts_of(&fs::read_to_string("/proc/self/mountinfo")?, &device);
    if own.iter().any(|mount| mount.has_master) {
        return Ok(Keeper::Machine);
    }
    let namespace = fs::read_link("/proc/self/ns/mnt").ok();
    let first = fs::read_to_string("/proc/1/mountinfo");
    if own_pid != 1 && first.as_ref().is_ok_and(|text| !mounts_of(text, &device).is_empty()) {
        return Ok(Keeper::Machine);
    }
    if own.iter().any(|mount| mount.is_shared) && (own_pid == 1 || first.is_err()) {
        return Ok(Keeper::Unseen {
            reason: "the mount is shared with a peer that is not visible here".to_owned(),
        });
    }
    if own_pid == 1 {
        return Ok(Keeper::Unseen { reason: "this process is the first of its container".to_owned() });
    }
    let mut unreadable = first.is_err();
    let mut found = None;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own_pid {
            continue;
        }
        let keeps = match fs::read_to_string(format!("/proc/{pid}/mountinfo")) {
            Ok(text) => {
                // A namespace lives on also by a mount of its file.
                let bound =
                    namespace.as_ref().is_some_and(|name| text.contains(&format!(" {} ", name.display())));
                bound || !mounts_of(&text, &device).is_empty() || holds(pid, namespace.as_deref())
            }
            Err(error) => {
                // One that ended meanwhile keeps nothing.
                unreadable |= error.kind() == io::ErrorKind::PermissionDenied;
                false
            }
        };
        if keeps {
            found = found.min(Some(pid)).or(Some(pid));
        }
    }
    Ok(match found {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Keeper::Process { pid, name: name.trim_end().to_owned() }
        }
        None if unreadable => Keeper::Unseen { reason: "not allowed to look at other processes".to_owned() },
        None => Keeper::ThisProcess,
    })
}

/// A new mount stays with the mount namespace, and spreads to the peers of the mount that it is made in.
fn find_for_new(path: &Path) -> io::Result<Keeper> {
    let path = path.canonicalize()?;
    let own = fs::read_to_string("/proc/self/mountinfo")?;
    if std::process::id() == 1 {
        return Ok(Keeper::Unseen { reason: "this process is the first of its container".to_owned() });
    }
    let (Some(id), Ok(first)) = (namespace_of(&own), fs::read_to_string("/proc/1/mountinfo")) else {
        return Ok(Keeper::Unseen { reason: "the first process cannot be looked at".to_owned() });
    };
    if namespace_of(&first) == Some(id) {
        return Ok(Keeper::Machine);
    }
    let peers = peers_at(&own, &path);
    if peers.is_some_and(|peers| first.lines().any(|line| line.split(' ').any(|field| field == peers))) {
        return Ok(Keeper::Machine);
    }
    let pids =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let shares = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        *pid != std::process::id() && text.is_ok_and(|text| namespace_of(&text) == Some(id))
    };
    Ok(match pids.filter(shares).min() {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Keeper::Process { pid, name: name.trim_end().to_owned() }
        }
        None => Keeper::ThisProcess,
    })
}

/// The number of the first mount, which no other namespace has.
fn namespace_of(mountinfo: &str) -> Option<&str> {
    mountinfo.split(' ').next()
}

/// The peer group of the mount in which `path` lies: `shared:15`.
fn peers_at<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    // The last of those at the same place is on top.
    let mounts = mountinfo.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        path.starts_with(fields.get(4)?).then_some((fields[4].len(), fields))
    });
    let (_, fields) = mounts.max_by_key(|(length, _)| *length)?;
    fields.into_iter().take_while(|field| *field != "-").find(|field| field.starts_with("shared:"))
}

/// Whether a process is seen to have this mount namespace open.
fn holds(pid: u32, namespace: Option<&Path>) -> bool {
    let is_it = |entry: fs::DirEntry| fs::read_link(entry.path()).ok().as_deref() == namespace;
    namespace.is_some()
        && fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|entries| entries.flatten().any(is_it))
}

/// A mount, as `/proc/PID/mountinfo` tells (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// Where.
    point: String,
    /// Mounts of the same peer group may be elsewhere.
    is_shared: bool,
    /// It receives what is mounted in another peer group.
    has_master: bool,
    /// What was given as the mounted device; of a bpffs any word.
    source: String,
}

/// The mounts of this device, `major:minor`.
fn mounts_of(mountinfo: &str, device: &str) -> Vec<Mount> {
    // `36 35 0:42 / /sys/fs/bpf rw,nosuid shared:15 master:1 - bpf bpf rw,mode=700`
    let lines = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<_> = left.split(' ').collect();
        let mut right = right.split(' ');
        let [_, _, of, _, point, _, tags @ ..] = &left[..] else { return None };
        let tagged = |name: &str| tags.iter().any(|tag| tag.starts_with(name));
        (*of == device && right.next() == Some("bpf")).then(|| Mount {
            point: (*point).to_owned(),
            is_shared: tagged("shared:"),
            has_master: tagged("master:"),
            source: right.next().unwrap_or_default().to_owned(),
        })
    });
    lines.collect()
}

/// Where the bpffs on which `path` lies is mounted, when it was mounted with this word for a source.
pub(super) fn mounted_from(path: &Path, source: &str) -> io::Result<Option<String>> {
    let device = fs::metadata(path)?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mounts = mounts_of(&fs::read_to_string("/proc/self/mountinfo")?, &device);
    Ok(mounts.into_iter().find(|mount| mount.source == source).map(|mount| mount.point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_device_and_type() {
        let text = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 0:42 / /sys/fs/bpf rw,nosuid shared:15 master:1 - bpf bpf rw,mode=700
37 35 0:42 /teiten /run/teiten/bpf rw - bpf teiten rw
38 35 0:42 / /else rw - tmpfs tmpfs rw
39 35 0:4 / /sys/fs/bpf rw shared:15 - bpf bpf rw
";
        let found = mounts_of(text, "0:42");
        let mount = |point: &str, is_shared, has_master, source: &str| Mount {
            point: point.to_owned(),
            is_shared,
            has_master,
            source: source.to_owned(),
        };
        assert_eq!(
            found,
            [mount("/sys/fs/bpf", true, true, "bpf"), mount("/run/teiten/bpf", false, false, "teiten")]
        );
        assert_eq!(mounts_of(text, "0:2"), []);
    }

    #[test]
    fn a_new_mount_spreads_to_the_peers_of_the_one_it_is_made_in() {
        let text = "\
22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw
36 22 0:22 / /sys rw master:3 - sysfs sysfs rw
37 22 0:23 / /sys rw shared:5 master:3 - sysfs sysfs rw
";
        assert_eq!(namespace_of(text), Some("22"));
        assert_eq!(peers_at(text, Path::new("/sys/fs/bpf")), Some("shared:5"));
        assert_eq!(peers_at(text, Path::new("/system")), Some("shared:1"));
    }

    #[test]
    fn only_what_stays_for_sure_gives_no_warning() {
        assert_eq!(Keeper::Machine.warning(), None);
        let process = Keeper::Process { pid: 7, name: "bash".to_owned() };
        for keeper in [process, Keeper::ThisProcess, Keeper::Unseen { reason: "no /proc".to_owned() }] {
            assert!(keeper.warning().unwrap().contains("nsenter --net="), "{keeper}");
        }
    }
}
