//! What the staff write: Markdown at named places of the report.

use anyhow::{Context as _, Result, bail, ensure};
use sensor_common::{Slot, Transport};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

/// Where notes go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// After the headline.
    Intro,
    /// After what happened.
    Events,
    /// With the explanation of a port.
    Port(Slot),
    /// At the end of the page on how it was observed.
    Observation,
    /// At the end of the report.
    Contact,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intro => f.write_str("intro"),
            Self::Events => f.write_str("events"),
            Self::Port(slot) => write!(f, "port {slot}"),
            Self::Observation => f.write_str("observation"),
            Self::Contact => f.write_str("contact"),
        }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "intro" => Self::Intro,
            "events" => Self::Events,
            "observation" => Self::Observation,
            "contact" => Self::Contact,
            port => {
                let (number, transport) = port.strip_prefix("port ")?.trim().split_once('/')?;
                let transport = Transport::from_name(transport)?;
                let number: u16 = number.parse().ok()?;
                (u32::from(number) < transport.ports()).then(|| Self::Port(Slot::new(transport, number)))?
            }
        })
    }

    /// Whether the program has a text there that notes can replace.
    fn is_replaceable(&self) -> bool {
        matches!(self, Self::Intro | Self::Events | Self::Port(_))
    }
}

/// The text at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) markdown: String,
    /// Whether it takes the place of what the program has to say.
    pub(crate) replaces: bool,
}

/// The line that code begins with, by <https://spec.commonmark.org/0.31.2/#fenced-code-blocks>; in lists too.
#[derive(Clone, Copy)]
struct Fence {
    mark: char,
    length: usize,
}

impl Fence {
    fn begun_by(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let mark = line.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        // Three backticks with others after them are code within a line.
        (length >= 3 && (mark == '~' || !rest.contains('`'))).then_some(Self { mark, length })
    }

    fn is_closed_by(self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|c| c == self.mark)
    }
}

/// All notes.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<Place, Note>);

impl Notes {
    /// Reads a file. Every place must be one of `places`.
    pub(crate) fn read(path: &Path, places: &[Place]) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("--notes {}", path.display()))?;
        Self::parse(&text, places).with_context(|| format!("--notes {}", path.display()))
    }

    fn parse(text: &str, places: &[Place]) -> Result<Self> {
        let mut notes: BTreeMap<Place, Note> = BTreeMap::new();
        let mut place: Option<Place> = None;
        // The code that is open, and the line that it begins on.
        let mut open: Option<(Fence, usize)> = None;
        // What editors put at the begin of a text to say that it is Unicode.
        for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            let number = number + 1;
            let is_code = open.is_some();
            open = match open {
                Some((fence, _)) if fence.is_closed_by(line) => None,
                None => Fence::begun_by(line).map(|fence| (fence, number)),
                open => open,
            };
            let name = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            if let (false, Some(name)) = (is_code, name) {
                let (name, replaces) =
                    name.strip_suffix(" replace").map_or((name, false), |name| (name, true));
                let Some(found) = Place::parse(name.trim()).filter(|place| places.contains(place)) else {
                    let names: Vec<String> = places.iter().map(|place| format!("[{place}]")).collect();
                    bail!("line {number}: this report has no place [{name}]; it has {}", names.join(", "));
                };
                ensure!(
                    !replaces || found.is_replaceable(),
                    "line {number}: nothing can be replaced at [{found}]; write [{found}] to add to it"
                );
                let note = Note { markdown: String::new(), replaces };
                ensure!(
                    notes.insert(found.clone(), note).is_none(),
                    "line {number}: [{found}] is there twice; keep one of them"
                );
                place = Some(found);
            } else if let Some(note) = place.as_ref().and_then(|place| notes.get_mut(place)) {
                note.markdown.push_str(line);
                note.markdown.push('\n');
            } else {
                let comment = line.trim().is_empty() || line.starts_with('#');
                ensure!(
                    comment,
                    "line {number}: text before the first place; begin with a line like [intro]"
                );
            }
        }
        if let Some((Fence { mark, length }, number)) = open {
            let fence = mark.to_string().repeat(length);
            bail!("line {number}: the code that begins here does not end; end it with a line {fence}");
        }
        notes.retain(|_, note| !note.markdown.trim().is_empty() || note.replaces);
        Ok(Self(notes))
    }

    pub(crate) fn get(&self, place: &Place) -> Option<&Note> {
        self.0.get(place)
    }
}

/// A file with the places that a report has, to be filled in.
pub(crate) fn template(period: &str, places: &[Place]) -> String {
    let mut text = format!(
        "# Notes for the report of {period}\n# Write Markdown below a place. [NAME] adds to what the program writes there, [NAME \
         replace] takes\n# its place. A place without text changes nothing.\n"
    );
    for place in places {
        writeln!(text, "\n[{place}]").expect("memory");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<Place> {
        vec![
            Place::Intro,
            Place::Events,
            Place::Port(Slot::new(Transport::Udp, 5060)),
            Place::Observation,
            Place::Contact,
        ]
    }

    #[test]
    fn a_template_is_notes_that_change_nothing() {
        let text = template("2010-07", &places());
        assert!(text.contains("\n[port 5060/udp]\n"), "{text}");
        assert!(Notes::parse(&text, &places()).unwrap().0.is_empty());
    }

    #[test]
    fn notes_are_found_at_their_places() {
        let text = "# ours\n[intro]\nHello *there*.\n\n[port 5060/udp replace]\nSIP.\n```\n[contact]\n```\n";
        let notes = Notes::parse(text, &places()).unwrap();
        assert_eq!(notes.get(&Place::Intro).unwrap().markdown, "Hello *there*.\n\n");
        let port = notes.get(&places()[2]).unwrap();
        assert!(port.replaces && port.markdown.contains("[contact]"));
        assert_eq!(notes.get(&Place::Contact), None);
    }

    #[test]
    fn a_place_within_code_is_text_whatever_the_fence() {
        for (begin, end) in [
            ("```", "```"),
            ("~~~", "~~~"),
            ("~~~~ text", "~~~~~"),
            ("````\n```", "````"),
            ("~~~\n```", "~~~"),
        ] {
            let text = format!("[intro]\n{begin}\n[contact]\n{end}\n[events]\nHello.\n");
            let notes = Notes::parse(&text, &places()).unwrap();
            assert!(notes.get(&Place::Intro).unwrap().markdown.contains("[contact]"), "{text}");
            assert_eq!(notes.get(&Place::Events).unwrap().markdown, "Hello.\n", "{text}");
        }
        let notes = Notes::parse("[intro]\n```code``` in a line\n[contact]\nUs.\n", &places()).unwrap();
        assert_eq!(notes.get(&Place::Contact).unwrap().markdown, "Us.\n");
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        for begin in ["[intro]", "# ours\n[intro]"] {
            let notes = Notes::parse(&format!("\u{feff}{begin}\nHello.\n"), &places()).unwrap();
            assert_eq!(notes.get(&Place::Intro).unwrap().markdown, "Hello.\n");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_the_way_out() {
        for (text, message) in [
            ("[port 9999/udp]\n", "line 1: this report has no place [port 9999/udp]; it has [intro]"),
            ("hello\n", "line 1: text before the first place"),
            ("[intro]\na\n[intro]\nb\n", "line 3: [intro] is there twice"),
            (
                "[intro]\n~~~~\n[contact]\n~~~\n",
                "line 2: the code that begins here does not end; end it with a line ~~~~",
            ),
            ("[contact replace]\n", "nothing can be replaced at [contact]"),
        ] {
            let error = Notes::parse(text, &places()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
