//! `docs/configuration.md`, from the definition of the command line and the keys.

use clap::{Arg, ArgAction, Command};
use sensor_user::cli::{Cli, HelpParts};
use sensor_user::config::{KEYS, Key};
use std::fmt::Write as _;

/// The tables of all commands.
pub(crate) fn generated() -> String {
    let mut text = String::new();
    let mut known = Vec::new();
    let command = Cli::command_line();
    for name in ["run", "replay", "check", "status", "sources", "detach", "ledger", "samples"] {
        let command = command.find_subcommand(name).expect("a command");
        section(&mut text, &mut known, &format!("teiten {name}"), command);
        for inner in command.get_subcommands() {
            section(&mut text, &mut known, &format!("teiten {name} {}", inner.get_name()), inner);
        }
    }
    text
}

/// One command. `known` are the groups of flags that have a table already.
fn section(text: &mut String, known: &mut Vec<String>, title: &str, command: &Command) {
    let about = command.get_about().expect("a command says what it does").to_string();
    let _ = writeln!(text, "## `{title}`\n\n{}.\n", escaped(&about));
    if let Some(long) = command.get_long_about().map(ToString::to_string) {
        let more = long.strip_prefix(&about).unwrap_or(&long).trim();
        let _ = writeln!(text, "{}\n", escaped(more));
    }
    if title == "teiten check" {
        return;
    }
    let arguments: Vec<&Arg> = command.get_arguments().collect();
    for argument in arguments.iter().filter(|argument| argument.is_positional()) {
        let _ = writeln!(text, "`{}`: {}.\n", argument.get_id(), words(argument).meaning);
    }
    let flags: Vec<&Arg> = arguments.into_iter().filter(|argument| argument.get_long().is_some()).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for flag in &flags {
        if !headings.contains(&flag.get_help_heading()) {
            headings.push(flag.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            if known.iter().any(|known| known == heading) {
                let _ = writeln!(text, "The options of *{heading}* are those of `teiten run`.\n");
                continue;
            }
            known.push(heading.to_owned());
            let _ = writeln!(text, "### {heading}\n");
        }
        table(text, title, flags.iter().filter(|flag| flag.get_help_heading() == heading));
    }
}

/// A table of flags, without columns that would be empty.
fn table<'a>(text: &mut String, title: &str, flags: impl Iterator<Item = &'a &'a Arg>) {
    let mut rows = vec![["flag", "meaning", "default", "environment", "reload"].map(str::to_owned)];
    rows.extend(flags.map(|flag| row(title, flag)));
    let has: [bool; 5] = std::array::from_fn(|column| rows[1..].iter().any(|row| !row[column].is_empty()));
    for (index, row) in rows.iter().enumerate() {
        for (cell, _) in row.iter().zip(has).filter(|(_, has)| *has) {
            let _ = write!(text, "| {cell} ");
        }
        text.push_str("|\n");
        if index == 0 {
            let _ = writeln!(text, "{}|", "|---".repeat(has.iter().filter(|has| **has).count()));
        }
    }
    text.push('\n');
}

fn row(title: &str, flag: &Arg) -> [String; 5] {
    let long = flag.get_long().expect("a flag");
    let value = match (flag.get_action(), flag.get_value_names()) {
        (ArgAction::SetTrue, _) | (_, None) => String::new(),
        (_, Some(names)) => format!(" {}", names.join(" ")),
    };
    let HelpParts { meaning, default, variable } = words(flag);
    let key: Option<&Key> = KEYS.iter().find(|key| key.name == long && title == "teiten run");
    let reload = key.map_or("", |key| if key.reloadable { "yes" } else { "restart" });
    [
        format!("`--{long}{value}`"),
        meaning,
        default.unwrap_or_default(),
        variable.map_or_else(String::new, |variable| format!("`{variable}`")),
        reload.to_owned(),
    ]
}

/// The parts of an argument's help, as cells of a table.
fn words(argument: &Arg) -> HelpParts {
    let HelpParts { meaning: mut help, mut default, variable } = HelpParts::of(argument);
    if let Some(long) = argument.get_long_help().map(ToString::to_string)
        && let Some((_, more)) = long.split_once("\n\n")
    {
        let _ = write!(help, ". {}", more.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        let _ = write!(help, ": `{}`", names.join("`, `"));
    }
    if let [value] = argument.get_default_values()
        && default.is_none()
        && argument.get_action().takes_values()
    {
        default = Some(value.to_string_lossy().into_owned());
    }
    HelpParts { meaning: escaped(&help), default: default.map(|default| escaped(&default)), variable }
}

/// A text as a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
