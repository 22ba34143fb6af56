//! `cargo xtask`: every task of the project, each with its own `--help`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// The tasks of Teiten's project. Everything is built as the user who calls; what needs root goes
/// through sudo, which says why.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that decides whether a change is good, as CI does
    ///
    /// Formatting, lints, dashboards, the BPF object (rebuilt from source and compared with the committed one),
    /// unit, integration and documentation tests, documentation, and the parser under libFuzzer.
    /// Tests that load programs into the kernel or make network namespaces need root: what they
    /// need is built first, as the user, and only the test programs run through sudo.
    ///
    /// Captures to test against are taken from `TEITEN_TEST_DATA`, by default `../shared/data` beside
    /// the project. The last line counts what passed, failed and was skipped; the lines before it say
    /// why something was skipped.
    Test {
        /// Neither install missing test programs nor the BPF toolchain
        #[arg(long)]
        no_install: bool,
        /// How long the parser is fuzzed, in seconds; 0 leaves it out
        #[arg(long, value_name = "N", default_value_t = 20)]
        fuzz_seconds: u32,
    },
    /// Watch a sensor at work: real packets, and what was counted beside what was sent
    ///
    /// Makes two network namespaces joined by a virtual cable, runs the real `teiten run` in one of
    /// them and plays a seeded model of Internet background radiation from the other, with source
    /// addresses of many countries, bursts, scans, backscatter and a flood. Shows `teiten status` and
    /// compares every number with what was sent; they must agree to the packet. Where Prometheus is
    /// installed, it scrapes the sensor, evaluates the rules and is given six months of history; where
    /// Grafana is installed, it shows the dashboards. Only the namespaces need root. Leaves no process,
    /// namespace or mount; pages, pictures and the printed report are in target/demo.
    Demo(xtask::demo::DemoArgs),
    /// Measure what Teiten costs, beside what people use today
    ///
    /// The kernel program by test runs, the whole path over a virtual cable, what it costs others on
    /// the line, the drain, the scrape, the replay: medians of several rounds in which the contenders
    /// alternate, with their ratios. Some twenty minutes; name parts to measure only those. Run it on
    /// a machine that has nothing else to do. BENCHMARKS.md keeps one such run.
    Bench(bench::BenchArgs),
    /// Build `teiten` and run the daemon, `teiten run ARGUMENTS`
    ///
    /// Attaching a program to an interface needs root; when you are not, only the daemon runs
    /// through sudo. Example: `cargo xtask run -- --interface eth0 --state-dir /tmp/teiten`
    Run {
        /// Arguments of `teiten run`; see `cargo xtask run -- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Rebuild the BPF object that is committed with the sources
    ///
    /// Needed after a change to sensor-ebpf or sensor-common; building `teiten` fails until then. The
    /// compiler is Debian's rustc-web with rust-web-src, or a rustup nightly with rust-src; the linker
    /// is bpf-linker, built for the compiler's LLVM. What is missing is installed.
    Ebpf {
        /// Change nothing; fail unless the committed object is what its sources give
        #[arg(long)]
        check: bool,
        /// Do not install a missing toolchain; say what is missing
        #[arg(long)]
        no_install: bool,
    },
    /// Check formatting, lints, links and words of the pages, arrows between modules, runbooks and licences
    Lint {
        /// Fix formatting, dashboards and what clippy can fix first
        #[arg(long)]
        fix: bool,
    },
    /// Generate the dashboards and rules from their one source
    ///
    /// Writes the committed files below grafana/; with `--out` everything that an installation needs, for its own
    /// zone, job and addresses. Example: `cargo xtask dashboards --zone Europe/Berlin --job honeypots
    /// --grafana-url https://grafana.example.net --out /tmp/teiten`
    Dashboards(xtask::dashboards::DashboardsArgs),
    /// Generate the reference pages in docs/ from the command line and the metrics
    Docs {
        /// Change nothing; fail unless the committed pages are what their source gives
        #[arg(long)]
        check: bool,
    },
    /// Serve six months of model history from a Prometheus of one's own
    ///
    /// A model of ten sensors whose totals are the report's, with everything that the recording rules
    /// would have recorded of it. To look at the dashboards with: see grafana/README.md.
    History(xtask::history::serve::HistoryArgs),
    /// Record of a Prometheus' counters what the rules would have recorded as time went by
    ///
    /// For counters that were loaded after the fact, or scraped before the rules were there. Evaluates the
    /// daily rules at each midnight of each sensor, the monthly and the hourly ones; what is recorded already
    /// stays as it is. Needs Prometheus and promtool on this machine.
    Record(xtask::history::record::RecordArgs),
    /// Measure how often the alert rules page for nothing, and what they catch
    ///
    /// Gives a model of noise, and with `--events` of labelled events, to the shipped rules in Prometheus' own
    /// engine, beside a z-score and `GreyNoise`'s published rule. Needs promtool. Half a minute to some minutes.
    Alerts(xtask::alerts::AlertsArgs),
    /// Make Debian packages and archives of the programs
    ///
    /// Builds `teiten` for release, writes man pages, completions and the configuration file from its command
    /// line, and makes the packages with debhelper and an archive for other systems. `--arch arm64` on amd64
    /// needs Debian's cross compiler and a standard library for arm64: both are fetched if they are missing.
    Package(xtask::package::PackageArgs),
    /// Check whether this commit can be released
    ///
    /// Everything is committed; the versions agree; the BPF object, the generated pages and the dashboards are
    /// current; the licences are those that are allowed; the packages of both architectures are whole; each
    /// program gets a bill of materials in `CycloneDX`'s JSON beside them. The release itself is a signed tag, which
    /// a person sets: see RELEASE.md.
    Release(xtask::release::ReleaseArgs),
    /// Fetch the country database that `teiten` carries inside it
    ///
    /// Takes it from Debian's package tor-geoipdb with `apt-get download`, checks it, and writes it with its
    /// attribution to sensor-user/geoip.
    Geoip {
        /// Fetch nothing: write what is embedded again from the text that is there
        #[arg(long)]
        again: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, without those that an error's own text has already.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        before if before.contains(&cause) => text,
        before => format!("{before}: {cause}"),
    })
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Test { no_install, fuzz_seconds } => {
            xtask::test::run(xtask::test::Options { install: !no_install, fuzz_seconds })
        }
        Task::Demo(arguments) => xtask::demo::run(&arguments),
        Task::Bench(arguments) => {
            bench::run(&arguments, || xtask::ebpf::build_bench(&xtask::toolchain::ensure(true)?))
        }
        Task::Alerts(arguments) => xtask::alerts::run(&arguments),
        Task::Run { arguments } => xtask::run::run(&arguments),
        Task::Ebpf { check: true, no_install } => xtask::ebpf::check(!no_install),
        Task::Ebpf { check: false, no_install } => xtask::ebpf::update(!no_install),
        Task::Lint { fix } => xtask::lint::run(fix),
        Task::Dashboards(arguments) => xtask::dashboards::generate(&arguments),
        Task::Docs { check } => xtask::docs::generate(check),
        Task::History(arguments) => xtask::history::serve::run(&arguments),
        Task::Record(arguments) => xtask::history::record::run(&arguments),
        Task::Package(arguments) => xtask::package::run(&arguments),
        Task::Release(arguments) => xtask::release::run(&arguments),
        Task::Geoip { again: false } => xtask::geoip::refresh(),
        Task::Geoip { again: true } => xtask::geoip::again(),
    }
}
