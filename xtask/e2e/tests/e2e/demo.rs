//! `cargo xtask demo` as a newcomer runs it. Needs root.

use crate::common::{output, teiten, teiten_report, xtask};
use lab::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The demo with its temporary files in `temporary`.
fn demo(temporary: &Path, arguments: &[&str]) -> Command {
    let mut demo = Command::new(xtask());
    demo.args(["demo", "--port", "0", "--teiten"]).arg(teiten()).args(arguments);
    demo.arg("--no-panels").arg("--pictures").arg(pictures().path());
    if !arguments.contains(&"--no-report") {
        demo.arg("--teiten-report").arg(teiten_report());
    }
    demo.env("TMPDIR", temporary).stdin(Stdio::null());
    demo
}

/// Where the demos of this process write their pictures.
fn pictures() -> &'static TempDir {
    static PICTURES: OnceLock<TempDir> = OnceLock::new();
    PICTURES.get_or_init(|| tempfile::tempdir().unwrap())
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn it_ends_with_equal_numbers_and_leaves_nothing_behind() {
    needs_root!();
    let temporary = tempfile::tempdir().unwrap();
    let text = output(demo(temporary.path(), &["--seconds", "6", "--rate", "500"]).env("TERM", "dumb"));
    assert!(text.contains("Every number above is the same on both sides"), "{text}");
    assert!(text.contains("accesses by country\n"), "{text}");
    assert!(text.is_ascii() && !text.contains('\u{1b}'), "a dumb terminal shows it: {text}");
    let two = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().rev().map_while(|word| word.parse::<u64>().ok());
        Some((line, numbers.next()?, numbers.next()?))
    });
    for (line, counted, sent) in two.filter(|(line, ..)| line.starts_with("  ") && line.len() == 48) {
        assert_eq!(sent, counted, "{line}");
    }
    let page = std::fs::read_to_string(pictures().path().join("page.en.html")).unwrap();
    assert!(page.contains("<title>Teiten") && page.contains("demo"), "{page}");
    if lab::command::find("chromium").is_some() {
        let picture = std::fs::read(pictures().path().join("page.ja.png")).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{} bytes", picture.len());
    }
    assert!(text.contains("http://127.0.0.1:") && text.contains("/metrics"), "{text}");
    if lab::command::find("prometheus").is_some() {
        assert!(text.contains("/graph?g0.expr="), "{text}");
        assert!(text.contains("Grafana  "), "where it is, or that it is not: {text}");
        assert!(text.contains("the report of "), "{text}");
        let report = std::fs::read_to_string(pictures().path().join("report.en.html")).unwrap();
        assert!(report.contains("unsolicited accesses on ") && report.contains("data-name=\"six-means\""));
    }
    assert!(is_empty(temporary.path()));
}

/// Starts a demo that stays open and ends it with `signal` when its pages can be read; returns whether
/// it said that it failed, and what is left.
fn ended_by(signal: Signal) -> (Option<i32>, bool) {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path(), &["--seconds", "600", "--no-report"]);
    let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let page = lines.find_map(|line| line.unwrap().split_once("http://").map(|(_, rest)| rest.to_owned()));
    let page: SocketAddr = page.unwrap().trim_end_matches('/').parse().unwrap();
    TcpStream::connect(page).unwrap();
    let before = children(demo.id());
    assert!(!before.is_empty(), "the daemon runs");

    kill(Pid::from_raw(demo.id() as i32), signal).unwrap();
    // Its last words must not wait for a reader.
    let reader = std::thread::spawn(move || lines.count());
    let status = demo.wait().unwrap();
    reader.join().unwrap();
    wait_until("the end of every child of the demo", || {
        !before.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())
    });
    assert!(TcpStream::connect(page).is_err());
    let is_clean = is_empty(temporary.path());
    (status.code(), is_clean)
}

fn children(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    needs_root!();
    assert_eq!(ended_by(Signal::SIGINT), (Some(1), true));
}

#[test]
fn a_service_manager_leaves_nothing_behind() {
    needs_root!();
    assert_eq!(ended_by(Signal::SIGTERM), (Some(1), true));
}

/// Nothing can run after SIGKILL: namespaces, mounts and children go by themselves, and the directory
/// goes with the next demo.
#[test]
fn sigkill_leaves_no_process_behind() {
    needs_root!();
    let (code, _) = ended_by(Signal::SIGKILL);
    assert_eq!(code, None);
}

/// In a chroot whose root directory is not a mount, mounts cannot be made private.
#[test]
fn in_a_chroot_it_says_once_what_helps() {
    needs_root!();
    let root = tempfile::tempdir().unwrap();
    let script = "set -e; cd \"$1\"; for d in bin lib lib64 usr proc dev; do \
                  [ -e /$d ] || continue; mkdir $d; mount --rbind /$d $d; done; cp \"$2\" xtask; \
                  exec chroot . /xtask demo --teiten /bin/true";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(root.path()).arg(xtask());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("Invalid argument").count(), 1, "{text}");
    assert!(text.contains("chroot") && !text.contains("root (CAP"), "{text}");
}

#[test]
fn without_root_and_sudo_it_says_what_it_needs() {
    needs_root!();
    needs_program!("setpriv");
    let temporary = tempfile::tempdir().unwrap();
    let copies = ["xtask", "teiten"].map(|name| temporary.path().join(name));
    std::fs::copy(xtask(), &copies[0]).unwrap();
    std::fs::copy(teiten(), &copies[1]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temporary.path(), mode).unwrap();
    let mut demo = Command::new("setpriv");
    demo.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    demo.arg(&copies[0]).args(["demo", "--seconds", "5", "--no-report", "--teiten"]).arg(&copies[1]);
    let output = demo.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("network namespaces") && text.contains("root"), "{text}");
}
