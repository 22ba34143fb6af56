//! Other Linux kernels: a virtual machine with Debian's kernel of a series, and a few programs in its
//! initial file system.

use crate::foreign::{self, Apt};
use crate::{apt, command, wait};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is needed here to boot a kernel, with the Debian packages: the emulator, …
const X86_64: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
const AARCH64: (&str, &str) = ("qemu-system-aarch64", "qemu-system-arm");
/// … and what makes a file system.
const TOOLS: [(&str, &str); 2] = [("cpio", "cpio"), ("busybox", "busybox")];
/// What a test in the machine drives.
const PROGRAMS: [&str; 4] = ["busybox", "ip", "tc", "ping"];
/// Both ends of a `PPPoE` session, with their Debian packages.
const PPPOE: [(&str, &str); 3] = [("pppd", "ppp"), ("pppoe-server", "pppoe"), ("pppoe", "pppoe")];
/// The modules that the tests need; a module follows those it needs.
const MODULES: [&str; 19] = [
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "llc",
    "stp",
    "mrp",
    "garp",
    "8021q",
    "tls",
    "bonding",
    "crc-ccitt",
    "slhc",
    "ppp_generic",
    "ppp_async",
    "pppox",
    "pppoe",
];

/// Only what ends the machine is printed.
const KERNEL_OPTIONS: &str =
    "loglevel=1 panic=-1 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1";

/// Runs before a test's own script.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /busybox
export PATH=/usr/bin:/bin:/usr/sbin:/sbin:/busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /run/netns /run/lock /tmp /dev/pts /etc/ppp
mount -t devpts devpts /dev/pts
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up
sh -eu /script; echo "exit status $?"
poweroff -f
"#;

/// Which of Debian's kernels of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The small one for virtual machines.
    Cloud,
    /// The one for all machines, with `pppd` and `pppoe-server`: the cloud kernel has no PPP.
    Pppoe,
    /// The small one for virtual machines of 64-bit Arm.
    CloudArm64,
}

impl Flavour {
    /// Ends the names of its packages.
    fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Pppoe => "-amd64",
            Self::CloudArm64 => "-cloud-arm64",
        }
    }

    /// Debian's name of its processors.
    fn architecture(self) -> &'static str {
        match self {
            Self::Cloud | Self::Pppoe => "amd64",
            Self::CloudArm64 => "arm64",
        }
    }

    fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Self::Cloud | Self::Pppoe => X86_64,
            Self::CloudArm64 => AARCH64,
        }
    }

    /// What the emulator is to be, and the console on which its kernel prints.
    fn machine(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Cloud | Self::Pppoe => (&[], "ttyS0"),
            Self::CloudArm64 => (&["-machine", "virt", "-cpu", "cortex-a72"], "ttyAMA0"),
        }
    }
}

/// A kernel that was unpacked.
#[derive(Debug)]
pub struct Kernel {
    flavour: Flavour,
    /// CPUs that it takes for possible.
    possible_cpus: u32,
    /// `vmlinuz`.
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// Debian's newest kernel of `series` (`6.1`) and `flavour`, downloaded and unpacked below `cache` unless it
    /// is there already.
    ///
    /// # Errors
    ///
    /// No Debian for this processor here, or none of its kernels is of that series; the error says which.
    pub fn of_series(series: &str, flavour: Flavour, cache: &Path) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") || !apt::is_here() {
            bail!("other kernels come as Debian's packages, for x86-64");
        }
        let programs: &[_] = if flavour == Flavour::Pppoe { &PPPOE } else { &[] };
        let emulator = flavour.emulator();
        let wanted = [emulator].iter().chain(&TOOLS).chain(programs).copied().collect::<Vec<_>>();
        let wanted = wanted.iter();
        let missing = wanted.filter(|(program, _)| command::find(program).is_none());
        let missing: Vec<&str> = missing.map(|&(_, package)| package).collect();
        apt::install(&missing, "booting other kernels")?;

        let directory = cache.join(format!("{series}{}", flavour.suffix()));
        if !directory.join("boot").is_dir() {
            let fresh = tempfile::tempdir_in(cache).context("make a directory for the kernel")?;
            let unpacked = fresh.path().join("unpacked");
            let archives = if flavour == Flavour::CloudArm64 {
                let apt = Apt::new(flavour.architecture(), &cache.join("apt-arm64"))?;
                let package = newest(series, flavour, &mut apt.command("apt-cache"))?;
                apt.download(&[&package], fresh.path())?
            } else {
                let package = newest(series, flavour, &mut Command::new("apt-cache"))?;
                command::run(Command::new("apt-get").args(["download", &package]).current_dir(fresh.path()))?;
                vec![only_entry(fresh.path(), |name| name.starts_with("linux-image"))?]
            };
            foreign::unpack(&archives, &unpacked)?;
            // Another test may have been faster.
            if fs::rename(&unpacked, &directory).is_err() && !directory.join("boot").is_dir() {
                bail!("cannot move the kernel to {}", directory.display());
            }
        }
        Ok(Self {
            flavour,
            possible_cpus: 1,
            image: only_entry(&directory.join("boot"), |name| name.starts_with("vmlinuz"))?,
            modules: only_entry(&directory.join("lib/modules"), |_| true)?,
        })
    }

    /// In machines with so many CPUs, of which one runs.
    #[must_use]
    pub fn with_possible_cpus(mut self, cpus: u32) -> Self {
        self.possible_cpus = cpus;
        self
    }

    /// Boots it with `binary` as `/bin/teiten`, runs `script` with `sh -eu` as root, and returns what
    /// was printed on the console.
    ///
    /// # Errors
    ///
    /// The machine cannot be put together, or has not switched itself off in time; the error holds the
    /// console.
    pub fn run(&self, binary: &Path, script: &str, patience: Duration) -> Result<String> {
        let work = tempfile::tempdir().context("make a directory for the machine")?;
        let root = work.path().join("root");
        self.programs_of_this_machine(&root, binary)?;
        self.boot(work.path(), script, patience)
    }

    /// Boots it in a small Debian system of its processors, which has `package` in `/packages` and installed what
    /// that depends on, runs `script` there as [`run`](Self::run) does, and returns what was printed on the console.
    /// `cache` keeps indexes of packages.
    ///
    /// # Errors
    ///
    /// A dependency of the package cannot be satisfied, the machine cannot be put together, or has not switched
    /// itself off in time; the error holds the console.
    pub fn run_with_package(
        &self,
        package: &Path,
        script: &str,
        cache: &Path,
        patience: Duration,
    ) -> Result<String> {
        let work = tempfile::tempdir().context("make a directory for the machine")?;
        let root = work.path().join("root");
        let architecture = self.flavour.architecture();
        let apt = Apt::new(architecture, &cache.join(format!("apt-{architecture}")))?;
        small_system(&apt, package, work.path(), &root)?;
        self.boot(work.path(), script, patience)
    }

    /// Boots it with the file system `root` below `work`.
    fn boot(&self, work: &Path, script: &str, patience: Duration) -> Result<String> {
        let initrd = self.initial_file_system(work, script)?;
        let console = work.join("console");
        let (emulator, _) = self.flavour.emulator();
        let (options, terminal) = self.flavour.machine();
        // One processor runs: the emulator now and then runs into the breakpoint by which the kernel keeps a
        // second one away from code that it is patching. No check of the timer: it counts ticks, and fails
        // when the emulator gets too little time. No word of the kernel's about such a lack: it would be
        // printed amid the lines of the script.
        let mut machine = Command::new(emulator)
            .args(options)
            .args(["-accel", "tcg", "-smp", &self.possible_cpus.to_string(), "-m", "2048"])
            .args(["-nographic", "-no-reboot", "-nic", "none"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", &format!("console={terminal} maxcpus=1 {KERNEL_OPTIONS}")])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&console)?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {emulator}"))?;
        let has_ended = wait::ends_within(&mut machine, patience)?;
        let printed = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        if !has_ended {
            bail!("the machine still ran after {patience:?}; its console:\n{printed}");
        }
        Ok(printed)
    }

    /// `binary` and what tests drive, with libraries, as they are on this machine.
    fn programs_of_this_machine(&self, root: &Path, binary: &Path) -> Result<()> {
        fs::create_dir_all(root.join("bin"))?;
        let stripped = root.join("bin/teiten");
        command::run(Command::new("strip").arg("-o").arg(&stripped).arg(binary))?;
        libraries(&stripped, root)?;
        for program in PROGRAMS {
            let path = command::find(program).with_context(|| format!("find {program}"))?;
            fs::copy(&path, root.join("bin").join(program)).with_context(|| format!("copy {program}"))?;
            libraries(&path, root)?;
        }
        if self.flavour == Flavour::Pppoe {
            for (program, _) in PPPOE {
                let path = command::find(program).with_context(|| format!("find {program}"))?;
                in_its_place(&path, root)?;
            }
            // The directory has the version of pppd for a name.
            let plugins = only_entry(Path::new("/usr/lib/pppd"), |_| true)?;
            in_its_place(&plugins.join("pppoe.so"), root)?;
        }
        Ok(())
    }

    /// Packs `root` below `work`, with the kernel's modules and `script`.
    fn initial_file_system(&self, work: &Path, script: &str) -> Result<PathBuf> {
        let root = work.join("root");
        for directory in ["busybox", "modules", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(directory))?;
        }
        symlink("/bin/busybox", root.join("bin/sh"))?;
        for (number, module) in MODULES.iter().enumerate() {
            self.unpack_module(module, &root.join(format!("modules/{number:02}.ko")))?;
        }
        fs::write(root.join("script"), script)?;
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

        let archive = work.join("initrd");
        let mut pack = Command::new("sh");
        pack.args(["-ec", "find . | cpio --quiet -o -H newc >\"$0\""]).arg(&archive).current_dir(&root);
        command::run(&mut pack)?;
        Ok(archive)
    }

    /// A module that is built in, or unknown to this kernel, is left out.
    fn unpack_module(&self, name: &str, to: &Path) -> Result<()> {
        let mut find = Command::new("find");
        find.arg(&self.modules).args(["-name", &format!("{name}.ko*")]);
        let found = command::output(&mut find)?;
        let Some(path) = found.lines().next() else { return Ok(()) };
        if Path::new(path).extension() == Some(OsStr::new("xz")) {
            let mut unpack = Command::new("sh");
            unpack.args(["-ec", "xz -dc \"$0\" >\"$1\""]).arg(path).arg(to);
            command::run(&mut unpack)
        } else {
            fs::copy(path, to).map(drop).with_context(|| format!("copy {path}"))
        }
    }
}

/// What the script in [`Kernel::run_with_package`] drives, and what installs a package there.
const SMALL_SYSTEM: [&str; 6] =
    ["busybox", "dpkg", "iproute2", "iputils-ping", "libc-bin", "systemd-standalone-sysusers"];

/// Unpacks below `root` what `package` and the machine's script need, recorded as installed, so that dpkg checks what
/// the package depends on; the package itself lies in `/packages`.
fn small_system(apt: &Apt, package: &Path, work: &Path, root: &Path) -> Result<()> {
    let path = package.to_str().context("the path of a package is text")?;
    let wanted = [&[path], &SMALL_SYSTEM[..]].concat();
    let archives = apt.download_with_dependencies(&wanted, &work.join("archives"))?;
    foreign::unpack(&archives, root)?;
    // Nothing reads it there, and the file system lies in memory.
    for unread in ["doc", "locale", "man"] {
        let unread = root.join("usr/share").join(unread);
        if unread.exists() {
            fs::remove_dir_all(&unread).with_context(|| format!("remove {}", unread.display()))?;
        }
    }
    let mut installed = String::new();
    for archive in &archives {
        let fields = command::output(Command::new("dpkg-deb").arg("--field").arg(archive))?;
        let _ = writeln!(installed, "{}\nStatus: install ok installed\n", fields.trim_end());
    }
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "etc", "packages"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), installed)?;
    let name = package.file_name().context("a package has a name")?;
    fs::copy(package, root.join("packages").join(name))
        .map(drop)
        .with_context(|| format!("copy {}", package.display()))
}

/// The package of Debian's newest kernel of `series` and `flavour`, which `apt_cache` knows.
fn newest(series: &str, flavour: Flavour, apt_cache: &mut Command) -> Result<String> {
    let suffix = flavour.suffix();
    // Between version and suffix, no further flavour (`-rt`).
    let pattern =
        format!(r"^linux-image-{}\.[0-9.]+(-[0-9]+|[+]deb[0-9]+)?{suffix}$", series.replace('.', r"\."));
    let found = command::output(apt_cache.args(["search", "--names-only", &pattern]))?;
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    // Numbers of equal length in practice; any of the series will do.
    let newest = names.filter(|name| !name.contains("unsigned")).max_by_key(|name| (name.len(), *name));
    Ok(newest.with_context(|| format!("find linux-image-{series}.*{suffix} among Debian's packages"))?.into())
}

/// Copies the libraries that `program` is linked with to the same places below `root`.
fn libraries(program: &Path, root: &Path) -> Result<()> {
    let linked = command::output(Command::new("ldd").arg(program))?;
    for path in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        if !to.exists() {
            fs::create_dir_all(to.parent().context("a library lies in a directory")?)?;
            fs::copy(path, &to).with_context(|| format!("copy {path}"))?;
        }
    }
    Ok(())
}

/// Copies a program or library, with what it is linked with, to the same place below `root`.
fn in_its_place(path: &Path, root: &Path) -> Result<()> {
    let to = root.join(path.strip_prefix("/").context("a program has an absolute path")?);
    fs::create_dir_all(to.parent().context("a program lies in a directory")?)?;
    fs::copy(path, &to).with_context(|| format!("copy {}", path.display()))?;
    libraries(path, root)
}

fn only_entry(directory: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().and_then(OsStr::to_str).is_some_and(&is_it))
        .with_context(|| format!("find what was unpacked in {}", directory.display()))
}
