//! What else an operator should know: a fallback, a failure, a limit that is reached.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A sentence for the operator. As JSON it is the English text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Note {
    english: String,
    /// What it is about; details may be in the English text alone.
    japanese: Option<String>,
}

impl Note {
    /// A note in both languages.
    pub fn new(english: impl Into<String>, japanese: impl Into<String>) -> Self {
        Self { english: english.into(), japanese: Some(japanese.into()) }
    }

    /// In Japanese, unless it was read from JSON.
    pub fn japanese(&self) -> Option<&str> {
        self.japanese.as_deref()
    }
}

impl From<String> for Note {
    fn from(english: String) -> Self {
        Self { english, japanese: None }
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.english
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_json_it_is_its_english_text() {
        let note = Note::new("eth0 is slow", "eth0 は低速です");
        let json = serde_json::to_string(&[&note]).unwrap();
        assert_eq!(json, r#"["eth0 is slow"]"#);
        let [read] = serde_json::from_str::<[Note; 1]>(&json).unwrap();
        assert_eq!((read.to_string(), read.japanese()), (note.to_string(), None));
    }
}
