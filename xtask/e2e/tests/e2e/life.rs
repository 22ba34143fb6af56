//! Starts, stops and failures of the real daemon. Needs root.

use crate::common::{assert_totals, calm_timezone, make, teiten};
use lab::sensor::{Daemon, Error, INTERFACE, Lab, WEB};
use lab::traffic::{Carry, Expectation, Mix};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

fn start(lab: &Lab, interval: &str) -> Daemon {
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", interval];
    lab.start(teiten(), &[&flags[..], &["--timezone", &timezone]].concat()).unwrap()
}

/// The names in the directory of the pins, as the sensor sees it, without those of the kernel's own.
fn pins(lab: &Lab) -> Vec<String> {
    let directory = lab.pin_dir();
    lab.mounts
        .run(|| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| !["progs.debug", "maps.debug"].contains(&name.as_str())).collect()
        })
        .unwrap()
}

/// Whether any XDP program is on the sensor's interface, as `ip` shows it.
fn has_xdp(lab: &Lab) -> bool {
    let shown = lab.sensor.command("ip").args(["link", "show", "dev", INTERFACE]).output().unwrap();
    assert!(shown.status.success());
    String::from_utf8_lossy(&shown.stdout).contains("xdp")
}

#[test]
fn sigterm_keeps_counting_and_the_restart_continues_without_loss() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let mut sender = lab.sender().unwrap();
    let mut mix = Mix::new(lab.site(), 11);
    let mut expected = Expectation::default();
    for round in 0..3 {
        let daemon = start(&lab, "500ms");
        let (frames, more) = make(&mut mix, 20_000);
        expected.merge(more);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
        assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
        assert!(has_xdp(&lab), "the program still counts after round {round}");
        // No one is there to drain these.
        let (frames, more) = make(&mut mix, 20_000);
        expected.merge(more);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
    }
    let daemon = start(&lab, "500ms");
    assert_totals(&daemon.wait_counted(120_000, PATIENCE).unwrap(), &expected);
    assert_eq!(expected.total(), 120_000);
}

#[test]
fn sigkill_loses_nothing() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let mut sender = lab.sender().unwrap();
    let mut mix = Mix::new(lab.site(), 12);
    let mut expected = Expectation::default();
    for round in 0..8_u32 {
        let daemon = start(&lab, "100ms");
        for _ in 0..4 {
            let (frames, more) = make(&mut mix, 1_000);
            expected.merge(more);
            sender.send(&frames).unwrap();
            std::thread::sleep(Duration::from_millis(u64::from(17 * (round + 1))));
        }
        daemon.stop(Signal::SIGKILL).unwrap();
    }
    sender.settle().unwrap();
    let daemon = start(&lab, "100ms");
    assert_totals(&daemon.wait_counted(expected.total(), PATIENCE).unwrap(), &expected);
}

#[test]
fn sigint_removes_program_and_pins_and_keeps_the_counts() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = start(&lab, "1h");
    assert!(has_xdp(&lab));
    let (frames, expected) = make(&mut Mix::new(lab.site(), 13), 5_000);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(!has_xdp(&lab), "the program is gone");
    assert_eq!(pins(&lab), Vec::<String>::new());
    // The last drain was committed: whichever process starts next shows it.
    let daemon = start(&lab, "500ms");
    assert_totals(&daemon.metrics().unwrap(), &expected);
}

#[test]
fn detach_ends_what_sigterm_left_and_keeps_the_counts() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = start(&lab, "500ms");
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    assert!(has_xdp(&lab));
    let (frames, expected) = make(&mut Mix::new(lab.site(), 15), 5_000);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();

    let mut detach = lab.command(teiten());
    detach.arg("detach").arg("--pin-dir").arg(lab.pin_dir());
    // What was counted belongs into the daemon's ledger, on the daemon's day.
    detach.env("TEITEN_STATE_DIR", lab.state_dir()).env("TEITEN_TIMEZONE", calm_timezone());
    crate::common::output(&mut detach);
    assert!(!has_xdp(&lab));
    assert_eq!(pins(&lab), Vec::<String>::new());
    let daemon = start(&lab, "500ms");
    assert_totals(&daemon.wait_counted(5_000, PATIENCE).unwrap(), &expected);
}

#[test]
fn hostile_clients_stop_neither_the_drain_nor_a_scrape() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = start(&lab, "500ms");
    let connect = || lab.sensor.connect(WEB, Duration::from_secs(5)).unwrap();
    let mut held = Vec::new();
    for index in 0..24 {
        let mut stream = connect();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // Some say nothing, some never end their header, some send what is no HTTP, some a huge header.
        // A server that has heard enough closes; that is its right.
        let _ = match index % 4 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "),
            2 => stream.write_all(&[0xff; 4096]),
            _ => stream.write_all(format!("GET / HTTP/1.1\r\nX: {}\r\n", "a".repeat(1 << 20)).as_bytes()),
        };
        held.push(stream);
    }
    let (frames, expected) = make(&mut Mix::new(lab.site(), 14), 20_000);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    assert_totals(&daemon.wait_counted(20_000, PATIENCE).unwrap(), &expected);
    for path in ["/-/ready", "/-/healthy", "/api/v1/status", "/"] {
        assert_eq!(daemon.get(path).unwrap().status, 200, "{path}");
    }
    // Those that never finish are sent away.
    let since = Instant::now();
    let mut open = held;
    while !open.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(90), "{} connections are still open", open.len());
        open.retain_mut(|stream| match stream.read(&mut [0; 4096]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => {
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        });
    }
}

/// What `teiten run` says when it does not start.
fn refusal(lab: &Lab, arguments: &[&str]) -> String {
    match lab.start(teiten(), arguments) {
        Err(Error::Ended { status, log }) => {
            assert!(!status.success(), "a daemon that does not start fails:\n{log}");
            log
        }
        Ok(_) => panic!("it started with {arguments:?}"),
        Err(other) => panic!("{other}"),
    }
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn no_such_interface_is_named() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    assert_says(&refusal(&lab, &["--interface", "nosuch0"]), &["nosuch0"]);
    assert_eq!(pins(&lab), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_program_that_is_there_already_is_named_and_left_alone() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let other = Lab::without_link(1500).unwrap();
    // Another Teiten, with pins and a state of its own, has the interface.
    let mut first = lab.sensor.command_with(&other.mounts, teiten());
    std::fs::create_dir_all(other.pin_dir()).unwrap();
    first.args(["run", "--interface", INTERFACE, "--web.listen-address", "127.0.0.1:9999"]);
    first.arg("--pin-dir").arg(other.pin_dir()).arg("--state-dir").arg(other.state_dir());
    let mut first = first.spawn().unwrap();
    wait_until("the program of the first", || has_xdp(&lab));
    assert_says(&refusal(&lab, &["--interface", INTERFACE]), &[INTERFACE, "XDP"]);
    assert!(has_xdp(&lab), "the first is not disturbed");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_attached() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let taken = lab.sensor.run(|| std::net::TcpListener::bind(WEB).unwrap()).unwrap();
    let mut command = lab.teiten_run(teiten(), &["--interface", INTERFACE]);
    std::fs::create_dir_all(lab.pin_dir()).unwrap();
    let said = said(&mut command);
    assert_says(&said, &["127.0.0.1:9477", "in use"]);
    assert!(!has_xdp(&lab));
    drop(taken);
}

/// What a command that must fail says.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {text}");
    text
}

#[test]
fn without_privilege_the_capabilities_are_named() {
    needs_root!();
    needs_program!("setpriv");
    let lab = Lab::new(1500).unwrap();
    // The built program may lie where no one may look.
    let program = lab.directory().join("teiten");
    std::fs::copy(teiten(), &program).unwrap();
    let state = lab.directory().join("not-owned");
    std::fs::create_dir_all(lab.pin_dir()).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(lab.directory(), mode).unwrap();
    nix::unistd::chown(&state, Some(65_534.into()), Some(65_534.into())).unwrap();
    let mut command = lab.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(&program).args(["run", "--interface", INTERFACE]);
    command.arg("--pin-dir").arg(lab.pin_dir()).arg("--state-dir").arg(&state);
    assert_says(&said(&mut command), &["CAP_BPF", "CAP_NET_ADMIN"]);
    assert!(!has_xdp(&lab));
}

#[test]
fn a_bad_flag_and_a_bad_value_are_named() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let refused = |arguments: &[&str]| said(&mut lab.teiten_run(teiten(), arguments));
    assert_says(&refused(&["--no-such-flag"]), &["--no-such-flag"]);
    assert_says(&refused(&["--service", "22"]), &["--service", "22"]);
    assert_says(&refused(&["--timezone", "Nowhere/Town"]), &["Nowhere/Town"]);
    assert_says(&refused(&["--observe", "198.18.0.0/33"]), &["198.18.0.0/33"]);
    assert!(!has_xdp(&lab));
}
