//! What a start promises and what it leaves behind, where its premises do not hold. Needs root.

use crate::common::teiten;
use lab::netns::Interface;
use lab::sensor::{Error, INTERFACE, Lab, WEB};
use lab::wait::{PATIENCE, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const FLAGS: [&str; 4] = ["--interface", INTERFACE, "--drain-interval", "200ms"];

fn has_xdp(lab: &Lab, interface: &str) -> bool {
    let shown = lab.sensor.command("ip").args(["link", "show", "dev", interface]).output().unwrap();
    assert!(shown.status.success());
    String::from_utf8_lossy(&shown.stdout).contains("prog/xdp")
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
    daemon.wait_log(warned);
    let notes = daemon.status().unwrap()["notes"].to_string();
    assert!(notes.contains(warned) && notes.contains("nsenter --net="), "{notes}");
    assert!(has_xdp(&lab, INTERFACE));
    let log = lab.directory().join("teiten.log");
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.contains("packets are not counted until the next start"), "{log}");
    assert!(!log.contains("keeps counting"), "{log}");
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
    // A variable that is not the program's is warned of.
    container.env_remove("TEITEN_TEST_DATA");
    container.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut container = container.spawn().unwrap();
    let log = || std::fs::read_to_string(&log).unwrap();
    wait_until("the daemon", || log().contains("serving HTTP"));
    let mut steps = container.stdin.take().unwrap();
    steps.write_all(b"\n").unwrap();
    wait_until("its end", || log().contains("ended\n"));
    assert!(log().contains("pinned program keeps counting"), "{}", log());
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
    wait_until("the other's program", || has_xdp(&lab, "eth1"));

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

    // What an earlier daemon has left counting stays so, and is reported.
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
fn a_start_that_fails_on_a_port_or_on_its_object_leaves_no_directory() {
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
    assert_eq!(text.matches("Operation not supported").count(), 1, "reported once: {text}");
    assert!(!has_xdp(&lab, INTERFACE) && !has_xdp(&lab, "lo"), "{text}");
    assert!(!exists(&lab, &pins), "{text}");
    assert!(!lab.state_dir().exists(), "{text}");
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
        crate::common::output(ip.args(["link", "set", name]).args(arguments.split(' ')));
    }
    let daemon = match lab.start(teiten(), &["--interface", "lan0"]) {
        Ok(daemon) => daemon,
        Err(Error::Ended { log, .. }) => panic!("{log}"),
        Err(error) => panic!("{error}"),
    };
    assert!(!daemon.log().contains("observation begins now"), "{}", daemon.log());
    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(!has_xdp(&lab, "lan0"));
}

/// Runs `teiten` as a user without rights, in the lab.
fn as_unprivileged(lab: &Lab, arguments: &[&str]) -> Command {
    // The built program may lie where no one may look.
    let program = lab.directory().join("teiten");
    if !program.exists() {
        std::fs::copy(teiten(), &program).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(lab.directory(), mode).unwrap();
    let mut command = lab.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(program).args(arguments);
    command
}

#[test]
fn what_may_not_be_looked_at_is_not_said_to_be_absent() {
    needs_root!();
    needs_program!("setpriv");
    let lab = Lab::new(1500).unwrap();
    let pins = bpffs(&lab);
    let mut command = lab.command(teiten());
    command.arg("run").args(FLAGS).arg("--pin-dir").arg(&pins).arg("--state-dir").arg(lab.state_dir());
    let mut daemon = lab.spawn_command(command).unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());

    let (pins, state) = (pins.to_str().unwrap(), lab.state_dir());
    let state = state.to_str().unwrap();
    let places = ["--pin-dir", pins, "--state-dir", state];
    let (text, done) = said(as_unprivileged(&lab, &["detach"]).args(places));
    assert!(!done && text.contains("not allowed to see") && text.contains("sudo teiten detach"), "{text}");
    let (text, done) = said(as_unprivileged(&lab, &["ledger", "--state-dir", state]).arg("days"));
    assert!(!done && text.contains("not allowed to look") && text.contains("`sudo teiten …`"), "{text}");
    let (text, done) = said(as_unprivileged(&lab, &["check", "--interface", INTERFACE]).args(places));
    assert!(!done && !text.contains("another XDP program") && !text.contains("would be created"), "{text}");
    assert!(text.contains(&format!("pins {pins}: not allowed to look; run `sudo teiten check`")), "{text}");
    assert!(text.contains("cannot be written by this user"), "{text}");
    assert!(text.contains("not allowed to see whether it is the pinned one"), "{text}");
    // The one who may look sees it.
    let (text, done) = said(lab.command(teiten()).args(["check", "--interface", INTERFACE]).args(places));
    assert!(done && text.contains("the pinned program is attached and would be taken over"), "{text}");
    // Pins beside which another program is attached are not its own.
    let other = lab.directory().join("host/other");
    let other = other.to_str().unwrap();
    let places = ["--pin-dir", other, "--state-dir", state];
    let (text, done) = said(lab.command(teiten()).args(["check", "--interface", INTERFACE]).args(places));
    assert!(!done && text.contains("already has an XDP program") && text.contains("teiten detach"), "{text}");
    let (text, done) = said(lab.command(teiten()).arg("detach").args(places));
    assert!(done && text.contains("nothing is pinned under") && text.contains("it is teiten's"), "{text}");
    assert!(has_xdp(&lab, INTERFACE));
}

/// The capabilities of every thread of a process: effective, permitted, inheritable, bounding, ambient; and
/// whether it may gain more.
fn rights(pid: u32) -> Vec<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let names = ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
        let value =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        names.map(value).to_vec()
    };
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok()).map(of).collect()
}

#[test]
fn roots_rights_are_given_up_on_every_thread_and_the_daemon_works_on() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let mut daemon = lab.start(teiten(), &FLAGS).unwrap();
    let three = "000000c000001000";
    let none = "0000000000000000";
    let check = |daemon: &lab::sensor::Daemon| {
        let threads = rights(daemon.id());
        assert!(threads.len() > 2, "{threads:?}");
        for thread in threads {
            assert_eq!(thread, [three, three, none, three, none, "1"]);
        }
    };
    check(&daemon);
    // An interface that comes back is attached to, pins that are removed come back.
    let mut ip = lab.sensor.command("ip");
    crate::common::output(ip.args(["link", "del", "dev", INTERFACE]));
    lab.link().unwrap();
    wait_until("the interface", || has_xdp(&lab, INTERFACE));
    let generation = lab.layout_dir().join("generation-a");
    lab.mounts.run(|| std::fs::remove_file(&generation).unwrap()).unwrap();
    wait_until("the pin", || exists(&lab, &generation));
    check(&daemon);
    assert!(daemon.ended().unwrap().is_none());
    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(!has_xdp(&lab, INTERFACE));
}

/// As in the unit: a user of its own with three capabilities, and a directory of its own on root's bpffs, which
/// it sees elsewhere.
#[test]
fn a_user_of_its_own_runs_it_and_root_detaches_it() {
    needs_root!();
    needs_program!("setpriv");
    let lab = Lab::new(1500).unwrap();
    let pins = bpffs(&lab);
    let (seen, state) = (lab.directory().join("seen"), lab.state_dir());
    std::fs::create_dir(&seen).unwrap();
    std::fs::create_dir(&state).unwrap();
    let owner = Some(65_534.into());
    nix::unistd::chown(&state, owner, Some(65_534.into())).unwrap();
    lab.mounts
        .run(|| {
            std::fs::create_dir(&pins).unwrap();
            nix::unistd::chown(&pins, owner, Some(65_534.into())).unwrap();
            mount(Some(&pins), &seen, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        })
        .unwrap();
    let program = lab.directory().join("teiten");
    std::fs::copy(teiten(), &program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(lab.directory(), mode).unwrap();
    let caps = "+bpf,+net_admin,+perfmon";
    let run = || {
        let mut command = lab.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg(format!("--bounding-set=-all,{caps}"));
        command.arg(format!("--inh-caps=-all,{caps}")).arg(format!("--ambient-caps=-all,{caps}"));
        command
            .arg(&program)
            .arg("run")
            .args(FLAGS)
            .arg("--pin-dir")
            .arg(&seen)
            .arg("--state-dir")
            .arg(&state);
        command
    };
    for _ in 0..2 {
        let mut daemon = lab.spawn_command(run()).unwrap();
        daemon.wait_ready(PATIENCE).unwrap();
        let mut ip = lab.sensor.command("ip");
        crate::common::output(ip.args(["link", "del", "dev", INTERFACE]));
        lab.link().unwrap();
        wait_until("the interface", || has_xdp(&lab, INTERFACE));
        assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    }
    // Root would leave files that the daemon's user cannot write.
    let places = [pins.to_str().unwrap(), state.to_str().unwrap()];
    let places = ["--pin-dir", places[0], "--state-dir", places[1]];
    let (text, started) = said(lab.command(teiten()).arg("run").args(FLAGS).args(places));
    assert!(!started && text.contains("run teiten as"), "{text}");
    assert!(has_xdp(&lab, INTERFACE), "{text}");
    let (text, done) = said(lab.command(teiten()).arg("detach").args(places));
    assert!(done && !has_xdp(&lab, INTERFACE), "{text}");
    for entry in std::fs::read_dir(&state).unwrap().flatten() {
        let uid = std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap());
        assert_eq!(uid, 65_534, "{:?}", entry.path());
    }
}

#[test]
fn a_state_directory_or_a_pin_directory_that_others_can_turn_is_refused() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let pins = bpffs(&lab);
    let state = lab.state_dir();
    std::fs::create_dir(&state).unwrap();
    let chmod = |path: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        lab.mounts.run(|| std::fs::set_permissions(path, mode).unwrap()).unwrap();
    };
    let run = |pins: &Path| {
        let mut command = lab.command(teiten());
        command.arg("run").args(FLAGS).arg("--pin-dir").arg(pins).arg("--state-dir").arg(&state);
        said(&mut command)
    };
    chmod(&state, 0o777);
    let (text, started) = run(&pins);
    assert!(!started && text.contains(&format!("chmod o-w {}", state.display())), "{text}");
    chmod(&state, 0o750);
    lab.mounts.run(|| std::fs::create_dir(&pins).unwrap()).unwrap();
    chmod(&pins, 0o777);
    let (text, started) = run(&pins);
    assert!(!started && text.contains(&format!("chmod o-w {}", pins.display())), "{text}");
    chmod(&pins, 0o700);
    let link = lab.directory().join("link");
    std::os::unix::fs::symlink(&pins, &link).unwrap();
    let (text, started) = run(&link);
    assert!(!started && text.contains("is a symbolic link"), "{text}");
    assert!(!has_xdp(&lab, INTERFACE));
    // What leads elsewhere is not followed.
    let ledger = state.join("ledger.sqlite");
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        std::fs::remove_file(file.path()).unwrap();
    }
    std::os::unix::fs::symlink(lab.directory().join("elsewhere"), &ledger).unwrap();
    let (text, started) = run(&pins);
    assert!(!started && text.contains("ledger.sqlite is a symbolic link"), "{text}");
    assert!(!lab.directory().join("elsewhere").exists());
    std::fs::remove_file(&ledger).unwrap();
    let precious = lab.directory().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let lock = state.join("teiten.lock");
    let _ = std::fs::remove_file(&lock);
    std::os::unix::fs::symlink(&precious, &lock).unwrap();
    let (text, started) = run(&pins);
    assert!(!started && text.contains("teiten.lock"), "{text}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

/// The JSON line of the log with this message.
fn line(log: &str, message: &str) -> serde_json::Value {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let found = lines.rfind(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no line {message:?}: {log}"))
}

#[test]
fn the_start_says_what_it_runs_with_and_what_it_takes_over() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let flags = ["--sensor-name", "tokyo-1", "--timezone", "Asia/Tokyo", "--service", "22/tcp"];
    let arguments = |format: &'static str| [&FLAGS[..], &flags, &["--log-format", format]].concat();
    let daemon = lab.start(teiten(), &arguments("text")).unwrap();
    let log = daemon.log();
    let mut rest = log.as_str();
    for expected in [
        "starting teiten version=",
        "sensor=\"tokyo-1\" timezone=\"Asia/Tokyo\"",
        "country database loaded database=the embedded country database built=2",
        "ledger opened state_dir=",
        "nothing was pinned; counting starts now generation=1",
        "observing interface=\"eth0\" mode=\"native\"",
        "observing addresses ipv4=1 ipv6=",
        "serving HTTP address=127.0.0.1:9477",
    ] {
        let at =
            rest.find(expected).unwrap_or_else(|| panic!("{expected} is missing, or not in order: {log}"));
        rest = &rest[at..];
    }
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());

    // Less than a second without a daemon is not worth a line.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let mut daemon = lab.start(teiten(), &arguments("json")).unwrap();
    daemon.wait_log("counted while no daemon ran");
    let log = daemon.log();
    assert_eq!(line(&log, "starting teiten")["sensor"], "tokyo-1");
    let opened = line(&log, "ledger opened");
    assert!(opened["last_generation"].as_u64().unwrap() >= 1, "{opened}");
    assert!(opened["counting_since"].as_str().unwrap().starts_with("20"), "{opened}");
    assert!(line(&log, "taking over pinned counters")["generation"].as_u64().unwrap() >= 1);
    assert!(line(&log, "country database loaded")["age_days"].as_u64().unwrap() < 4000);
    assert_eq!(daemon.ended().unwrap(), None);
}

#[test]
fn every_command_reads_the_installed_sensors_configuration() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    // An /etc of the lab's own.
    lab.mounts
        .run(|| {
            mount(Some("tmpfs"), "/etc", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
            std::fs::create_dir("/etc/teiten").unwrap();
            let text = format!(
                "interface = \"{INTERFACE}\"\nstate-dir = \"{}\"\npin-dir = \"{}\"\nsensor-name = \"from-etc\"\n",
                lab.state_dir().display(),
                lab.pin_dir().display()
            );
            std::fs::write("/etc/teiten/teiten.toml", text).unwrap();
        })
        .unwrap();
    let daemon = lab.spawn_command({
        let mut command = lab.command(teiten());
        command.arg("run");
        command
    });
    let mut daemon = daemon.unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    assert_eq!(daemon.status().unwrap()["sensor"], "from-etc");
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    let all = |arguments: &[&str]| said(lab.command(teiten()).args(arguments));
    assert!(all(&["check"]).0.contains("sensor from-etc"));
    assert!(all(&["ledger", "days"]).1);
    // Another file is read instead, and nothing of that one.
    assert!(all(&["check", "--config", "/dev/null"]).0.contains("/var/lib/teiten"));
    let (text, done) = all(&["detach"]);
    assert!(done && !has_xdp(&lab, INTERFACE), "{text}");
    // One that this user may not read: `ledger` must not guess, `status` needs only an address.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    lab.mounts.run(|| std::fs::set_permissions("/etc/teiten/teiten.toml", mode).unwrap()).unwrap();
    let (text, done) = said(&mut as_unprivileged(&lab, &["ledger", "days"]));
    assert!(
        !done && text.contains("/etc/teiten/teiten.toml") && text.contains("run teiten as root"),
        "{text}"
    );
    let (text, done) = said(&mut as_unprivileged(&lab, &["status"]));
    assert!(
        !done && text.contains("asking with defaults and flags") && text.contains("no sensor answers"),
        "{text}"
    );
    let mut command = lab.command(teiten());
    command.arg("run");
    let mut daemon = lab.spawn_command(command).unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    let (text, done) = said(&mut as_unprivileged(&lab, &["status"]));
    assert!(done && text.contains("/etc/teiten/teiten.toml") && text.contains("at from-etc"), "{text}");
    let (text, done) = said(&mut as_unprivileged(&lab, &["status", "--config", "/etc/teiten/teiten.toml"]));
    assert!(!done && text.contains("cannot read the configuration file"), "{text}");
}
