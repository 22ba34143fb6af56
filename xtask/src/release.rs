//! `cargo xtask release --dry-run`: whether this commit can be tagged as a release. Each check says in one line what
//! it saw.

use crate::package::{self, Architecture};
use crate::report::{Outcome, Report};
use crate::{dashboards, docs, ebpf, licenses, lint};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use lab::{build, command};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options of `cargo xtask release`.
#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// Check, and change nothing outside the directory of built files
    #[arg(long, required = true)]
    dry_run: bool,
    /// Look at the packages in DIR instead of making them
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

/// Checks everything, and prints a line for each check.
///
/// # Errors
///
/// A check failed.
pub fn run(arguments: &ReleaseArgs) -> Result<()> {
    let root = command::root();
    let mut report = Report::default();
    report.step("tree", || seen(tree(root)));
    report.step("versions", || seen(versions(root)));
    report.step("object", || seen(object()));
    report.step("pages", || seen(pages()));
    report.step("licences", || seen(licenses::generate(true).map(|()| "the lists are current".into())));
    report.step("dependencies", || match command::find("cargo-deny") {
        Some(_) => lint::dependencies(),
        None => Outcome::Failed("cargo-deny is not installed; `cargo install --locked cargo-deny`".into()),
    });
    let directory = match &arguments.packages {
        Some(directory) => directory.clone(),
        None => build::target_directory()?.join("package"),
    };
    report.step("packages", || seen(made(arguments.packages.is_none(), &directory)));
    report.step("SBOM", || seen(bills(root, &directory)));
    println!("\n{report}");
    ensure!(report.is_good(), "this commit cannot be released as {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn seen(result: Result<String>) -> Outcome {
    match result {
        Ok(seen) => Outcome::Passed(seen),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn git(root: &Path, arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*"]).args(arguments).current_dir(root);
    Ok(command::output(&mut git)?.trim_end().to_owned())
}

/// Everything is committed.
fn tree(root: &Path) -> Result<String> {
    let changed = git(root, &["status", "--porcelain"])?;
    let names: Vec<&str> = changed.lines().map(|line| line.get(3..).unwrap_or(line)).collect();
    ensure!(names.is_empty(), "not committed: {}", names.join(", "));
    Ok(format!("commit {}", git(root, &["log", "-1", "--format=%h of %cs"])?))
}

/// The version is the same wherever it is written, and new.
fn versions(root: &Path) -> Result<String> {
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("read {name}"));
    let manifest: toml::Table = read("Cargo.toml")?.parse().context("read Cargo.toml")?;
    let version = manifest["workspace"]["package"]["version"].as_str();
    let version = version.context("read `workspace.package.version` in Cargo.toml")?;
    let lock: toml::Table = read("Cargo.lock")?.parse().context("read Cargo.lock")?;
    let packages = lock["package"].as_array().context("read the packages in Cargo.lock")?;
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    // Those of the workspace have no source.
    let own = packages.iter().filter(|package| package.get("source").is_none());
    let other: Vec<String> = own
        .clone()
        .filter(|package| text(package, "version") != version)
        .map(|package| format!("{} {}", text(package, "name"), text(package, "version")))
        .collect();
    ensure!(other.is_empty(), "not {version} in Cargo.lock: {}", other.join(", "));
    let changelog = read("CHANGELOG.md")?;
    let date = changelog_date(&changelog, version)?;
    let debian = package::changelog(version, "Thu, 01 Jan 1970 00:00:00 +0000");
    ensure!(
        debian.starts_with(&format!("teiten ({version}) ")),
        "Debian's changelog begins with {:?}",
        debian.lines().next().unwrap_or_default()
    );
    let tag = format!("v{version}");
    if !git(root, &["tag", "--list", &tag])?.is_empty() {
        let [tagged, head] =
            [format!("{tag}^{{commit}}"), "HEAD".to_owned()].map(|of| git(root, &["rev-parse", &of]));
        ensure!(tagged? == head?, "the tag {tag} is of another commit");
    }
    Ok(format!(
        "{version} in Cargo.toml, {} crates and the packages; CHANGELOG.md has it, of {date}",
        own.count()
    ))
}

/// The date of the section of `version`, which is the first one with lines.
fn changelog_date<'a>(changelog: &'a str, version: &str) -> Result<&'a str> {
    let mut sections =
        changelog.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
    let (heading, _) = sections
        .find(|(_, lines)| !lines.trim().is_empty())
        .context("CHANGELOG.md has no section with lines")?;
    let date = heading.strip_prefix(&format!("[{version}] - ")).with_context(|| {
        format!("the first section of CHANGELOG.md is `{heading}`; write `[{version}] - YYYY-MM-DD`")
    })?;
    ensure!(date.parse::<jiff::civil::Date>().is_ok(), "`{heading}` of CHANGELOG.md has no date");
    Ok(date)
}

/// The committed BPF object is what its sources give.
fn object() -> Result<String> {
    ebpf::check(true)?;
    let object = command::root().join("sensor-ebpf/teiten.bpf.o");
    let size = fs::metadata(&object).with_context(|| format!("read {}", object.display()))?.len();
    Ok(format!("teiten.bpf.o, {size} bytes, is what its sources give"))
}

/// What is generated is current.
fn pages() -> Result<String> {
    docs::generate(true)?;
    dashboards::generate(&dashboards::DashboardsArgs { check: true, ..Default::default() })?;
    Ok("reference pages and dashboards are current".into())
}

/// The packages of both architectures, made if `make`, are whole.
fn made(make: bool, directory: &Path) -> Result<String> {
    if make {
        package::make_all(directory)?;
    }
    packages(directory, env!("CARGO_PKG_VERSION"))
}

/// What `directory` must have of a release, with what each says of itself.
fn packages(directory: &Path, version: &str) -> Result<String> {
    let mut bytes = 0;
    let mut look = |name: &str| {
        let path = directory.join(name);
        bytes += fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
        Ok::<_, anyhow::Error>(path)
    };
    let mut names = 0;
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let arch = architecture.name();
        for program in ["teiten", "teiten-report"] {
            debian(&look(&format!("{program}_{version}_{arch}.deb"))?, program, version, arch)?;
            let name = format!("{program}-{version}-linux-{arch}");
            let archive = look(&format!("{name}.tar.gz"))?;
            let member = format!("{name}/bin/{program}");
            let mut unpack = Command::new("tar");
            unpack.arg("-xzOf").arg(&archive).arg(&member);
            let output = unpack.output().context("start tar")?;
            ensure!(output.status.success(), "{} has no {member}", archive.display());
            let machine = machine(&output.stdout);
            ensure!(machine == Some(architecture.machine()), "{member} is of ELF machine {machine:?}");
            names += 2;
        }
    }
    let dashboards = look(&format!("teiten-grafana_{version}_all.deb"))?;
    debian(&dashboards, "teiten-grafana", version, "all")?;
    Ok(format!("{} files of {version} for amd64 and arm64, {} MB", names + 1, bytes / 1_000_000))
}

/// `e_machine` of an ELF file of little endian.
fn machine(program: &[u8]) -> Option<u16> {
    let field = program.get(18..20).filter(|_| program.starts_with(b"\x7fELF\x02\x01"))?;
    Some(u16::from_le_bytes([field[0], field[1]]))
}

/// A Debian package says that it is this one.
fn debian(package: &Path, name: &str, version: &str, architecture: &str) -> Result<()> {
    let mut ask = Command::new("dpkg-deb");
    ask.args(["--show", "--showformat", "${Package} ${Version} ${Architecture}"]).arg(package);
    let found = command::output(&mut ask)?;
    let expected = format!("{name} {version} {architecture}");
    ensure!(found == expected, "{} says that it is {found}", package.display());
    Ok(())
}

/// Writes a bill of materials of each program, in `CycloneDX`'s JSON, to `directory`. cargo-cyclonedx is the tool of that
/// format's own project; it resolves features and targets as cargo does.
fn bills(root: &Path, directory: &Path) -> Result<String> {
    ensure!(
        command::find("cargo-cyclonedx").is_some(),
        "cargo-cyclonedx is not installed; `cargo install --locked cargo-cyclonedx`"
    );
    // It writes beside the manifests, so it gets the committed files elsewhere.
    let copy = tempfile::tempdir().context("make a directory for the sources")?;
    let mut export = Command::new("sh");
    export.args(["-euc", r#"git -c safe.directory="*" archive HEAD | tar -x -C "$0""#]).arg(copy.path());
    command::output(export.current_dir(root))?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let mut seen = Vec::new();
    for program in [&build::TEITEN, &build::REPORT] {
        let name = format!("{}-{}.cdx", program.name, env!("CARGO_PKG_VERSION"));
        let mut write = command::cargo();
        write.current_dir(copy.path()).args(["cyclonedx", "--format", "json", "--no-build-deps"]);
        write.args(["--target", "x86_64-unknown-linux-gnu", "--override-filename", &name]);
        write.args(program.features()).arg("--manifest-path").arg(program.manifest());
        write.env("SOURCE_DATE_EPOCH", git(root, &["log", "-1", "--format=%ct"])?);
        command::output(&mut write)?;
        let written = copy.path().join(program.manifest()).with_file_name(format!("{name}.json"));
        let text = fs::read_to_string(&written).with_context(|| format!("read {}", written.display()))?;
        let components = components(&text)?;
        fs::write(directory.join(format!("{name}.json")), text).context("write the bill of materials")?;
        seen.push(format!("{name}.json has {components} components"));
    }
    Ok(seen.join(", "))
}

/// How many components a bill of materials has, each of which must have a version and a licence.
fn components(bill: &str) -> Result<usize> {
    let bill: serde_json::Value = serde_json::from_str(bill).context("read the bill of materials")?;
    ensure!(bill["bomFormat"] == "CycloneDX", "the bill of materials is not of CycloneDX");
    let components = bill["components"].as_array().context("the bill of materials has no components")?;
    for component in components {
        let name = component["name"].as_str().unwrap_or("?");
        if !component["version"].is_string() {
            bail!("component {name} has no version");
        }
        if component["licenses"].as_array().is_none_or(Vec::is_empty) {
            bail!("component {name} has no licence");
        }
    }
    ensure!(!components.is_empty(), "the bill of materials has no components");
    Ok(components.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with these files, committed.
    fn repository(version: &str, lock: &str, changelog: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("Cargo.toml", &format!("[workspace.package]\nversion = \"{version}\"\n"));
        write("Cargo.lock", lock);
        write("CHANGELOG.md", changelog);
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "--all"],
            &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message", "x"],
        ] {
            git(root.path(), arguments).unwrap();
        }
        root
    }

    const LOCK: &str = "[[package]]\nname = \"a\"\nversion = \"1.2.0\"\n\n[[package]]\nname = \"b\"\nversion = \
                        \"7.0.0\"\nsource = \"registry\"\n";
    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-11-30\n\n- A line.\n";

    fn error(result: Result<String>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_file_that_is_not_committed_is_named() {
        let root = repository("1.2.0", LOCK, CHANGELOG);
        assert!(tree(root.path()).unwrap().starts_with("commit "));
        fs::write(root.path().join("more"), "").unwrap();
        fs::write(root.path().join("CHANGELOG.md"), "").unwrap();
        assert_eq!(error(tree(root.path())), "not committed: CHANGELOG.md, more");
    }

    #[test]
    fn versions_that_agree_are_shown_and_each_other_one_is_named() {
        let good = repository("1.2.0", LOCK, CHANGELOG);
        assert_eq!(
            versions(good.path()).unwrap(),
            "1.2.0 in Cargo.toml, 1 crates and the packages; CHANGELOG.md has it, of 2026-11-30"
        );
        let lock = repository("1.3.0", LOCK, CHANGELOG);
        assert_eq!(error(versions(lock.path())), "not 1.3.0 in Cargo.lock: a 1.2.0");
        for (changelog, expected) in [
            ("# Changelog\n", "CHANGELOG.md has no section with lines"),
            (
                "# Changelog\n\n## [Unreleased]\n\n- A line.\n\n## [1.2.0] - 2026-11-30\n\n- A line.\n",
                "the first section of CHANGELOG.md is `[Unreleased]`; write `[1.2.0] - YYYY-MM-DD`",
            ),
            (
                "# Changelog\n\n## [1.2.0] - soon\n\n- A line.\n",
                "`[1.2.0] - soon` of CHANGELOG.md has no date",
            ),
        ] {
            let root = repository("1.2.0", LOCK, changelog);
            assert_eq!(error(versions(root.path())), expected);
        }
    }

    #[test]
    fn a_version_that_was_released_is_not_released_again() {
        let root = repository("1.2.0", LOCK, CHANGELOG);
        git(root.path(), &["tag", "v1.2.0"]).unwrap();
        // The commit of the tag may be checked again.
        versions(root.path()).unwrap();
        let commit =
            ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--allow-empty"];
        git(root.path(), &[&commit[..], &["--message", "y"]].concat()).unwrap();
        assert_eq!(error(versions(root.path())), "the tag v1.2.0 is of another commit");
    }

    /// A package with nothing but what it says of itself.
    fn package(directory: &Path, file: &str, fields: &str) {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("DEBIAN")).unwrap();
        let control = format!("{fields}\nMaintainer: x\nDescription: x\n");
        fs::write(tree.path().join("DEBIAN/control"), control).unwrap();
        let mut pack = Command::new("dpkg-deb");
        command::output(pack.arg("-b").arg(tree.path()).arg(directory.join(file))).unwrap();
    }

    /// An archive whose program is of an ELF machine.
    fn archive(directory: &Path, program: &str, arch: &str, machine: u16) {
        let tree = tempfile::tempdir().unwrap();
        let name = format!("{program}-1.2.0-linux-{arch}");
        fs::create_dir_all(tree.path().join(&name).join("bin")).unwrap();
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend(machine.to_le_bytes());
        fs::write(tree.path().join(&name).join("bin").join(program), elf).unwrap();
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(tree.path()).arg("-czf").arg(directory.join(format!("{name}.tar.gz"))).arg(&name);
        command::output(&mut pack).unwrap();
    }

    #[test]
    fn a_package_that_lacks_or_says_otherwise_is_named() {
        if command::find("dpkg-deb").is_none() {
            println!("skipped: dpkg-deb is not installed");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(error(packages(at, "1.2.0")).contains("teiten_1.2.0_amd64.deb"));
        for (arch, machine) in [("amd64", 62), ("arm64", 183)] {
            for program in ["teiten", "teiten-report"] {
                let fields = format!("Package: {program}\nVersion: 1.2.0\nArchitecture: {arch}");
                package(at, &format!("{program}_1.2.0_{arch}.deb"), &fields);
                archive(at, program, arch, machine);
            }
        }
        assert!(error(packages(at, "1.2.0")).contains("teiten-grafana_1.2.0_all.deb"));
        let dashboards = "teiten-grafana_1.2.0_all.deb";
        package(at, dashboards, "Package: teiten-grafana\nVersion: 1.1.0\nArchitecture: all");
        assert!(error(packages(at, "1.2.0")).ends_with("says that it is teiten-grafana 1.1.0 all"));
        package(at, dashboards, "Package: teiten-grafana\nVersion: 1.2.0\nArchitecture: all");
        assert_eq!(packages(at, "1.2.0").unwrap(), "9 files of 1.2.0 for amd64 and arm64, 0 MB");
        archive(at, "teiten", "arm64", 62);
        assert_eq!(
            error(packages(at, "1.2.0")),
            "teiten-1.2.0-linux-arm64/bin/teiten is of ELF machine Some(62)"
        );
    }

    #[test]
    fn a_bill_of_materials_names_version_and_licence_of_all() {
        let bill = |component: &str| {
            components(&format!(r#"{{"bomFormat":"CycloneDX","components":[{component}]}}"#))
        };
        let licence = r#""licenses":[{"expression":"MIT"}]"#;
        assert_eq!(bill(&format!(r#"{{"name":"a","version":"1",{licence}}}"#)).unwrap(), 1);
        for (component, expected) in [
            (format!(r#"{{"name":"a",{licence}}}"#), "component a has no version"),
            (r#"{"name":"a","version":"1"}"#.to_owned(), "component a has no licence"),
            (String::new(), "the bill of materials has no components"),
        ] {
            assert_eq!(bill(&component).unwrap_err().to_string(), expected);
        }
    }
}
