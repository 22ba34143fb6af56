//! Follows database files that are replaced while the daemon runs.

use super::file::{self, FileStates};
use super::{DatabaseFault, DatabaseOrigin, GeoIp, GeoIpError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// A file system that has not answered by then is reported.
const PATIENCE: Duration = Duration::from_mins(1);

/// A database whose files are read again when one of them has changed.
#[derive(Debug)]
struct DatabaseSource {
    path: PathBuf,
    /// The state that was read last, whether or not that failed.
    tried: FileStates,
}

impl DatabaseSource {
    /// The database of the file, and its state before it was read: a change during the read is found at
    /// the next look.
    fn open(path: PathBuf) -> Result<(GeoIp, Self), GeoIpError> {
        let tried = file::state(&path);
        Ok((GeoIp::load(&path)?, Self { path, tried }))
    }

    /// Reads the database if a file has changed since it was read last; `None` when none has.
    fn news(&mut self) -> Result<Option<GeoIp>, GeoIpError> {
        let state = file::state(&self.path);
        if state == self.tried {
            return Ok(None);
        }
        self.tried = state;
        GeoIp::load(&self.path).map(Some)
    }
}

/// The thread that looks at the files. A file system may never answer, so nothing waits for this
/// thread, not even the end of the process.
#[derive(Debug)]
struct Looker {
    path: PathBuf,
    ask: Sender<()>,
    answers: Receiver<Result<Option<GeoIp>, GeoIpError>>,
    /// When it was asked what it has not answered.
    asked: Option<Instant>,
    /// What keeps the files from being loaded.
    fault: Option<GeoIpError>,
    /// The file system does not answer.
    silent: Option<GeoIpError>,
}

impl Looker {
    fn start(mut source: DatabaseSource) -> std::io::Result<Self> {
        let path = source.path.clone();
        let ((ask, questions), (tell, answers)) = (mpsc::channel(), mpsc::channel());
        crate::system::rights::spawn("geoip", move || {
            while questions.recv().is_ok() && tell.send(source.news()).is_ok() {}
        })?;
        Ok(Self { path, ask, answers, asked: None, fault: None, silent: None })
    }
}

/// What has become of the files since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing that is known.
    Unchanged,
    /// They were read, and are in use.
    Reloaded,
    /// They cannot be read, for a new reason: [`Watcher::fault`].
    Failed,
}

/// A database that is read again when its files change. Files that cannot be loaded leave the database
/// that is in use.
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
        let origin = DatabaseOrigin::File(path.clone());
        let (current, source) = DatabaseSource::open(path)?;
        let looker = Looker::start(source).map_err(|error| GeoIpError { origin, reason: error.into() })?;
        Ok(Self { current: Arc::new(current), looker: Some(looker) })
    }

    /// The database in use.
    pub fn current(&self) -> &Arc<GeoIp> {
        &self.current
    }

    /// Why the database in use is not the one of the files, as long as that holds.
    pub fn fault(&self) -> Option<&GeoIpError> {
        self.looker.as_ref().and_then(|looker| looker.silent.as_ref().or(looker.fault.as_ref()))
    }

    /// Takes over what the other thread has found since the last call, and asks that thread to look
    /// again. It never waits, so it can be called at every drain. One state of the files is tried once.
    pub fn look(&mut self) -> Look {
        let Some(looker) = &mut self.looker else { return Look::Unchanged };
        if let Ok(answer) = looker.answers.try_recv() {
            let look = self.take(answer);
            self.ask();
            return look;
        }
        match looker.asked {
            Some(since) if looker.silent.is_none() && since.elapsed() > PATIENCE => {
                let origin = DatabaseOrigin::File(looker.path.clone());
                let reason = DatabaseFault::Silent { seconds: since.elapsed().as_secs() };
                looker.silent = Some(GeoIpError { origin, reason });
                Look::Failed
            }
            Some(_) => Look::Unchanged,
            None => {
                self.ask();
                Look::Unchanged
            }
        }
    }

    fn ask(&mut self) {
        if let Some(looker) = &mut self.looker {
            looker.asked = looker.ask.send(()).ok().map(|()| Instant::now());
        }
    }

    fn take(&mut self, answer: Result<Option<GeoIp>, GeoIpError>) -> Look {
        let Some(looker) = &mut self.looker else { return Look::Unchanged };
        (looker.asked, looker.silent) = (None, None);
        match answer {
            Ok(None) => Look::Unchanged,
            Ok(Some(new)) => {
                looker.fault = None;
                self.current = Arc::new(new);
                Look::Reloaded
            }
            Err(error) => {
                looker.fault = Some(error);
                Look::Failed
            }
        }
    }

    /// As [`Watcher::look`], but waits for the answer.
    #[cfg(test)]
    pub(super) fn look_and_wait(&mut self) -> Look {
        self.ask();
        let Some(looker) = &self.looker else { return Look::Unchanged };
        let answer = looker.answers.recv().expect("an answer");
        self.take(answer)
    }
}
