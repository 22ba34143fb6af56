//! Why the kernel side could not do what it was asked to.

use super::Occupant;
use sensor_common::layout::LAYOUT_VERSION;
use std::io;
use std::path::PathBuf;

/// Why the kernel side could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The pin directory is not usable.
    #[error("prepare pin directory {path}")]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can write to the pin directory.
    #[error("pin directory refused")]
    Untrusted(#[from] crate::system::trusted::Untrusted),
    /// Another daemon holds the pin directory.
    #[error("pin directory {path} is in use by {holder}; stop that daemon, or give another --pin-dir")]
    PinDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, as far as the kernel tells.
        holder: String,
    },
    /// Maps of a layout that is not known are pinned.
    #[error(
        "{path} holds counts of another teiten's layout ({found}, this one's is v{LAYOUT_VERSION}); \
         run the release that pinned them or a newer one, or its `teiten detach` first, which takes them into \
         the ledger"
    )]
    OtherLayout {
        /// The pin directory.
        path: PathBuf,
        /// Name of what was found.
        found: String,
    },
    /// A privilege is missing.
    #[error(
        "{doing}: not permitted; teiten needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON (and CAP_SYS_ADMIN to mount a bpffs)"
    )]
    NotPermitted {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The BPF object was not accepted.
    #[error("load the BPF object")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A map operation failed.
    #[error("{doing}")]
    Map {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is not enough memory for a map.
    #[error("{refused}")]
    NoMemory {
        /// Which map, what it takes, and the way out.
        refused: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface is gone.
    #[error("interface {interface} is gone")]
    Gone {
        /// The interface.
        interface: String,
    },
    /// A foreign XDP program is attached.
    #[error("{0}")]
    Occupied(Occupant),
    /// The driver did not take the program.
    #[error("attach XDP to {interface} in {mode} mode; {hint}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode tried last.
        mode: &'static str,
        /// What to do.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl KernelError {
    pub(super) fn map(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let doing = doing.into();
            if source.kind() == io::ErrorKind::PermissionDenied {
                Self::NotPermitted { doing, source }
            } else {
                Self::Map { doing, source }
            }
        }
    }
}
