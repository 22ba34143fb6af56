//! Another build of the daemon.

use object::{Object as _, ObjectSection as _, SectionKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// `dst = imm` in 64 bits, and in 32 bits with the upper half zero (`BPF_ALU64 | BPF_MOV | BPF_K` and
/// `BPF_ALU | …` of RFC 9669): the same for numbers that are not negative.
const MOVE_64: u8 = 0xb7;
const MOVE_32: u8 = 0xb4;

/// Copies `teiten` into `directory` with other programs for the kernel inside, which do the same by
/// other instructions: as a build from other sources, or by another compiler, would.
pub(crate) fn another(teiten: &Path, directory: &Path) -> PathBuf {
    let embedded = std::fs::read(object_path()).unwrap();
    let mut executable = std::fs::read(teiten).unwrap();
    let start = position(&executable, &embedded).expect("the BPF object is inside the daemon as it is");
    let mut changed = 0;
    for (offset, length) in code(&embedded) {
        let mut instructions = executable[start + offset..][..length].chunks_exact_mut(8);
        let first = instructions.find(|it| it[0] == MOVE_64 && it[7] & 0x80 == 0);
        if let Some(instruction) = first {
            instruction[0] = MOVE_32;
            changed += 1;
        }
    }
    assert!(changed >= 4, "only {changed} programs have an instruction to change");
    let other = directory.join("teiten-other-build");
    std::fs::write(&other, executable).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    other
}

/// The object that the daemon under test has inside.
fn object_path() -> PathBuf {
    std::env::var_os("TEITEN_BPF_OBJECT")
        .filter(|path| !path.is_empty())
        .map_or_else(|| lab::command::root().join(bpf_origin::OBJECT), PathBuf::from)
}

/// Where the instructions of each section lie.
fn code(object: &[u8]) -> Vec<(usize, usize)> {
    let file = object::File::parse(object).unwrap();
    let sections = file.sections().filter(|section| section.kind() == SectionKind::Text);
    let ranges = sections.filter_map(|section| section.file_range());
    ranges.map(|(offset, length)| (offset as usize, length as usize)).collect()
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // The object is aligned for its reader.
    (0..=haystack.len().checked_sub(needle.len())?).step_by(4).find(|at| haystack[*at..].starts_with(needle))
}
