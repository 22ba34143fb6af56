//! `cargo xtask package`: Debian packages and archives of the programs, with what belongs beside them.
//!
//! Cargo builds the program, `packaging` writes the files that follow from its command line, and debhelper makes
//! the packages from `packaging/debian`. Times in them are those of the commit.

mod arm64;
mod prove;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use lab::build::Profile;
use lab::{apt, build, command};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What packages are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// 64-bit x86
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Architecture {
    /// That of this machine.
    fn here() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Its number in ELF files.
    pub(crate) const fn machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }

    /// Debian's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's name.
    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// Options of `cargo xtask package`.
#[derive(Args, Debug)]
pub struct PackageArgs {
    /// Architecture of the packages (repeatable) [default: this machine's]
    #[arg(long, value_name = "NAME")]
    arch: Vec<Architecture>,
    /// Directory of the finished files [default: target/package]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Package this `teiten` instead of building one, and no `teiten-report` but that of `--report`
    #[arg(long, value_name = "FILE")]
    teiten: Option<PathBuf>,
    /// Package this `teiten-report`
    #[arg(long, value_name = "FILE", requires = "teiten")]
    report: Option<PathBuf>,
    /// Boot Debian's kernels in an emulated machine of the architecture, install the package there and count
    /// packets with it: some minutes for each kernel
    #[arg(long)]
    prove: bool,
}

/// Finished programs of one architecture.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `teiten`.
    pub teiten: PathBuf,
    /// `teiten-report`; without it, it is not packaged.
    pub report: Option<PathBuf>,
}

/// Makes the packages and archives; prints the path of each.
///
/// # Errors
///
/// A build fails, a tool is missing and cannot be installed, or this machine cannot build for an architecture.
pub fn run(arguments: &PackageArgs) -> Result<()> {
    let here = Architecture::here().context("packages are made on x86-64 and 64-bit Arm")?;
    let wanted = if arguments.arch.is_empty() { vec![here] } else { arguments.arch.clone() };
    ensure!(
        arguments.teiten.is_none() || wanted.len() == 1,
        "--teiten is a program of one architecture: name it by --arch"
    );
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out).context("find the directory of --out")?,
        None => build::target_directory()?.join("package"),
    };
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let is_released_here = arguments.teiten.is_none() && wanted.contains(&here);
    let generated = generated(if is_released_here { Profile::Release } else { Profile::Development })?;
    for architecture in wanted {
        let programs = match &arguments.teiten {
            Some(teiten) => Binaries { teiten: teiten.clone(), report: arguments.report.clone() },
            None => programs(architecture, here)?,
        };
        let made = Staged::new(&programs, generated.path(), architecture)?.make(&out)?;
        for file in &made {
            println!("{}", file.display());
        }
        if arguments.prove {
            prove::run(&made, architecture)?;
        }
    }
    Ok(())
}

/// Makes the packages and archives of all architectures in `out`.
///
/// # Errors
///
/// As [`run`].
pub fn make_all(out: &Path) -> Result<()> {
    let (arch, out) = (vec![Architecture::Amd64, Architecture::Arm64], Some(out.to_owned()));
    run(&PackageArgs { arch, out, teiten: None, report: None, prove: false })
}

/// Makes the Debian packages of `programs`, built for this machine, in `out`, and returns their paths. `generated` is
/// what `packaging` has written.
///
/// # Errors
///
/// A tool is missing and cannot be installed, or fails.
pub fn debian_packages(programs: &Binaries, generated: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let here = Architecture::here().context("packages are made on x86-64 and 64-bit Arm")?;
    Staged::new(programs, generated, here)?.debian(out)
}

/// Debian's changelog, which has the version and a date as in mails.
pub(crate) fn changelog(version: &str, date: &str) -> String {
    format!(
        "teiten ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- Teiten <teiten@example.org>  {date}\n"
    )
}

/// What is packaged.
struct Commit {
    version: String,
    /// Seconds since 1970.
    time: String,
    /// As in mails.
    date: String,
}

impl Commit {
    fn of_head() -> Result<Self> {
        let git = |format: &str| {
            let mut git = Command::new("git");
            git.current_dir(command::root()).args(["log", "-1", &format!("--format={format}")]);
            command::output(&mut git).map(|text| text.trim().to_owned())
        };
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), time: git("%ct")?, date: git("%cD")? })
    }

    /// A command that writes this time where it would write the current one.
    fn dated(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOURCE_DATE_EPOCH", &self.time);
        command
    }
}

/// The files that `packaging` writes, built for `profile`: the one that a program is built for as well takes the
/// least time.
fn generated(profile: Profile) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir().context("make a directory for man pages")?;
    let mut write = command::cargo();
    write.args(["run", "--locked", "--package", "packaging", "--features", "parquet,report"]);
    if profile == Profile::Release {
        write.arg("--release");
    }
    write.arg("--").arg(root.path());
    command::run(&mut write)?;
    Ok(root)
}

/// Builds the programs and returns their paths.
fn programs(architecture: Architecture, here: Architecture) -> Result<Binaries> {
    let build = match architecture {
        _ if architecture == here => build::release,
        Architecture::Arm64 => arm64::build,
        Architecture::Amd64 => bail!("packages for amd64 are made on amd64"),
    };
    Ok(Binaries { teiten: build(&build::TEITEN)?, report: Some(build(&build::REPORT)?) })
}

/// All files of the packages for one architecture, laid out.
struct Staged {
    /// Debian's tools write what they make beside the tree.
    work: tempfile::TempDir,
    architecture: Architecture,
    commit: Commit,
    has_report: bool,
}

impl Staged {
    /// The sources of Debian packages, with the finished files in `stage` and `stage-report`.
    fn new(programs: &Binaries, generated: &Path, architecture: Architecture) -> Result<Self> {
        let work = tempfile::tempdir().context("make a directory for the package")?;
        let has_report = programs.report.is_some();
        let staged = Self { work, architecture, commit: Commit::of_head()?, has_report };
        let (root, tree) = (command::root(), staged.tree());
        for name in ["README.md", "THIRD-PARTY.md", "LICENSE", "CHANGELOG.md", "docs", "grafana"] {
            copy(&root.join(name), &tree.join(name))?;
        }
        copy(&root.join("packaging/debian"), &tree.join("debian"))?;
        let files = tree.join("stage");
        copy(&generated.join("teiten"), &files)?;
        install(&programs.teiten, &files.join("usr/bin/teiten"))?;
        if let Some(report) = &programs.report {
            let files = tree.join("stage-report");
            copy(&generated.join("teiten-report"), &files)?;
            copy(&root.join("report/THIRD-PARTY.md"), &files.join("THIRD-PARTY.md"))?;
            install(report, &files.join("usr/bin/teiten-report"))?;
        } else {
            let control = tree.join("debian/control");
            write(&control, &without_package(&read(&control)?, "teiten-report"))?;
        }
        install(&root.join("packaging/teiten-geoip"), &files.join("usr/lib/teiten/teiten-geoip"))?;
        // The units name the places of a build from source.
        for (unit, name, local, packaged) in [
            ("teiten.service", "teiten.service", "/usr/local/bin/teiten", "/usr/bin/teiten"),
            ("teiten-geoip.service", "teiten.teiten-geoip.service", "/usr/local/sbin", "/usr/lib/teiten"),
            ("teiten-geoip.timer", "teiten.teiten-geoip.timer", "", ""),
        ] {
            let text = read(&root.join("packaging").join(unit))?;
            ensure!(text.contains(local), "packaging/{unit} does not name {local}");
            write(&tree.join("debian").join(name), &text.replace(local, packaged))?;
        }
        let copyright = read(&tree.join("debian/copyright"))?;
        let text = copyright.replace("@MIT@", &paragraphs(&read(&root.join("LICENSE"))?));
        write(&tree.join("debian/copyright"), &text)?;
        write(&tree.join("debian/changelog"), &changelog(&staged.commit.version, &staged.commit.date))?;
        Ok(staged)
    }

    fn tree(&self) -> PathBuf {
        self.work.path().join("teiten")
    }

    /// Makes all packages and archives in `out`, and returns their paths.
    fn make(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let mut made = vec![self.archive("teiten", &SENSOR_FILES, &["bin/teiten"], out)?];
        if self.has_report {
            made.push(self.archive("teiten-report", &REPORT_FILES, &["bin/teiten-report"], out)?);
        }
        if apt::is_here() {
            made.extend(self.debian(out)?);
        } else {
            eprintln!("no Debian packages: there is no apt-get here");
        }
        Ok(made)
    }

    /// Whether programs of this architecture are foreign here.
    fn is_foreign(&self) -> bool {
        Architecture::here() != Some(self.architecture)
    }

    /// An archive for systems without Debian's packages, of `files`: each from the tree, and where it goes.
    fn archive(
        &self,
        called: &str,
        files: &[(&str, &str)],
        programs: &[&str],
        out: &Path,
    ) -> Result<PathBuf> {
        let tree = self.tree();
        let name = format!("{called}-{}-linux-{}", self.commit.version, self.architecture.name());
        let work = self.work.path().join("archive");
        let directory = work.join(&name);
        for (from, to) in files {
            // The units as a build from source has them.
            let from = from
                .strip_prefix("packaging/")
                .map_or_else(|| tree.join(from), |unit| command::root().join("packaging").join(unit));
            copy(&from, &directory.join(to))?;
        }
        let strip = if self.is_foreign() { "aarch64-linux-gnu-strip" } else { "strip" };
        for program in programs {
            command::run(Command::new(strip).arg(directory.join(program)))?;
        }
        let file = out.join(format!("{name}.tar.gz"));
        let mut pack = self.commit.dated("tar");
        pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w"])
            .arg(format!("--mtime=@{}", self.commit.time))
            .args(["--use-compress-program", "gzip -9n", "-cf"])
            .arg(&file)
            .arg(&name)
            .current_dir(&work);
        command::run(&mut pack)?;
        Ok(file)
    }

    /// The Debian packages.
    fn debian(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let missing: &[&str] = if command::find("dh").is_none() { &["debhelper"] } else { &[] };
        apt::install(missing, "making Debian packages")?;
        let mut pack = self.commit.dated("dpkg-buildpackage");
        // The packages of all architectures are made once, with those of this machine.
        let what = if self.is_foreign() { "--build=any" } else { "--build=binary" };
        pack.args([what, "--no-sign", "--no-check-builddeps"])
            .arg(format!("--host-arch={}", self.architecture.name()))
            .current_dir(self.tree());
        command::output(command::without_cargo_environment(&mut pack))?;
        let mut packages = Vec::new();
        for entry in fs::read_dir(self.work.path()).context("read what dpkg-buildpackage has made")? {
            let made = entry?.path();
            if made.extension().is_some_and(|extension| extension == "deb") {
                let package = out.join(made.file_name().context("a package has a name")?);
                copy(&made, &package)?;
                packages.push(package);
            }
        }
        packages.sort();
        Ok(packages)
    }
}

/// What is in the sensor's archive.
const SENSOR_FILES: [(&str, &str); 14] = [
    ("stage/usr/bin/teiten", "bin/teiten"),
    ("stage/usr/lib/teiten/teiten-geoip", "sbin/teiten-geoip"),
    ("stage/usr/share", "share"),
    ("stage/etc/teiten/teiten.toml", "etc/teiten.toml"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE", "LICENSE"),
    ("THIRD-PARTY.md", "THIRD-PARTY.md"),
    ("docs", "docs"),
    ("grafana", "grafana"),
    ("debian/teiten.sysusers", "systemd/teiten.sysusers"),
    ("packaging/teiten.service", "systemd/teiten.service"),
    ("packaging/teiten-geoip.service", "systemd/teiten-geoip.service"),
    ("packaging/teiten-geoip.timer", "systemd/teiten-geoip.timer"),
];

/// What is in the archive of the report's program.
const REPORT_FILES: [(&str, &str); 5] = [
    ("stage-report/usr/bin/teiten-report", "bin/teiten-report"),
    ("stage-report/usr/share", "share"),
    ("stage-report/THIRD-PARTY.md", "THIRD-PARTY.md"),
    ("LICENSE", "LICENSE"),
    ("docs/report.md", "docs/report.md"),
];

/// A control file without the paragraph of one package.
fn without_package(control: &str, package: &str) -> String {
    let name = format!("Package: {package}");
    let paragraphs = control.split("\n\n").filter(|paragraph| paragraph.lines().all(|line| line != name));
    let mut kept = paragraphs.collect::<Vec<_>>().join("\n\n").trim_end().to_owned();
    kept.push('\n');
    kept
}

/// A licence's text as a field of a copyright file, without its heading.
fn paragraphs(licence: &str) -> String {
    let lines = licence.lines().skip(4);
    let lines = lines.map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") });
    lines.collect::<Vec<_>>().join("\n")
}

/// Copies a file or a tree.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a file lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    command::output(Command::new("cp").args(["-rT", "--"]).arg(from).arg(to)).map(drop)
}

/// Copies a program.
fn install(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set the mode of {}", to.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_not_made_leaves_the_others() {
        let control = read(&command::root().join("packaging/debian/control")).unwrap();
        let names = |text: &str| {
            let names = text.lines().filter_map(|line| line.strip_prefix("Package: "));
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&control), ["teiten", "teiten-report", "teiten-grafana"]);
        assert_eq!(names(&without_package(&control, "teiten-report")), ["teiten", "teiten-grafana"]);
        assert_eq!(without_package(&control, "teiten-none"), control);
    }
}
