//! What is written where, and of which periods.

use super::{ledger, run, said};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

const JULY: [&str; 4] = ["--month", "2010-07", "--date", "2010-08-02"];

#[test]
fn an_output_is_written_where_it_is_and_nothing_beside_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    ledger(directory.path().join("s").as_path(), "sensor-01", 0);
    let write = |output: &str| {
        let output =
            run(&[&JULY[..], &["--ledger", &at("s"), "--format", "html", "--output", output]].concat());
        assert!(output.status.success(), "{}", said(&output));
    };
    symlink("/dev/null", at("null")).expect("a link");
    write(&at("null"));
    assert!(fs::symlink_metadata(at("null")).expect("the link").is_symlink());
    assert!(fs::metadata("/dev/null").expect("the device").file_type().is_char_device());

    fs::write(at("report.html"), "old").expect("a file");
    fs::set_permissions(at("report.html"), fs::Permissions::from_mode(0o640)).expect("a mode");
    fs::write(at("report.html.new"), "another's").expect("a file");
    symlink("report.html", at("link.html")).expect("a link");
    write(&at("link.html"));
    assert!(fs::symlink_metadata(at("link.html")).expect("the link").is_symlink());
    assert!(fs::read_to_string(at("report.html")).expect("the report").starts_with("<!DOCTYPE html>"));
    assert_eq!(fs::metadata(at("report.html")).expect("the report").permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(at("report.html.new")).expect("the file"), "another's");
    assert_eq!(fs::read_dir(directory.path()).expect("names").count(), 5);

    let output = run(&[&JULY[..], &["--ledger", &at("s"), "--output", &at("none/r.html")]].concat());
    assert!(said(&output).contains(&format!("cannot write `{}`: ", at("none/r.html"))), "{}", said(&output));
}

#[test]
fn a_closed_pipe_ends_the_program_silently() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    ledger(&path, "sensor-01", 0);
    let mut child = Command::new(env!("CARGO_BIN_EXE_teiten-report"))
        .args(JULY)
        .args(["--format", "html", "--ledger"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    // SIGPIPE.
    assert_eq!((output.status.signal(), said(&output).as_str()), (Some(13), ""));
    let full = fs::File::create("/dev/full").expect("the device");
    let output = Command::new(env!("CARGO_BIN_EXE_teiten-report"))
        .args(JULY)
        .args(["--format", "html", "--ledger"])
        .arg(&path)
        .stdout(full)
        .output()
        .expect("the program runs");
    assert!(said(&output).contains("standard output cannot be written: "), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_period_of_which_no_day_is_over_is_an_empty_report() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    ledger(&path, "sensor-01", 0);
    let path = path.to_str().expect("text");
    for day in ["2010-08-01", "2010-03-01"] {
        let output = run(&["--month", "2010-08", "--date", day, "--ledger", path, "--format", "html"]);
        assert!(output.status.success(), "{}", said(&output));
        let page = String::from_utf8(output.stdout).expect("text");
        assert!(page.contains(&format!("On {day} no day of August 2010 is over.")), "{page}");
    }
    for (option, value) in [("--month", "9999-12"), ("--year", "9999"), ("--date", "-009999-01-01")] {
        let period: &[&str] = if option == "--date" { &["--month", "2010-07"] } else { &[] };
        let given = format!("{option}={value}");
        let output = run(&[period, &[&given, "--ledger", path, "--format", "html"]].concat());
        assert_eq!(output.status.code(), Some(2), "{given}: {}", said(&output));
        assert!(said(&output).contains("is written as in 2010"), "{given}: {}", said(&output));
    }
}
