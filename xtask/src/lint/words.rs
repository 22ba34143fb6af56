//! Words that readers of this field stumble over, and what is written instead: in the pages, and in the
//! comments and messages of Rust sources.

use super::{links, read, tracked};
use anyhow::{Result, ensure};
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
    ("goes on", "continues"),
    ("go on", "continue"),
    ("told", "reported, known, distinguished, or gets, learns"),
    ("untold", "not reported"),
    ("stands", "is, means"),
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
        let text = read(&name)?;
        let is_rust = Path::new(&name).extension().is_some_and(|extension| extension == "rs");
        let prose: Vec<(usize, String)> = if is_rust {
            prose(&text)
        } else {
            links::outside_of_code(&text).map(|(number, line)| (number, line.to_owned())).collect()
        };
        for (number, line) in &prose {
            for (word, instead) in retired(line) {
                let _ = writeln!(found, "{name}:{number}: `{word}`: write {instead}");
            }
        }
    }
    ensure!(found.is_empty(), "retired words; plain words read faster:\n{found}");
    Ok(())
}

/// The comments and the string literals of Rust, each with the line that it begins on; of literals without
/// what is in braces.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (prose, length) = match first {
            '/' if rest.starts_with("//") => {
                let length = rest.find('\n').unwrap_or(rest.len());
                (Some(rest[..length].to_owned()), length)
            }
            '"' => {
                let length = literal(rest, 0);
                (Some(without_braces(&rest[1..length - 1])), length)
            }
            'r' if rest[1..].trim_start_matches('#').starts_with('"') => {
                let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
                let length = 1 + hashes + literal(&rest[1 + hashes..], hashes);
                (Some(without_braces(&rest[1 + hashes..length - hashes])), length)
            }
            // A character, which may be a quotation mark; what else begins so is a lifetime.
            '\'' if rest.starts_with("'\\") => (None, rest[3..].find('\'').map_or(2, |at| at + 4)),
            '\'' if rest.chars().nth(2) == Some('\'') => {
                (None, 2 + rest.chars().nth(1).map_or(0, char::len_utf8))
            }
            // Not to take the end of a word for the beginning of a raw string.
            c if c.is_alphanumeric() => {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (None, length)
            }
            c => (None, c.len_utf8()),
        };
        found.extend(prose.map(|prose| (line, prose)));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// Length of the string literal that `text` begins with, quotation marks included; of a raw one with `hashes`
/// also those.
fn literal(text: &str, hashes: usize) -> usize {
    let is_raw = hashes > 0;
    let end = format!("\"{}", "#".repeat(hashes));
    let mut at = 1;
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(&end) {
            return at + end.len();
        }
        at += c.len_utf8();
        if c == '\\' && !is_raw {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

/// Without the names of values in a message.
fn without_braces(message: &str) -> String {
    let mut depth = 0_usize;
    message
        .chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && *c != '}'
        })
        .collect()
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
    fn the_pages_and_sources_keep_to_it() {
        check().unwrap();
    }

    #[test]
    fn retired_words_are_found_whatever_their_case() {
        assert_eq!(found("/// Octets of a frame, mended."), ["octets", "mended"]);
        assert_eq!(found("the sensor is told of it, and goes on"), ["goes on", "told"]);
    }

    #[test]
    fn other_words_and_code_are_left_alone() {
        for text in ["recommend it", "it is on, goes", "`address.octets()` of bytes"] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn comments_and_messages_are_prose() {
        let of = |text| prose(text).into_iter().map(|(_, prose)| prose).collect::<Vec<_>>();
        assert_eq!(of("let octets = 1; // of bytes"), ["// of bytes"]);
        assert_eq!(of(r#"let url = "http://octets.example";"#), ["http://octets.example"]);
        assert_eq!(of(r#"let octets = ['"', '\'', b'"']; f("a \"b\" {told:?}")"#), [r#"a \"b\" "#]);
        assert_eq!(of(r##"for r in 'a: f(r#"x "y" // z"#)"##), [r#""x "y" // z""#]);
        assert_eq!(prose("\"a\nb\"\n// c"), [(1, "a\nb".to_owned()), (3, "// c".to_owned())]);
    }
}
