//! Follows a database file that is replaced while the daemon runs.

use super::{GeoIp, GeoIpError, MAX_OCTETS, Origin, Reason};
use crate::system::regular_file;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// A file system that has not answered by then is told of.
const PATIENCE: Duration = Duration::from_mins(1);

/// What tells one state of a file from another: device, inode, size, and the times of the last
/// change of content and of inode, each in seconds and nanoseconds.
type Stamp = [u64; 7];

fn stamp(metadata: &Metadata) -> Stamp {
    [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ]
}

/// The whole file, and its state, which was the same before and after.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Reason> {
    let mut file = regular_file::open(path)?;
    let before = file.metadata()?;
    if before.size() > MAX_OCTETS {
        return Err(Reason::TooLarge { octets: before.size() });
    }
    let mut octets = Vec::with_capacity(before.size() as usize);
    file.by_ref().take(MAX_OCTETS).read_to_end(&mut octets)?;
    let after = stamp(&file.metadata()?);
    if after != stamp(&before) || octets.len() as u64 != before.size() {
        return Err(Reason::Changing);
    }
    Ok((octets, after))
}

/// A file of which another state is read when it changes.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// The state that was last tried; `None` when there was no file.
    tried: Option<Stamp>,
}

impl Source {
    /// Reads the file if it is not what was tried last; `None` when it is. What is not good is told once.
    fn news(&mut self) -> Result<Option<GeoIp>, GeoIpError> {
        let found = std::fs::metadata(&self.path);
        let state = found.as_ref().ok().map(stamp);
        if state == self.tried {
            return Ok(None);
        }
        self.tried = state;
        match found.map_err(Reason::from).and_then(|_| read(&self.path)) {
            Ok((octets, stamp)) => {
                self.tried = Some(stamp);
                GeoIp::from_octets(octets, Origin::File(self.path.clone())).map(Some)
            }
            Err(reason) => Err(GeoIpError { origin: Origin::File(self.path.clone()), reason }),
        }
    }
}

/// The thread that looks at the file. A file system may take for ever to answer, so nobody waits for it,
/// not even at the end.
#[derive(Debug)]
struct Looker {
    path: PathBuf,
    ask: Sender<()>,
    answers: Receiver<Result<Option<GeoIp>, GeoIpError>>,
    /// When it was asked what it has not answered, and whether that was told.
    asked: Option<(Instant, bool)>,
}

impl Looker {
    fn start(mut source: Source) -> std::io::Result<Self> {
        let path = source.path.clone();
        let ((ask, questions), (tell, answers)) = (mpsc::channel(), mpsc::channel());
        crate::system::rights::spawn("geoip", move || {
            while questions.recv().is_ok() && tell.send(source.news()).is_ok() {}
        })?;
        Ok(Self { path, ask, answers, asked: None })
    }
}

/// A database that is read again when its file changes; what cannot be read does not replace what
/// could.
#[derive(Debug)]
pub struct Watcher {
    current: Arc<GeoIp>,
    /// `None` for the embedded database.
    looker: Option<Looker>,
}

impl Watcher {
    /// Loads the file's database, or the embedded one, which never changes.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::load`].
    pub fn open(path: Option<PathBuf>) -> Result<Self, GeoIpError> {
        let Some(path) = path else {
            return Ok(Self { current: Arc::new(GeoIp::embedded()?), looker: None });
        };
        let origin = Origin::File(path.clone());
        let failed = |reason| GeoIpError { origin: origin.clone(), reason };
        let (octets, stamp) = read(&path).map_err(failed)?;
        let current = Arc::new(GeoIp::from_octets(octets, origin.clone())?);
        let looker =
            Looker::start(Source { path, tried: Some(stamp) }).map_err(|error| failed(error.into()))?;
        Ok(Self { current, looker: Some(looker) })
    }

    /// The database in use.
    pub fn current(&self) -> &Arc<GeoIp> {
        &self.current
    }

    /// Takes over what another thread has found since the last call, tells whether there is a new
    /// database, and asks that thread to look again. It never waits, so it can be called at every drain.
    ///
    /// # Errors
    ///
    /// The new file is missing or not good, or the file system does not answer; [`Watcher::current`]
    /// stays, and the same state of the file is not tried, nor told, again.
    pub fn reload_if_changed(&mut self) -> Result<bool, GeoIpError> {
        let Some(looker) = &mut self.looker else { return Ok(false) };
        let answer = looker.answers.try_recv().ok();
        if answer.is_some() {
            looker.asked = None;
        }
        match &mut looker.asked {
            None => looker.asked = looker.ask.send(()).ok().map(|()| (Instant::now(), false)),
            Some((since, told)) if !*told && since.elapsed() > PATIENCE => {
                *told = true;
                return Err(GeoIpError {
                    origin: Origin::File(looker.path.clone()),
                    reason: Reason::Silent { seconds: since.elapsed().as_secs() },
                });
            }
            Some(_) => {}
        }
        let Some(new) = answer.transpose()?.flatten() else { return Ok(false) };
        self.current = Arc::new(new);
        Ok(true)
    }

    /// As [`Watcher::reload_if_changed`], and waits for the answer to be there at the next call.
    #[cfg(test)]
    pub(super) fn reload_and_wait(&mut self) -> Result<bool, GeoIpError> {
        let first = self.reload_if_changed()?;
        let Some(looker) = &mut self.looker else { return Ok(first) };
        looker.asked = None;
        let Some(new) = looker.answers.recv().expect("an answer").transpose() else { return Ok(false) };
        self.current = Arc::new(new?);
        Ok(true)
    }
}
