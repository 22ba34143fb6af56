//! A sensor in a network of its own: two namespaces joined by a veth pair, and the real `teiten run`
//! in one of them.

use crate::netns::{self, Interface, Mac, Mounts, Netns, Route};
use crate::scrape::{self, Answer, Samples};
use crate::traffic::{Link, Sender, Site, Tagging};
use crate::wait;
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

/// The sensor's interface.
pub const INTERFACE: &str = "eth0";
/// The other end.
pub const WIRE: &str = "wire";
/// The sensor's Ethernet address.
pub const SENSOR_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The Internet's Ethernet address.
pub const INTERNET_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];
/// The sensor's addresses: of the prefixes for benchmarks (RFC 2544) and documentation (RFC 9637), so
/// that no one's are borrowed.
pub const ADDRESSES: [&str; 2] = ["198.18.0.1/24", "3fff::1/64"];
/// Its next hops, which answer nothing.
const GATEWAYS: [&str; 2] = ["198.18.0.254", "3fff::fe"];
/// Where the daemon listens, inside its namespace.
pub const WEB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
/// A stop takes a drain, and a drain of full logs some seconds on a busy machine.
const STOP_PATIENCE: Duration = Duration::from_mins(1);

/// Why a sensor does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its network could not be made.
    #[error(transparent)]
    Netns(#[from] netns::NetnsError),
    /// A temporary file or directory could not be made.
    #[error("make {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program could not be started.
    #[error("start {program}: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("teiten ended with {status} before it was ready:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        log: String,
    },
    /// It did not become ready, or did not end.
    #[error("teiten was not {what} within {seconds} s:\n{log}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
        /// What it said.
        log: String,
    },
    /// An endpoint could not be read.
    #[error(transparent)]
    Scrape(#[from] scrape::ScrapeError),
    /// Nothing is left to do but say it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The name of the directory that holds the pins of this build's layout.
#[must_use]
pub fn layout() -> String {
    format!("v{}", sensor_common::layout::LAYOUT_VERSION)
}

/// Two namespaces, `internet` and `sensor`, joined by a veth pair, and a place for the sensor's files.
/// All of it goes with the value.
#[derive(Debug)]
pub struct Lab {
    /// Where packets come from. Its kernel is silent.
    pub internet: Netns,
    /// Where the sensor runs.
    pub sensor: Netns,
    /// What the sensor sees of file systems: the pins' bpffs exists here only.
    pub mounts: Mounts,
    directory: TempDir,
    mtu: u32,
}

impl Lab {
    /// A lab whose link carries IP packets of `mtu` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] without root, [`Error::File`] without room for temporary files.
    pub fn new(mtu: u32) -> Result<Self, Error> {
        let lab = Self::without_link(mtu)?;
        lab.link()?;
        Ok(lab)
    }

    /// Joins the namespaces: when they are not yet, or when the link was deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`].
    pub fn link(&self) -> Result<(), Error> {
        let wire = Interface::new(WIRE).mac(INTERNET_MAC).mtu(self.mtu).silent();
        let mut eth0 = Interface::new(INTERFACE).mac(SENSOR_MAC).mtu(self.mtu);
        for address in ADDRESSES {
            eth0 = eth0.address(address.parse().expect("a prefix"));
        }
        self.internet.join(&wire, &self.sensor, &eth0)?;
        self.route(INTERFACE)
    }

    /// Makes the sensor's default routes lead over `interface`.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`].
    pub fn route(&self, interface: &str) -> Result<(), Error> {
        for gateway in GATEWAYS {
            let route = Route { gateway: gateway.parse().expect("an address"), mac: INTERNET_MAC };
            self.sensor.default_route(interface, route)?;
        }
        Ok(())
    }

    /// A lab whose namespaces are not joined.
    ///
    /// # Errors
    ///
    /// As [`Lab::new`].
    pub fn without_link(mtu: u32) -> Result<Self, Error> {
        let directory = temporary_directory()?;
        Ok(Self { internet: Netns::new()?, sensor: Netns::new()?, mounts: Mounts::new()?, directory, mtu })
    }

    /// The sensor's temporary directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where its pins are.
    pub fn pin_dir(&self) -> PathBuf {
        self.directory().join("bpf/teiten")
    }

    /// Where in it the pins of this build's layout are.
    pub fn layout_dir(&self) -> PathBuf {
        self.pin_dir().join(layout())
    }

    /// Where its ledger is.
    pub fn state_dir(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// A sender into the sensor's interface.
    ///
    /// # Errors
    ///
    /// As [`Sender::new`].
    pub fn sender(&self) -> Result<Sender, crate::traffic::SendError> {
        Sender::new(&self.internet, WIRE, &self.sensor, INTERFACE)
    }

    /// The sensor as senders know it: it observes its own addresses and nothing is configured.
    pub fn site(&self) -> Site {
        Site {
            link: Link::Ethernet { sensor: SENSOR_MAC, from: INTERNET_MAC },
            tagging: Tagging::Never,
            max_frame: self.mtu as usize + 14,
            v4: vec!["198.18.0.1/32".parse().expect("a prefix")],
            v6: vec!["3fff::1/128".parse().expect("a prefix")],
            services: Vec::new(),
            excluded: Vec::<IpNet>::new(),
        }
    }

    /// `program` in the sensor's namespace, with its mounts.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.sensor.command_with(&self.mounts, program)
    }

    /// `teiten run` with `arguments` after those that keep it in the lab, ready to start.
    pub fn teiten_run(&self, teiten: &Path, arguments: &[&str]) -> Command {
        self.teiten_run_pinned(teiten, &self.pin_dir(), arguments)
    }

    /// The same with pins in another directory, which the machine may have too.
    pub fn teiten_run_pinned(&self, teiten: &Path, pin_dir: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(teiten);
        command.arg("run");
        command.arg("--pin-dir").arg(pin_dir).arg("--state-dir").arg(self.state_dir());
        command.args(arguments);
        command.env("NO_COLOR", "1");
        command
    }

    /// Starts `teiten run` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] and [`Error::Late`] with what it said.
    pub fn start(&self, teiten: &Path, arguments: &[&str]) -> Result<Daemon, Error> {
        let mut daemon = self.spawn(teiten, arguments)?;
        daemon.wait_ready(Duration::from_mins(1))?;
        Ok(daemon)
    }

    /// Starts `teiten run` and does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn spawn(&self, teiten: &Path, arguments: &[&str]) -> Result<Daemon, Error> {
        self.spawn_command(self.teiten_run(teiten, arguments))
    }

    /// Starts `command`, which is [`Lab::teiten_run`]'s with more of the caller's, and does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn spawn_command(&self, mut command: Command) -> Result<Daemon, Error> {
        let pins = self.pin_dir();
        std::fs::create_dir_all(&pins).map_err(|source| Error::File { path: pins, source })?;
        let log = self.directory().join("teiten.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|source| Error::File { path: log.clone(), source })?;
        command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command
            .spawn()
            .map_err(|source| Error::Start { program: command.get_program().into(), source })?;
        Ok(Daemon { child, netns: self.sensor.clone(), log })
    }
}

/// In the system's temporary directory, named after this process; those that processes long gone
/// could not remove (SIGKILL) are removed.
fn temporary_directory() -> Result<TempDir, Error> {
    let parent = std::env::temp_dir();
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix("teiten-lab-")?.split('-').next()?.parse().ok());
        if let Some(pid) = pid
            && kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
        {
            // Someone else may be faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("teiten-lab-{}-", std::process::id()))
        .tempdir_in(&parent)
        .map_err(|source| Error::File { path: parent, source })
}

/// A running `teiten run`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    netns: Netns,
    log: PathBuf,
}

impl Daemon {
    /// Everything it and its predecessors in the lab have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has `words`: the daemon may show a fault before it tells it.
    #[track_caller]
    pub fn wait_log(&self, words: &str) {
        wait::wait_until(format_args!("{words:?} in the log"), || self.log().contains(words));
    }

    /// Gets `path` from its HTTP server.
    ///
    /// # Errors
    ///
    /// As [`scrape::get`].
    pub fn get(&self, path: &str) -> Result<Answer, scrape::ScrapeError> {
        scrape::get(&self.netns, WEB, path)
    }

    /// Scrapes `/metrics`.
    ///
    /// # Errors
    ///
    /// [`scrape::ScrapeError`].
    pub fn metrics(&self) -> Result<Samples, scrape::ScrapeError> {
        Samples::parse(&self.get("/metrics")?.body)
    }

    /// `/api/v1/status`.
    ///
    /// # Errors
    ///
    /// [`Error::Scrape`]; [`Error::Io`] when it is not JSON.
    pub fn status(&self) -> Result<serde_json::Value, Error> {
        serde_json::from_str(&self.get("/api/v1/status")?.body)
            .map_err(|error| Error::Io(io::Error::other(error)))
    }

    /// Waits until `/-/ready` says so.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], [`Error::Late`].
    pub fn wait_ready(&mut self, patience: Duration) -> Result<(), Error> {
        let came = wait::poll(patience, || match self.child.try_wait() {
            Err(error) => Some(Err(error.into())),
            Ok(Some(status)) => Some(Err(Error::Ended { status, log: self.log() })),
            Ok(None) => self.get("/-/ready").is_ok_and(|answer| answer.status == 200).then_some(Ok(())),
        });
        came.unwrap_or_else(|| {
            Err(Error::Late { what: "ready", seconds: patience.as_secs(), log: self.log() })
        })
    }

    /// Scrapes until at least `packets` packets are in the counters, or `patience` has run out: the caller
    /// compares, and then says what is missing.
    ///
    /// # Errors
    ///
    /// [`scrape::ScrapeError`].
    pub fn wait_counted(&self, packets: u64, patience: Duration) -> Result<Samples, scrape::ScrapeError> {
        let mut latest = self.metrics();
        wait::poll(patience, || {
            let ends = latest.as_ref().map_or(true, |samples| samples.sum("teiten_packets_total") >= packets);
            if !ends {
                latest = self.metrics();
            }
            ends.then_some(())
        });
        latest
    }

    /// Sends `signal`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal).map_err(io::Error::from)?)
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] when it does not end.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus, Error> {
        self.signal(signal)?;
        match wait::poll(STOP_PATIENCE, || self.child.try_wait().transpose()) {
            Some(status) => Ok(status?),
            None => Err(Error::Late { what: "gone", seconds: STOP_PATIENCE.as_secs(), log: self.log() }),
        }
    }

    /// How it ended, when it has.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.child.try_wait()?)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
