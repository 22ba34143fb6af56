//! What a start promises and what it leaves behind, where its premises do not hold. Needs root.

mod common;

use common::teiten;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::demo::sensor::{Error, INTERFACE, Lab, WEB};
use xtask::netns::Interface;

const PATIENCE: Duration = Duration::from_mins(1);
const FLAGS: [&str; 4] = ["--interface", INTERFACE, "--drain-interval", "200ms"];

fn has_xdp(lab: &Lab, interface: &str) -> bool {
    let shown = lab.sensor.command("ip").args(["link", "show", "dev", interface]).output().unwrap();
    assert!(shown.status.success());
    String::from_utf8_lossy(&shown.stdout).contains("prog/xdp")
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command says, and whether it succeeded.
fn said(command: &mut Command) -> (String, bool) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// A bpffs in the lab, with mode 0700 as systemd mounts it, and a pin directory below it.
fn bpffs(lab: &Lab) -> std::path::PathBuf {
    let path = lab.directory().join("host");
    std::fs::create_dir(&path).unwrap();
    let none = None::<&str>;
    lab.mounts.run(|| mount(none, &path, Some("bpf"), MsFlags::empty(), Some("mode=0700")).unwrap()).unwrap();
    path.join("teiten")
}

fn exists(lab: &Lab, path: &Path) -> bool {
    lab.mounts.run(|| path.symlink_metadata().is_ok()).unwrap()
}

#[test]
fn pins_that_end_with_the_daemon_are_told_at_start_in_the_status_and_at_the_end() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    // As under `ip netns exec`: mounts of its own, in which the daemon mounts a bpffs for itself.
    let mut command = lab.sensor.command("unshare");
    command.arg("--mount").arg(teiten()).arg("run").args(FLAGS);
    command.arg("--pin-dir").arg(lab.pin_dir()).arg("--state-dir").arg(lab.state_dir());
    let mut daemon = lab.spawn_command(command).unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    let warned = "mount namespace that no other process is in";
    assert!(daemon.log().contains(warned), "{}", daemon.log());
    let notes = daemon.status().unwrap()["notes"].to_string();
    assert!(notes.contains(warned) && notes.contains("nsenter --net="), "{notes}");
    assert!(has_xdp(&lab, INTERFACE));
    let log = lab.directory().join("teiten.log");
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.contains("packets are not counted until the next start"), "{log}");
    assert!(!log.contains("goes on counting"), "{log}");
    // It was the truth.
    assert!(!has_xdp(&lab, INTERFACE));
}

/// In a container whose first process is another one, the pins outlive the daemon.
#[test]
fn pins_that_the_first_process_keeps_give_no_warning_and_count_on() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    std::fs::create_dir_all(lab.pin_dir()).unwrap();
    let script = format!(
        "{} run {} --pin-dir {} --state-dir {} & daemon=$!; read go; kill -TERM $daemon; wait $daemon; \
         echo ended; read go",
        teiten().display(),
        FLAGS.join(" "),
        lab.pin_dir().display(),
        lab.state_dir().display(),
    );
    let log = lab.directory().join("log");
    let file = File::create(&log).unwrap();
    let mut container = lab.sensor.command("unshare");
    container.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
    container.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut container = container.spawn().unwrap();
    let log = || std::fs::read_to_string(&log).unwrap();
    wait_for("the daemon", || lab.sensor.connect(WEB, Duration::from_secs(1)).is_ok());
    let mut steps = container.stdin.take().unwrap();
    steps.write_all(b"\n").unwrap();
    wait_for("its end", || log().contains("ended\n"));
    assert!(log().contains("the pinned program goes on counting"), "{}", log());
    assert!(!log().contains("WARN"), "{}", log());
    assert!(has_xdp(&lab, INTERFACE));
    drop(steps);
    container.wait().unwrap();
}

#[test]
fn after_sigint_the_pin_directory_is_gone_and_the_bpffs_is_there() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let pins = bpffs(&lab);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut command = lab.command(teiten());
        command.arg("run").args(FLAGS).arg("--pin-dir").arg(&pins).arg("--state-dir").arg(lab.state_dir());
        let mut daemon = lab.spawn_command(command).unwrap();
        daemon.wait_ready(PATIENCE).unwrap();
        assert!(daemon.stop(signal).unwrap().success());
        assert_eq!(exists(&lab, &pins), signal == Signal::SIGTERM);
    }
    assert!(exists(&lab, pins.parent().unwrap()));
}

/// The second of two interfaces has a program already.
#[test]
fn a_start_that_fails_on_its_second_interface_leaves_nothing_and_says_what_helps() {
    needs_root!();
    needs_program!("bpftool");
    let lab = Lab::new(1500).unwrap();
    lab.internet.join(&Interface::new("wire1").silent(), &lab.sensor, &Interface::new("eth1")).unwrap();
    let other = Lab::without_link(1500).unwrap();
    std::fs::create_dir_all(other.pin_dir()).unwrap();
    let mut occupant = lab.sensor.command_with(&other.mounts, teiten());
    occupant.args(["run", "--interface", "eth1", "--web.listen-address", "127.0.0.1:9999"]);
    occupant.arg("--pin-dir").arg(other.pin_dir()).arg("--state-dir").arg(other.state_dir());
    let mut occupant = occupant.spawn().unwrap();
    wait_for("the other's program", || has_xdp(&lab, "eth1"));

    let pins = bpffs(&lab);
    let run = |interfaces: &[&str]| {
        let mut command = lab.command(teiten());
        command.arg("run").arg("--pin-dir").arg(&pins).arg("--state-dir").arg(lab.state_dir());
        for interface in interfaces {
            command.args(["--interface", interface]);
        }
        command
    };
    let (text, started) = said(&mut run(&[INTERFACE, "eth1"]));
    assert!(!started && text.contains("interface eth1 already has an XDP program"), "{text}");
    assert!(!has_xdp(&lab, INTERFACE), "{text}");
    assert!(!exists(&lab, &pins), "{text}");

    // What an earlier daemon has left counting stays so, and is told.
    let mut daemon = lab.spawn_command(run(&[INTERFACE])).unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    let (text, started) = said(&mut run(&[INTERFACE, "eth1"]));
    assert!(!started && text.contains("the program of an earlier start stays attached"), "{text}");
    assert!(has_xdp(&lab, INTERFACE), "{text}");

    // The advice detaches what is attached by a link.
    occupant.kill().unwrap();
    occupant.wait().unwrap();
    assert!(has_xdp(&lab, "eth1"), "pinned");
    let advice = text.split('`').find(|words| words.starts_with("bpftool link detach id ")).unwrap();
    let mut words = advice.split(' ');
    let (text, detached) = said(lab.command(words.next().unwrap()).args(words));
    assert!(detached, "{advice}: {text}");
    assert!(!has_xdp(&lab, "eth1"));
}

#[test]
fn a_start_that_fails_on_a_port_or_on_its_object_leaves_no_pin_directory() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let pins = bpffs(&lab);
    let run = |more: &[&str]| {
        let mut command = lab.command(teiten());
        command.arg("run").args(FLAGS).arg("--pin-dir").arg(&pins).arg("--state-dir").arg(lab.state_dir());
        command.args(more);
        command
    };
    let taken = lab.sensor.run(|| std::net::TcpListener::bind(WEB).unwrap()).unwrap();
    let (text, started) = said(&mut run(&[]));
    assert!(!started && text.contains("in use"), "{text}");
    drop(taken);
    // veth takes programs in the driver; the loopback device does not.
    let (text, started) = said(&mut run(&["--interface", "lo", "--xdp-mode", "native"]));
    assert!(!started && text.contains("try `--xdp-mode generic`"), "{text}");
    assert_eq!(text.matches("Operation not supported").count(), 1, "told once: {text}");
    assert!(!has_xdp(&lab, INTERFACE) && !has_xdp(&lab, "lo"), "{text}");
    assert!(!exists(&lab, &pins), "{text}");
}

#[test]
fn a_renamed_interface_is_taken_over_by_its_new_name() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = lab.start(teiten(), &FLAGS).unwrap();
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    for arguments in ["down", "name lan0", "up"] {
        let name = if arguments == "up" { "lan0" } else { INTERFACE };
        let mut ip = lab.sensor.command("ip");
        common::output(ip.args(["link", "set", name]).args(arguments.split(' ')));
    }
    let daemon = match lab.start(teiten(), &["--interface", "lan0"]) {
        Ok(daemon) => daemon,
        Err(Error::Ended { log, .. }) => panic!("{log}"),
        Err(error) => panic!("{error}"),
    };
    assert!(!daemon.log().contains("observation begins anew"), "{}", daemon.log());
    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(!has_xdp(&lab, "lan0"));
}
