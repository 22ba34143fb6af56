//! What can be wrong with a configuration.

use super::origin::{DEFAULT_CONFIG, Origin};
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Nothing was touched before.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file `{}`{}", path.display(), way_to_read(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("the configuration file `{}` is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The configuration file sets something that does not exist.
    #[error("unknown key `{key}` in `{}`{}", path.display(), did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// The file.
        path: PathBuf,
        /// The nearest key that exists.
        suggestion: Option<String>,
    },
    /// A value cannot be used.
    #[error("{origin}: {reason}")]
    Value {
        /// Where the value was given, and the value.
        origin: Origin,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// More than one thing is wrong.
    #[error("{}", joined(.0))]
    Several(Vec<ConfigError>),
    /// Two values cannot both be meant.
    #[error("{first} contradicts {second}: {reason}")]
    Contradiction {
        /// Where the first was given, and its value.
        first: Box<Origin>,
        /// Where the second was given, and its value.
        second: Box<Origin>,
        /// Why they cannot both be, and the way out.
        reason: String,
    },
}

impl ConfigError {
    /// One error of several; `None` when there are none.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }

    /// Everything that is wrong, each for itself.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Several(errors) => errors,
            error => std::slice::from_ref(error),
        }
    }

    /// Whether the file that is read by default may not be read by this user.
    pub(super) fn is_default_for_others(&self) -> bool {
        matches!(self, Self::Read { path, source }
            if path == Path::new(DEFAULT_CONFIG) && source.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// The same, owned.
    pub(super) fn into_each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors,
            error => vec![error],
        }
    }
}

impl Origin {
    /// An error about this value.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value { origin: self.clone(), reason: reason.into() }
    }
}

fn joined(errors: &[ConfigError]) -> String {
    let texts: Vec<_> = errors.iter().map(|error| crate::error_chain(error)).collect();
    texts.join("; ")
}

fn way_to_read(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            ", which is for other users; run teiten as root, or give another file with --config (/dev/null for none)"
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput => {
            "; give a TOML file with --config (/dev/null for none)"
        }
        _ => "",
    }
}

pub(super) fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The candidate that `given` was most likely meant to be.
pub(super) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&given, &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .map(|(_, candidate)| candidate)
}
