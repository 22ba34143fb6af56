//! Where the committed BPF object comes from.
//!
//! The object is committed so that using Teiten needs no BPF compiler. Beside it lies a note of the
//! sources it was built from: `cargo xtask ebpf` writes both, and `sensor-user/build.rs` refuses a stale
//! object. Every build of the sensor compiles this crate, so it needs only `std` and `sha2`.

use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The committed object, from the project's root.
pub const OBJECT: &str = "sensor-ebpf/teiten.bpf.o";
/// The note of its origin, from the project's root.
pub const ORIGIN: &str = "sensor-ebpf/teiten.bpf.o.origin";
/// The command that rebuilds a stale or missing object.
pub const COMMAND: &str = "cargo xtask ebpf";

/// What the object is built from, files and directories, from the project's root.
pub const SOURCES: [&str; 5] = [
    "sensor-common/Cargo.toml",
    "sensor-common/src",
    "sensor-ebpf/Cargo.lock",
    "sensor-ebpf/Cargo.toml",
    "sensor-ebpf/src",
];

/// The note beside the object, one `key: value` for each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// [`hash_sources`] of what the object was built from.
    pub sources: String,
    /// [`hash_object`] of the object.
    pub object: String,
    /// The compiler, as the first line of `rustc --version`.
    pub rustc: String,
    /// The compiler's LLVM.
    pub llvm: String,
    /// The linker, as `bpf-linker --version`.
    pub linker: String,
}

impl Origin {
    /// Reads the note.
    ///
    /// # Errors
    ///
    /// The key that is missing.
    pub fn parse(note: &str) -> Result<Self, String> {
        let value = |key: &str| {
            note.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim().to_owned())
                .ok_or_else(|| format!("{ORIGIN} has no `{key}: …` line"))
        };
        Ok(Self {
            sources: value("sources-sha256")?,
            object: value("object-sha256")?,
            rustc: value("rustc")?,
            llvm: value("llvm")?,
            linker: value("linker")?,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sources-sha256: {}", self.sources)?;
        writeln!(f, "object-sha256: {}", self.object)?;
        writeln!(f, "rustc: {}", self.rustc)?;
        writeln!(f, "llvm: {}", self.llvm)?;
        writeln!(f, "linker: {}", self.linker)
    }
}

/// Why the committed object under `root` cannot be used, or `None` when it can: present, unaltered,
/// and built from the sources that lie there now.
///
/// # Errors
///
/// A source cannot be read; the error names it.
pub fn stale(root: &Path) -> io::Result<Option<String>> {
    let Ok(note) = fs::read_to_string(root.join(ORIGIN)) else {
        return Ok(Some(format!("{ORIGIN} is missing or unreadable")));
    };
    let Ok(object) = fs::read(root.join(OBJECT)) else {
        return Ok(Some(format!("{OBJECT} is missing or unreadable")));
    };
    let origin = match Origin::parse(&note) {
        Ok(origin) => origin,
        Err(reason) => return Ok(Some(reason)),
    };
    if origin.object != hash_object(&object) {
        return Ok(Some(format!("{OBJECT} is not the file that {ORIGIN} describes")));
    }
    if origin.sources != hash_sources(root)? {
        return Ok(Some(format!(
            "{OBJECT} was built from other sources than sensor-ebpf and sensor-common hold now"
        )));
    }
    Ok(None)
}

/// SHA-256 over the sources under `root`, in hexadecimal: for each file, ascending by path, its path
/// (from `root`, with `/`), its length in bytes and its content with CR LF read as LF.
///
/// # Errors
///
/// A source cannot be read; the error names it.
pub fn hash_sources(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in source_files(root)? {
        let content = without_carriage_returns(&read(&root.join(&file))?);
        hash.update(&file);
        hash.update([0]);
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of `object`, in hexadecimal.
pub fn hash_object(object: &[u8]) -> String {
    hex(&Sha256::digest(object))
}

/// The files of [`SOURCES`] under `root`, ascending, as paths from `root` with `/`.
///
/// # Errors
///
/// A directory cannot be listed, a source is missing, or its name is not UTF-8.
pub fn source_files(root: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = SOURCES.iter().map(|source| root.join(source)).collect();
    while let Some(path) = pending.pop() {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if fs::metadata(&path).map_err(named)?.is_dir() {
            for entry in fs::read_dir(&path).map_err(named)? {
                pending.push(entry.map_err(named)?.path());
            }
        } else {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            let parts: Option<Vec<&str>> = inside.iter().map(|part| part.to_str()).collect();
            let parts = parts.ok_or_else(|| named(io::Error::other("the name is not UTF-8")))?;
            files.push(parts.join("/"));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// A checkout with `core.autocrlf` must hash like any other.
fn without_carriage_returns(content: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(content.len());
    for (at, byte) in content.iter().enumerate() {
        if *byte != b'\r' || content.get(at + 1) != Some(&b'\n') {
            kept.push(*byte);
        }
    }
    kept
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project with one line in each source.
    fn project() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["sensor-common/src", "sensor-ebpf/src"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join("main.rs"), "fn main() {}\n").unwrap();
        }
        for file in ["sensor-common/Cargo.toml", "sensor-ebpf/Cargo.toml", "sensor-ebpf/Cargo.lock"] {
            fs::write(root.path().join(file), "[package]\n").unwrap();
        }
        root
    }

    /// Makes `object` the committed one, built from what `root` holds.
    fn commit(root: &Path, object: &[u8]) {
        let origin = Origin {
            sources: hash_sources(root).unwrap(),
            object: hash_object(object),
            rustc: "rustc 1.96.0".into(),
            llvm: "22.1.8".into(),
            linker: "bpf-linker 0.13.0".into(),
        };
        fs::write(root.join(OBJECT), object).unwrap();
        fs::write(root.join(ORIGIN), origin.to_string()).unwrap();
    }

    #[test]
    fn the_object_of_these_sources_is_current() {
        let root = project();
        commit(root.path(), b"object");
        assert_eq!(stale(root.path()).unwrap(), None);
    }

    #[test]
    fn a_changed_added_or_renamed_source_makes_the_object_stale() {
        let changes: [fn(&Path); 3] = [
            |root| fs::write(root.join("sensor-common/src/main.rs"), "fn main() { }\n").unwrap(),
            |root| fs::write(root.join("sensor-ebpf/src/new.rs"), "").unwrap(),
            |root| {
                fs::rename(root.join("sensor-ebpf/src/main.rs"), root.join("sensor-ebpf/src/other.rs"))
                    .unwrap();
            },
        ];
        for change in changes {
            let root = project();
            commit(root.path(), b"object");
            change(root.path());
            assert!(stale(root.path()).unwrap().unwrap().contains("other sources"));
        }
    }

    #[test]
    fn an_object_that_the_note_does_not_describe_is_refused() {
        let root = project();
        commit(root.path(), b"object");
        fs::write(root.path().join(OBJECT), b"another").unwrap();
        assert!(stale(root.path()).unwrap().unwrap().contains("is not the file"));
        fs::remove_file(root.path().join(OBJECT)).unwrap();
        assert!(stale(root.path()).unwrap().unwrap().contains("missing"));
    }

    #[test]
    fn a_note_without_a_key_names_the_key() {
        assert_eq!(
            Origin::parse("sources-sha256: 00\n").unwrap_err(),
            "sensor-ebpf/teiten.bpf.o.origin has no `object-sha256: …` line"
        );
    }

    #[test]
    fn line_endings_do_not_count() {
        let unix = project();
        let dos = project();
        fs::write(dos.path().join("sensor-ebpf/src/main.rs"), "fn main() {}\r\n").unwrap();
        assert_eq!(hash_sources(unix.path()).unwrap(), hash_sources(dos.path()).unwrap());
        fs::write(dos.path().join("sensor-ebpf/src/main.rs"), "fn main() {}\r").unwrap();
        assert_ne!(hash_sources(unix.path()).unwrap(), hash_sources(dos.path()).unwrap());
    }

    #[test]
    fn text_moved_from_one_file_to_the_next_counts() {
        let one = project();
        let other = project();
        fs::write(one.path().join("sensor-ebpf/Cargo.lock"), "ab").unwrap();
        fs::write(one.path().join("sensor-ebpf/Cargo.toml"), "c").unwrap();
        fs::write(other.path().join("sensor-ebpf/Cargo.lock"), "a").unwrap();
        fs::write(other.path().join("sensor-ebpf/Cargo.toml"), "bc").unwrap();
        assert_ne!(hash_sources(one.path()).unwrap(), hash_sources(other.path()).unwrap());
    }
}
