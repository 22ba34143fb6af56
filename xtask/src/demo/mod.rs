//! `cargo xtask demo`: a sensor, an Internet to observe, and the comparison of what was counted with
//! what was sent.
//!
//! The demo leaves no process, namespace or mount: namespaces and mounts are descriptors of this process,
//! and the daemon and Prometheus die with the thread that started them. A directory below the temporary
//! one can outlive a SIGKILL; the next demo removes it. What is to be looked at afterwards is written
//! below cargo's target directory.

mod comparison;
mod countries;
mod forward;
mod grafana;
mod history;
mod pictures;
mod ports;
mod printed;
mod prometheus;

use self::comparison::Comparison;
use self::countries::Database;
use self::grafana::Grafana;
use self::history::Making;
use self::pictures::Pictures;
use self::prometheus::Prometheus;
use anyhow::{Context as _, Result, bail};
use lab::build::{self, Profile};
use lab::netns::{self, is_root};
use lab::sensor::{Daemon, INTERFACE, Lab, WEB};
use lab::traffic::{Carry as _, Class, Expectation, Frames, Plan, Radiation};
use lab::{command, sudo};
use nix::sys::signal::Signal;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The model's clock: ten ticks a second.
const TICK: Duration = Duration::from_millis(100);
/// The name that the sensor has in the metrics.
const SENSOR: &str = "demo";
/// How long the daemon may take to be ready.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// A drain every two seconds, and on the busiest machine some more, after the last packet.
const DRAIN_PATIENCE: Duration = Duration::from_mins(1);
/// How long the pages stay open on a terminal, when no flag says otherwise.
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
    /// Where the landing page and pictures are written [default: demo/ in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
    /// Do not draw the panels of the dashboards, which takes some minutes
    #[arg(long)]
    pub no_panels: bool,
    /// Do not write the printed report of the model's last month, which waits for its history
    #[arg(long)]
    pub no_report: bool,
    /// Pin in this directory of the machine's own bpffs, as an installed sensor does, like
    /// /sys/fs/bpf/teiten-demo [default: a bpffs of the demo's own]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Use this `teiten` instead of building one
    #[arg(long, value_name = "FILE")]
    pub teiten: Option<PathBuf>,
    /// Use this `teiten-report` instead of building one, as one that writes PDF too
    #[arg(long, value_name = "FILE")]
    pub teiten_report: Option<PathBuf>,
}

/// Builds the daemon, plays the model to it and compares.
///
/// # Errors
///
/// A tool or a right is missing, the daemon fails, or any number differs from what was sent.
pub fn run(args: &DemoArgs) -> Result<()> {
    if is_root() {
        // Before anything is built.
        netns::check()?;
    }
    let teiten = match &args.teiten {
        Some(path) => path.canonicalize().with_context(|| format!("find {}", path.display()))?,
        None => build::daemon(Profile::Development)?,
    };
    let has_history = ["prometheus", "promtool"].iter().all(|name| command::find(name).is_some());
    let report = match &args.teiten_report {
        _ if args.no_report || !has_history => None,
        Some(path) => Some(path.canonicalize().with_context(|| format!("find {}", path.display()))?),
        None => Some(build::report()?),
    };
    let pictures = match &args.pictures {
        Some(directory) => std::path::absolute(directory).context("find the directory for pictures")?,
        // Without cargo there is no other target directory to know of.
        None => build::target_directory().unwrap_or_else(|_| command::root().join("target")).join("demo"),
    };
    if is_root() {
        play(args, &teiten, report.as_deref(), pictures)
    } else {
        again_as_root(args, &teiten, report.as_deref(), &pictures)
    }
}

/// Runs this program's privileged part through sudo.
fn again_as_root(args: &DemoArgs, teiten: &Path, report: Option<&Path>, pictures: &Path) -> Result<()> {
    let mut demo = Command::new(std::env::current_exe().context("find this program")?);
    demo.arg("demo").arg("--teiten").arg(teiten).arg("--pictures").arg(pictures);
    for (name, value) in [
        ("--seconds", u64::from(args.seconds)),
        ("--seed", args.seed),
        ("--rate", args.rate.into()),
        ("--port", args.port.into()),
    ] {
        demo.arg(name).arg(value.to_string());
    }
    if args.no_panels {
        demo.arg("--no-panels");
    }
    match report {
        Some(report) => demo.arg("--teiten-report").arg(report),
        None => demo.arg("--no-report"),
    };
    if let Some(keep) = args.keep {
        demo.arg("--keep").arg(keep.to_string());
    }
    if let Some(directory) = &args.pin_dir {
        demo.arg("--pin-dir").arg(directory);
    }
    let why = "making network namespaces and attaching a program to an interface in one of them";
    let mut demo = sudo::as_root(demo, why)?;
    let status = demo.status().with_context(|| format!("start `{}`", command::line(&demo)))?;
    if !status.success() {
        bail!("the demo failed: {status}");
    }
    Ok(())
}

fn play(args: &DemoArgs, teiten: &Path, report: Option<&Path>, pictures: PathBuf) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("listen to signals")?;
    }

    let database = Database::load();
    let lab = Lab::new(1500)?;
    // Settings of a sensor that is installed here are not the demo's.
    let mut command = lab.teiten_run_pinned(
        teiten,
        &args.pin_dir.clone().unwrap_or_else(|| lab.pin_dir()),
        &[
            "--config",
            "/dev/null",
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
    );
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TEITEN_")) {
        command.env_remove(name);
    }
    let mut daemon = lab.spawn_command(command)?;
    daemon.wait_ready(START_PATIENCE)?;
    let pages = forward::forward(args.port, &lab.sensor, WEB).context("listen on this host")?;
    if args.port != 0 && pages.port() != args.port {
        println!("port {} is taken; the sensor's pages take {}", args.port, pages.port());
    }
    // Any free port for the pages is any free port for the others too.
    let expected = |port| if args.port == 0 { 0 } else { port };
    let mut prometheus = match command::find("prometheus") {
        Some(program) => Some(Prometheus::start(&program, lab.directory(), pages, SENSOR, expected(9090))?),
        None => None,
    };
    let grafana = match &prometheus {
        Some(prometheus) => Grafana::start(lab.directory(), prometheus.address, expected(3000))?,
        None => None,
    };
    let mut history = match &prometheus {
        Some(prometheus) if command::find("promtool").is_some() => Some(Making::start(&prometheus.data)?),
        _ => None,
    };
    if let Some(prometheus) = &mut prometheus {
        prometheus.wait_ready()?;
    }
    tell(&lab, pages, prometheus.as_ref(), grafana.as_ref());

    let day_before = daemon.status()?["today"]["date"].clone();
    let plan = Plan { seed: args.seed, ticks: args.seconds * 10, per_tick: (args.rate / 10).max(1) };
    let mut radiation = Radiation::new(lab.site(), plan);
    let (counted, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let is_complete = std::thread::scope(|scope| {
        scope.spawn(|| follow(&daemon, &counted, &is_over));
        let _end = End(&is_over);
        transmit(&mut radiation, &lab, &counted, args.seconds, &interrupted)
    })?;
    if !is_complete {
        daemon.stop(Signal::SIGINT)?;
        bail!("interrupted; everything that the demo made is gone");
    }

    let sent = radiation.expectation();
    daemon.wait_counted(sent.total(), DRAIN_PATIENCE)?;
    let database =
        database.join().map_err(|_| anyhow::anyhow!("reading the country database panicked"))??;
    let countries = countries(&database, &radiation, &daemon)?;
    let comparison = compare(&daemon, sent, countries.as_ref(), &day_before)?;
    println!("{}", table(&lab, teiten)?);
    println!("{comparison}");
    if let Some(prometheus) = &prometheus {
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
        println!("Every number above is the same on both sides, to the packet.\n");
    }
    // A picture that cannot be drawn is no fault of the sensor.
    if let Err(error) =
        draw(args, report, pictures, pages, prometheus.as_ref(), history.as_mut(), &interrupted)
    {
        println!("no pictures: {error:#}");
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

/// The sensor's status and what was sent. The status' day may lag its counters for a moment, so numbers
/// that differ are compared again for some time.
fn compare(
    daemon: &Daemon,
    sent: &Expectation,
    countries: Option<&BTreeMap<String, u64>>,
    day_before: &Value,
) -> Result<Comparison> {
    let since = Instant::now();
    loop {
        let status = daemon.status()?;
        // Across midnight a source counts once for each of the two days.
        let day = &status["today"]["date"];
        let same_day = day == day_before || day_before.is_null();
        let comparison = Comparison::new(sent, countries, &status, same_day);
        if comparison.agrees() || since.elapsed() > Duration::from_secs(10) {
            return Ok(comparison);
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
        Some(prometheus) => {
            let url = prometheus.pages();
            println!("Prometheus             {url}/alerts");
            println!(
                "  accesses by port     {url}/graph?g0.expr=topk(10%2Cteiten_accesses_total)&g0.tab=0&g0.range_input=15m"
            );
            println!(
                "  six months           {url}/graph?g0.expr=sum(last_over_time(sensor%3Ateiten_accesses%3Aday%5B1d%5D))&g0.tab=0&g0.range_input=26w"
            );
            println!("                       (a model of four sensors; it is there in a minute or two)");
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

/// Sets a flag when it is dropped, also by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps up how many packets the sensor has counted. On a thread of its own: a status with a row for each of
/// 65,536 ports takes a while, and traffic does not wait for it. (Metrics show new series as 0 for some time.)
fn follow(daemon: &Daemon, counted: &AtomicU64, is_over: &AtomicBool) {
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if Instant::now() < next {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let begin = Instant::now();
        if let Ok(status) = daemon.status() {
            let classes = status["total"]["classes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let packets = classes.iter().filter_map(|class| class["packets"].as_u64()).sum();
            counted.store(packets, Ordering::Relaxed);
        }
        // So the sensor writes a status for a quarter of the time at most.
        next = Instant::now() + (begin.elapsed() * 3).max(Duration::from_secs(1));
    }
}

/// Plays the model in its own time; whether it came to its end.
fn transmit(
    radiation: &mut Radiation,
    lab: &Lab,
    counted: &AtomicU64,
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
        progress.show(radiation.expectation().total(), counted.load(Ordering::Relaxed));
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

/// One line that is rewritten every second; where lines cannot be rewritten, a new one every ten.
struct Progress {
    begin: Instant,
    seconds: u32,
    shown: Option<Instant>,
    rewrites: bool,
}

impl Progress {
    fn new(seconds: u32) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let rewrites = io::stdout().is_terminal() && !is_dumb;
        Self { begin: Instant::now(), seconds, shown: None, rewrites }
    }

    fn elapsed(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    fn show(&mut self, sent: u64, counted: u64) {
        let pause = Duration::from_secs(if self.rewrites { 1 } else { 10 });
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!(
            "{:>3} of {} s   sent {sent:>9}   counted (drained every 2 s) {counted:>9}",
            self.elapsed(),
            self.seconds
        );
        if self.rewrites {
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
        if self.rewrites && self.shown.is_some() {
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

/// The accesses that were sent by the country of their source; `None` when the daemon has another database
/// than this checkout, which is said.
fn countries(
    database: &Database,
    radiation: &Radiation,
    daemon: &Daemon,
) -> Result<Option<BTreeMap<String, u64>>> {
    let (ours, theirs) = (database.built()?, daemon.status()?["geoip_build"].as_u64());
    if theirs != Some(ours) {
        println!("countries are not compared: this teiten has another country database than this checkout");
        return Ok(None);
    }
    database.locate(radiation.by_source()).map(Some)
}

/// Writes what is to be looked at afterwards, and says where it is.
fn draw(
    args: &DemoArgs,
    report: Option<&Path>,
    directory: PathBuf,
    pages: SocketAddr,
    prometheus: Option<&Prometheus>,
    mut history: Option<&mut Making>,
    interrupted: &AtomicBool,
) -> Result<()> {
    let pictures = Pictures::new(directory)?;
    pictures.page(pages)?;
    match (prometheus, history.as_deref_mut(), pictures.panels_need()) {
        _ if args.no_panels => {}
        (Some(prometheus), Some(history), None) => {
            println!("drawing the panels of the model's last month; Ctrl-C leaves them out");
            if history.wait(prometheus, interrupted)? {
                pictures.panels(prometheus.address)?;
            }
        }
        (Some(_), Some(_), Some(advice)) => println!("{advice}"),
        (None, ..) | (_, None, _) => {
            println!(
                "pictures of the panels need Prometheus and promtool: `sudo apt-get install prometheus`"
            );
        }
    }
    match (report, prometheus, history) {
        (Some(report), Some(prometheus), Some(history)) => {
            println!("writing the report of the model's last month; Ctrl-C leaves it out");
            if history.wait(prometheus, interrupted)? {
                printed::write(report, prometheus, pictures.directory())?;
            }
        }
        _ if args.no_report => {}
        _ => println!("the printed report needs Prometheus and promtool: `sudo apt-get install prometheus`"),
    }
    pictures.hand_over()
}

/// Leaves the pages open for a while.
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
        // Without a terminal there is no Enter: only time and signals end it.
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
