//! A Debian system of its own, in which packages are installed: systemd as the first process of namespaces,
//! on the kernel of this machine.

use crate::{apt, command, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a small server has beside Debian's essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,init-system-helpers,kmod,procps";

/// As root: makes the system `$1` from the mirror `$2`, as the archive `$3`. Units that wait for a terminal or
/// the network's hours are masked, and a unit runs `/root/script`.
const MAKE: &str = r#"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include="$4" "$1" "$root" "$2" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
units=$root/etc/systemd/system
for unit in console-getty.service getty@tty1.service getty.target systemd-logind.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$units/$unit"
done
cat >"$units/script.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/bin/bash -eu -o pipefail /root/script >/root/log 2>&1; echo "exit status $?" >>/root/log; systemctl exit 0 --force'
TimeoutStartSec=infinity
UNIT
mkdir -p "$units/multi-user.target.wants"
ln -s ../script.service "$units/multi-user.target.wants/script.service"
tar -C "$root" -cf "$3.new" .
mv "$3.new" "$3"
"#;

/// As root, in namespaces of its own: unpacks the archive `$1` into memory, puts the files of `$2` into `/root`,
/// and becomes systemd. All of it ends with that.
const BOOT: &str = r#"
archive=$1 files=$2
mkdir -p "$files/root"
mount -t tmpfs tmpfs "$files/root"
cd "$files/root"
tar -xf "$archive"
cp "$files"/payload/* root/
touch root/log
mount --bind "$files/log" root/log
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf -o mode=700
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs dev -o mode=755
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs sys/fs/cgroup -o mode=755
mount -t cgroup2 cgroup2 sys/fs/cgroup
hostname sensor
ip link set lo up
mkdir run/before
pivot_root . run/before
cd /
umount -l run/before
# As systemd does where it is the first process of a machine.
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
"#;

/// An archive of an installed system.
#[derive(Debug)]
pub struct System(PathBuf);

impl System {
    /// Debian's `release` (`bookworm`) as debootstrap makes it, kept in `cache`.
    ///
    /// # Errors
    ///
    /// No Debian here whose package manager knows a mirror of that release, no root, or debootstrap fails.
    pub fn of_release(release: &str, cache: &Path) -> Result<Self> {
        ensure!(apt::is_here(), "a Debian system is made by debootstrap, and there is no apt-get here");
        let archive = cache.join(format!("{release}.tar"));
        if !archive.exists() {
            let missing: &[&str] =
                if command::find("debootstrap").is_none() { &["debootstrap"] } else { &[] };
            apt::install(missing, "installing packages in a system of their own")?;
            fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
            let mut make = Command::new("sh");
            make.args(["-euc", MAKE, "make", release, &mirror(release)?]).arg(&archive).arg(PACKAGES);
            command::output(&mut make).with_context(|| format!("make a system of Debian's {release}"))?;
        }
        Ok(Self(archive))
    }

    /// Boots it with `files` in `/root`, runs `script` there by `bash -eu -o pipefail` as root when the system is up,
    /// and returns what it printed, with a last line `exit status N`.
    ///
    /// # Errors
    ///
    /// The system cannot be put together, or did not end in time; the error holds what was printed.
    pub fn run(&self, files: &[(&Path, &str)], script: &str, patience: Duration) -> Result<String> {
        let work = tempfile::tempdir().context("make a directory for the system")?;
        let payload = work.path().join("payload");
        fs::create_dir(&payload)?;
        for (file, name) in files {
            fs::copy(file, payload.join(name)).with_context(|| format!("copy {}", file.display()))?;
        }
        fs::write(payload.join("script"), script)?;
        let log = work.path().join("log");
        fs::write(&log, "")?;
        let group = Group::new()?;
        let mut machine = Command::new("sh")
            .args(["-euc", r#"echo $$ >"$1/cgroup.procs"; shift; exec "$@""#, "enter"])
            .arg(&group.0)
            .args([
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
                "--ipc",
                "--net",
                "--cgroup",
            ])
            .args(["--propagation", "private", "sh", "-euc", BOOT, "boot"])
            .arg(&self.0)
            .arg(work.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start unshare")?;
        let has_ended = wait::ends_within(&mut machine, patience)?;
        let printed = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !has_ended || !printed.contains("exit status") {
            bail!("the system did not end as it should within {patience:?}; its script printed:\n{printed}");
        }
        Ok(printed)
    }
}

/// A control group, version 2.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let mixed = Path::new("/sys/fs/cgroup/unified");
        let root = if mixed.is_dir() { mixed } else { Path::new("/sys/fs/cgroup") };
        let group = root.join(format!("teiten-system-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("make the control group {}", group.display()))?;
        Ok(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // systemd has made groups in it, and a group cannot be removed before its last process has ended.
        let removed = || {
            let groups = Command::new("find")
                .arg(&self.0)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .output();
            (groups.is_ok() && !self.0.exists()).then_some(())
        };
        if wait::poll(Duration::from_secs(5), removed).is_none() {
            eprintln!("the control group {} cannot be removed", self.0.display());
        }
    }
}

/// Where this machine gets packages of `release` from: its own mirror of it, else that of another release of Debian's.
fn mirror(release: &str) -> Result<String> {
    let first = |filter: &str| -> Result<Option<String>> {
        let mut ask = Command::new("apt-get");
        ask.args(["indextargets", "--format", "$(REPO_URI)", filter]);
        ask.args(["Label: Debian", "Component: main", "Created-By: Packages"]);
        Ok(command::output(&mut ask)?.lines().next().map(ToOwned::to_owned))
    };
    let found = match first(&format!("Codename: {release}"))? {
        Some(own) => Some(own),
        None => first("Origin: Debian")?,
    };
    found.with_context(|| format!("find a mirror of Debian's {release} in apt's sources"))
}
