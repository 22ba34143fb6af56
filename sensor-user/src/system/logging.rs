//! The log: to standard error, as lines for people or as JSON.

use crate::system::output;
use crate::system::terminal::Terminal;
use jiff::Timestamp;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::level_filters::LevelFilter;
use tracing_log::AsLog;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Changes the filter of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

/// The log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("the log filter `{filter}` is not valid")]
    Filter {
        /// As given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process has a log already.
    #[error("the log of this process is set up already")]
    Again(#[from] tracing_subscriber::util::TryInitError),
    /// The log is gone.
    #[error("the log takes no new filter")]
    Reload(#[from] reload::Error),
}

/// What goes before the filter as given: libraries that warn of every connection that a client abuses.
/// A directive for the same target beats it.
const QUIET: &str = "h2=error,hyper=error,hyper_util=error,rustls=error,tokio_rustls=error";

fn filter(text: &str) -> Result<Targets, LogError> {
    format!("{QUIET},{text}").parse().map_err(|source| LogError::Filter { filter: text.to_owned(), source })
}

/// Sets up the log of this process; `log`'s records, which aya writes, go to it too. Colours only on a
/// terminal.
///
/// # Errors
///
/// The filter is not valid, or the process has a log already.
pub fn init(format: LogFormat, level: &str) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let colours = format == LogFormat::Text && Terminal::of_process(io::stderr().is_terminal()).colours;
    let lines = fmt::layer().with_writer(move || LogWriter { to: io::stderr(), colours });
    match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(colours)).try_init()?;
        }
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true)).try_init()?;
            IS_JSON.store(true, Ordering::Relaxed);
        }
    }
    Ok(LogHandle(handle))
}

/// Writes lines of the log as [`output::visible`] makes them; colours, which the log itself puts there, stay.
struct LogWriter<W> {
    to: W,
    colours: bool,
}

impl<W: Write> Write for LogWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &*text;
        while let Some((begin, end)) = colour(rest).filter(|_| self.colours) {
            self.to.write_all(output::visible(&rest[..begin]).as_bytes())?;
            self.to.write_all(&rest.as_bytes()[begin..end])?;
            rest = &rest[end..];
        }
        self.to.write_all(output::visible(rest).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the first sequence is that sets colours (ECMA-48, SGR).
fn colour(text: &str) -> Option<(usize, usize)> {
    text.match_indices("\u{1b}[").find_map(|(begin, mark)| {
        let inner = &text[begin + mark.len()..];
        let length = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
        inner[length..].starts_with('m').then_some((begin, begin + mark.len() + length + 1))
    })
}

/// Whether the log of this process is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether this process logs as JSON, or, before its log is set up, a flag or the environment asks for that.
fn is_json() -> bool {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let by_flag = arguments.iter().any(|argument| argument == "--log-format=json")
        || arguments.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    let by_variable = std::env::var_os("TEITEN_LOG_FORMAT").is_some_and(|format| format == "json");
    IS_JSON.load(Ordering::Relaxed) || by_flag || by_variable
}

/// Tells of an error on standard error, in the form of the log, whether that is set up or not.
pub fn tell(error: &str) {
    if is_json() {
        let line = serde_json::json!({
            "timestamp": Timestamp::now(), "level": "ERROR", "message": error, "target": "teiten",
        });
        output::say(line);
    } else {
        output::say(format_args!("teiten: {error}"));
    }
}

impl LogHandle {
    /// Takes a new level and filters, like `info,sensor_user::drain=debug`.
    ///
    /// # Errors
    ///
    /// The filter is not valid; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(filter(level)?)?;
        // `log` has a ceiling of its own, which `init` set for the first filter.
        log::set_max_level(LevelFilter::current().as_log());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of one warning and one error of each target, with this filter.
    fn written(level: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().without_time().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(filter(level).unwrap()).with(lines),
            || {
                tracing::warn!(target: "h2::proto", "w");
                tracing::error!(target: "h2::proto", "e");
                tracing::warn!(target: "sensor_user::web", "w");
            },
        );
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_log_names_what_a_terminal_obeys_and_keeps_its_own_colours() {
        let of = |colours| {
            let written = Written::default();
            let writer = written.clone();
            let lines = fmt::layer()
                .without_time()
                .with_ansi(colours)
                .with_writer(move || LogWriter { to: writer.clone(), colours });
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                tracing::warn!(file = %"a\u{1b}]0;b\u{9b}2J", "c");
            });
            String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
        };
        let plain = of(false);
        assert!(plain.contains("file=a\\u001b]0;b\\u009b2J") && !plain.contains('\u{1b}'), "{plain}");
        let rich = of(true);
        assert!(rich.contains("\u{1b}[33m WARN\u{1b}[0m") && rich.contains("a\\u001b]0;b"), "{rich}");
        assert!(!rich.contains("\u{1b}]") && !rich.contains('\u{9b}'), "{rich}");
    }

    #[test]
    fn libraries_warn_only_when_asked_to() {
        assert_eq!(written("info"), "ERROR h2::proto: e\n WARN sensor_user::web: w\n");
        assert_eq!(written("error"), "ERROR h2::proto: e\n");
        assert_eq!(
            written("info,h2=warn"),
            " WARN h2::proto: w\nERROR h2::proto: e\n WARN sensor_user::web: w\n"
        );
    }
}
