//! Where values come from.

use std::fmt;
use std::path::PathBuf;

/// Read by every command when it exists and no other file is named.
pub const DEFAULT_CONFIG: &str = "/etc/teiten/teiten.toml";

/// Where a value was given, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag {
        /// The key's name.
        key: &'static str,
        /// As given.
        value: String,
    },
    /// In the environment.
    Variable {
        /// The variable.
        name: String,
        /// As given, of a list the item.
        value: String,
    },
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The key's name.
        key: &'static str,
        /// As given.
        value: String,
    },
    /// Nowhere: it is the default.
    Default {
        /// The key's name.
        key: &'static str,
        /// The default.
        value: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { key, value } => write!(f, "`--{key} {value}`"),
            Self::Variable { name, value } => write!(f, "`{name}={value}` in the environment"),
            Self::File { path, key, value } => write!(f, "`{key} = {value}` in `{}`", path.display()),
            Self::Default { key, value } => write!(f, "the default `--{key} {value}`"),
        }
    }
}

impl Origin {
    /// The value as given, without space around it.
    pub(crate) fn value(&self) -> &str {
        match self {
            Self::Flag { value, .. }
            | Self::Variable { value, .. }
            | Self::File { value, .. }
            | Self::Default { value, .. } => value.trim(),
        }
    }
}
