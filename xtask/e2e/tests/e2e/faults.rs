//! What goes wrong around a running sensor: its disk, its ledger, its pins, its interface. It continues
//! counting, says so, and recovers by itself. Needs root.

use crate::common::ledger::assert_ledger;
use crate::common::{
    assert_totals, calm_timezone, ledger, ledger_command, make, output, teiten, wait_samples,
};
use lab::scrape::Samples;
use lab::sensor::{Daemon, Error, INTERFACE, Lab, layout};
use lab::traffic::{Carry, Expectation, Mix, Sender, Site};
use lab::wait::{PATIENCE, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A sensor, its traffic, and what it must have counted.
struct Watched {
    lab: Lab,
    sender: Sender,
    mix: Mix,
    expected: Expectation,
}

impl Watched {
    fn new(seed: u64) -> Self {
        let lab = Lab::new(1500).unwrap();
        let (sender, mix) = (lab.sender().unwrap(), Mix::new(lab.site(), seed));
        Self { lab, sender, mix, expected: Expectation::default() }
    }

    fn try_start(&self) -> Result<Daemon, Error> {
        let timezone = calm_timezone();
        let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "100ms"];
        self.lab.start(teiten(), &[&flags[..], &["--timezone", &timezone]].concat())
    }

    fn start(&self) -> Daemon {
        self.try_start().unwrap()
    }

    fn send(&mut self, packets: usize) {
        let (frames, more) = make(&mut self.mix, packets);
        self.sender.send(&frames).unwrap();
        self.sender.settle().unwrap();
        self.expected.merge(more);
    }

    fn assert_counters(&self, daemon: &Daemon) {
        assert_totals(&daemon.wait_counted(self.expected.total(), PATIENCE).unwrap(), &self.expected);
    }

    fn assert_exact(&self, daemon: &Daemon) {
        self.assert_counters(daemon);
        assert_ledger(&self.lab, &self.expected);
    }

    fn file(&self) -> PathBuf {
        self.lab.state_dir().join("ledger.sqlite")
    }

    /// Why it does not start.
    fn refusal(&self) -> String {
        let from = fs::read_to_string(self.lab.directory().join("teiten.log")).unwrap_or_default().len();
        match self.try_start() {
            Err(Error::Ended { log, .. }) => log[from..].to_owned(),
            other => panic!("it should not start: {other:?}"),
        }
    }
}

fn wait_up(daemon: &Daemon, up: bool) {
    wait_samples(daemon, &format!("teiten_up is {up}"), |samples| (samples.sum("teiten_up") == 1) == up);
}

fn end(daemon: Daemon, signal: Signal) {
    let status = daemon.stop(signal).unwrap();
    assert_eq!(status.success(), signal == Signal::SIGTERM);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_when_there_is_space_again() {
    needs_root!();
    let mut watched = Watched::new(51);
    let state = watched.lab.state_dir();
    fs::create_dir(&state).unwrap();
    let path = state.clone();
    watched
        .lab
        .mounts
        .run(move || mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=6m,mode=0750")))
        .unwrap()
        .unwrap();
    let daemon = watched.start();
    watched.send(3_000);
    watched.assert_exact(&daemon);

    let ballast = state.join("ballast");
    let path = ballast.clone();
    watched
        .lab
        .mounts
        .run(move || {
            let mut file = File::create(path).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        })
        .unwrap();
    watched.send(20_000);
    wait_samples(&daemon, "a failed drain", |samples| samples.sum("teiten_drain_failures_total") > 0);
    wait_up(&daemon, false);
    assert_eq!(daemon.get("/-/ready").unwrap().status, 503);
    daemon.wait_log("disk full");
    watched.send(20_000);

    watched.lab.mounts.run(move || fs::remove_file(ballast).unwrap()).unwrap();
    watched.assert_exact(&daemon);
    wait_up(&daemon, true);
    end(daemon, Signal::SIGTERM);
}

#[test]
fn a_state_directory_that_is_deleted_unmounted_or_read_only_loses_no_count() {
    needs_root!();
    let mut watched = Watched::new(52);
    let (state, store) = (watched.lab.state_dir(), watched.lab.directory().join("store"));
    for directory in [&state, &store] {
        fs::create_dir(directory).unwrap();
    }
    let path = store.clone();
    let tmpfs = move || mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("mode=0750"));
    watched.lab.mounts.run(tmpfs).unwrap().unwrap();
    bind(&watched.lab, &store, MsFlags::empty());

    let daemon = watched.start();
    watched.send(3_000);
    unmount(&watched.lab);
    watched.send(3_000);
    wait_up(&daemon, false);
    daemon.wait_log("no longer mounted");
    watched.send(3_000);
    bind(&watched.lab, &store, MsFlags::empty());
    wait_up(&daemon, true);
    watched.assert_exact(&daemon);
    end(daemon, Signal::SIGTERM);

    // Read-only at the start: refused, and counted all the same.
    unmount(&watched.lab);
    bind(&watched.lab, &store, MsFlags::MS_RDONLY);
    watched.send(3_000);
    let said = watched.refusal();
    assert!(said.contains("must be writable") && said.contains(state.to_str().unwrap()), "{said}");
    unmount(&watched.lab);
    bind(&watched.lab, &store, MsFlags::empty());
    let daemon = watched.start();
    watched.assert_exact(&daemon);

    // What was in it is deleted: the counters continue.
    let inside = state.clone();
    let empty = move || {
        for entry in fs::read_dir(inside).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    watched.lab.mounts.run(empty).unwrap();
    watched.send(3_000);
    watched.assert_counters(&daemon);
    daemon.wait_log("the ledger was lost while running");
    ledger(&watched.lab, &["verify"]);
    end(daemon, Signal::SIGKILL);
    watched.send(3_000);
    watched.assert_counters(&watched.start());
    ledger(&watched.lab, &["verify"]);
}

/// Mounts `from` at the sensor's state directory.
fn bind(lab: &Lab, from: &Path, flags: MsFlags) {
    let (from, to) = (from.to_owned(), lab.state_dir());
    let bound = lab.mounts.run(move || {
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
        mount(Some(&from), &to, None::<&str>, flags, None::<&str>)
    });
    bound.unwrap().unwrap();
}

/// Unmounts what is there, though files in it are open.
fn unmount(lab: &Lab) {
    let state = lab.state_dir();
    lab.mounts.run(move || umount2(&state, MntFlags::MNT_DETACH)).unwrap().unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn moved_aside(state: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().contains(".corrupt-"));
    found.sort();
    found
}

#[test]
fn a_damaged_ledger_is_moved_aside_by_name_and_can_still_be_read() {
    needs_root!();
    let mut watched = Watched::new(53);
    let daemon = watched.start();
    watched.send(3_000);
    watched.assert_exact(&daemon);
    end(daemon, Signal::SIGTERM);
    let first = std::mem::take(&mut watched.expected);

    // One letter of a counter's label: the file's structure is as before.
    let bytes = fs::read(watched.file()).unwrap();
    let label = b"packetsaccess";
    let found = bytes.windows(label.len()).enumerate().filter(|(_, bytes)| bytes == label);
    // Some are what earlier writes have left in free space.
    let labels: Vec<usize> = found.map(|(at, _)| at + 8).collect();
    assert!(!labels.is_empty(), "a counter's label is in the file");
    let flip_labels = |path: &Path| labels.iter().for_each(|at| flip(path, *at));
    flip_labels(&watched.file());
    watched.send(3_000);
    let daemon = watched.start();
    // What came meanwhile was numbered for the old ledger, and is in the new one.
    watched.assert_exact(&daemon);
    let [aside] = &moved_aside(&watched.lab.state_dir())[..] else { panic!("nothing was moved aside") };
    let name = aside.to_str().unwrap();
    daemon.wait_log(name);
    let notes = daemon.status().unwrap()["notes"].to_string();
    assert!(notes.contains(name), "{name} is not in the status: {notes}");

    // The days of the old one are all there.
    let days = |state: &Path| {
        let mut command = watched.lab.command(teiten());
        command.args(["ledger", "days", "--json", "--state-dir"]).arg(state);
        // Standard error tells of the ledger that was moved aside.
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let days: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        days.as_array().unwrap().iter().map(|day| day["packets"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(days(aside), first.total());
    assert_eq!(days(&watched.lab.state_dir()), watched.expected.total());

    // Someone fixes it and puts it back: whatever was numbered meanwhile is taken in all the same.
    end(daemon, Signal::SIGKILL);
    watched.send(1_000);
    let fixed = aside.clone();
    for tail in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{tail}", watched.file().display()));
    }
    flip_labels(&fixed);
    for tail in ["-wal", "-shm", ""] {
        // What belongs to it, where it is there, and then itself.
        let with = |path: &Path| PathBuf::from(format!("{}{tail}", path.display()));
        let moved = fs::rename(with(&fixed), with(&watched.file()));
        assert!(moved.is_ok() || !tail.is_empty(), "{moved:?}");
    }
    let (_, more) = make(&mut Mix::new(watched.lab.site(), 53), 3_000);
    assert_eq!(more, first, "the mix is the same for the same seed");
    let daemon = watched.start();
    let counted = daemon.wait_counted(4_000, PATIENCE).unwrap().sum("teiten_packets_total");
    assert_eq!(counted, 4_000);
    watched.expected = first;
    watched.send(2_000);
    wait_samples(&daemon, "all packets", |samples| samples.sum("teiten_packets_total") == 6_000);
    ledger(&watched.lab, &["verify"]);
}

#[test]
fn damage_in_the_write_ahead_log_is_told_and_a_copy_kept() {
    needs_root!();
    let mut watched = Watched::new(54);
    let daemon = watched.start();
    let generation = |daemon: &Daemon| daemon.status().unwrap()["generation"].as_u64().unwrap();
    let first = generation(&daemon);
    while generation(&daemon) < first + 8 {
        watched.send(200);
    }
    watched.assert_exact(&daemon);
    end(daemon, Signal::SIGKILL);
    let log = PathBuf::from(format!("{}-wal", watched.file().display()));
    let length = fs::metadata(&log).unwrap().len() as usize;
    flip(&log, length / 2);
    // Before anything is started on it, and without an end to the evidence.
    for arguments in [&["verify"][..], &["days"], &["export", "--format", "csv"]] {
        let said = ledger_command(&watched.lab, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            said.status.code() == Some(1) && text.contains("is damaged at byte"),
            "{arguments:?}: {text}"
        );
    }
    let daemon = watched.start();
    let [copy] = &moved_aside(&watched.lab.state_dir())[..] else { panic!("no copy was kept") };
    for words in ["write-ahead log is damaged", copy.to_str().unwrap(), "the ledger lacks drains"] {
        daemon.wait_log(words);
    }
    assert_eq!(fs::metadata(copy).unwrap().len() as usize, length);
    let told = |daemon: &Daemon, is_told: bool| {
        let notes = daemon.status().unwrap()["notes"].to_string();
        assert_eq!(notes.contains(copy.to_str().unwrap()), is_told, "{notes}");
        wait_samples(daemon, "teiten_ledger_damaged", |samples| {
            (samples.sum("teiten_ledger_damaged") == 1) == is_told
        });
        let verified = ledger_command(&watched.lab, &["verify"]).output().unwrap();
        assert_eq!(verified.status.success(), !is_told, "{}", String::from_utf8_lossy(&verified.stdout));
    };
    told(&daemon, true);
    // The next start finds a sound log, and tells of the loss until the copy is moved away.
    end(daemon, Signal::SIGKILL);
    let daemon = watched.start();
    assert_eq!(moved_aside(&watched.lab.state_dir()).len(), 1, "{}", daemon.log());
    told(&daemon, true);
    end(daemon, Signal::SIGKILL);
    fs::remove_file(copy).unwrap();
    told(&watched.start(), false);
}

/// Replaces a file by one that makes its reader wait, until the answer is dropped.
fn hang(path: &Path) -> Fanotify {
    let new = path.with_extension("new");
    fs::copy(path, &new).unwrap();
    let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
    let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY).unwrap();
    let open = MaskFlags::FAN_OPEN_PERM;
    fanotify.mark(MarkFlags::FAN_MARK_ADD, open, nix::fcntl::AT_FDCWD, Some(&new)).unwrap();
    fs::rename(new, path).unwrap();
    fanotify
}

#[test]
fn files_that_do_not_answer_hold_neither_the_drain_nor_its_end_up() {
    needs_root!();
    let mut watched = Watched::new(58);
    let directory = watched.lab.directory().to_owned();
    let (database, config) = (directory.join("country.txt"), directory.join("teiten.toml"));
    let embedded = File::open(lab::command::root().join("sensor-user/geoip/country.txt.zst")).unwrap();
    fs::write(&database, zstd::decode_all(embedded).unwrap()).unwrap();
    fs::write(&config, format!("geoip = {database:?}\n")).unwrap();
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "100ms"];
    let more = ["--timezone", &timezone, "--config", config.to_str().unwrap()];
    let daemon = watched.lab.start(teiten(), &[&flags[..], &more].concat()).unwrap();
    watched.send(1_000);
    watched.assert_exact(&daemon);

    let fifo = directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let good = directory.join("good");
    fs::rename(&database, &good).unwrap();
    fs::rename(&fifo, &database).unwrap();
    wait_samples(&daemon, "the FIFO is refused", |samples| {
        samples.counter("teiten_reload_failures_total", &[("what", "geoip")]) == Some(1)
    });
    daemon.wait_log("not a regular file");
    watched.send(1_000);
    watched.assert_exact(&daemon);

    // What a network file system does that is down: who opens the file waits, for an unknown time.
    fs::rename(&good, &database).unwrap();
    let hung = [hang(&database), hang(&config)];
    daemon.signal(Signal::SIGHUP).unwrap();
    let opened: Vec<_> = hung.iter().map(|hung| hung.read_events().unwrap()).collect();
    watched.send(1_000);
    watched.assert_exact(&daemon);
    end(daemon, Signal::SIGTERM);
    assert!(opened.iter().all(|events| events.len() == 1));
}

#[test]
fn a_ledger_of_a_newer_release_is_left_alone_while_the_kernel_counts() {
    needs_root!();
    let mut watched = Watched::new(55);
    let daemon = watched.start();
    watched.send(2_000);
    watched.assert_exact(&daemon);
    end(daemon, Signal::SIGTERM);
    // The last byte of the schema's version in the header of an SQLite database.
    flip(&watched.file(), 63);
    let before = fs::read(watched.file()).unwrap();
    watched.send(2_000);
    let said = watched.refusal();
    assert!(said.contains(&format!("schema version {}", before[63])), "{said}");
    assert_eq!(fs::read(watched.file()).unwrap(), before);
    flip(&watched.file(), 63);
    watched.assert_exact(&watched.start());
}

#[test]
fn a_new_state_directory_and_ledger_are_for_owner_and_group_alone() {
    needs_root!();
    let mut watched = Watched::new(56);
    let daemon = watched.start();
    watched.send(1_000);
    watched.assert_exact(&daemon);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let state = watched.lab.state_dir();
    assert_eq!(mode(&state), 0o750);
    for tail in ["", "-wal", "-shm"] {
        assert_eq!(mode(&state.join(format!("ledger.sqlite{tail}"))), 0o640, "ledger.sqlite{tail}");
    }
}

/// Does `work` where the sensor's pins are.
fn with_pins(lab: &Lab, work: impl FnOnce(&Path) + Send) {
    let pins = lab.pin_dir();
    lab.mounts.run(|| work(&pins)).unwrap();
}

#[test]
fn pins_that_are_partly_gone_are_made_up_for() {
    needs_root!();
    let mut watched = Watched::new(57);
    for gone in
        ["maps/GENERATION", "generation-a", "generation-b", "links/eth0", "links/eth0%egress", "maps/SOURCES"]
    {
        let daemon = watched.start();
        watched.send(1_000);
        end(daemon, Signal::SIGTERM);
        watched.send(1_000);
        with_pins(&watched.lab, |pins| fs::remove_file(pins.join(layout()).join(gone)).unwrap());
        let daemon = watched.start();
        watched.send(1_000);
        watched.assert_exact(&daemon);
        end(daemon, Signal::SIGTERM);
    }
    // Everything, under a running daemon: it pins again, and the next one finds it.
    let daemon = watched.start();
    with_pins(&watched.lab, |pins| fs::remove_dir_all(pins.join(layout())).unwrap());
    daemon.wait_log("pins were removed while running");
    end(daemon, Signal::SIGKILL);
    watched.send(1_000);
    watched.assert_exact(&watched.start());
}

#[test]
fn pins_of_another_layout_are_refused_by_name_and_go_on_counting() {
    needs_root!();
    let mut watched = Watched::new(58);
    let daemon = watched.start();
    watched.send(1_000);
    end(daemon, Signal::SIGKILL);
    with_pins(&watched.lab, |pins| fs::rename(pins.join(layout()), pins.join("v9")).unwrap());
    let said = watched.refusal();
    assert!(said.contains("v9") && said.contains("teiten detach"), "{said}");
    let mut detach = watched.lab.command(teiten());
    detach.arg("detach").arg("--state-dir").arg(watched.lab.state_dir());
    let detach = detach.arg("--pin-dir").arg(watched.lab.pin_dir()).output().unwrap();
    let said = String::from_utf8_lossy(&detach.stderr);
    assert!(!detach.status.success() && said.contains("v9"), "it says that nothing is pinned: {said}");
    watched.send(1_000);
    with_pins(&watched.lab, |pins| fs::rename(pins.join("v9"), pins.join(layout())).unwrap());
    watched.assert_exact(&watched.start());
}

fn ip(lab: &Lab, arguments: &str) -> bool {
    lab.sensor.command("ip").args(arguments.split(' ')).output().unwrap().status.success()
}

#[test]
fn an_interface_that_vanishes_is_renamed_or_loses_the_program_is_observed_again() {
    needs_root!();
    needs_program!("bpftool");
    let mut watched = Watched::new(59);
    let daemon = watched.start();
    watched.send(1_000);

    let addresses = daemon.metrics().unwrap().sum("teiten_monitored_addresses");

    // Neither does anything to a link of ours.
    assert!(!ip(&watched.lab, "link set dev eth0 xdp off"), "the kernel protects links");
    assert!(ip(&watched.lab, "link set dev eth0 mtu 1400"));
    watched.mix = Mix::new(Site { max_frame: 1414, ..watched.lab.site() }, 60);
    watched.send(1_000);
    watched.assert_exact(&daemon);

    // Someone detaches the program.
    let mut detach = watched.lab.command("bpftool");
    detach.args(["link", "detach", "pinned"]).arg(watched.lab.layout_dir().join("links/eth0"));
    output(&mut detach);
    wait_attached(&daemon, 1);
    watched.send(1_000);
    watched.assert_exact(&daemon);

    // It is renamed, which takes it down and its routes and IPv6 addresses with it.
    for change in ["link set dev eth0 down", "link set dev eth0 name lan0", "link set dev lan0 up"] {
        assert!(ip(&watched.lab, change), "{change}");
    }
    // Until the loss has been seen, the number that is waited for below is the old one.
    let monitored = |samples: &Samples| samples.sum("teiten_monitored_addresses");
    wait_samples(&daemon, "fewer addresses", |samples| monitored(samples) < addresses);
    assert!(ip(&watched.lab, "address add 3fff::1/64 dev lan0 nodad"));
    wait_samples(&daemon, "its addresses", |samples| monitored(samples) == addresses);
    watched.sender = Sender::new(&watched.lab.internet, "wire", &watched.lab.sensor, "lan0").unwrap();
    watched.send(1_000);
    watched.assert_exact(&daemon);
    daemon.wait_log("the interface was renamed");

    // It goes away: down, and no time of observation.
    assert!(ip(&watched.lab, "link delete dev lan0"));
    wait_up(&daemon, false);
    let observed = |daemon: &Daemon| daemon.metrics().unwrap().sum("teiten_observation_seconds_total");
    let generation = |daemon: &Daemon| daemon.status().unwrap()["generation"].as_u64().unwrap();
    let (before, first) = (observed(&daemon), generation(&daemon));
    // Each lasts a tenth of a second, and whole seconds are compared.
    wait_until("25 drains", || generation(&daemon) >= first + 25);
    assert_eq!(observed(&daemon), before, "nothing was observed meanwhile");

    // Another of the configured name comes.
    watched.lab.link().unwrap();
    wait_attached(&daemon, 2);
    wait_up(&daemon, true);
    wait_samples(&daemon, "its addresses", |samples| monitored(samples) == addresses);
    watched.sender = watched.lab.sender().unwrap();
    watched.mix = Mix::new(watched.lab.site(), 61);
    watched.send(1_000);
    watched.assert_exact(&daemon);
}

fn wait_attached(daemon: &Daemon, times: usize) {
    wait_until("the next attachment", || daemon.log().matches("attached again").count() >= times);
}
