//! Words that readers of this field stumble over, and what is written instead: in the pages, and in the
//! comments of Rust sources.

use super::{links, tracked};
use anyhow::{Context as _, Result, ensure};
use lab::command::root;
use std::fmt::Write as _;
use std::path::Path;

/// Words in lower case, and their replacement.
const RETIRED: &[(&str, &str)] = &[
    ("octet", "byte"),
    ("octets", "bytes"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("anew", "again"),
    ("besides", "also, apart from"),
    ("whoever", "name who"),
    ("nobody", "no one, or name what is missing"),
    ("somebody", "someone, or name who"),
    ("stranger", "remote host"),
    ("strangers", "remote hosts"),
    ("is told", "gets, learns, is reported"),
    ("are told", "get, learn, are reported"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("for want of", "because there is no"),
    ("slip of the pen", "typo"),
];

/// This list.
const LEFT_OUT: &str = "xtask/src/lint/words.rs";

/// Looks for retired words.
///
/// # Errors
///
/// Names each line that has one, and what to write instead.
pub(super) fn check() -> Result<()> {
    let mut found = String::new();
    for name in tracked(&["*.rs", "*.md"])? {
        if name == LEFT_OUT || links::OTHERS[1..].contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&name)).with_context(|| format!("read {name}"))?;
        let is_rust = Path::new(&name).extension().is_some_and(|extension| extension == "rs");
        let prose: Vec<(usize, &str)> = if is_rust {
            text.lines().enumerate().map(|(index, line)| (index + 1, comment(line))).collect()
        } else {
            links::outside_of_code(&text).collect()
        };
        for (number, line) in prose {
            for (word, instead) in retired(line) {
                let _ = writeln!(found, "{name}:{number}: `{word}`: write {instead}");
            }
        }
    }
    ensure!(found.is_empty(), "retired words; plain words read faster:\n{found}");
    Ok(())
}

/// The comment of a line of Rust; empty when it has none.
fn comment(line: &str) -> &str {
    let mut begins = line.match_indices("//").map(|(at, _)| at);
    // Within a string the number of quotation marks before it is odd.
    let at = begins.find(|at| line[..*at].matches('"').count().is_multiple_of(2));
    at.map_or("", |at| &line[at..])
}

/// The retired words in a text, without those in code spans.
fn retired(text: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words: Vec<String> = prose
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    RETIRED.iter().filter(move |(retired, _)| {
        let retired: Vec<&str> = retired.split(' ').collect();
        words.windows(retired.len()).any(|window| window == retired.as_slice())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&'static str> {
        retired(text).map(|(word, _)| *word).collect()
    }

    #[test]
    fn retired_words_are_found_whatever_their_case() {
        assert_eq!(found("/// Octets of a frame, mended."), ["octets", "mended"]);
        assert_eq!(found("the sensor is told of it, and goes on"), ["is told", "goes on"]);
    }

    #[test]
    fn other_words_and_code_are_left_alone() {
        for text in ["recommend it", "this told, is it?", "`address.octets()` of bytes"] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn only_the_comment_of_a_line_is_prose() {
        assert_eq!(comment("let octets = 1; // of bytes"), "// of bytes");
        assert_eq!(comment(r#"let url = "http://octets.example";"#), "");
        assert_eq!(comment("let octets = 1;"), "");
    }
}
