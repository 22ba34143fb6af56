//! The log: to standard error, as lines for people or as JSON.

use crate::config::LogFormat;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_log::AsLog;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the filter of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

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

fn filter(text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(text).map_err(|source| LogError::Filter { filter: text.to_owned(), source })
}

/// Sets up the log of this process; `log`'s records (the kernel side's among them, through
/// aya-log) go to it too. Colours only on a terminal.
///
/// # Errors
///
/// The filter is not valid, or the process has a log already.
pub fn init(format: LogFormat, level: &str) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(lines.with_ansi(colours)).try_init()?;
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(LogHandle(handle))
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
