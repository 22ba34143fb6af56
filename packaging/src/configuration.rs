//! `/etc/teiten/teiten.toml` of a package: every key as a comment, with its meaning and a value.

use clap::{Arg, Command};
use sensor_user::cli::{Cli, HelpParts};
use sensor_user::config::KEYS;
use std::fmt::Write as _;

const HEAD: &str = "\
# Configuration of teiten. Every command reads this file if no --config is given.
# Every key is shown as a comment with its default, or with an example where the default is not a value.
# `teiten check` says what these settings would do; `systemctl reload teiten` applies them.
# teiten-run(1) has the same options as flags and environment variables.
";

/// The heading of keys that only other commands read.
const COMMANDS: &str = "`teiten status` and `teiten replay`";

/// The file.
pub(crate) fn file() -> String {
    let mut text = HEAD.to_owned();
    let command = Cli::command_line();
    for heading in headings(&command) {
        let _ = write!(text, "\n# ---- {heading} ----\n");
        let of_heading = |arg: &&Arg| is_key(arg) && arg.get_help_heading().unwrap_or(COMMANDS) == heading;
        for arg in arguments(&command).filter(of_heading) {
            let name = arg.get_long().unwrap_or_default();
            text.push('\n');
            for line in wrapped(&meaning(arg)) {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "#{name} = {}", value(arg));
        }
    }
    text
}

/// The flags of `teiten run`, and those of other commands that a configuration file may hold.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let mut seen = Vec::new();
    let of = |name| command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    ["run", "status", "replay"].into_iter().flat_map(of).filter(move |arg| {
        let is_new = !seen.contains(&arg.get_long());
        seen.push(arg.get_long());
        is_new
    })
}

/// Headings in the order of the help text.
fn headings(command: &Command) -> Vec<&str> {
    let mut headings = Vec::new();
    for arg in arguments(command).filter(|arg| is_key(arg)) {
        let heading = arg.get_help_heading().unwrap_or(COMMANDS);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    headings
}

/// Whether the argument is a key of the file. The file cannot name itself.
fn is_key(arg: &Arg) -> bool {
    let long = arg.get_long();
    long != Some("config") && KEYS.iter().any(|key| Some(key.name) == long)
}

/// What the flag does; a default that is not a value is part of it.
fn meaning(arg: &Arg) -> String {
    let HelpParts { meaning: mut text, default, .. } = HelpParts::of(arg);
    if let Some(default) = default.filter(|default| literal(default).is_none()) {
        let _ = write!(text, ". Default: {default}");
    }
    text
}

/// A default as a value of TOML, when it is one.
fn literal(default: &str) -> Option<String> {
    let is_one = !default.contains([' ', ',']);
    is_one.then(|| {
        let is_bare = default.parse::<u64>().is_ok() || ["true", "false"].contains(&default);
        if is_bare { default.to_owned() } else { format!("{default:?}") }
    })
}

/// The default, or an example by the kind of value.
fn value(arg: &Arg) -> String {
    // Their defaults are words for nothing.
    match arg.get_long() {
        Some("archive-dir") => return "\"/var/lib/teiten/archive\"".to_owned(),
        Some("archive-keep") => return "[\"400d\", \"50GB\"]".to_owned(),
        Some("samples") => return "[\"1026-1030/udp\"]".to_owned(),
        _ => {}
    }
    if let Some(default) = HelpParts::of(arg).default.and_then(|default| literal(&default)) {
        return default;
    }
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let example = match (arg.get_long().unwrap_or_default(), kind) {
        ("interface", _) => "[\"eth0\"]",
        ("sensor-name", _) => "\"sensor-01\"",
        ("local", _) => "[\"192.0.2.1\"]",
        ("web.listen-address", _) => "[\"127.0.0.1:9477\"]",
        ("web.config.file", _) => "\"/etc/teiten/web.yml\"",
        ("web.user", _) => "\"alice\"",
        ("web.password-file", _) => "\"/etc/teiten/password\"",
        ("web.client-cert-file", _) => "\"/etc/teiten/client.pem\"",
        ("web.client-key-file", _) => "\"/etc/teiten/client.key\"",
        ("geoip", _) => "\"/var/lib/teiten-geoip/geoip\"",
        ("asn", _) => "\"/var/lib/teiten-geoip/asn.mmdb\"",
        ("feature", _) => "[\"445/tcp\", \"8/icmp\"]",
        (_, "CIDR") => "[\"192.0.2.0/24\"]",
        (_, "PORT/PROTO") => "[\"22/tcp\"]",
        ("source-list", _) => "[\"research=/etc/teiten/research.txt\"]",
        (_, "NAME=LIST") => "[\"messenger=1026-1039/udp\"]",
        (_, "ZONE") => "\"Asia/Tokyo\"",
        (_, "BOOL") => "false",
        (long, _) => panic!("no example for the key {long}"),
    };
    example.to_owned()
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + word.len() < 98 {
            let _ = write!(line, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_user::config::{Config, Environment, Flags};

    /// The lines that set a key.
    fn settings() -> Vec<String> {
        let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        file().lines().filter(is_setting).map(|line| line[1..].to_owned()).collect()
    }

    #[test]
    fn every_key_is_there_once() {
        let table: toml::Table = settings().join("\n").parse().unwrap();
        for key in KEYS.iter().filter(|key| key.name != "config") {
            let found = key
                .name
                .split('.')
                .try_fold(toml::Value::Table(table.clone()), |value, part| value.get(part).cloned());
            assert!(found.is_some(), "{}", key.name);
        }
    }

    #[test]
    fn every_line_is_valid_when_its_mark_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("teiten.toml");
        let environment =
            Environment { variables: std::collections::BTreeMap::new(), ..Environment::of_process() };
        // Sockets must be passed to the process, and the files of the examples are not here.
        let elsewhere = ["web.systemd-socket", "geoip", "asn", "web.config.file"];
        let here = settings().into_iter().filter(|line| !elsewhere.iter().any(|key| line.starts_with(key)));
        // A user needs a password, and a certificate its key.
        let client = ["web.user", "web.password-file", "web.client-cert-file", "web.client-key-file"];
        let (together, mut alone): (Vec<_>, Vec<_>) =
            here.partition(|line| client.iter().any(|key| line.starts_with(key)));
        alone.push(together.join("\n"));
        for line in alone {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let flags = Flags::collect(|key| match key.name {
                "config" => vec![path.display().to_string()],
                _ => Vec::new(),
            });
            if let Err(error) = Config::load(&flags, &environment) {
                panic!("{line}: {error}");
            }
        }
    }
}
