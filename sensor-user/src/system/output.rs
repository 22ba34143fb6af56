//! What a command writes.

use nix::sys::signal::{SigHandler, Signal, signal};
use std::borrow::Cow;
use std::fmt::{Display, Write as _};
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

/// Writes a line to standard error, as [`visible`] makes it. It may be lost: a full disk or a reader that is gone
/// does not end the work that it reports.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", visible(&line.to_string()));
}

/// Whether a terminal obeys the character instead of showing it: the control characters but the ends of lines and
/// tabs, and those that turn the direction of what follows.
fn is_obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns
}

/// A text that may hold what foreign files, names and packets hold, with what a terminal would obey named:
/// `\u001b`, which stays JSON within a string of JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_named_and_the_rest_stays() {
        assert_eq!(
            visible("a\u{1b}[31m\u{9b}2Jb\u{7f}\r\u{8}\u{202e}c\u{2066}"),
            "a\\u001b[31m\\u009b2Jb\\u007f\\u000d\\u0008\\u202ec\\u2066"
        );
        let kept = "一覧 `é` – ✓\n\tline 2: 👩\u{200d}🚀";
        assert!(matches!(visible(kept), Cow::Borrowed(text) if text == kept));
    }

    #[test]
    fn json_stays_json() {
        let line = serde_json::json!({ "message": "a\u{1b}\u{7f}\u{9b}\u{202e}" }).to_string();
        let shown = visible(&line);
        assert!(!shown.contains(is_obeyed), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap()["message"],
            "a\u{1b}\u{7f}\u{9b}\u{202e}"
        );
    }
}
