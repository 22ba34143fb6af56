//! `cargo xtask package`: Debian packages and archives of the programs, with what belongs beside them.
//!
//! Cargo builds the program, `packaging` writes the files that follow from its command line, and debhelper makes
//! the packages from `packaging/debian`. What is made from one commit on one system is the same every time:
//! times are those of the commit.

mod arm64;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
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

    /// Debian's name.
    const fn name(self) -> &'static str {
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
    /// Package this `teiten` instead of building one
    #[arg(long, value_name = "FILE")]
    teiten: Option<PathBuf>,
}

/// Makes the packages and archives; prints the path of each.
///
/// # Errors
///
/// A build fails, a tool is missing and cannot be installed, or this machine cannot build for an architecture.
pub fn run(arguments: &PackageArgs) -> Result<()> {
    let here = Architecture::here().context("packages are made on x86-64 and 64-bit Arm")?;
    let wanted = if arguments.arch.is_empty() { vec![here] } else { arguments.arch.clone() };
    ensure!(arguments.teiten.is_none() || wanted.len() == 1, "--teiten is a program of one architecture: name it by --arch");
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out).context("find the directory of --out")?,
        None => build::target_directory()?.join("package"),
    };
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let commit = Commit::of_head()?;
    let generated = generated()?;
    for architecture in wanted {
        let program = match &arguments.teiten {
            Some(program) => program.clone(),
            None => program(architecture, here)?,
        };
        // Debian's tools write what they make beside the tree.
        let work = tempfile::tempdir().context("make a directory for the package")?;
        let tree = work.path().join("teiten");
        stage(&tree, &program, generated.path(), &commit)?;
        archive(&tree, architecture, here, &commit, &out)?;
        if apt::is_here() {
            debian(&tree, architecture, here, &commit, &out)?;
        } else {
            eprintln!("no Debian packages: debhelper and dpkg are not here");
        }
    }
    Ok(())
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

/// The files that `packaging` writes.
fn generated() -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir().context("make a directory for man pages")?;
    let mut write = command::cargo();
    write.args(["run", "--locked", "--release", "--features", "packaging/parquet", "--package", "packaging", "--"]);
    write.arg(root.path());
    command::run(&mut write)?;
    Ok(root)
}

/// Builds `teiten` and returns its path.
fn program(architecture: Architecture, here: Architecture) -> Result<PathBuf> {
    if architecture == here {
        return build::daemon(build::Profile::Release);
    }
    match architecture {
        Architecture::Arm64 => arm64::program(),
        Architecture::Amd64 => bail!("packages for amd64 are made on amd64"),
    }
}

/// Lays out the sources of a Debian package in `tree`, with the finished files in `stage`.
fn stage(tree: &Path, program: &Path, generated: &Path, commit: &Commit) -> Result<()> {
    let root = command::root();
    for name in ["README.md", "THIRD-PARTY.md", "LICENSE", "CHANGELOG.md", "docs", "grafana"] {
        copy(&root.join(name), &tree.join(name))?;
    }
    copy(&root.join("packaging/debian"), &tree.join("debian"))?;
    let staged = tree.join("stage");
    copy(generated, &staged)?;
    install(program, &staged.join("usr/bin/teiten"), 0o755)?;
    let geoip = "usr/lib/teiten/teiten-geoip";
    install(&root.join("packaging/teiten-geoip"), &staged.join(geoip), 0o755)?;
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
    let licence = read(&root.join("LICENSE"))?;
    let paragraphs =
        licence.lines().skip(4).map(|line| if line.is_empty() { " .".into() } else { format!(" {line}") });
    let copyright = read(&tree.join("debian/copyright"))?;
    let text = copyright.replace("@MIT@", &paragraphs.collect::<Vec<_>>().join("\n"));
    write(&tree.join("debian/copyright"), &text)?;
    let changelog = format!(
        "teiten ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- Teiten <teiten@example.org>  {}\n",
        commit.version, commit.date
    );
    write(&tree.join("debian/changelog"), &changelog)
}

/// The archive for systems without Debian's packages.
fn archive(
    tree: &Path,
    architecture: Architecture,
    here: Architecture,
    commit: &Commit,
    out: &Path,
) -> Result<()> {
    let name = format!("teiten-{}-linux-{}", commit.version, architecture.name());
    let directory = tree.join(&name);
    for (from, to) in [
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
    ] {
        copy(&tree.join(from), &directory.join(to))?;
    }
    for unit in ["teiten.service", "teiten-geoip.service", "teiten-geoip.timer"] {
        copy(&command::root().join("packaging").join(unit), &directory.join("systemd").join(unit))?;
    }
    copy(&tree.join("debian/teiten.sysusers"), &directory.join("systemd/teiten.sysusers"))?;
    let strip = if architecture == here { "strip" } else { "aarch64-linux-gnu-strip" };
    command::run(Command::new(strip).arg(directory.join("bin/teiten")))?;
    let file = out.join(format!("{name}.tar.gz"));
    let mut pack = commit.dated("tar");
    pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w"])
        .arg(format!("--mtime=@{}", commit.time))
        .args(["--use-compress-program", "gzip -9n", "-cf"])
        .arg(&file)
        .arg(&name)
        .current_dir(tree);
    command::run(&mut pack)?;
    fs::remove_dir_all(&directory).context("remove the staged archive")?;
    println!("{}", file.display());
    Ok(())
}

/// The Debian packages.
fn debian(
    tree: &Path,
    architecture: Architecture,
    here: Architecture,
    commit: &Commit,
    out: &Path,
) -> Result<()> {
    let missing: &[&str] = if command::find("dh").is_none() { &["debhelper"] } else { &[] };
    apt::install(missing, "making Debian packages")?;
    let mut pack = commit.dated("dpkg-buildpackage");
    // The packages of all architectures are made once, with those of this machine.
    let what = if architecture == here { "--build=binary" } else { "--build=any" };
    pack.args([what, "--no-sign", "--no-check-builddeps", "--unsigned-buildinfo"])
        .arg(format!("--host-arch={}", architecture.name()))
        .current_dir(tree);
    command::run(command::without_cargo_environment(&mut pack))?;
    let parent = tree.parent().context("the tree lies in a directory")?;
    for name in ["teiten", "teiten-grafana"] {
        for kind in [architecture.name(), "all"] {
            let file = format!("{name}_{}_{kind}.deb", commit.version);
            let made = parent.join(&file);
            if made.exists() {
                fs::copy(&made, out.join(&file)).with_context(|| format!("copy {}", made.display()))?;
                fs::remove_file(&made).with_context(|| format!("remove {}", made.display()))?;
                println!("{}", out.join(&file).display());
            }
        }
    }
    Ok(())
}

/// Copies a file or a tree.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a file lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    command::output(Command::new("cp").args(["-rT", "--"]).arg(from).arg(to)).map(drop)
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", to.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
