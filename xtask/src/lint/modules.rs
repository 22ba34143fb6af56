//! How the sources are laid out: no two types of a crate share a name, and no modules of a crate use each
//! other in a circle. Read as text, so what macros make is not seen.

use super::{read, tracked};
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A module's path within its crate; empty: the crate itself.
type ModulePath = Vec<String>;
/// The modules that each module uses.
type Uses = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

/// Looks at the sources of every crate, without its tests.
///
/// # Errors
///
/// Names each name that two types share, and each circle.
pub(super) fn check() -> Result<()> {
    let mut crates: BTreeMap<String, Vec<(ModulePath, String)>> = BTreeMap::new();
    for name in tracked(&["*.rs"])? {
        // What has no `src` is a test, a benchmark or a build script.
        let Some((krate, file)) = name.rsplit_once("/src/").or_else(|| name.split_once("src/")) else {
            continue;
        };
        let module = module_of(file);
        if module.iter().any(|part| part.starts_with("tests")) {
            continue;
        }
        let text = read(&name)?;
        crates.entry(krate.to_owned()).or_default().push((module, without_tests(&text)));
    }
    let mut found = String::new();
    for (krate, modules) in &crates {
        for (name, places) in shared_names(modules) {
            let _ = writeln!(found, "{krate}: {name} is a type in {}: rename one", places.join(" and in "));
        }
        if let Some(circle) = circle(&uses(modules)) {
            let circle: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
            let _ = writeln!(
                found,
                "{krate}: modules use each other: {}: move what several need to a module of its own",
                circle.join(" -> ")
            );
        }
    }
    ensure!(found.is_empty(), "names and arrows that mislead a reader:\n{found}");
    Ok(())
}

fn module_of(file: &str) -> ModulePath {
    let mut parts: ModulePath = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The code of a file without its comments and its module of tests.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Names of types that are defined in more than one place, with the modules.
fn shared_names(modules: &[(ModulePath, String)]) -> BTreeMap<&str, Vec<String>> {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, text) in modules {
        for name in text.lines().filter_map(defined) {
            names.entry(name).or_default().push(format!("`{}`", module.join("::")));
        }
    }
    names.retain(|_, places| places.len() > 1);
    names
}

/// The type that a line begins to define at the outermost level.
fn defined(line: &str) -> Option<&str> {
    let mut line = line;
    if let Some(rest) = line.strip_prefix("pub") {
        line = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
        line = line.strip_prefix(' ')?;
    }
    let rest =
        ["struct ", "enum ", "union ", "trait ", "type "].iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().filter(|name| !name.is_empty())
}

/// The modules that each module names by a path from the crate or from a parent. A parent may use its
/// children and they its items.
fn uses(modules: &[(ModulePath, String)]) -> Uses {
    let known: BTreeSet<&ModulePath> = modules.iter().map(|(module, _)| module).collect();
    let mut uses = Uses::new();
    for (module, text) in modules {
        for path in paths(text, module) {
            let named =
                (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|path| known.contains(path));
            if let Some(named) = named.filter(|named| named != module) {
                uses.entry(module.clone()).or_default().insert(named);
            }
        }
    }
    uses
}

/// All paths in `text` that begin with `crate` or `super`, from the crate on.
fn paths(text: &str, module: &[String]) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let mut base: ModulePath = if start == "crate::" { Vec::new() } else { module.to_vec() };
            let mut rest = &text[at..];
            if start == "crate::" {
                rest = &rest[start.len()..];
            }
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            expand(base, rest, &mut found);
        }
    }
    found
}

/// The paths of a tree of `use`, without the names that they end in a module with.
fn expand(mut base: ModulePath, mut rest: &str, found: &mut Vec<ModulePath>) {
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            base.push(rest[..end].to_owned());
        }
        match rest[end..].strip_prefix("::") {
            Some(after) if end > 0 => rest = after,
            _ => break,
        }
    }
    let Some(group) = rest.strip_prefix('{') else {
        found.push(base);
        return;
    };
    let (mut depth, mut begin) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            ',' | '}' if depth == 0 => {
                expand(base.clone(), group[begin..at].trim_start(), found);
                begin = at + 1;
                if c == '}' {
                    return;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// A shortest circle, its first module again at the end.
fn circle(uses: &Uses) -> Option<Vec<&ModulePath>> {
    let back_to = |first| {
        let mut ways: Vec<Vec<&ModulePath>> = vec![vec![first]];
        let mut seen = BTreeSet::new();
        let mut next = 0;
        while let Some(way) = ways.get(next).cloned() {
            next += 1;
            for used in way.last().and_then(|last| uses.get(*last)).into_iter().flatten() {
                let longer: Vec<_> = way.iter().copied().chain([used]).collect();
                if used == first {
                    return Some(longer);
                }
                if seen.insert(used) {
                    ways.push(longer);
                }
            }
        }
        None
    };
    uses.keys().filter_map(back_to).min_by_key(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, text: &str) -> (ModulePath, String) {
        (module_of(name), without_tests(text))
    }

    #[test]
    fn the_sources_keep_to_it() {
        check().unwrap();
    }

    #[test]
    fn types_of_one_name_are_found_whatever_their_visibility() {
        let a = module("a.rs", "pub(super) struct State {\n");
        let b = module("b/mod.rs", "enum State {\nimpl Iterator for State {\n    type Item = u8;\n");
        let c = module("c.rs", "type Item = u8;\n#[cfg(test)]\nmod tests {\nstruct State;\n");
        let modules = [a, b, c];
        let shared = shared_names(&modules);
        assert_eq!(
            shared.into_iter().collect::<Vec<_>>(),
            [("State", vec!["`a`".to_owned(), "`b`".to_owned()])]
        );
    }

    #[test]
    fn circles_are_found_through_groups_and_several_modules() {
        let a = module("a.rs", "use crate::{c::Third, b::{self, Second}};\n");
        let b = module("b/mod.rs", "mod inner;\nuse inner::Inner;\n");
        let inner = module("b/inner.rs", "use super::Second;\nfn f() -> super::super::c::Third {}\n");
        let c = module("c.rs", "// crate::a::First\n");
        let open = [a, b, inner, c];
        assert_eq!(circle(&uses(&open)), None);
        let mut closed = open;
        closed[3].1.push_str("use crate::a::First;\n");
        let uses = uses(&closed);
        let names: Vec<_> = circle(&uses).unwrap().iter().map(|module| module.join("::")).collect();
        assert_eq!(names, ["a", "c", "a"]);
    }
}
