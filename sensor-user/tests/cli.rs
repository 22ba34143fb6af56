//! The command line from the outside: help, usage errors and `teiten check`, by running the binary.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `teiten` with nothing of this process's configuration in its environment.
fn teiten(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_teiten"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TEITEN_") {
            command.env_remove(name);
        }
    }
    command.args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_version_names_the_revision() {
    let output = teiten(&["--version"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.starts_with(concat!("teiten ", env!("CARGO_PKG_VERSION"), " (revision ")), "{text}");
}

#[test]
fn help_names_every_command_and_of_run_every_flag_with_its_variable() {
    const OF_STATUS: [&str; 4] =
        ["web.user", "web.password-file", "web.client-cert-file", "web.client-key-file"];
    let text = stdout(&teiten(&["--help"]));
    for command in ["run", "replay", "check", "status", "sources", "detach", "ledger", "samples"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {text}");
    }
    // Without the line breaks that the terminal's width makes.
    let help =
        |command| stdout(&teiten(&[command, "--help"])).split_whitespace().collect::<Vec<_>>().join(" ");
    let (of_run, of_status) = (help("run"), help("status"));
    for key in sensor_user::config::KEYS.iter().filter(|key| key.name != "local") {
        let text = if OF_STATUS.contains(&key.name) { &of_status } else { &of_run };
        assert!(text.contains(&format!("--{} ", key.name)), "--{}", key.name);
        assert!(text.contains(&format!("[env: {}]", key.variable())), "{}", key.variable());
    }
    let text = stdout(&teiten(&["ledger", "--help"]));
    for command in ["days", "export", "verify"] {
        assert!(text.contains(command), "{command}: {text}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_suggests_the_flag() {
    let output = teiten(&["run", "--interfaces", "eth0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'--interface'"), "{}", stderr(&output));
    assert_eq!(teiten(&[]).status.code(), Some(2));
    assert_eq!(teiten(&["replay"]).status.code(), Some(2));
}

#[test]
fn check_names_a_bad_value_and_exits_with_2() {
    let output = teiten(&["check", "--drain-interval", "0s"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stdout(&output),
        "PROBLEM  configuration: `--drain-interval 0s`: expected 100ms to 1h\n\
         teiten run would not start: 1 problem\n"
    );
}

#[test]
fn check_finds_what_is_missing_and_what_is_in_use_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let damaged = directory.path().join("country.mmdb");
    std::fs::write(&damaged, "not a database").unwrap();
    let output = teiten(&[
        "check",
        "--interface",
        "lo",
        "--interface",
        "nosuch0",
        "--state-dir",
        state.to_str().unwrap(),
        "--geoip",
        damaged.to_str().unwrap(),
        "--web.listen-address",
        &address,
    ]);
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    let line = |about: &str| {
        text.lines().find(|line| line[9..].starts_with(about)).unwrap_or_else(|| panic!("{about}: {text}"))
    };
    assert!(line("lo: ").starts_with("ok       lo: packets begin with Ethernet headers; would attach "));
    assert!(line("interface: ").starts_with("PROBLEM  interface: no interface nosuch0; there are: "));
    assert!(line("interface: ").contains("lo"));
    assert!(line("geoip: ").contains("country.mmdb`: it is truncated, damaged, or not in MaxMind's format"));
    assert!(line(&format!("http://{address}")).starts_with("PROBLEM"));
    assert!(line("state directory").ends_with(": would be created"));
    assert!(!state.exists());
}

#[test]
fn check_takes_the_embedded_database_and_a_free_port() {
    let text = stdout(&teiten(&["check", "--interface", "lo", "--web.listen-address", "127.0.0.1:0"]));
    assert!(text.contains("\nok       geoip: the embedded country database, type "), "{text}");
    assert!(text.contains("\nok       http://127.0.0.1:0: free to listen on\n"), "{text}");
}

#[test]
fn check_reads_the_file_that_the_environment_names_and_warns_of_unknown_variables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("teiten.toml");
    std::fs::write(&file, "sensor_name = \"north\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_teiten"))
        .env("TEITEN_CONFIG", &file)
        .env("TEITEN_INTERFACES", "eth0")
        .arg("check")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    assert!(
        text.contains(
            "warning  environment: unknown variable TEITEN_INTERFACES; it has no effect; did you mean TEITEN_INTERFACE?\n"
        ),
        "{text}"
    );
    let expected = format!(
        "PROBLEM  configuration: unknown key `sensor_name` in `{}`; did you mean `sensor-name`?\n",
        file.display()
    );
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn fatal_errors_are_json_where_the_log_is() {
    for args in [
        &["replay", "--log-format", "json", "/nonexistent.pcap"][..],
        &["replay", "--log-format=json", "--timezone", "Nowhere", "-"],
        &["run", "--log-format=json", "--drain-interval", "0s"],
    ] {
        let output = teiten(args);
        assert!(!output.status.success());
        let line: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
        assert_eq!(line["level"], "ERROR", "{line}");
        assert!(!line["message"].as_str().unwrap().is_empty() && line["timestamp"].is_string(), "{line}");
    }
}

/// A ledger of one access to each of so many ports, counted from a capture.
fn small_ledger(directory: &Path, ports: u16) -> String {
    // Raw IPv4: 198.51.100.7 sends a SYN to 192.0.2.1.
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1];
    packet.extend([0xc0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x04, 0, 0, 0, 0, 0]);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut capture = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101]);
    for port in 1..=ports {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        capture.extend(words(&[1_278_600_000, 0, 40, 40]));
        capture.extend(&packet);
    }
    let file = directory.join("small.pcap");
    std::fs::write(&file, capture).unwrap();
    let state_dir = directory.join("state");
    std::fs::create_dir(&state_dir).unwrap();
    let state_dir = state_dir.to_str().unwrap().to_owned();
    let output = teiten(&[
        "replay",
        "--state-dir",
        &state_dir,
        "--timezone",
        "UTC",
        "--sensor-name",
        "one",
        file.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    state_dir
}

#[test]
fn a_closed_pipe_ends_a_command_silently() {
    use std::os::unix::process::ExitStatusExt as _;
    let directory = tempfile::tempdir().unwrap();
    let state_dir = small_ledger(directory.path(), 1);
    let capture = directory.path().join("small.pcap");
    let of_ledger = |more: &[&'static str]| -> Vec<String> {
        let all = ["ledger"].iter().chain(more).chain(&["--state-dir"]);
        all.map(|it| (*it).to_owned()).chain([state_dir.clone()]).collect()
    };
    let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    for args in [
        owned(&["replay", "--help"]),
        owned(&["check", "--interface", "lo"]),
        owned(&["replay", "--json", "-"]),
        owned(&["replay", capture.to_str().unwrap()]),
        of_ledger(&["days"]),
        of_ledger(&["days", "--json"]),
        of_ledger(&["days", "--ports", "3"]),
        of_ledger(&["verify"]),
        of_ledger(&["export", "--format", "csv"]),
        of_ledger(&["export", "--format", "openmetrics", "--label", "instance=a:1"]),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_teiten"));
        command.args(&args).stdin(std::process::Stdio::null()).stdout(writer);
        let output =
            command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let silently = output.stderr.is_empty() || args[0] == "replay" && args[1] == "--json";
        assert!(silently, "{args:?}: {}", stderr(&output));
        if args[1] != "--help" {
            assert_eq!(output.status.signal(), Some(13), "{args:?}: {}", stderr(&output));
        }
    }
}

/// `/dev/full` is a file on a full disk.
#[test]
fn a_full_disk_under_the_output_is_named_and_one_under_the_log_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = small_ledger(directory.path(), 1);
    let capture = directory.path().join("small.pcap");
    let nowhere = directory.path().join("nowhere");
    let (capture, nowhere) = (capture.to_str().unwrap(), nowhere.to_str().unwrap());
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str], is_output: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_teiten"));
        command.args(args).stdin(std::process::Stdio::null());
        if is_output {
            command.stdout(full()).output().unwrap()
        } else {
            command.stderr(full()).output().unwrap()
        }
    };
    for args in [
        &["check", "--interface", "lo"][..],
        &["replay", capture],
        &["replay", "--json", capture],
        &["ledger", "days", "--state-dir", &state_dir],
        &["ledger", "days", "--json", "--state-dir", &state_dir],
        &["ledger", "days", "--countries", "3", "--state-dir", &state_dir],
        &["ledger", "verify", "--state-dir", &state_dir],
        &["ledger", "export", "--format", "csv", "--state-dir", &state_dir],
        &["ledger", "export", "--format", "openmetrics", "--state-dir", &state_dir],
    ] {
        let output = run(args, true);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains("standard output cannot be written: No space left on device"),
            "{args:?}: {said}"
        );
    }
    for (args, status) in [
        (&["run", "--interface", "no-such0", "--state-dir", nowhere][..], 1),
        (&["run", "--config", nowhere], 2),
        (&["status", "--web.listen-address", "127.0.0.1:1"], 1),
        (&["replay", nowhere], 1),
        (&["ledger", "days", "--state-dir", nowhere], 1),
        (&["ledger", "export", "--format", "openmetrics", "--state-dir", &state_dir], 0),
        (&["detach", "--pin-dir", &format!("{nowhere}-pins"), "--state-dir", nowhere], 0),
    ] {
        assert_eq!(run(args, false).status.code(), Some(status), "{args:?}");
    }
    assert!(!Path::new(nowhere).exists());
}

/// A size limit takes the place of a full disk: a write fails in the midst of the export.
#[test]
fn an_export_that_cannot_be_written_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = small_ledger(directory.path(), 400);
    let exports = directory.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    let file = exports.join("ledger.om");
    let export = |limit: &str| {
        let program = env!("CARGO_BIN_EXE_teiten");
        let script = format!(
            "trap '' XFSZ; ulimit -f {limit}; exec {program} ledger export --format openmetrics --label \
             instance=a:1 --state-dir {state_dir} --output {}",
            file.display()
        );
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    let names = || {
        let entries = std::fs::read_dir(&exports).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // In blocks of 512 bytes or a KiB: enough for the index of SQLite's log, and too little for the export.
    let limit = "64";
    let output = export(limit);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains(&format!("cannot write the export `{}`", file.display())), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert_eq!(names(), [] as [&str; 0], "no half file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(export(limit).status.code(), Some(1));
    assert_eq!(
        (names(), std::fs::read_to_string(&file).unwrap()),
        (vec!["ledger.om".into()], "precious".into())
    );
    let output = export("unlimited");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(names(), ["ledger.om"]);
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("# EOF\n"));
    // What is no regular file is written as it is.
    let output =
        teiten(&["ledger", "export", "--format", "csv", "--state-dir", &state_dir, "--output", "/dev/full"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
}

#[test]
fn parquet_is_written_by_builds_that_have_it_and_the_others_say_how_to_get_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.parquet");
    let (state, out) = (directory.path().to_str().unwrap(), file.to_str().unwrap());
    let output = teiten(&["ledger", "--state-dir", state, "export", "--format", "parquet", "--output", out]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    if cfg!(feature = "parquet") {
        assert!(said.contains("--state-dir"), "no ledger is there: {said}");
    } else {
        assert!(said.contains("built without Parquet") && said.contains("--format csv"), "{said}");
        assert!(said.contains("--features parquet"), "{said}");
    }
    assert!(!file.exists());
}

/// What a replay into a ledger of its own writes, with an archive beside it.
fn replay_into<'a>(capture: &'a str, state: &'a str, archive: &'a str) -> Vec<&'a str> {
    let at = ["--state-dir", state, "--archive-dir", archive];
    ["replay", "--timezone", "UTC", "--sensor-name", "one"].into_iter().chain(at).chain([capture]).collect()
}

#[test]
fn a_whole_archive_that_is_gone_fails_to_verify_unless_nothing_was_archived() {
    let directory = tempfile::tempdir().unwrap();
    let without = small_ledger(directory.path(), 3);
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (capture, state, archive, nowhere) =
        (path("small.pcap"), path("archived"), path("archive"), path("nowhere"));
    let output = teiten(&replay_into(&capture, &state, &archive));
    assert!(output.status.success(), "{}", stderr(&output));
    let verify = |state: &str, archive: &str| {
        teiten(&["ledger", "verify", "--config", "/dev/null", "--state-dir", state, "--archive-dir", archive])
    };
    let output = verify(&state, &archive);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let output = verify(&state, &nowhere);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains(&format!("there is none in {nowhere}, and 3 packets were written")), "{text}");
    assert!(text.contains("1 FAILED"), "{text}");
    let output = verify(&without, &nowhere);
    assert!(output.status.success(), "{}", stdout(&output));
    assert!(stderr(&output).contains("only the ledger was verified"), "{}", stderr(&output));
}

#[test]
fn a_replay_whose_output_cannot_be_written_says_that_the_captures_were_added() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path(), 3);
    let capture = directory.path().join("small.pcap");
    for (place, json) in [("full", false), ("full", true), ("pipe", false)] {
        let state = directory.path().join(format!("{place}{json}"));
        let state = state.to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_teiten"));
        command.args(["replay", "--state-dir", state, "--timezone", "UTC", "--sensor-name", "one"]);
        command.args(json.then_some("--json")).arg(&capture).stderr(std::process::Stdio::piped());
        if place == "full" {
            command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        } else {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command.stdout(writer);
        }
        let child = command.spawn().unwrap();
        drop(command);
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("the captures were added to the ledger in {state}")), "{said}");
        assert!(said.contains("standard output cannot be written"), "{said}");
        let days = teiten(&["ledger", "days", "--config", "/dev/null", "--json", "--state-dir", state]);
        let days: serde_json::Value = serde_json::from_slice(&days.stdout).unwrap();
        assert_eq!(days[0]["accesses"], 3, "{days}");
    }
}

#[test]
fn messages_about_foreign_files_hold_nothing_that_a_terminal_obeys() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (list, config, capture) = (path("list"), path("teiten.toml"), path("a\u{1b}[2Jb"));
    std::fs::write(&list, "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\n").unwrap();
    std::fs::write(&config, "\"a\\u001B[31mb\" = 1\n").unwrap();
    std::fs::write(&capture, "no capture").unwrap();
    let listed = format!("x={list}");
    for args in [
        &["replay", "--config", "/dev/null", "--source-list", &listed, &capture][..],
        &["check", "--config", "/dev/null", "--interface", "lo", "--source-list", &listed],
        &["run", "--config", "/dev/null", "--interface", "lo", "--source-list", &listed],
        &["run", "--config", &config],
        &["check", "--config", &config],
        &["replay", "--config", "/dev/null", &capture],
        &["replay", "--config", "/dev/null", "--log-format=json", &capture],
    ] {
        let output = teiten(args);
        assert!(!output.status.success(), "{args:?}");
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains("\\u001b"), "{args:?}: {said}");
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(obeyed), "{args:?}: {said:?}");
    }
}

#[test]
fn options_that_cannot_be_meant_exit_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let state = small_ledger(directory.path(), 1);
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (capture, archived, archive) = (path("small.pcap"), path("archived"), path("archive"));
    assert!(teiten(&replay_into(&capture, &archived, &archive)).status.success());
    let sources = ["sources", "--config", "/dev/null", "--archive-dir", &archive, "--state-dir", &archived];
    let ledger = ["ledger", "--config", "/dev/null", "--state-dir", &state];
    let samples = ["samples", "--config", "/dev/null", "--state-dir", &state];
    let reversed = ["--from", "2010-07-02", "--to", "2010-07-01"];
    for (of, more, said) in [
        (&sources[..], &["--port", "23/icmpx"][..], "--port 23/icmpx"),
        (&sources, &["--asn", "ASx"], "--asn ASx"),
        (&sources, &["--country", "XQ"], "--country XQ"),
        (&sources, &["--list", "nosuch"], "--list nosuch: no source list of this name; there are: none"),
        (&samples, &["--port", "99999/udp"], "99999/udp"),
        (&samples, &reversed, "is after --to"),
        (&ledger, &[&["days"], &reversed[..]].concat(), "is after --to"),
        (&ledger, &["export", "--format", "openmetrics", "--label", "bad"], "--label bad"),
        (&ledger, &["export", "--format", "csv", "--label", "a=b"], "--format openmetrics"),
    ] {
        let output = teiten(&[of, more].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{of:?} {more:?}: {text}");
        assert!(text.contains(said), "{text}");
        assert!(output.stdout.is_empty());
    }
    for more in [&[][..], &["--list", "none"], &["--country", "JP"], &["--country", "unknown"]] {
        let output = teiten(&[&sources[..], more].concat());
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{more:?}");
    }
}

#[test]
fn sources_say_what_is_wrong_with_the_ledger_and_show_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path(), 1);
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (capture, archived, archive) = (path("small.pcap"), path("archived"), path("archive"));
    assert!(teiten(&replay_into(&capture, &archived, &archive)).status.success());
    std::fs::write(path("archived/ledger.sqlite"), "no ledger").unwrap();
    let shown = |state: &str| {
        let of = ["sources", "--config", "/dev/null", "--archive-dir", &archive, "--state-dir", state];
        let output = teiten(&of);
        assert!(output.status.success() && stdout(&output).contains("198.51.100.7"), "{}", stderr(&output));
        stderr(&output)
    };
    let said = shown(&archived);
    assert!(said.contains("warning: ledger") && said.contains("may not be in the ledger"), "{said}");
    assert_eq!(shown(&path("nowhere")), "", "an archive that is read elsewhere has no ledger beside it");
}

#[test]
fn a_replay_that_its_ledger_refuses_prints_its_json_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path(), 1);
    // A Simple Packet Block has no time.
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let packet = &std::fs::read(directory.path().join("small.pcap")).unwrap()[40..80];
    let mut untimed = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
    untimed.extend(words(&[1, 20, 101, 0, 20, 3, 56, 40]));
    untimed.extend(packet);
    untimed.extend(words(&[56]));
    let capture = directory.path().join("untimed.pcapng");
    std::fs::write(&capture, untimed).unwrap();
    let state = directory.path().join("refused");
    let (capture, state) = (capture.to_str().unwrap(), state.to_str().unwrap());
    let output = teiten(&["replay", "--json", "--timezone", "UTC", "--state-dir", state, capture]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = report["errors"][0].as_str().unwrap();
    assert!(error.starts_with("1 packet has no time"), "{error}");
    assert!(stderr(&output).contains(error) && !Path::new(state).exists(), "{}", stderr(&output));
}
