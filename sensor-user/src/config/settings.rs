//! The three layers that settings come from, before anything is made of them: strings, and where
//! each was given.

use super::error::{ConfigError, nearest};
use super::keys::{CONFIG, KEYS, Key, SYSTEMD_SOCKET};
use super::origin::{DEFAULT_CONFIG, Origin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environment variable with the password of `teiten status`, which no flag takes, since all
/// processes can read flags.
pub const PASSWORD_VARIABLE: &str = "TEITEN_WEB_PASSWORD";

const CONFIG_VARIABLE: &str = "TEITEN_CONFIG";
/// Named to have no file at all, where another would be read by default.
const NO_FILE: &str = "/dev/null";

/// Whether a file is there, or may be there for all that this user may see: then reading it tells.
fn may_exist(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    !path.metadata().is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

/// The settings that the command line gives, as strings.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static Key, Vec<String>)>);

impl Flags {
    /// Asks for the values of every setting's flag.
    pub fn collect(mut given: impl FnMut(&Key) -> Vec<String>) -> Self {
        Self(KEYS.iter().map(|key| (key, given(key))).filter(|(_, values)| !values.is_empty()).collect())
    }

    /// Whether the flag of this setting is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key.name == name)
    }
}

/// What the process finds around itself: a parameter, so that tests need not change the process.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// The machine's name, the default of `--sensor-name`.
    pub host_name: String,
    /// The machine's time zone, the default of `--timezone`.
    pub timezone: jiff::tz::TimeZone,
}

impl Environment {
    /// This process's environment, with the installed sensor's file in it where that exists and no other
    /// is named. What is not UTF-8 in a value is replaced by U+FFFD, which no
    /// setting takes and which the message about it then shows.
    pub fn of_process() -> Self {
        let mut variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        let is_given = variables.get(CONFIG_VARIABLE).is_some_and(|value| !value.trim().is_empty());
        if !is_given && may_exist(Path::new(DEFAULT_CONFIG)) {
            variables.insert(CONFIG_VARIABLE.to_owned(), DEFAULT_CONFIG.to_owned());
        }
        let host_name = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "localhost".to_owned());
        // A machine without /etc/localtime keeps UTC, as its C library does.
        let timezone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
        Self { variables, host_name, timezone }
    }

    /// The same without a configuration file.
    #[must_use]
    pub(super) fn without_file(&self) -> Self {
        let mut environment = self.clone();
        environment.variables.insert(CONFIG_VARIABLE.to_owned(), NO_FILE.to_owned());
        environment
    }

    /// Variables that begin like Teiten's and set nothing, each with the nearest that exists. Not an
    /// error, since orchestrators put variables of their own (`TEITEN_SERVICE_HOST`) into
    /// containers, but worth a warning.
    pub fn unknown_variables(&self) -> Vec<(&str, Option<String>)> {
        let mut known: Vec<String> = KEYS.iter().map(Key::variable).collect();
        known.push(PASSWORD_VARIABLE.to_owned());
        self.variables
            .keys()
            .filter(|name| name.starts_with("TEITEN_") && !known.contains(name))
            .map(|name| (name.as_str(), nearest(name, known.iter().map(String::as_str)).map(str::to_owned)))
            .collect()
    }
}

/// The values of one key in the layer that decides, each with its origin.
type Values = Vec<Origin>;

/// All layers, merged: for each key the values of the topmost layer that has any.
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Values>,
    /// What is wrong in the file, of which the rest is read all the same.
    errors: Vec<ConfigError>,
}

impl Settings {
    /// Merges flags over the environment over the file that either names.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not TOML. What else is wrong in it is in the settings.
    pub(crate) fn gather(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (key, values) in &flags.0 {
            let origins =
                items(key, values).into_iter().map(|value| Origin::Flag { key: key.name, value }).collect();
            settings.values.insert(key.name, origins);
        }
        for key in &KEYS {
            let name = key.variable();
            // Service managers and compose files set variables to nothing to unset them.
            let value = environment.variables.get(&name).filter(|value| !value.trim().is_empty());
            if let (Some(value), false) = (value, settings.values.contains_key(key.name)) {
                let origins = items(key, std::slice::from_ref(value))
                    .into_iter()
                    .map(|value| Origin::Variable { name: name.clone(), value })
                    .collect();
                settings.values.insert(key.name, origins);
            }
        }
        if let Some(path) = settings.one(CONFIG).map(|origin| PathBuf::from(origin.value())) {
            for (key, origins) in read_file(&path, &mut settings.errors)? {
                settings.values.entry(key).or_insert(origins);
            }
        }
        Ok(settings)
    }

    /// What was wrong in the file.
    pub(super) fn take_errors(&mut self) -> Vec<ConfigError> {
        std::mem::take(&mut self.errors)
    }

    /// The value of a key that takes one.
    pub(crate) fn one(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).and_then(|values| values.first())
    }

    /// The values of a key that takes several.
    pub(crate) fn list(&self, key: &str) -> &[Origin] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Leaves out whatever a layer says about `key`, but for a flag.
    pub(crate) fn only_from_flag(&mut self, key: &str) {
        if !matches!(self.one(key), Some(Origin::Flag { .. })) {
            self.values.remove(key);
        }
    }
}

fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The items of a list: separated by commas. The ports of a group are too, so there an item without
/// `=` continues the group before it.
fn items(key: &Key, values: &[String]) -> Vec<String> {
    if !key.list {
        return values.to_vec();
    }
    let mut items: Vec<String> = Vec::new();
    for value in values {
        for (at, item) in value.split(',').enumerate() {
            match items.last_mut() {
                Some(group) if key.name == "port-group" && at > 0 && !item.contains('=') => {
                    group.push(',');
                    group.push_str(item.trim());
                }
                _ => items.push(item.trim().to_owned()),
            }
        }
    }
    items
}

/// A configuration file that is larger is none.
const MAX_BYTES: u64 = 16 << 20;

fn read_file(path: &Path, errors: &mut Vec<ConfigError>) -> Result<Vec<(&'static str, Values)>, ConfigError> {
    if path == Path::new(NO_FILE) {
        return Ok(Vec::new());
    }
    let text = crate::system::regular_file::read_to_string(path, MAX_BYTES)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: toml::Table = text
        .parse()
        .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let mut values = Vec::new();
    read_table(path, "", &table, &mut values, errors);
    Ok(values)
}

/// Reads `web.listen-address = …` and `[web] listen-address = …` alike.
fn read_table(
    path: &Path,
    prefix: &str,
    table: &toml::Table,
    values: &mut Vec<(&'static str, Values)>,
    errors: &mut Vec<ConfigError>,
) {
    for (name, value) in table {
        let dotted = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let known = key(&dotted).filter(|key| key.name != CONFIG);
        match (known, value) {
            (Some(key), value) => match file_values(path, key, value) {
                Ok(found) => values.push((key.name, found)),
                Err(error) => errors.push(error),
            },
            (None, toml::Value::Table(inner))
                if KEYS.iter().any(|key| key.name.starts_with(&format!("{dotted}."))) =>
            {
                read_table(path, &dotted, inner, values, errors);
            }
            (None, _) => {
                let candidates = KEYS.iter().map(|key| key.name).filter(|name| *name != CONFIG);
                errors.push(ConfigError::UnknownKey {
                    suggestion: nearest(&dotted.replace('_', "-"), candidates).map(str::to_owned),
                    key: dotted,
                    path: path.to_owned(),
                });
            }
        }
    }
}

fn file_values(path: &Path, key: &Key, value: &toml::Value) -> Result<Values, ConfigError> {
    let origin = |value: String| Origin::File { path: path.to_owned(), key: key.name, value };
    let wrong = |value: &toml::Value| {
        let expected = match key.name {
            "port-group" => "a list of strings `name=ports`, or a table of `name = \"ports\"`",
            SYSTEMD_SOCKET => "true or false",
            _ if key.list => "a string or a list of strings",
            _ => "a string or a number",
        };
        origin(value.to_string())
            .error(format!("this is {}, expected {expected}", with_article(value.type_str())))
    };
    let scalar = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(value) if key.name == SYSTEMD_SOCKET => Ok(value.to_string()),
        other => Err(wrong(other)),
    };
    let mut texts = Vec::new();
    match value {
        toml::Value::Array(array) if key.list => {
            for item in array {
                texts.push(scalar(item)?);
            }
        }
        toml::Value::Table(groups) if key.name == "port-group" => {
            for (name, ports) in groups {
                match ports {
                    toml::Value::Array(array) => {
                        let ports: Result<Vec<String>, _> = array.iter().map(scalar).collect();
                        texts.push(format!("{name}={}", ports?.join(",")));
                    }
                    ports => texts.push(format!("{name}={}", scalar(ports)?)),
                }
            }
        }
        value => texts.push(scalar(value)?),
    }
    Ok(items(key, &texts).into_iter().map(origin).collect())
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}
