//! `cargo xtask demo`: a sensor, an Internet to observe, and the comparison of what was counted with
//! what was sent.
//!
//! Everything that the demo makes hangs on this process: namespaces and mounts are descriptors, the
//! daemon and Prometheus die with the thread that started them. Only a directory below the temporary
//! one can outlive a SIGKILL, and the next demo removes it.

mod comparison;
mod forward;
mod grafana;
mod history;
mod ports;
mod prometheus;

use self::comparison::Comparison;
use self::grafana::Grafana;
use self::history::Making;
use self::prometheus::Prometheus;
use anyhow::{Context as _, Result, bail};
use lab::build::{self, Profile};
use lab::netns::is_root;
use lab::sensor::{Daemon, INTERFACE, Lab, WEB};
use lab::traffic::{Carry as _, Class, Expectation, Frames, Plan, Radiation};
use lab::{command, sudo};
use nix::sys::signal::Signal;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The model's clock: ten ticks a second.
const TICK: Duration = Duration::from_millis(100);
/// The name that the sensor has in the metrics.
const SENSOR: &str = "demo";
/// A drain every two seconds, and on the busiest machine some more, after the last packet.
const DRAIN_PATIENCE: Duration = Duration::from_mins(1);
/// How long the pages stay open when somebody sits there and nothing is said.
const KEEP_ON_TERMINAL: u64 = 600;

/// Options of the demo.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// How long the traffic lasts, seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub seconds: u32,
    /// Seed of the model: the same seed sends the same packets
    #[arg(long, value_name = "N", default_value_t = 20_051_101)]
    pub seed: u64,
    /// Packets per second when nothing particular happens
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=50_000))]
    pub rate: u32,
    /// Port of this host that shows the sensor's pages; a free one when it is taken
    #[arg(long, value_name = "PORT", default_value_t = 9477)]
    pub port: u16,
    /// How long the pages stay open afterwards, seconds; Enter or Ctrl-C ends it sooner [default: 600
    /// on a terminal, 0 elsewhere]
    #[arg(long, value_name = "SECONDS")]
    pub keep: Option<u64>,
    /// Use this `teiten` instead of building one
    #[arg(long, value_name = "FILE")]
    pub teiten: Option<PathBuf>,
}

/// Builds the daemon, plays the model to it and compares.
///
/// # Errors
///
/// A tool or a right is missing, the daemon fails, or any number differs from what was sent.
pub fn run(args: &DemoArgs) -> Result<()> {
    let teiten = match &args.teiten {
        Some(path) => path.canonicalize().with_context(|| format!("find {}", path.display()))?,
        None => build::daemon(Profile::Development)?,
    };
    if is_root() { play(args, &teiten) } else { again_as_root(args, &teiten) }
}

/// Runs this program's privileged part through sudo.
fn again_as_root(args: &DemoArgs, teiten: &Path) -> Result<()> {
    let mut demo = Command::new(std::env::current_exe().context("find this program")?);
    demo.arg("demo").arg("--teiten").arg(teiten);
    for (name, value) in [
        ("--seconds", u64::from(args.seconds)),
        ("--seed", args.seed),
        ("--rate", args.rate.into()),
        ("--port", args.port.into()),
    ] {
        demo.arg(name).arg(value.to_string());
    }
    if let Some(keep) = args.keep {
        demo.arg("--keep").arg(keep.to_string());
    }
    let why = "making network namespaces and attaching a program to an interface in one of them";
    let mut demo = sudo::as_root(demo, why)?;
    let status = demo.status().with_context(|| format!("start `{}`", command::line(&demo)))?;
    if !status.success() {
        bail!("the demo failed: {status}");
    }
    Ok(())
}

fn play(args: &DemoArgs, teiten: &Path) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("listen to signals")?;
    }

    let lab = Lab::new(1500)?;
    let daemon = lab.start(
        teiten,
        &[
            "--interface",
            INTERFACE,
            "--sensor-name",
            SENSOR,
            "--drain-interval",
            "2s",
            "--series-hold",
            "10s",
            // The day of the dashboards, and of the model history.
            "--timezone",
            "Asia/Tokyo",
        ],
    )?;
    let pages = forward::forward(args.port, &lab.sensor, WEB).context("listen on this host")?;
    if args.port != 0 && pages.port() != args.port {
        println!("port {} is taken; the sensor's pages take {}", args.port, pages.port());
    }
    // Whoever wants any free port for the pages wants it for the others too.
    let expected = |port| if args.port == 0 { 0 } else { port };
    let mut prometheus = match command::find("prometheus") {
        Some(program) => Some(Prometheus::start(&program, lab.directory(), pages, SENSOR, expected(9090))?),
        None => None,
    };
    let grafana = match &prometheus {
        Some(prometheus) => Grafana::start(lab.directory(), prometheus.address, expected(3000))?,
        None => None,
    };
    let _history = match &prometheus {
        Some(prometheus) if command::find("promtool").is_some() => Some(Making::start(&prometheus.data)?),
        _ => None,
    };
    tell(&lab, pages, prometheus.as_ref(), grafana.as_ref());

    let day_before = daemon.status()?["today"]["date"].clone();
    let plan = Plan { seed: args.seed, ticks: args.seconds * 10, per_tick: (args.rate / 10).max(1) };
    let mut radiation = Radiation::new(lab.site(), plan);
    let is_complete = transmit(&mut radiation, &lab, &daemon, args.seconds, &interrupted)?;
    if !is_complete {
        daemon.stop(Signal::SIGINT)?;
        bail!("interrupted; everything that the demo made is gone");
    }

    let sent = radiation.expectation();
    daemon.wait_counted(sent.total(), DRAIN_PATIENCE)?;
    let (status, comparison) = compare(&daemon, sent, &day_before)?;
    println!("{}", table(&lab, teiten)?);
    println!("{comparison}");
    println!("{}", countries(&radiation, &status));
    if let Some(prometheus) = &mut prometheus {
        prometheus.wait_ready()?;
        // The model history's sensors are in there too.
        let query = format!("sum(teiten_accesses_total{{sensor=\"{SENSOR}\"}})");
        let counted = prometheus.query(&query)?;
        println!(
            "Prometheus so far: {query} = {counted} (a new series stays at 0 for 10 s, so \
             that increase() loses nothing; it gets to {} soon)\n",
            sent.packets(Class::Access)
        );
    }

    let agrees = comparison.agrees();
    if agrees {
        println!("Every number above is the same on both sides, to the packet.");
    }
    keep(args, pages, prometheus.as_ref(), &interrupted);
    let ended = daemon.stop(Signal::SIGINT)?;
    if !ended.success() {
        bail!("teiten ended with {ended}");
    }
    if !agrees {
        bail!("what was counted differs from what was sent; see DIFFERS above (seed {})", args.seed);
    }
    Ok(())
}

/// The sensor's status beside what was sent. Its picture of the day may be a moment behind its
/// counters, so numbers that differ are looked at again for some time.
fn compare(daemon: &Daemon, sent: &Expectation, day_before: &Value) -> Result<(Value, Comparison)> {
    let since = Instant::now();
    loop {
        let status = daemon.status()?;
        // Across midnight a source counts once for each of the two days.
        let day = &status["today"]["date"];
        let comparison = Comparison::new(sent, &status, day == day_before || day_before.is_null());
        if comparison.agrees() || since.elapsed() > Duration::from_secs(10) {
            return Ok((status, comparison));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Where to look while it runs.
fn tell(lab: &Lab, pages: SocketAddr, prometheus: Option<&Prometheus>, grafana: Option<&Grafana>) {
    println!("the sensor's page      http://{pages}/");
    println!("its metrics            http://{pages}/metrics");
    println!("its status as JSON     http://{pages}/api/v1/status");
    match prometheus {
        Some(Prometheus { address, .. }) => {
            println!("Prometheus             http://{address}/alerts");
            println!(
                "  accesses by port     http://{address}/graph?g0.expr=topk(10%2Cteiten_accesses_total)&g0.tab=0&g0.range_input=15m"
            );
            println!(
                "  six months           http://{address}/graph?g0.expr=sum(last_over_time(sensor%3Ateiten_accesses%3Aday%5B1d%5D))&g0.tab=0&g0.range_input=26w"
            );
            println!("                       (a model of four sensors; it appears a minute or two from now)");
        }
        None => println!("Prometheus             not installed; with it, the demo scrapes too"),
    }
    match grafana {
        Some(Grafana { address, .. }) => {
            println!("Grafana                http://{address}/d/teiten-monthly-en, /d/teiten-monthly-ja");
        }
        None if prometheus.is_some() => {
            println!("Grafana                not installed; with it, the dashboards are here too");
        }
        None => {}
    }
    println!("the sensor's network   nsenter --net={}\n", lab.sensor.path());
}

/// Plays the model in its own time; whether it came to its end.
fn transmit(
    radiation: &mut Radiation,
    lab: &Lab,
    daemon: &Daemon,
    seconds: u32,
    interrupted: &AtomicBool,
) -> Result<bool> {
    let mut sender = lab.sender()?;
    let mut frames = Frames::default();
    let begin = Instant::now();
    let mut progress = Progress::new(seconds);
    for tick in 0_u32.. {
        for event in radiation.beginning() {
            progress.say(event.tells());
        }
        if !radiation.next_tick(&mut frames) {
            break;
        }
        sender.send(&frames)?;
        progress.show(radiation.expectation().total(), daemon);
        let due = begin + TICK * (tick + 1);
        while let Some(rest) = due.checked_duration_since(Instant::now()) {
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(rest.min(Duration::from_millis(50)));
        }
        if interrupted.load(Ordering::Relaxed) {
            progress.end();
            return Ok(false);
        }
    }
    sender.settle()?;
    progress.end();
    Ok(true)
}

/// One line that is written again every second; elsewhere than on a terminal, a line now and then.
struct Progress {
    begin: Instant,
    seconds: u32,
    shown: Option<Instant>,
    on_terminal: bool,
}

impl Progress {
    fn new(seconds: u32) -> Self {
        Self { begin: Instant::now(), seconds, shown: None, on_terminal: io::stdout().is_terminal() }
    }

    fn elapsed(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    fn show(&mut self, sent: u64, daemon: &Daemon) {
        let pause = Duration::from_secs(if self.on_terminal { 1 } else { 10 });
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let counted = match daemon.status() {
            Ok(status) => status["total"]["classes"]
                .as_array()
                .map_or(0, |classes| {
                    classes.iter().filter_map(|class| class["packets"].as_u64()).sum::<u64>()
                })
                .to_string(),
            Err(error) => error.to_string(),
        };
        let line = format!(
            "{:>3} of {} s   sent {sent:>9}   counted (drained every 2 s) {counted:>9}",
            self.elapsed(),
            self.seconds
        );
        if self.on_terminal {
            print!("\r\x1b[K{line}");
            // A terminal that is gone needs no progress.
            let _ = io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    fn say(&mut self, what: &str) {
        self.end();
        println!("{:>3} s   {what}", self.elapsed());
    }

    fn end(&mut self) {
        if self.on_terminal && self.shown.is_some() {
            print!("\r\x1b[K");
        }
    }
}

/// What `teiten status` prints.
fn table(lab: &Lab, teiten: &Path) -> Result<String> {
    let mut status = lab.command(teiten);
    status.arg("status").arg(format!("--web.listen-address={WEB}"));
    command::output(&mut status)
}

/// The countries, for information: who holds an address may change after a prefix was listed.
fn countries(radiation: &Radiation, status: &Value) -> String {
    let mut sent: Vec<_> = radiation.countries().iter().collect();
    sent.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let counted = |country: &str| {
        status["total"]["countries"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["country"] == country)?["accesses"].as_u64())
            .unwrap_or(0)
    };
    let mut text =
        "accesses by country; the flood's spoofed sources lie anywhere and are not in \"sent\"\n".to_owned();
    for (country, count) in sent.into_iter().take(10) {
        // A string takes whatever it is given.
        let _ = writeln!(text, "  {country:<20} {count:>12} {:>12}", counted(country));
    }
    text
}

/// Leaves the pages open for somebody to look at.
fn keep(args: &DemoArgs, pages: SocketAddr, prometheus: Option<&Prometheus>, interrupted: &AtomicBool) {
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !command::is_set("CI");
    let seconds = args.keep.unwrap_or(if on_terminal { KEEP_ON_TERMINAL } else { 0 });
    if seconds == 0 {
        return;
    }
    let also =
        prometheus.map(|prometheus| format!(" and http://{}/", prometheus.address)).unwrap_or_default();
    println!("Look at http://{pages}/{also} for {seconds} s; Enter or Ctrl-C ends the demo.");
    let (entered, enter) = channel();
    if io::stdin().is_terminal() {
        std::thread::spawn(move || {
            // The end of the input is an answer too.
            let _ = io::stdin().lock().read_line(&mut String::new());
            let _ = entered.send(());
        });
    } else {
        // Nobody can press Enter: only time and signals end it.
        std::mem::forget(entered);
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && !interrupted.load(Ordering::Relaxed) {
        match enter.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
