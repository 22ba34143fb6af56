//! What the pages name is there: links, their headings, and paths of the repository.

use super::{read, tracked};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

/// What was true once, and what others wrote.
pub(super) const OTHERS: [&str; 3] = ["CHANGELOG.md", "THIRD-PARTY.md", "report/THIRD-PARTY.md"];

/// Looks at every page.
///
/// # Errors
///
/// Names each link and path that leads nowhere.
pub(super) fn check() -> Result<()> {
    let files: BTreeSet<String> = tracked(&["*"])?.into_iter().collect();
    let mut broken = String::new();
    for page in files.iter().filter(|name| is_page(name)) {
        let text = read(page)?;
        for (number, line) in outside_of_code(&text) {
            for link in links(line) {
                if let Some(why) = broken_link(page, link, &files)? {
                    let _ = writeln!(broken, "{page}:{number}: {link}: {why}");
                }
            }
            for path in line.split('`').skip(1).step_by(2).filter(|span| is_path(span, &files)) {
                if !is_there(path, &files) {
                    let _ = writeln!(broken, "{page}:{number}: `{path}` is not in the repository");
                }
            }
        }
    }
    ensure!(broken.is_empty(), "pages name what is not there:\n{broken}");
    Ok(())
}

fn is_page(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md") && !OTHERS.contains(&name)
}

/// The lines with their numbers, without those of code blocks.
pub(super) fn outside_of_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// The targets of links within the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://"))
}

/// Why a link of a page leads nowhere.
fn broken_link(page: &str, link: &str, files: &BTreeSet<String>) -> Result<Option<String>> {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        normal(&Path::new(page).parent().unwrap_or(Path::new("")).join(path))
    };
    if !is_there(&target, files) {
        return Ok(Some("no such file".to_owned()));
    }
    if heading.is_empty() || !is_page(&target) {
        return Ok(None);
    }
    let text = read(&target)?;
    let mut headings = outside_of_code(&text).filter_map(|(_, line)| line.strip_prefix('#'));
    let is_it = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
    Ok((!is_it).then(|| format!("{target} has no such heading")))
}

/// Without `..`.
fn normal(path: &Path) -> String {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal.to_string_lossy().into_owned()
}

/// The anchor that GitHub makes of a heading.
pub(super) fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether a code span is a path of the repository: its first part is a directory of it.
fn is_path(span: &str, files: &BTreeSet<String>) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let Some((first, rest)) = span.split_once('/') else { return false };
    !rest.is_empty()
        && span.chars().all(is_plain)
        && files.iter().any(|file| file.split_once('/').is_some_and(|(directory, _)| directory == first))
}

/// Whether a file or a directory is there; of what is built, whether its directory is.
fn is_there(path: &str, files: &BTreeSet<String>) -> bool {
    let path = path.trim_end_matches('/');
    files.contains(path) || files.iter().any(|file| file.starts_with(&format!("{path}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_anchors_that_github_makes() {
        assert_eq!(anchor(" The life of a generation"), "the-life-of-a-generation");
        assert_eq!(anchor(" `teiten ledger days --json`"), "teiten-ledger-days---json");
        assert_eq!(anchor(" Stop, restart, upgrade"), "stop-restart-upgrade");
    }

    #[test]
    fn links_and_paths_are_told_from_other_text() {
        let line = "see [a](docs/a.md#b) and [web](https://example.org/), `xtask/src`, `tcp/udp`, `a b/c`";
        assert_eq!(links(line).collect::<Vec<_>>(), ["docs/a.md#b"]);
        let files = BTreeSet::from(["xtask/src/lint.rs".to_owned(), "docs/a.md".to_owned()]);
        let spans: Vec<&str> =
            line.split('`').skip(1).step_by(2).filter(|span| is_path(span, &files)).collect();
        assert_eq!(spans, ["xtask/src"]);
        assert!(
            is_there("xtask/src", &files) && is_there("docs/", &files) && !is_there("xtask/lint.rs", &files)
        );
        assert_eq!(normal(Path::new("docs/../xtask/src")), "xtask/src");
    }
}
