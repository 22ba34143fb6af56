//! Finding, or installing, what builds the BPF object: a rustc with the sources of its own standard
//! library (there is no prebuilt `core` for BPF), its cargo, and bpf-linker.
//!
//! In this order, each by its name in the messages:
//!
//! 1. Debian's `rustc-web` with `rust-web-src` and `cargo-web` (or `rustc`, `rust-src` and `cargo`
//!    where they are new enough),
//! 2. a rustup toolchain with `rust-src`, nightlies first,
//! 3. any other rustc on PATH with its library's sources;
//!
//! when none is there, Debian's packages are installed by apt-get, or a nightly by rustup. bpf-linker
//! is taken from PATH or from cargo's directory when its LLVM can read what the compiler writes, and
//! otherwise built by `cargo install` with the LLVM that the compiler has.

use anyhow::{Context as _, Result, bail};
use lab::{apt, command};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bpf-linker that objects are linked with.
pub const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that this bpf-linker can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The oldest rustc that the sources are written for.
const OLDEST_RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// What the search looks at: this machine, or a table in a test.
pub trait Machine {
    /// What a program prints, or `None` when it is not there or fails.
    fn output(&self, program: &Path, arguments: &[&str]) -> Option<String>;
    /// Whether there is such a file.
    fn is_file(&self, path: &Path) -> bool;
    /// The program of this name on PATH.
    fn find(&self, name: &str) -> Option<PathBuf>;
    /// Where `cargo install` puts programs.
    fn cargo_bin(&self) -> Option<PathBuf>;
}

/// This machine.
#[derive(Debug)]
pub struct Here;

impl Machine for Here {
    fn output(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        let mut query = Command::new(program);
        query.args(arguments).current_dir(command::root());
        command::output(command::without_cargo_environment(&mut query)).ok()
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        command::find(name)
    }

    fn cargo_bin(&self) -> Option<PathBuf> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).map(|home| home.join("bin"))
    }
}

/// A compiler that can build `core` for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// What it is called in messages.
    pub name: String,
    /// rustc.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// Its directory of libraries and their sources.
    pub sysroot: PathBuf,
    /// First line of `rustc --version`.
    pub version: String,
    /// Its LLVM's version, as it tells it.
    pub llvm: String,
}

impl Compiler {
    /// The major version of its LLVM.
    pub fn llvm_major(&self) -> Option<u32> {
        self.llvm.split('.').next()?.parse().ok()
    }
}

/// Everything that builds the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// bpf-linker.
    pub linker: PathBuf,
    /// First line of `bpf-linker --version`.
    pub linker_version: String,
}

/// Finds the toolchain, installing what is missing when `install` says so.
///
/// # Errors
///
/// What is missing and how to install it.
pub fn ensure(install: bool) -> Result<Toolchain> {
    let compiler = match find_compiler(&Here) {
        Ok(compiler) => compiler,
        Err(rejected) if install => {
            eprintln!("no compiler for BPF yet:\n{rejected}");
            install_compiler()?;
            find_compiler(&Here).map_err(|rejected| missing(&rejected))?
        }
        Err(rejected) => return Err(missing(&rejected)),
    };
    eprintln!("compiler: {}, {}, LLVM {}", compiler.name, compiler.version, compiler.llvm);
    let (linker, linker_version) = match find_linker(&Here, &compiler) {
        Ok(found) => found,
        Err(rejected) if install => {
            eprintln!("no linker for BPF yet:\n{rejected}");
            install_linker(&compiler)?;
            find_linker(&Here, &compiler).map_err(|rejected| {
                anyhow::anyhow!("bpf-linker was installed but cannot be used:\n{rejected}")
            })?
        }
        Err(rejected) => bail!("no linker for BPF:\n{rejected}"),
    };
    eprintln!("linker: {linker_version}, {}", linker.display());
    Ok(Toolchain { compiler, linker, linker_version })
}

fn missing(rejected: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "no compiler for BPF:\n{rejected}install one of\n  \
         Debian: apt-get install --no-install-recommends {}\n  \
         elsewhere: rustup toolchain install nightly --profile minimal --component rust-src",
        DEBIAN_PACKAGES.join(" ")
    )
}

fn install_compiler() -> Result<()> {
    let by_apt = if apt::is_here() {
        apt::install(&DEBIAN_PACKAGES, "building the BPF object")
    } else {
        Err(anyhow::anyhow!("there is no apt-get here"))
    };
    let Err(apt_error) = by_apt else { return Ok(()) };
    eprintln!("{apt_error:#}; trying rustup's nightly");
    let Some(rustup) = command::find("rustup") else { return Err(apt_error) };
    let mut install = Command::new(rustup);
    install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    command::run(command::without_cargo_environment(&mut install))
        .with_context(|| format!("install rustup's nightly with rust-src, because {apt_error:#}"))
}

/// The first compiler that can be used.
///
/// # Errors
///
/// One line for each that was considered, and why not.
pub fn find_compiler(machine: &impl Machine) -> Result<Compiler, String> {
    let mut rejected = String::new();
    for (name, rustc) in candidates(machine) {
        match examine(machine, &name, &rustc) {
            Ok(compiler) => return Ok(compiler),
            Err(reason) => {
                let _ = writeln!(rejected, "  {name} ({}): {reason}", rustc.display());
            }
        }
    }
    Err(rejected)
}

/// The compilers to consider, in order.
fn candidates(machine: &impl Machine) -> Vec<(String, PathBuf)> {
    let mut candidates = vec![("Debian's rustc".to_owned(), PathBuf::from("/usr/bin/rustc"))];
    if let Some(rustup) = machine.find("rustup") {
        let list = machine.output(&rustup, &["toolchain", "list"]).unwrap_or_default();
        let mut toolchains: Vec<&str> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            // "no installed toolchains"
            .filter(|name| *name != "no")
            .collect();
        toolchains.sort_by_key(|name| !name.starts_with("nightly"));
        for toolchain in toolchains {
            let which = machine.output(&rustup, &["which", "--toolchain", toolchain, "rustc"]);
            if let Some(path) = which {
                candidates.push((format!("rustup's {toolchain}"), PathBuf::from(path.trim())));
            }
        }
    }
    if let Some(rustc) = machine.find("rustc") {
        candidates.push(("rustc on PATH".to_owned(), rustc));
    }
    candidates
}

fn examine(machine: &impl Machine, name: &str, rustc: &Path) -> Result<Compiler, String> {
    if !machine.is_file(rustc) {
        return Err("not installed".into());
    }
    let verbose = machine.output(rustc, &["--version", "--verbose"]).ok_or("does not run")?;
    let field = |key: &str| {
        verbose.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
    };
    let version = verbose.lines().next().unwrap_or_default().trim().to_owned();
    let release = field("release:").ok_or("does not tell its version")?;
    if numbers(&release) < numbers(OLDEST_RUSTC) {
        return Err(format!("{release} is older than {OLDEST_RUSTC}"));
    }
    let llvm = field("LLVM version:").ok_or("is not built on LLVM")?;
    let sysroot = machine.output(rustc, &["--print", "sysroot"]).ok_or("does not tell its sysroot")?;
    let sysroot = PathBuf::from(sysroot.trim());
    if !machine.is_file(&sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")) {
        return Err("has no library sources (Debian: rust-web-src; rustup: rust-src)".into());
    }
    let cargo = sysroot.join("bin/cargo");
    if !machine.is_file(&cargo) {
        return Err("has no cargo beside it (Debian: cargo-web)".into());
    }
    Ok(Compiler { name: name.to_owned(), rustc: rustc.to_owned(), cargo, sysroot, version, llvm })
}

/// `1.96.0-nightly` as numbers that compare.
fn numbers(version: &str) -> Vec<u32> {
    let digits = version.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
    digits.split('.').filter_map(|number| number.parse().ok()).collect()
}

/// The bpf-linker that can link what `compiler` writes, and its version.
///
/// # Errors
///
/// One line for each that was considered, and why not.
pub fn find_linker(machine: &impl Machine, compiler: &Compiler) -> Result<(PathBuf, String), String> {
    let mut rejected = String::new();
    let installed =
        machine.cargo_bin().map(|bin| bin.join("bpf-linker")).filter(|path| machine.is_file(path));
    let mut candidates: Vec<PathBuf> = machine.find("bpf-linker").into_iter().chain(installed).collect();
    candidates.dedup();
    for path in candidates {
        match examine_linker(machine, compiler, &path) {
            Ok(version) => return Ok((path, version)),
            Err(reason) => {
                let _ = writeln!(rejected, "  {}: {reason}", path.display());
            }
        }
    }
    if rejected.is_empty() {
        rejected.push_str("  bpf-linker is neither on PATH nor in cargo's directory\n");
    }
    Err(rejected)
}

fn examine_linker(machine: &impl Machine, compiler: &Compiler, path: &Path) -> Result<String, String> {
    let version = machine.output(path, &["--version"]).ok_or("does not run")?;
    let version = version.lines().next().unwrap_or_default().trim().to_owned();
    let number = version.strip_prefix("bpf-linker ").ok_or("does not tell its version")?;
    if numbers(number) < numbers(LINKER_VERSION) {
        return Err(format!("{number} is older than {LINKER_VERSION}"));
    }
    // Bitcode is read by the LLVM that wrote it and by later ones. A linker with LLVM inside it tells
    // nothing here; if it is too old, the build says so.
    let libraries = machine.output(Path::new("ldd"), &[&path.to_string_lossy()]).unwrap_or_default();
    match (linked_llvm(&libraries), compiler.llvm_major()) {
        (Some(linker), Some(compiler)) if linker < compiler => {
            Err(format!("is built with LLVM {linker}, the compiler with LLVM {compiler}"))
        }
        _ => Ok(version),
    }
}

/// The major version in `libLLVM.so.22.1` or `libLLVM-14.so.1`, as ldd(1) lists them.
fn linked_llvm(libraries: &str) -> Option<u32> {
    libraries.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("libLLVM")?;
        let rest = rest.strip_prefix(".so.").or_else(|| rest.strip_prefix('-'))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

/// Where LLVM `major` with its headers is, as the directory above `bin/llvm-config`.
fn find_llvm(machine: &impl Machine, major: u32) -> Option<PathBuf> {
    let beside = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"));
    let on_path = [format!("llvm-config-{major}"), "llvm-config".to_owned()];
    let candidates = std::iter::once(beside).chain(on_path.iter().filter_map(|name| machine.find(name)));
    candidates.filter(|path| machine.is_file(path)).find_map(|llvm_config| {
        let version = machine.output(&llvm_config, &["--version"])?;
        let prefix = machine.output(&llvm_config, &["--prefix"])?;
        (numbers(version.trim()).first() == Some(&major)).then(|| PathBuf::from(prefix.trim()))
    })
}

fn install_linker(compiler: &Compiler) -> Result<()> {
    let major =
        compiler.llvm_major().with_context(|| format!("read LLVM's version in {:?}", compiler.llvm))?;
    if !LINKER_LLVM.contains(&major) {
        bail!(
            "{} has LLVM {major}, and bpf-linker {LINKER_VERSION} can be built with {} to {} only: \
             install a bpf-linker for LLVM {major}",
            compiler.name,
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    let prefix = if let Some(prefix) = find_llvm(&Here, major) {
        prefix
    } else {
        apt::install(&[&format!("llvm-{major}-dev")], "building bpf-linker")?;
        find_llvm(&Here, major).with_context(|| {
            format!(
                "find llvm-config of LLVM {major}, which building bpf-linker needs: install LLVM's headers"
            )
        })?
    };
    eprintln!("building bpf-linker {LINKER_VERSION} with LLVM {major}, which takes a minute or two");
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command::without_cargo_environment(&mut install)
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--no-default-features", "--force"])
        .args(["--features", &format!("llvm-{major}")])
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{major}1_PREFIX"), &prefix)
        .current_dir(command::root());
    command::run(&mut install).context("build bpf-linker")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A machine that is what its tables say.
    #[derive(Default)]
    struct Table {
        files: Vec<&'static str>,
        on_path: Vec<&'static str>,
        says: HashMap<&'static str, &'static str>,
    }

    impl Machine for Table {
        fn output(&self, program: &Path, arguments: &[&str]) -> Option<String> {
            let line = format!("{} {}", program.display(), arguments.join(" "));
            self.says.get(line.as_str()).map(|text| (*text).to_owned())
        }

        fn is_file(&self, path: &Path) -> bool {
            self.files.iter().any(|file| Path::new(file) == path)
        }

        fn find(&self, name: &str) -> Option<PathBuf> {
            self.on_path
                .iter()
                .map(PathBuf::from)
                .find(|path| path.file_name().is_some_and(|found| found == name))
        }

        fn cargo_bin(&self) -> Option<PathBuf> {
            Some("/home/kansoku/.cargo/bin".into())
        }
    }

    /// What Debian's packages put there.
    fn debian() -> Table {
        Table {
            files: vec![
                "/usr/bin/rustc",
                "/usr/bin/cargo",
                "/usr/lib/rustlib/src/rust/library/core/src/lib.rs",
            ],
            says: HashMap::from([
                (
                    "/usr/bin/rustc --version --verbose",
                    "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n",
                ),
                ("/usr/bin/rustc --print sysroot", "/usr\n"),
            ]),
            ..Table::default()
        }
    }

    /// rustup with a stable and a nightly, of which the nightly has rust-src.
    fn rustup() -> Table {
        Table {
            files: vec![
                "/r/stable/bin/rustc",
                "/r/stable/bin/cargo",
                "/r/nightly/bin/rustc",
                "/r/nightly/bin/cargo",
                "/r/nightly/lib/rustlib/src/rust/library/core/src/lib.rs",
            ],
            on_path: vec!["/c/rustup"],
            says: HashMap::from([
                (
                    "/c/rustup toolchain list",
                    "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\n",
                ),
                (
                    "/c/rustup which --toolchain stable-x86_64-unknown-linux-gnu rustc",
                    "/r/stable/bin/rustc\n",
                ),
                (
                    "/c/rustup which --toolchain nightly-x86_64-unknown-linux-gnu rustc",
                    "/r/nightly/bin/rustc\n",
                ),
                (
                    "/r/stable/bin/rustc --version --verbose",
                    "rustc 1.97.0\nrelease: 1.97.0\nLLVM version: 22.1.2\n",
                ),
                ("/r/stable/bin/rustc --print sysroot", "/r/stable\n"),
                (
                    "/r/nightly/bin/rustc --version --verbose",
                    "rustc 1.98.0-nightly\nrelease: 1.98.0-nightly\nLLVM version: 23.0.1\n",
                ),
                ("/r/nightly/bin/rustc --print sysroot", "/r/nightly\n"),
            ]),
        }
    }

    #[test]
    fn debians_compiler_comes_first() {
        let mut machine = rustup();
        let debian = debian();
        machine.files.extend(debian.files);
        machine.says.extend(debian.says);
        let compiler = find_compiler(&machine).unwrap();
        assert_eq!(compiler.name, "Debian's rustc");
        assert_eq!(compiler.cargo, Path::new("/usr/bin/cargo"));
        assert_eq!(compiler.llvm_major(), Some(22));
    }

    #[test]
    fn a_nightly_with_rust_src_serves_where_debians_is_missing() {
        let compiler = find_compiler(&rustup()).unwrap();
        assert_eq!(compiler.name, "rustup's nightly-x86_64-unknown-linux-gnu");
        assert_eq!(compiler.cargo, Path::new("/r/nightly/bin/cargo"));
        assert_eq!(compiler.llvm_major(), Some(23));
    }

    #[test]
    fn every_rejected_compiler_is_named_with_its_reason() {
        let mut machine = rustup();
        machine.files.retain(|file| !file.contains("/src/"));
        assert_eq!(
            find_compiler(&machine).unwrap_err(),
            "  Debian's rustc (/usr/bin/rustc): not installed\n  \
             rustup's nightly-x86_64-unknown-linux-gnu (/r/nightly/bin/rustc): has no library sources (Debian: rust-web-src; rustup: rust-src)\n  \
             rustup's stable-x86_64-unknown-linux-gnu (/r/stable/bin/rustc): has no library sources (Debian: rust-web-src; rustup: rust-src)\n"
        );
    }

    #[test]
    fn a_compiler_older_than_the_sources_is_refused() {
        let mut machine = debian();
        machine.says.insert(
            "/usr/bin/rustc --version --verbose",
            "rustc 1.63.0\nrelease: 1.63.0\nLLVM version: 14.0.6\n",
        );
        let rejected = find_compiler(&machine).unwrap_err();
        assert!(rejected.contains(&format!("1.63.0 is older than {OLDEST_RUSTC}")), "{rejected}");
    }

    #[test]
    fn a_linker_outside_path_is_found_in_cargos_directory() {
        let mut machine = debian();
        let compiler = find_compiler(&machine).unwrap();
        machine.files.push("/home/kansoku/.cargo/bin/bpf-linker");
        machine.says.insert("/home/kansoku/.cargo/bin/bpf-linker --version", "bpf-linker 0.13.0\n");
        machine.says.insert(
            "ldd /home/kansoku/.cargo/bin/bpf-linker",
            "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f)\n",
        );
        assert_eq!(
            find_linker(&machine, &compiler),
            Ok(("/home/kansoku/.cargo/bin/bpf-linker".into(), "bpf-linker 0.13.0".into()))
        );
    }

    #[test]
    fn a_linker_that_cannot_read_the_compilers_bitcode_is_refused() {
        let mut machine = rustup();
        let compiler = find_compiler(&machine).unwrap();
        machine.on_path.push("/usr/bin/bpf-linker");
        machine.says.insert("/usr/bin/bpf-linker --version", "bpf-linker 0.13.0\n");
        machine.says.insert("ldd /usr/bin/bpf-linker", "\tlibLLVM.so.22.1 => /lib/libLLVM.so.22.1 (0x0)\n");
        assert_eq!(
            find_linker(&machine, &compiler).unwrap_err(),
            "  /usr/bin/bpf-linker: is built with LLVM 22, the compiler with LLVM 23\n"
        );
    }

    #[test]
    fn a_machine_without_linker_is_told_where_it_was_sought() {
        let machine = debian();
        let compiler = find_compiler(&machine).unwrap();
        let rejected = find_linker(&machine, &compiler).unwrap_err();
        assert_eq!(rejected, "  bpf-linker is neither on PATH nor in cargo's directory\n");
    }

    #[test]
    fn llvm_is_found_by_its_own_word_for_its_version() {
        let mut machine = Table { on_path: vec!["/usr/bin/llvm-config"], ..Table::default() };
        machine.files.push("/usr/bin/llvm-config");
        machine.says.insert("/usr/bin/llvm-config --version", "22.1.8\n");
        machine.says.insert("/usr/bin/llvm-config --prefix", "/usr/lib/llvm-22\n");
        assert_eq!(find_llvm(&machine, 22), Some("/usr/lib/llvm-22".into()));
        assert_eq!(find_llvm(&machine, 23), None);
    }

    #[test]
    fn both_spellings_of_the_llvm_library_are_read() {
        assert_eq!(linked_llvm("\tlibLLVM.so.22.1 => /x (0x0)\n"), Some(22));
        assert_eq!(linked_llvm("\tlibLLVM-14.so.1 => /x (0x0)\n"), Some(14));
        assert_eq!(linked_llvm("\tlibc.so.6 => /x (0x0)\n"), None);
    }
}
