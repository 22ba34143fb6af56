//! `cargo xtask history`: the model history in a Prometheus of one's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Report, prometheus};

/// Options of the task.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// The report whose month ends the history
    #[arg(long, value_enum, default_value = "july-2010")]
    pub report: Report,
    /// Port on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
}

/// Loads the history and serves it until a signal comes.
///
/// # Errors
/// When Prometheus or promtool are not installed, or the port is taken.
pub fn run(args: &HistoryArgs) -> anyhow::Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("listen to signals")?;
    }
    let directory = tempfile::tempdir().context("make a directory")?;
    prometheus::backfill(args.report, directory.path())?;
    let port = if args.port == 0 { prometheus::free_port()? } else { args.port };
    let server = prometheus::Server::start_on(port, directory.path(), "")?;
    let last = args.report.months()[5];
    println!("http://127.0.0.1:{}/", server.port);
    println!(
        "six months to {}; for Grafana: from={} to={}; Ctrl-C ends it",
        last.first.strftime("%Y-%m"),
        last.start() * 1000,
        last.end() * 1000 - 1
    );
    while !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
