//! Files that are replaced while the daemon runs: a thread of their own looks at them and reads them.
//!
//! A file system may never answer, so nothing waits for that thread, not even the end of the process.

use super::rights;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// A file system that has not answered by then is reported.
const PATIENCE: Duration = Duration::from_mins(1);

/// What differs when a file was changed: device, inode, size, and the times of the last change of content
/// and of inode, each in seconds and nanoseconds.
pub(crate) type Stamp = [u64; 7];

/// The stamp of a file that is open or was looked at.
pub(crate) fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
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

/// The stamp of a path now; `None` for one that cannot be found.
pub(crate) fn stamp_of(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().as_ref().map(stamp)
}

/// Why a file that is followed cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file system does not answer.
    #[error("its file system has not answered for {seconds} s; is it a network that is down?")]
    Silent {
        /// Since when.
        seconds: u64,
    },
    /// It was written during the read.
    #[error("the file changed while it was read; replace it by renaming a finished file over it")]
    Changing,
}

/// Files of which something is made.
pub trait Files: Debug + Send + 'static {
    /// What is made of them.
    type Value: Debug + Send + Sync + 'static;
    /// Why it cannot be made.
    type Error: Debug + Send + 'static;
    /// What an error names.
    type Name: Clone + Debug;
    /// Name of the thread.
    const THREAD: &'static str;

    /// What an error of these files names.
    fn name(&self) -> Self::Name;

    /// Reads the files, unless none of them has changed since they were read last: `None`. One state of the
    /// files is tried once.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood.
    fn news(&mut self) -> Result<Option<Self::Value>, Self::Error>;

    /// The error of files whose file system has not answered for so many seconds.
    fn silent(name: &Self::Name, seconds: u64) -> Self::Error;

    /// The error of files that no thread can be made for.
    fn no_thread(name: &Self::Name, error: io::Error) -> Self::Error;
}

/// The thread that looks at the files.
#[derive(Debug)]
struct Looker<F: Files> {
    name: F::Name,
    ask: Sender<()>,
    answers: Receiver<Result<Option<F::Value>, F::Error>>,
    /// When it was asked what it has not answered.
    asked: Option<Instant>,
    /// What keeps the files from being loaded.
    fault: Option<F::Error>,
    /// The file system does not answer.
    silent: Option<F::Error>,
}

impl<F: Files> Looker<F> {
    fn start(mut files: F) -> Result<Self, F::Error> {
        let name = files.name();
        let ((ask, questions), (tell, answers)) = (mpsc::channel(), mpsc::channel());
        rights::spawn(
            F::THREAD,
            move || {
                while questions.recv().is_ok() && tell.send(files.news()).is_ok() {}
            },
        )
        .map_err(|error| F::no_thread(&name, error))?;
        Ok(Self { name, ask, answers, asked: None, fault: None, silent: None })
    }
}

/// What has become of the files since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing that is known.
    Unchanged,
    /// They were read, and are in use.
    Reloaded,
    /// They cannot be read, for a new reason: [`Followed::fault`].
    Failed,
}

/// What is made of files, and made again when they change. Files that cannot be loaded leave what is in use.
#[derive(Debug)]
pub struct Followed<F: Files> {
    current: Arc<F::Value>,
    /// `None` as long as nothing can change.
    looker: Option<Looker<F>>,
}

impl<F: Files> Followed<F> {
    /// A value that was made of files, and these files; without files it stays.
    ///
    /// # Errors
    ///
    /// No thread can be made.
    pub fn new(value: F::Value, files: Option<F>) -> Result<Self, F::Error> {
        Ok(Self { current: Arc::new(value), looker: files.map(Looker::start).transpose()? })
    }

    /// What is in use.
    pub fn current(&self) -> &Arc<F::Value> {
        &self.current
    }

    /// Why what is in use is not what the files say, as long as that holds.
    pub fn fault(&self) -> Option<&F::Error> {
        self.looker.as_ref().and_then(|looker| looker.silent.as_ref().or(looker.fault.as_ref()))
    }

    /// Follows other files from now on; what is in use stays until they are read.
    ///
    /// # Errors
    ///
    /// No thread can be made; the files of before are followed still.
    pub fn follow(&mut self, files: F) -> Result<(), F::Error> {
        // The thread of before ends once it has answered.
        self.looker = Some(Looker::start(files)?);
        Ok(())
    }

    /// Takes over what the thread has found since the last call, and asks it to look again. It never waits,
    /// so it can be called at every drain.
    pub fn look(&mut self) -> Look {
        let Some(looker) = &mut self.looker else { return Look::Unchanged };
        if let Ok(answer) = looker.answers.try_recv() {
            let look = self.take(answer);
            self.ask();
            return look;
        }
        match looker.asked {
            Some(since) if looker.silent.is_none() && since.elapsed() > PATIENCE => {
                looker.silent = Some(F::silent(&looker.name, since.elapsed().as_secs()));
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

    fn take(&mut self, answer: Result<Option<F::Value>, F::Error>) -> Look {
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

    /// As [`Followed::look`], but waits for the answer.
    #[cfg(test)]
    pub(crate) fn look_and_wait(&mut self) -> Look {
        self.ask();
        let Some(looker) = &self.looker else { return Look::Unchanged };
        let answer = looker.answers.recv().expect("an answer");
        self.take(answer)
    }
}
