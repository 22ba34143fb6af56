//! Query engines that people read the archive with, from `PyPI`.

use lab::command;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// They read what this project writes; which release of them does so matters little.
const PACKAGES: [&str; 2] = ["duckdb==2.0.1", "chdb==4.4.0"];

/// A Python that has them, in a virtual environment beside the build; why there is none otherwise.
pub(crate) fn python() -> Result<&'static Path, &'static str> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(install).as_ref().map(PathBuf::as_path).map_err(String::as_str)
}

fn install() -> Result<PathBuf, String> {
    let has = |python: &Path| {
        let wanted: Vec<&str> = PACKAGES.iter().map(|package| package.split('=').next().unwrap()).collect();
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {}", wanted.join(", "))]);
        import.output().is_ok_and(|output| output.status.success())
    };
    let tests = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = tests.ancestors().nth(3).unwrap().join("query-engines");
    let python = directory.join("bin/python");
    if has(&python) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&directory);
    let mut fill = Command::new(&python);
    fill.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    for step in [&mut make, &mut fill] {
        command::output(step)
            .map_err(|error| format!("DuckDB and ClickHouse cannot be installed: {error:#}"))?;
    }
    if has(&python) { Ok(python) } else { Err("DuckDB and ClickHouse cannot be imported".to_owned()) }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    DuckDb,
    ClickHouse,
}

/// Makes the view of docs/archive.md, runs a query, prints its rows as JSON: all values as text, without the
/// zeros that floating point adds.
const SCRIPT: &str = r#"
import json, sys
engine, view, sql = sys.argv[1:]
if engine == "DuckDb":
    import duckdb
    connection = duckdb.connect()
    connection.execute(view)
    rows = connection.execute(sql).fetchall()
else:
    from chdb import session
    connection = session.Session()
    connection.query(view)
    text = str(connection.query(sql, "JSONCompactEachRow"))
    rows = [json.loads(line) for line in text.splitlines() if line]
print(json.dumps([[None if value is None else str(value) for value in row] for row in rows]))
"#;

impl Engine {
    /// The view `archive` of docs/archive.md, on this directory.
    pub(crate) fn view(self, archive: &Path) -> String {
        let name = match self {
            Self::DuckDb => "-- DuckDB",
            Self::ClickHouse => "-- ClickHouse",
        };
        documented(name).replace("/srv/archive", archive.to_str().unwrap())
    }

    /// The rows of a query on the archive in this directory, as `command` runs Python.
    pub(crate) fn query(self, mut python: Command, archive: &Path, sql: &str) -> Vec<Vec<Option<String>>> {
        python.args(["-c", SCRIPT, &format!("{self:?}"), &self.view(archive), sql]);
        let printed =
            command::output(&mut python).unwrap_or_else(|error| panic!("{self:?}, {sql}: {error:#}"));
        serde_json::from_str(&printed).unwrap()
    }
}

/// The block of SQL in docs/archive.md that begins with this line.
pub(crate) fn documented(name: &str) -> String {
    let page = std::fs::read_to_string(command::root().join("docs/archive.md")).unwrap();
    let block = page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    let found = block.filter(|block| block.lines().next() == Some(name)).collect::<Vec<_>>();
    let [block] = found[..] else { panic!("docs/archive.md has {} blocks {name}", found.len()) };
    block.trim_end().trim_end_matches(';').to_owned()
}
