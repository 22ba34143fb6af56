//! What of root's rights is kept: three capabilities, once everything is open and attached.
//!
//! Linux gives rights to threads, not to processes, and a thread inherits those of the one that starts it.
//! So every thread that works beside the start gives them up as it begins ([`spawn`], and the threads of the
//! runtime), and the main thread before it starts the drain's.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use std::io;

/// What is needed while running: programs, maps and pins (`CAP_BPF`), attachments, clsact filters and the
/// sockets of others (`CAP_NET_ADMIN`), and programs that read pointers (`CAP_PERFMON`).
pub const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Why rights could not be given up, or taken on.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The capabilities could not be changed.
    #[error("give up capabilities")]
    Capabilities(#[from] CapsError),
    /// `prctl(2)` or `setresuid(2)` failed.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// No program that this process may start gets more rights than it has. Threads that are started later
/// inherit this.
///
/// # Errors
///
/// [`RightsError::System`].
pub fn forbid_new() -> Result<(), RightsError> {
    nix::sys::prctl::set_no_new_privs()
        .map_err(|errno| RightsError::System { doing: "set no_new_privs", source: errno.into() })
}

/// Leaves this thread no capability but [`KEPT`], as far as it has them.
///
/// # Errors
///
/// [`RightsError::Capabilities`].
pub fn keep_needed() -> Result<(), RightsError> {
    keep(&KEPT)
}

/// [`keep_needed`] of a thread that continues when it fails, with a line in the log.
pub fn keep_needed_or_tell() {
    if let Err(error) = keep_needed() {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a thread keeps the rights of its user; counts are not affected"
        );
    }
}

/// Starts a thread that has no capability but [`KEPT`].
///
/// # Errors
///
/// The thread cannot be started.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        keep_needed_or_tell();
        work();
    })
}

fn keep(kept: &[Capability]) -> Result<(), RightsError> {
    // Without this one nothing can be taken from the bounding set; then it was bounded by the process that started
    // this process, or there is nothing to give up.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all().into_iter().filter(|it| !kept.contains(it)) {
            if caps::has_cap(None, CapSet::Bounding, capability)? {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let is_more = permitted.iter().any(|it| !kept.contains(it));
    let kept: CapsHashSet = permitted.into_iter().filter(|it| kept.contains(it)).collect();
    let reduce = || {
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    match reduce() {
        // A filter of system calls may forbid it to who has nothing to give up.
        Err(error) if is_more => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes this thread, of root's, one of another user, who may still work on BPF objects and look into
/// root's directories. The other threads of the process stay as they are.
///
/// # Errors
///
/// [`RightsError`]; then the thread must end.
pub fn become_user(user: libc::uid_t, group: libc::gid_t) -> Result<(), RightsError> {
    fn call(
        doing: &'static str,
        number: libc::c_long,
        arguments: [libc::c_ulong; 3],
    ) -> Result<(), RightsError> {
        let [first, second, third] = arguments;
        // SAFETY: the calls below take numbers, and no pointer but a null one with a length of 0. Not
        // those of the C library, which change every thread.
        match unsafe { libc::syscall(number, first, second, third) } {
            0 => Ok(()),
            _ => Err(RightsError::System { doing, source: io::Error::last_os_error() }),
        }
    }
    let (user, group) = (libc::c_ulong::from(user), libc::c_ulong::from(group));
    nix::sys::prctl::set_keepcaps(true)
        .map_err(|errno| RightsError::System { doing: "keep capabilities", source: errno.into() })?;
    call("leave all groups", libc::SYS_setgroups, [0, 0, 0])?;
    call("become the group", libc::SYS_setresgid, [group, group, group])?;
    call("become the user", libc::SYS_setresuid, [user, user, user])?;
    let kept = [&KEPT[..], &[Capability::CAP_DAC_READ_SEARCH]].concat();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.into_iter().filter(|it| kept.contains(it)).collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// `CapEff` and the like of this thread, as the kernel shows them.
    fn shown() -> BTreeMap<String, u64> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let lines = status.lines().filter_map(|line| line.split_once(":\t"));
        let sets = lines.filter(|(name, _)| name.starts_with("Cap"));
        sets.map(|(name, bits)| (name.to_owned(), u64::from_str_radix(bits, 16).unwrap())).collect()
    }

    fn on_thread(work: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root has rights to give up");
            return;
        }
        std::thread::spawn(work).join().unwrap();
    }

    /// Numbers 39, 12 and 38 of `linux/capability.h`.
    const THREE: u64 = 1 << 39 | 1 << 12 | 1 << 38;

    #[test]
    fn of_all_capabilities_three_are_left() {
        on_thread(|| {
            keep_needed().unwrap();
            let shown = shown();
            assert_eq!((shown["CapEff"], shown["CapPrm"]), (THREE, THREE));
            assert_eq!((shown["CapInh"], shown["CapAmb"], shown["CapBnd"]), (0, 0, THREE));
            // Another time there is nothing to do.
            keep_needed().unwrap();
        });
    }

    #[test]
    fn a_thread_that_becomes_another_user_has_its_files_and_no_others() {
        on_thread(|| {
            let directory = tempfile::tempdir().unwrap();
            let (own, foreign) = (directory.path().join("own"), directory.path().join("foreign"));
            std::fs::create_dir(&own).unwrap();
            std::fs::create_dir(&foreign).unwrap();
            nix::unistd::chown(&own, Some(65_534.into()), Some(65_534.into())).unwrap();
            become_user(65_534, 65_534).unwrap();
            std::fs::write(own.join("file"), "").unwrap();
            let refused = std::fs::write(foreign.join("file"), "").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(shown()["CapEff"], THREE | 1 << 2);
        });
        // Only that thread has changed.
        assert_eq!(nix::unistd::geteuid(), nix::unistd::getuid());
    }
}
