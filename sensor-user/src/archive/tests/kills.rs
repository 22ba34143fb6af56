//! A process that merges files is killed before each system call by which it changes a directory or a file: after
//! each of them the archive has what the ledger has, once.

use super::*;
use crate::archive::merge::FAN_IN;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

/// Has a process of these tests merge, and says where.
const DIRECTORY: &str = "ARCHIVE_KILL_DIR";
/// Has it do so where directories cannot be exchanged.
const NO_EXCHANGE: &str = "ARCHIVE_KILL_NO_EXCHANGE";
/// What it says before the number of its thread.
const THREAD: &str = "merging thread ";

/// Files of the hour: more than are merged at once, so that what is merged is merged again.
const FILES: u64 = FAN_IN as u64 + 2;

/// System calls that change what is on a disk; those of a name that an architecture lacks have another there.
const CHANGES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_mkdirat,
    libc::SYS_fchmodat,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
];

/// From here on `renameat2` fails in this thread, as on NFS.
fn refuse_exchanges() {
    let load = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let is = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_renameat2 as u32 };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let mut filter =
        [load, is, answer(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32), answer(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until then, and takes no other argument.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(done, 0, "{}", Errno::last());
}

/// What the process that is killed does: merges the hour once a line comes in.
fn merge_when_told(root: &Path) {
    let place = ArchivePlace::new(root, "tokyo");
    let (day, identity) = {
        let all = place.all_files().unwrap();
        let (day, names) = all.first_key_value().unwrap();
        (*day, names[0].ledger)
    };
    let shared = KeeperShared::new(Keep::default(), Arc::default());
    shared.begin(&place, identity, FILES).unwrap();
    let merging = std::thread::spawn(move || {
        if std::env::var_os(NO_EXCHANGE).is_some() {
            refuse_exchanges();
        }
        println!("{THREAD}{}", gettid());
        io::stdin().lines().next().unwrap().unwrap();
        shared.settle(&place, day, 0, true);
    });
    merging.join().unwrap();
}

/// Starts the process, and kills it before change number `at`, counted from 0, of its thread. Whether it came
/// to that.
fn kill_before(root: &Path, exchanges: bool, at: usize) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let this = "archive::tests::kills::merges_that_are_killed_at_any_step_lose_and_double_nothing";
    command.args(["--exact", this, "--nocapture"]).env(DIRECTORY, root);
    if !exchanges {
        command.env(NO_EXCHANGE, "1");
    }
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Kept until its end, so that it can write.
    let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
    let thread = said
        .by_ref()
        .map(Result::unwrap)
        .find_map(|line| line.split_once(THREAD).map(|(_, number)| number.parse().unwrap()))
        .map(Pid::from_raw)
        .unwrap();
    let wait = || waitpid(thread, Some(WaitPidFlag::__WALL));
    ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).unwrap();
    ptrace::interrupt(thread).unwrap();
    wait().unwrap();
    writeln!(process.stdin.take().unwrap()).unwrap();
    let mut left = at;
    loop {
        ptrace::syscall(thread, None).unwrap();
        match wait().unwrap() {
            WaitStatus::PtraceSyscall(_) => {}
            WaitStatus::Exited(..) => return ended(process),
            _ => continue,
        }
        let info = ptrace::syscall_info(thread).unwrap();
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            continue;
        }
        // SAFETY: `op` tells that the kernel has written this member of the union.
        let number = unsafe { info.u.entry }.nr;
        if !CHANGES.contains(&(number as libc::c_long)) {
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
    }
    process.kill().unwrap();
    while !matches!(wait(), Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(_)) {}
    process.wait().unwrap();
    true
}

/// The process has merged all, and ends.
fn ended(mut process: Child) -> bool {
    assert!(process.wait().unwrap().success());
    false
}

/// Packets in all files that a glob finds.
fn packets_of_all_files(site: &Site) -> u64 {
    let place = site.place();
    let of = |path: PathBuf| -> u64 {
        let table = sensor_columns::Table::open(std::fs::File::open(path).unwrap()).unwrap();
        table.metadata()["teiten.packets"].parse().unwrap()
    };
    let days = place.all_files().unwrap();
    days.iter()
        .flat_map(|(day, names)| names.iter().map(|name| of(place.dir(*day).join(name.to_string()))))
        .sum()
}

#[test]
fn merges_that_are_killed_at_any_step_lose_and_double_nothing() {
    if let Some(root) = std::env::var_os(DIRECTORY) {
        return merge_when_told(Path::new(&root));
    }
    let whole = Site::new();
    let mut ledger = whole.open();
    for generation in 1..=FILES {
        ledger.fold(&observation(generation, generation as i64), &locate(), &[]).unwrap();
    }
    drop(ledger);
    let before = whole.busiest(&RowFilter::default());
    for exchanges in [true, false] {
        let mut kills = 0;
        let mut numbers_of_files = BTreeSet::new();
        loop {
            let site = Site { directory: tempfile::tempdir().unwrap() };
            let mut copy = Command::new("cp");
            copy.arg("--archive").args([whole.state(), whole.root()]).arg(site.directory.path());
            assert!(copy.status().unwrap().success());
            let killed = kill_before(&site.root(), exchanges, kills);
            let step = format!("killed before change {kills}, with exchanges {exchanges}");
            // What the next start finds is whole before it cleans up, except to who does not read the names where
            // directories cannot be exchanged.
            assert_eq!(site.busiest(&RowFilter::default()), before, "{step}");
            assert_eq!(site.verify(), Vec::<String>::new(), "{step}");
            let found = packets_of_all_files(&site);
            assert!(found == 35 * FILES || !exchanges && found > 35 * FILES, "{found} packets, {step}");
            numbers_of_files.insert(site.names().len());

            let mut ledger = site.open();
            ledger.fold(&observation(FILES + 1, 60), &locate(), &[]).unwrap();
            let (identity, commits) = ledger.commits();
            let shared = KeeperShared::new(Keep::default(), Arc::default());
            shared.begin(&site.place(), identity, commits).unwrap();
            let day = ArchivePlace::days(&site.root()).unwrap()[0];
            shared.settle(&site.place(), day, 0, true);
            drop(ledger);
            let one = FileName { hour: 0, ledger: identity, first: 1, last: FILES + 1 };
            assert_eq!(site.names(), [one], "{step}");
            assert_eq!(packets_of_all_files(&site), 35 * (FILES + 1), "{step}");
            assert_eq!(site.verify(), Vec::<String>::new(), "{step}");
            let left = entries(&site.place().work(identity)).unwrap();
            assert!(!left.iter().any(|name| ["merged", "swap"].contains(&name.as_str())), "{left:?}, {step}");
            if !killed {
                break;
            }
            kills += 1;
        }
        println!("{kills} kills with exchanges {exchanges}; files found: {numbers_of_files:?}");
        // All, the first ones merged, the rest too, one.
        let seen = [FILES as usize, 3, 2, 1];
        assert!(seen.iter().all(|files| numbers_of_files.contains(files)), "{numbers_of_files:?}");
        assert!(exchanges == (numbers_of_files.len() == seen.len()), "{numbers_of_files:?}");
    }
}
