//! What a command writes.

use nix::sys::signal::{SigHandler, Signal, signal};
use std::fmt::Display;
use std::io::{self, StdoutLock, Write};

/// Standard output, whose errors name it.
#[derive(Debug)]
pub struct Output(StdoutLock<'static>);

impl Output {
    /// Locks it.
    pub fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

fn named(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    io::Error::new(error.kind(), format!("standard output cannot be written: {error}"))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

/// Lets a closed pipe end this process silently, as it ends other programs. Rust ignores the signal, which is right
/// for a daemon alone.
pub fn end_by_closed_pipes() {
    // SAFETY: the default action runs no code of this process.
    let result = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    result.expect("SIGPIPE can be set to its default");
}

/// Writes a line to standard error. It may be lost: a full disk or a reader that is gone does not end the
/// work that it tells of.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
