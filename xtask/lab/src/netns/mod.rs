//! Network namespaces that cannot be left behind.
//!
//! A [`Netns`] is an open file descriptor and nothing else: it has no name under `/run/netns` and no
//! mount, so the kernel removes it, with every interface in it, when the last descriptor and the last
//! process in it are gone: after a drop, a panic, Ctrl-C or `kill -9` alike. Children made by
//! [`Netns::command`] die with the thread that made them, for the same reason.
//!
//! Only the network is changed (`setns(CLONE_NEWNET)`), not the mounts: `ip netns exec` hides
//! `/sys/fs/bpf`, and a sensor needs it. What a sensor mounts and pins goes into [`Mounts`], which
//! vanish likewise.

mod counters;
mod link;
mod tun;

pub use counters::{Counters, InterfaceCounters};
pub use link::{Interface, Mac, Route};
pub use tun::{Tun, join_tuns};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Why a namespace or something in it could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A namespace could not be made or entered.
    #[error("{action}: {source}{}", advice(.source))]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An interface could not be made or configured.
    #[error("{action} on interface {interface}: {source}")]
    Interface {
        /// What was tried.
        action: String,
        /// Its name.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What helps against `error` of a call that makes or enters a namespace.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; namespaces need root (CAP_SYS_ADMIN)",
        // Only a mount can be made private.
        Some(libc::EINVAL) => {
            "; is this a chroot whose root directory is not a mount? Run it outside, or call \
             `mount --bind DIR DIR` before `chroot DIR`"
        }
        Some(libc::ENOSPC) => {
            "; the limit on namespaces is reached: `sysctl user.max_net_namespaces user.max_mnt_namespaces`"
        }
        _ => "",
    }
}

/// Fails unless this process can make the namespaces that a lab needs.
///
/// # Errors
///
/// [`NetnsError::Namespace`] with what helps.
pub fn check() -> Result<()> {
    Netns::new()?;
    Mounts::new()?;
    Ok(())
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, NetnsError>;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

/// A private set of mounts: what a process mounts in it, no one else sees, and it is unmounted when
/// the last user is gone. Files that exist outside are the same inside.
#[derive(Clone, Debug)]
pub struct Mounts {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// A new namespace, with nothing in it but a loopback interface that is up.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Namespace`] without `CAP_SYS_ADMIN`.
    pub fn new() -> Result<Self> {
        let fd = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .map_err(|source| NetnsError::Namespace { action: "make a network namespace", source })?;
        let netns = Self { fd: Arc::new(fd.into()) };
        netns.loopback_up()?;
        Ok(netns)
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay in the
    /// namespace, wherever they are used later.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Namespace`] when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|source| NetnsError::Namespace { action: "enter a network namespace", source })
    }

    /// A command that will run inside the namespace, and that the kernel kills when the calling
    /// thread ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = bound_command(program);
        let netns = Arc::clone(&self.fd);
        // SAFETY: between fork and exec the closure makes a system call only: no allocation, no lock.
        unsafe {
            command.pre_exec(move || {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        command
    }

    /// As [`Netns::command`], and with `mounts` as its mounts.
    pub fn command_with(&self, mounts: &Mounts, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program);
        let mounts = Arc::clone(&mounts.fd);
        // SAFETY: as above.
        unsafe {
            command.pre_exec(move || {
                setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
                Ok(())
            });
        }
        command
    }

    /// Connects to `address` from inside the namespace.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::connect_timeout`].
    pub fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&address, timeout)).map_err(io::Error::other)?
    }

    /// Sets a `net.…` parameter of the namespace, named by its path below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::File`] when there is no such parameter or it does not take the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value))?.map_err(|source| NetnsError::File { path, source })
    }

    /// Where a user's own tools find the namespace while this process runs, for
    /// `nsenter --net=PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }
}

impl Mounts {
    /// A private copy of the caller's mounts.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Namespace`] without `CAP_SYS_ADMIN`.
    pub fn new() -> Result<Self> {
        let fd = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Otherwise what is mounted here would show outside.
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            File::open("/proc/thread-self/ns/mnt")
        })
        .map_err(|source| NetnsError::Namespace { action: "make a mount namespace", source })?;
        Ok(Self { fd: Arc::new(fd.into()) })
    }

    /// Runs `work` on a thread of its own that sees these mounts.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Namespace`] when they cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            // A thread that shares its working directory with others may not change its mounts.
            unshare(CloneFlags::CLONE_FS)?;
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNS)?;
            Ok(work())
        })
        .map_err(|source| NetnsError::Namespace { action: "enter a mount namespace", source })
    }
}

/// A command that the kernel kills when the calling thread ends, and that Ctrl-C on the terminal does
/// not reach: whichever process started it ends it.
pub fn bound_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = child_command(program);
    command.process_group(0);
    command
}

/// As [`bound_command`], but in the group of processes of the one who starts it.
pub fn child_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec the closure makes system calls only: no allocation, no lock.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // It may have ended before that.
            if nix::unistd::getppid() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    command
}

/// Runs `work` on a thread that ends with it, since a thread cannot be trusted to find back from a
/// namespace.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Whether this process may make namespaces and load programs: it is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
