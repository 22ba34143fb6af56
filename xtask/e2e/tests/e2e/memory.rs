//! A sensor in a control group with little memory. Needs root.

use crate::common::pair::joined;
use crate::common::teiten;
use lab::sensor::INTERFACE;
use lab::wait::wait_until;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A control group with a limit of memory, version 2 or 1.
struct Group(PathBuf);

impl Group {
    /// `None` when this machine lets no one make one.
    fn new(bytes: u64) -> Option<Self> {
        for (root, limit) in [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ] {
            let group = Self(Path::new(root).join(format!("teiten-test-{}", std::process::id())));
            // The kernel makes the file, where this is a control group and not a directory beside them.
            let is_limited = std::fs::create_dir(&group.0).is_ok()
                && group.0.join(limit).exists()
                && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok();
            if is_limited {
                return Some(group);
            }
        }
        None
    }

    /// Waits until the kernel has freed the maps of a process that has ended, which it does later.
    fn wait_until_free(&self) {
        wait_until("the end of the maps", || {
            let used = ["memory.current", "memory.usage_in_bytes"]
                .iter()
                .find_map(|file| std::fs::read_to_string(self.0.join(file)).ok());
            used.unwrap().trim().parse::<u64>().unwrap() < 30_000_000
        });
    }

    /// A program in `directory` that is teiten in this group.
    fn teiten(&self, directory: &Path) -> PathBuf {
        let path = directory.join("teiten");
        let procs = self.0.join("cgroup.procs");
        let text = format!("#!/bin/sh\necho $$ > {}\nexec {} \"$@\"\n", procs.display(), teiten().display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It cannot be removed before its last process has ended.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn under_a_memory_limit_the_source_table_is_smaller_or_the_error_names_it() {
    needs_root!();
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus: u64 = cpus.trim().rsplit(['-', ',']).next().unwrap().parse::<u64>().unwrap() + 1;
    // What generations take by CPU, what the verifier takes for a moment, 15 MB on Linux 6.18, and less than
    // the usual source table needs, 101 MB.
    let Some(group) = Group::new((81 + 20 * cpus) * 1_000_000) else {
        println!("skipped: no control group with a memory limit can be made here");
        return;
    };
    let lab = joined();
    let limited = group.teiten(lab.directory());
    let refused =
        lab.teiten_run(&limited, &["--interface", INTERFACE, "--source-table", "1048576"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("not enough memory for map SOURCES of 1048576 entries, 101 MB"), "{said}");
    assert!(said.contains("a smaller --source-table"), "{said}");

    // What the message advises, and what no one asks for.
    for flags in [&["--source-table", "16384"][..], &[]] {
        group.wait_until_free();
        let daemon = lab.start(&limited, &[&["--interface", INTERFACE][..], flags].concat()).unwrap();
        assert_eq!(daemon.log().contains("source table is smaller than usual"), flags.is_empty());
        assert!(daemon.stop(nix::sys::signal::Signal::SIGINT).unwrap().success());
    }
}
