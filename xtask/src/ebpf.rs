//! `cargo xtask ebpf`: builds the BPF object and commits it to its place.
//!
//! The object is the same on every machine that has the same compiler and linker: paths are remapped,
//! debug information is cut off (BTF stays, with the line information that the verifier's log
//! quotes), and versions are locked.

use crate::report::Outcome;
use crate::toolchain::{self, Toolchain};
use anyhow::{Context as _, Result, bail};
use bpf_origin::{self as origin, Origin};
use lab::command;
use object::build::elf::{Builder, SectionData};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target that BPF is built for, whatever the machine: little-endian, as every machine that
/// Teiten is built for.
const TARGET: &str = "bpfel-unknown-none";
/// Where cargo builds it, from the project's root.
const TARGET_DIRECTORY: &str = "sensor-ebpf/target";

/// A crate of programs for the kernel.
#[derive(Clone, Copy, Debug)]
struct Programs {
    /// Its directory, from the project's root.
    directory: &'static str,
    /// The binary's name in its `Cargo.toml`.
    binary: &'static str,
}

/// Teiten's.
const PRODUCT: Programs = Programs { directory: "sensor-ebpf", binary: "teiten" };
/// What `cargo xtask bench` measures it beside.
const BENCH: Programs = Programs { directory: "xtask/bench/ebpf", binary: "bench" };

/// Runs between cargo and rustc. cargo names symbols after the place of a crate that lies outside
/// the workspace, as sensor-common does here; with one name for all places, a checkout elsewhere
/// gives the same symbols, in the same order.
const WRAPPER: &str = r#"#!/bin/sh
case " $* " in
*" --crate-name sensor_common "* | *" --crate-name teiten "*) ;;
*) exec "$@" ;;
esac
for word; do
    shift
    case $word in metadata=*) word=metadata=teiten ;; esac
    set -- "$@" "$word"
done
exec "$@"
"#;

/// An object built just now, in a place of its own.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The file.
    pub path: PathBuf,
    /// What its origin is.
    pub origin: Origin,
    /// Its size, bytes.
    pub size: u64,
}

/// Builds the object and puts it, with its origin, where `sensor-user` embeds it from.
///
/// # Errors
///
/// No toolchain, or the build fails.
pub fn update(install: bool) -> Result<()> {
    let fresh = build(&toolchain::ensure(install)?)?;
    let (object, note) = (command::root().join(origin::OBJECT), command::root().join(origin::ORIGIN));
    fs::copy(&fresh.path, &object).with_context(|| format!("write {}", object.display()))?;
    fs::write(&note, fresh.origin.to_string()).with_context(|| format!("write {}", note.display()))?;
    eprintln!("{}: {} bytes, SHA-256 {}", origin::OBJECT, fresh.size, fresh.origin.object);
    Ok(())
}

/// Whether the committed object is what its sources give, by building them again.
///
/// # Errors
///
/// It is not, and `cargo xtask ebpf` fixes it; or there is no toolchain, or the build fails.
pub fn check(install: bool) -> Result<()> {
    if let Some(reason) = origin::stale(command::root())? {
        bail!("{reason}; run `{}`", origin::COMMAND);
    }
    match compare(&build(&toolchain::ensure(install)?)?)? {
        Outcome::Passed(note) | Outcome::Skipped(note) => eprintln!("{note}"),
        Outcome::Failed(reason) => bail!(reason),
    }
    Ok(())
}

/// Compares the committed object with a fresh one: passed when they are identical, skipped when they
/// cannot be because another compiler or linker built the committed one.
///
/// # Errors
///
/// The committed object or its origin cannot be read.
pub fn compare(fresh: &Fresh) -> Result<Outcome> {
    let note = command::root().join(origin::ORIGIN);
    let note = fs::read_to_string(&note).with_context(|| format!("read {}", note.display()))?;
    let committed = Origin::parse(&note).map_err(anyhow::Error::msg)?;
    Ok(judge(&committed, &fresh.origin))
}

fn judge(committed: &Origin, fresh: &Origin) -> Outcome {
    let tools = |origin: &Origin| format!("{}, LLVM {}, {}", origin.rustc, origin.llvm, origin.linker);
    if committed.sources != fresh.sources {
        Outcome::Failed(format!("{} was built from other sources; run `{}`", origin::OBJECT, origin::COMMAND))
    } else if committed.object == fresh.object {
        Outcome::Passed(format!("{} is identical to a fresh build", origin::OBJECT))
    } else if tools(committed) == tools(fresh) {
        Outcome::Failed(format!(
            "{} differs from a fresh build of the same sources with the same tools ({}); run `{}`",
            origin::OBJECT,
            tools(fresh),
            origin::COMMAND
        ))
    } else {
        Outcome::Skipped(format!(
            "{} is of these sources, and not compared byte by byte: it was built by {}, here is {}",
            origin::OBJECT,
            tools(committed),
            tools(fresh)
        ))
    }
}

/// Builds the object.
///
/// # Errors
///
/// cargo fails, or what it built is no ELF file.
pub fn build(toolchain: &Toolchain) -> Result<Fresh> {
    let path = compile(toolchain, PRODUCT)?;
    let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let origin = Origin {
        sources: origin::hash_sources(command::root()).context("read the sources of the BPF object")?,
        object: origin::hash_object(&object),
        rustc: toolchain.compiler.version.clone(),
        llvm: toolchain.compiler.llvm.clone(),
        linker: toolchain.linker_version.clone(),
    };
    Ok(Fresh { path, origin, size: object.len() as u64 })
}

/// Builds the programs that the benchmark compares Teiten's with, by the same tools; tells where their
/// object lies.
///
/// # Errors
///
/// As [`build`].
pub fn build_bench(toolchain: &Toolchain) -> Result<PathBuf> {
    compile(toolchain, BENCH)
}

fn compile(toolchain: &Toolchain, programs: Programs) -> Result<PathBuf> {
    let root = command::root();
    let manifest = root.join(programs.directory).join("Cargo.toml");
    let cargo = |verb: &str| {
        let mut cargo = Command::new(&toolchain.compiler.cargo);
        command::without_cargo_environment(&mut cargo);
        cargo.arg(verb).arg("--manifest-path").arg(&manifest).arg("--locked").current_dir(root);
        cargo
    };
    let target = root.join(TARGET_DIRECTORY);
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let wrapper = wrapper(&target)?;
    let bin = toolchain.compiler.rustc.parent().context("find rustc's directory")?;
    // The directories of unpacked crates, whose names differ between machines, must exist before
    // they can be remapped.
    command::run(cargo("fetch").env("RUSTC", &toolchain.compiler.rustc).env("RUSTC_BOOTSTRAP", "1"))?;
    let mut build = cargo("build");
    build
        .args(["--release", "--target", TARGET, "-Z", "build-std=core", "--bin", programs.binary])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC_WRAPPER", &wrapper)
        .env("PATH", command::path_beginning_with(bin)?)
        .env("RUSTC", &toolchain.compiler.rustc)
        // The release compilers hold everything that BPF needs; this variable enables it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?);
    command::run(&mut build).context("build the BPF object")?;

    let binary = target.join(TARGET).join("release").join(programs.binary);
    let object = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    let object = without_debug_information(&object).with_context(|| format!("strip {}", binary.display()))?;
    let path = target.join(format!("{}.bpf.o", programs.binary));
    fs::write(&path, &object).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Writes [`WRAPPER`] into `directory`, cargo's for this target. What was built without it goes: cargo
/// would take it for current.
fn wrapper(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("rustc-anywhere");
    if fs::read(&path).ok().as_deref() != Some(WRAPPER.as_bytes()) {
        let built = directory.join(TARGET);
        if built.exists() {
            fs::remove_dir_all(&built).with_context(|| format!("remove {}", built.display()))?;
        }
        fs::write(&path, WRAPPER).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", path.display()))?;
    }
    Ok(path)
}

/// rustc's flags, as `CARGO_ENCODED_RUSTFLAGS` takes them. BTF is made from debug information.
fn flags(toolchain: &Toolchain) -> Result<OsString> {
    let mut linker = OsString::from("linker=");
    linker.push(&toolchain.linker);
    let mut flags: Vec<OsString> =
        ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C"].into_iter().map(OsString::from).collect();
    flags.push(linker);
    // aya-ebpf asks for it in programs that read CPU registers only; by default it would be the
    // building machine's, and another object on each.
    flags.push("--cfg=bpf_target_arch=\"x86_64\"".into());
    for (from, to) in remaps(toolchain)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(std::ffi::OsStr::new("\u{1f}")))
}

/// Directories of this machine, and what the object has in their place.
fn remaps(toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut remaps = vec![
        (command::root().to_owned(), "."),
        (toolchain.compiler.sysroot.join("lib/rustlib/src/rust"), "rust"),
    ];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let sources = home.context("find cargo's home directory")?.join("registry/src");
    for registry in fs::read_dir(&sources).with_context(|| format!("list {}", sources.display()))? {
        remaps.push((registry?.path(), "crates"));
    }
    Ok(remaps)
}

/// The object without DWARF, which the kernel does not read and which is five times the rest.
fn without_debug_information(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("not an ELF file")?;
    for section in &mut builder.sections {
        let name = &section.name[..];
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; here each has its own.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The object to embed while testing: the committed one when it equals `fresh`, else `fresh`.
pub fn to_test(fresh: &Fresh) -> Option<&Path> {
    let committed = fs::read(command::root().join(origin::OBJECT)).map(|object| origin::hash_object(&object));
    (committed.ok().as_ref() != Some(&fresh.origin.object)).then_some(&*fresh.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::{Object as _, ObjectSection as _};
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    fn origin(sources: &str, object: &str, rustc: &str) -> Origin {
        Origin {
            sources: sources.into(),
            object: object.into(),
            rustc: rustc.into(),
            llvm: "22.1.8".into(),
            linker: "bpf-linker 0.13.0".into(),
        }
    }

    #[test]
    fn the_same_bytes_pass_with_any_tools() {
        let outcome = judge(&origin("s", "o", "rustc 1.96.0"), &origin("s", "o", "rustc 1.97.0"));
        assert!(matches!(outcome, Outcome::Passed(_)));
    }

    #[test]
    fn the_same_tools_must_give_the_same_bytes() {
        let outcome = judge(&origin("s", "o", "rustc 1.96.0"), &origin("s", "p", "rustc 1.96.0"));
        assert!(matches!(outcome, Outcome::Failed(_)));
    }

    #[test]
    fn other_tools_cannot_be_compared_and_are_named() {
        let outcome = judge(&origin("s", "o", "rustc 1.96.0"), &origin("s", "p", "rustc 1.97.0"));
        let Outcome::Skipped(reason) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("rustc 1.96.0") && reason.contains("rustc 1.97.0"), "{reason}");
    }

    #[test]
    fn other_sources_fail_even_with_the_same_bytes() {
        let outcome = judge(&origin("s", "o", "rustc 1.96.0"), &origin("t", "o", "rustc 1.96.0"));
        assert!(matches!(outcome, Outcome::Failed(_)));
    }

    #[test]
    fn stripping_takes_debug_information_and_keeps_the_rest() {
        // A BPF object with a program, BTF and DWARF, and one table for all names, as LLVM writes it.
        let mut whole = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        for name in [".BTF", "xdp", ".debug_info", ".BTF.ext"] {
            let section = whole.add_section(Vec::new(), name.into(), SectionKind::Other);
            whole.append_section_data(section, name.as_bytes(), 8);
        }
        let whole = whole.write().unwrap();

        let stripped = without_debug_information(&whole).unwrap();
        let stripped = object::File::parse(&*stripped).unwrap();
        for kept in [".BTF", "xdp", ".BTF.ext"] {
            assert_eq!(
                stripped.section_by_name_bytes(kept.as_bytes()).unwrap().data().unwrap(),
                kept.as_bytes()
            );
        }
        assert!(stripped.section_by_name(".debug_info").is_none());
    }

    /// What rustc is called with, through the wrapper.
    fn wrapped(words: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut rustc = Command::new("sh");
        rustc.arg(wrapper(directory.path()).unwrap()).arg("echo").args(words);
        command::output(&mut rustc).unwrap()
    }

    #[test]
    fn the_place_of_the_checkout_is_taken_from_symbols_and_nothing_else_is_changed() {
        assert_eq!(
            wrapped(&["--crate-name", "teiten", "-C", "metadata=0f1e", "-C", "extra-filename=-0f1e", "a  b"]),
            "--crate-name teiten -C metadata=teiten -C extra-filename=-0f1e a  b\n"
        );
        assert_eq!(
            wrapped(&["--crate-name", "aya_ebpf", "-C", "metadata=0f1e"]),
            "--crate-name aya_ebpf -C metadata=0f1e\n"
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(without_debug_information(b"text").unwrap_err().to_string(), "not an ELF file");
    }
}
