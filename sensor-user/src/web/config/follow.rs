//! Follows `--web.config.file` as it changes.
//!
//! The file and the certificates it names are looked at again, at most once a second, when a
//! connection or a request comes in, so a renewed certificate or a changed password needs no reload.
//! When the new state cannot be used, the one before stays and the failure is logged and counted. Where
//! reading takes long, as on a network file system that hangs, requests are answered under the state before.

use super::{LoadedSecurity, WebConfigError, parse};
use crate::exposition::{Exposition, Health, Reloadable};
use crate::system::clock;
use crate::system::condition::{Fault, Notice};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// How long a look at the files stays good.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What tells a file from its earlier self.
type Fingerprint = Vec<Option<(SystemTime, u64, u64)>>;

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    paths
        .iter()
        .map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
        .collect()
}

/// What the file asks for, the files that say so, and what tells them from later ones.
fn read(path: &Path) -> Result<(LoadedSecurity, Vec<PathBuf>, Fingerprint), WebConfigError> {
    let mut files = vec![path.to_owned()];
    // Taken before reading: a change in between is then seen at the next look.
    let mut seen = fingerprint(&files);
    let file = parse(path)?;
    files.extend(file.named(path));
    seen.extend(fingerprint(&files[1..]));
    Ok((file.load(path)?, files, seen))
}

/// The state of `--web.config.file`, followed as it changes.
#[derive(Debug)]
pub(in crate::web) struct Security {
    path: Option<PathBuf>,
    pub(super) state: watch::Sender<Arc<LoadedSecurity>>,
    /// Held while the files are looked at.
    seen: Mutex<SeenFiles>,
    /// When the files are to be looked at again.
    pub(super) due: Mutex<Instant>,
}

#[derive(Debug)]
struct SeenFiles {
    files: Vec<PathBuf>,
    fingerprint: Fingerprint,
    /// What keeps the files from being loaded, and as the log has it.
    refused: Option<String>,
    fault: Fault,
}

impl Security {
    /// Reads the file, or takes plain HTTP for all when there is none.
    pub(in crate::web) fn load(path: Option<&Path>, now: Instant) -> Result<Self, WebConfigError> {
        let (loaded, files, fingerprint) = match path {
            None => (LoadedSecurity::default(), Vec::new(), Vec::new()),
            Some(path) => read(path)?,
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            state: watch::Sender::new(Arc::new(loaded)),
            seen: Mutex::new(SeenFiles { files, fingerprint, refused: None, fault: Fault::default() }),
            due: Mutex::new(now + LOOK_AGAIN),
        })
    }

    /// What holds now.
    pub(in crate::web) async fn current(
        self: &Arc<Self>,
        now: Instant,
        exposition: &Arc<Exposition>,
    ) -> Arc<LoadedSecurity> {
        if self.is_due(now) {
            let (security, exposition) = (Arc::clone(self), Arc::clone(exposition));
            let look = tokio::task::spawn_blocking(move || security.look(exposition.health()));
            // One that takes longer ends by itself.
            let _ = tokio::time::timeout(LOOK_AGAIN, look).await;
        }
        Arc::clone(&self.state.borrow())
    }

    /// What holds now and from now on.
    pub(in crate::web) fn follow(&self) -> watch::Receiver<Arc<LoadedSecurity>> {
        self.state.subscribe()
    }

    /// Whether this request is the one to look at the files.
    fn is_due(&self, now: Instant) -> bool {
        // A plain value: a panic elsewhere does not spoil it.
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = self.path.is_some() && *due <= now;
        if is_due {
            *due = now + LOOK_AGAIN;
        }
        is_due
    }

    /// Looks at the files, unless another request does so already, and takes over what has changed.
    fn look(&self, health: &Health) {
        let seen = match self.seen.try_lock() {
            Ok(seen) => Some(seen),
            // It is replaced as a whole, so a panic elsewhere leaves it usable.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let (Some(path), Some(mut seen)) = (&self.path, seen) else { return };
        let fresh = fingerprint(&seen.files);
        if fresh == seen.fingerprint {
            seen.tell(path);
            return;
        }
        match read(path) {
            Ok((loaded, files, fingerprint)) => {
                tracing::info!(path = %path.display(), "{} reloaded", Reloadable::Web.subject());
                *seen = SeenFiles { files, fingerprint, refused: None, fault: Fault::default() };
                self.state.send_replace(Arc::new(loaded));
                health.set_unread(Reloadable::Web, None);
            }
            Err(error) => {
                let why = crate::error_chain(&error);
                health.reload_failed(Reloadable::Web);
                health.set_unread(Reloadable::Web, Some(why.clone()));
                // Not read again until something changes again.
                seen.fingerprint = fresh;
                seen.refused = Some(why);
                seen.tell(path);
            }
        }
    }
}

impl SeenFiles {
    /// Says in the log that the files are refused, as often as it is to be said.
    fn tell(&mut self, path: &Path) {
        let (Some(error), path) = (&self.refused, path.display()) else { return };
        match self.fault.failed(error, clock::now()) {
            Some(Notice::Lasts(looks)) => tracing::error!(
                %path, error, looks,
                "{} still not reloaded; {}", Reloadable::Web.subject(), Reloadable::Web.meanwhile()
            ),
            Some(_) => tracing::error!(
                %path, error,
                "{} not reloaded; {}", Reloadable::Web.subject(), Reloadable::Web.meanwhile()
            ),
            None => {}
        }
    }
}
