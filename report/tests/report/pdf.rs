//! The report as a PDF, read back by poppler.

use super::{json, ledger, run, said, two};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What `pdftotext` reads, with the words of a line parted by one space; `None` without it.
fn text(file: &Path) -> Option<String> {
    let output =
        match Command::new("pdftotext").args(["-layout", "-enc", "UTF-8"]).arg(file).arg("-").output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: pdftotext cannot be run: {error}");
                return None;
            }
        };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    Some(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect())
}

fn with_commas(value: u64) -> String {
    let text = value.to_string();
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The table below the figure's caption in the annex of numbers.
fn rows<'a>(text: &'a str, number: &str) -> Vec<&'a str> {
    let (_, annex) = text.rsplit_once("Numbers of the figures\n").expect("the annex");
    let start = annex.find(&format!("Figure {number}: ")).unwrap_or_else(|| panic!("no figure {number}"));
    let rest = &annex[start + 1..];
    rest[..rest.find("\nFigure ").unwrap_or(rest.len())].lines().collect()
}

#[test]
fn every_number_of_a_figure_is_read_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = two(directory.path());
    let [a, b] = [0, 1].map(|number| paths[number].to_str().expect("text"));
    let common = ["--month", "2010-07", "--date", "2010-08-02", "--ledger", a, "--ledger", b];
    let file = directory.path().join("r.pdf");
    let again = directory.path().join("again.pdf");
    for file in [&file, &again] {
        let output = run(&[&common[..], &["--output", file.to_str().expect("text")]].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    }
    let bytes = std::fs::read(&file).expect("the file");
    assert!(bytes == std::fs::read(&again).expect("the file"), "the same bytes");
    for mark in [
        "pdfuaid:part>1<",
        "pdfaid:part>2<",
        "pdfaid:conformance>B<",
        "/MarkInfo",
        "/StructTreeRoot",
        "/Lang",
    ] {
        assert!(bytes.windows(mark.len()).any(|window| window == mark.as_bytes()), "{mark}");
    }

    let Some(text) = text(&file) else { return };
    let report = json(&common);
    let headline = |name: &str| with_commas(report["headline"][name].as_u64().expect("a number"));
    let flowing = text.replace('\n', " ");
    for sentence in [
        format!("counted {} unsolicited accesses on 2 sensors", headline("accesses")),
        format!("from {} cumulative sources*", headline("cumulative_sources")),
        format!(
            "one sensor received {} accesses from {} sources a day",
            headline("accesses_per_sensor_day"),
            headline("sources_per_sensor_day")
        ),
        "5060/udp: from 9 July many more accesses on 2 of 2 sensors".to_owned(),
    ] {
        assert!(flowing.contains(&sentence), "{sentence}");
    }
    let mut checked = 0;
    for figure in report["figures"].as_array().expect("figures") {
        let form = figure["form"].as_str().expect("a form");
        let number = figure["number"].as_str().expect("a number");
        let series = figure["series"].as_array().expect("series");
        let cells = |line: &Value, at: usize| match line["values"][at].as_u64() {
            None => "–".to_owned(),
            Some(value) if form.contains('%') => match line["percent"][at].as_u64() {
                Some(percent) => format!("{} ({percent}%)", with_commas(value)),
                None => with_commas(value),
            },
            Some(value) => with_commas(value),
        };
        match form {
            "pie" => {
                for line in series {
                    let row = format!(
                        "{} {}% {}",
                        line["name"].as_str().expect("a name"),
                        line["percent"][0],
                        with_commas(line["values"][0].as_u64().expect("a value"))
                    );
                    assert!(text.contains(&row), "figure {number}: {row}");
                    checked += 1;
                }
            }
            "bars and line" | "paired bars" => {
                for value in series.iter().flat_map(|line| line["values"].as_array().expect("values")) {
                    let value = value.as_u64().map_or_else(|| "–".to_owned(), with_commas);
                    assert!(text.split_whitespace().any(|word| word == value), "figure {number}: {value}");
                    checked += 1;
                }
            }
            _ => {
                let rows = rows(&text, number);
                for (at, category) in figure["categories"].as_array().expect("categories").iter().enumerate()
                {
                    let mut row = vec![category.as_str().expect("text").to_owned()];
                    row.extend(series.iter().map(|line| cells(line, at)));
                    let row = row.join(" ");
                    assert!(rows.contains(&row.as_str()), "figure {number}: {row}\n{rows:#?}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn hostile_names_and_notes_stay_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    ledger(&path, "#panic() \"\\u{41} $x$ @a <b> \u{202e}🦀", 0);
    let notes = directory.path().join("notes.md");
    std::fs::write(
        &notes,
        "[intro]\n#panic() <script>alert(1)</script> **bold _both_** `code #1` ~~no~~\n\n## Part\n\n1. one\n2. two\n   - deep\n\n\
         | a | b |\n|---|--:|\n| x | 1 |\n\n> said\n\n```\nlet #x = \"1\";\n```\n\n---\n[ok](https://example.org/) [bad](javascript:1)\n\
         ![a dot](data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHdpZHRoPSI5IiBoZWlnaHQ9IjkiPjxjaXJjbGUgY3g9IjQiIGN5PSI0IiByPSI0Ii8+PC9zdmc+)\n",
    )
    .expect("a file");
    let file = directory.path().join("r.pdf");
    let arguments = [
        "--month",
        "2010-07",
        "--lang",
        "ja",
        "--date",
        "2010-08-02",
        "--ledger",
        path.to_str().expect("text"),
        "--notes",
        notes.to_str().expect("text"),
        "--output",
        file.to_str().expect("text"),
    ];
    let output = run(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("no glyph for 1 of the report's characters")
            && said(&output).contains("--font FILE"),
        "{}",
        said(&output)
    );
    let Some(text) = text(&file) else { return };
    for part in [
        "#panic() \"\\u{41} $x$ @a <b> □",
        "<script>alert(1)</script> bold both code #1",
        "Part",
        "let #x = \"1\";",
        "said",
        "ok bad",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    std::fs::write(&notes, "[intro]\n![x](data:image/tiff;base64,AAAA)\n").expect("a file");
    let output = run(&arguments);
    assert!(!output.status.success() && said(&output).contains("a PDF takes PNG, JPEG"), "{}", said(&output));
}
