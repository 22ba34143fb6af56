//! The real daemon is killed at any moment, replaced by another build, started beside itself: what was
//! sent is counted, once. Needs root.

use crate::common::ledger::assert_ledger;
use crate::common::stream::Stream;
use crate::common::tracee::Tracee;
use crate::common::{assert_totals, calm_timezone, make, teiten};
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{Carry, Mix, Site};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So short that a daemon is in the midst of a drain most of the time.
const BUSY: &str = "100ms";
/// Kills at random moments. Ledger and kernel are the same at every size of this number.
const KILLS: usize = 20;
/// Stops after a switch at which to kill: begins and ends of system calls, those apart that write
/// into the write-ahead log, up to where the drained generation has been emptied.
const STOPS: std::ops::Range<usize> = 0..34;
/// Of these stops, every how manieth is tried.
const STRIDE: usize = 2;

fn run(lab: &Lab, program: &Path, interval: &str, more: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--timezone", &timezone];
    let interval = ["--drain-interval", interval];
    lab.spawn(program, &[&flags[..], &interval, more].concat()).unwrap()
}

fn start(lab: &Lab, program: &Path, interval: &str, more: &[&str]) -> Daemon {
    let mut daemon = run(lab, program, interval, more);
    daemon.wait_ready(PATIENCE).unwrap();
    daemon
}

fn wait_end(daemon: &mut Daemon) {
    wait_until("its end", || daemon.ended().unwrap().is_some());
}

/// The command of `bpf(2)` that switches generations.
const BPF_MAP_UPDATE_ELEM: u64 = 2;

/// Compares the counters and the ledger with what was sent.
fn assert_exact(lab: &Lab, daemon: &Daemon, expected: &lab::traffic::Expectation) {
    assert_totals(&daemon.wait_counted(expected.total(), PATIENCE).unwrap(), expected);
    assert_ledger(lab, expected);
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    needs_root!();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let lab = Lab::new(1500).unwrap();
    let mut daemon = start(&lab, teiten(), BUSY, &[]);
    let stream = Stream::start(&lab, seed);
    let mut ready = 0;
    for _ in 0..KILLS {
        // From the midst of its start to some drains later.
        std::thread::sleep(Duration::from_millis(random.random_range(0..900)));
        ready += usize::from(daemon.get("/-/ready").is_ok_and(|answer| answer.status == 200));
        daemon.signal(Signal::SIGKILL).unwrap();
        wait_end(&mut daemon);
        daemon = run(&lab, teiten(), BUSY, &[]);
    }
    daemon.wait_ready(PATIENCE).unwrap();
    let expected = stream.end();
    println!("{KILLS} kills, {ready} of them of a daemon that was ready; {} packets", expected.total());
    assert_exact(&lab, &daemon, &expected);
}

#[test]
fn kills_between_any_two_system_calls_of_a_drain_lose_and_double_nothing() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let mut daemon = start(&lab, teiten(), BUSY, &[]);
    let stream = Stream::start(&lab, 21);
    for (kill, stop) in STOPS.step_by(STRIDE).enumerate() {
        let mut drain = Tracee::attach(daemon.id(), "drain");
        let since = Instant::now();
        while !drain.step().is_some_and(|call| call.is(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM)) {
            assert!(since.elapsed() < PATIENCE, "it does not switch generations\n{}", daemon.log());
        }
        let mut left = stop;
        while left > 0 {
            let writes = drain.step().is_some_and(|call| call.number == libc::SYS_pwrite64 as u64);
            if writes {
                drain.step();
            } else {
                left -= 1;
            }
        }
        if kill % 4 == 3 {
            // Between two calls it reads and clears memory that it shares with the kernel.
            drain.let_go();
        }
        daemon.signal(Signal::SIGKILL).unwrap();
        drain.reap();
        wait_end(&mut daemon);
        daemon = run(&lab, teiten(), BUSY, &[]);
    }
    daemon.wait_ready(PATIENCE).unwrap();
    let expected = stream.end();
    assert_exact(&lab, &daemon, &expected);
}

/// Tag of the XDP program on the sensor's interface: the kernel's hash of its instructions.
fn program_tag(lab: &Lab) -> String {
    let shown =
        lab.sensor.command("ip").args(["-json", "-details", "link", "show", "dev", INTERFACE]).output();
    let shown: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    shown[0]["xdp"]["prog"]["tag"].as_str().unwrap_or_else(|| panic!("no XDP program: {shown}")).to_owned()
}

#[test]
fn another_build_with_other_options_takes_over_in_mid_stream() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let other = crate::common::build::another(teiten(), lab.directory());
    let mut daemon = start(&lab, teiten(), "100ms", &[]);
    let first = program_tag(&lab);
    let stream = Stream::start(&lab, 22);
    let turns: [(&Path, Signal, &[&str]); 4] = [
        (&other, Signal::SIGTERM, &["--source-table", "4096"]),
        (teiten(), Signal::SIGKILL, &["--max-ports", "7", "--feature-ports", "2"]),
        (&other, Signal::SIGKILL, &["--port-group", "netbios=137-139/udp", "--sensor-name", "renamed"]),
        (teiten(), Signal::SIGTERM, &["--source-table", "65536", "--xdp-mode", "native"]),
    ];
    for (program, signal, options) in turns {
        daemon.signal(signal).unwrap();
        wait_end(&mut daemon);
        daemon = start(&lab, program, "100ms", options);
        assert_eq!(program_tag(&lab) == first, program == teiten(), "each build attaches its own program");
    }
    let expected = stream.end();
    assert_exact(&lab, &daemon, &expected);
}

#[test]
fn changed_rules_count_from_the_takeover_on() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let mut sender = lab.sender().unwrap();
    let mut expected = lab::traffic::Expectation::default();
    let mut send = |site: Site, seed| {
        let (frames, more) = make(&mut Mix::new(site, seed), 4_000);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
        expected.merge(more);
    };
    let mut daemon = start(&lab, teiten(), "1h", &[]);
    send(lab.site(), 31);
    daemon.signal(Signal::SIGKILL).unwrap();
    wait_end(&mut daemon);
    // The old rules hold while no one is there.
    send(lab.site(), 32);
    let excluding = Site { excluded: vec!["0.0.0.0/2".parse().unwrap()], ..lab.site() };
    let mut daemon = start(&lab, teiten(), "1h", &["--exclude-source", "0.0.0.0/2"]);
    send(excluding.clone(), 33);
    daemon.signal(Signal::SIGKILL).unwrap();
    wait_end(&mut daemon);
    send(excluding, 34);
    let daemon = start(&lab, teiten(), "100ms", &[]);
    send(lab.site(), 35);
    assert_exact(&lab, &daemon, &expected);
}

/// What `teiten run` says when it does not start.
fn refusal(lab: &Lab, arguments: &[&str]) -> String {
    let mut command = lab.command(teiten());
    command.arg("run").args(["--interface", INTERFACE]).args(arguments);
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it started with {arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_daemon_is_refused_by_whichever_directory_it_shares_and_told_whose_it_is() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = start(&lab, teiten(), "100ms", &[]);
    let [pins, state] = [lab.pin_dir(), lab.state_dir()].map(|path| path.to_str().unwrap().to_owned());
    let other = |name: &str| lab.directory().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(other("bpf2")).unwrap();
    let holder = format!("process {}", daemon.id());
    for arguments in [
        // As it is started by mistake: everything is the same.
        ["--state-dir", &state, "--pin-dir", &pins, "--web.listen-address", "127.0.0.1:9477"],
        ["--state-dir", &state, "--pin-dir", &other("bpf2"), "--web.listen-address", "127.0.0.1:9999"],
        ["--state-dir", &other("state2"), "--pin-dir", &pins, "--web.listen-address", "127.0.0.1:9999"],
    ] {
        let said = refusal(&lab, &arguments);
        assert!(said.contains(&holder), "{holder} is not in: {said}");
    }
    let (frames, expected) = make(&mut Mix::new(lab.site(), 41), 5_000);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    assert_exact(&lab, &daemon, &expected);
    assert!(matches!(daemon.stop(Signal::SIGTERM), Ok(status) if status.success()), "undisturbed");
}
