//! `cargo xtask history`: the model history in a Prometheus of one's own, or as blocks for another one.

use std::fs::Metadata;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{HistoryReport, prometheus};

/// Options of the task.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// The month that ends the history
    #[arg(long, value_enum, default_value = "july-2010")]
    pub report: Which,
    /// Port on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Serve nothing: put the blocks into this data directory of a Prometheus, which may be running
    #[arg(long, value_name = "DIRECTORY")]
    pub into: Option<PathBuf>,
}

/// The history to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Of the report of November 2005
    #[value(name = "november-2005")]
    November2005,
    /// Of the report of July 2010
    #[value(name = "july-2010")]
    July2010,
    /// Six months that end with yesterday in Tokyo
    Recent,
}

impl Which {
    fn report(self) -> anyhow::Result<HistoryReport> {
        Ok(match self {
            Self::November2005 => HistoryReport::November2005,
            Self::July2010 => HistoryReport::July2010,
            Self::Recent => HistoryReport::Before(jiff::Timestamp::now().in_tz("Asia/Tokyo")?.date()),
        })
    }
}

/// Makes the history, and serves it until a signal comes or puts it where it is wanted.
///
/// # Errors
/// When Prometheus or promtool are not installed, or the port is taken.
pub fn run(args: &HistoryArgs) -> anyhow::Result<()> {
    let report = args.report.report()?;
    match &args.into {
        Some(data) => put(report, data),
        None => serve(report, args.port),
    }
}

fn put(report: HistoryReport, data: &Path) -> anyhow::Result<()> {
    // On the same file system, so that each block appears whole.
    let directory = tempfile::Builder::new()
        .prefix("history-")
        .tempdir_in(data.parent().context("the data directory has a parent")?)
        .context("make a directory")?;
    prometheus::backfill(report, directory.path())?;
    move_blocks(&directory.path().join("data"), data)
}

/// Moves every block of one data directory to another on the same file system, and gives it to whom
/// that one belongs: Prometheus must be able to compact it.
pub(super) fn move_blocks(from: &Path, to: &Path) -> anyhow::Result<()> {
    let owner = std::fs::metadata(to).with_context(|| to.display().to_string())?;
    for entry in std::fs::read_dir(from)? {
        let block = entry?.path();
        if block.join("meta.json").exists() {
            let name = block.file_name().context("a block has a name")?;
            give(&block, &owner).with_context(|| format!("give away {}", block.display()))?;
            std::fs::rename(&block, to.join(name)).with_context(|| format!("move {}", block.display()))?;
        }
    }
    Ok(())
}

fn give(path: &Path, owner: &Metadata) -> std::io::Result<()> {
    let own = std::fs::metadata(path)?;
    if own.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    if (own.uid(), own.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

fn serve(report: HistoryReport, port: u16) -> anyhow::Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("listen to signals")?;
    }
    // Held for a moment only, but sooner than minutes of work for nothing.
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("listen on port {port}"))?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let directory = tempfile::tempdir().context("make a directory")?;
    prometheus::backfill(report, directory.path())?;
    let server = prometheus::Server::start_on(port, directory.path(), "")?;
    let last = report.months()[5];
    println!("http://127.0.0.1:{}/", server.port);
    println!("six months to {}; Ctrl-C ends it", last.first.strftime("%Y-%m"));
    while !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
