//! The command line. Arguments are strings here; [`crate::config`] makes values of them, so that a
//! value is judged alike wherever it was given.

#![expect(clippy::doc_markdown, reason = "doc comments are help texts here, and backticks would be shown")]

use crate::config::Flags;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use sensor_counters::COUNTERS;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The revision that the binary was built from, when the build knew it.
pub const REVISION: &str = match option_env!("TEITEN_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// `0.1.0 (revision 3fd0064)`.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (revision {REVISION})", env!("CARGO_PKG_VERSION")));

const AFTER_HELP: &str = "\
Every option of `teiten run` is also an environment variable (`--web.listen-address` is
TEITEN_WEB_LISTEN_ADDRESS, lists separated by commas) and a key of the TOML file given by
`--config FILE` (`web.listen-address = [\"127.0.0.1:9477\"]`). Flags beat the environment, the
environment beats the file, each option for itself; a list replaces the lists below it.";

const REPLAY_EXAMPLE: &str = "\
Example: a capture of one SYN to 23/tcp.

base64 -d <<END | teiten replay --timezone Asia/Tokyo -
1MOyoQIABAAAAAAAAAAAAP//AABlAAAAv542TAAAAAAoAAAAKAAA
AEUAACgAAQAAQAaOk8YzZAfAAAIBnEAAFwAAAAEAAAAAUAIEACNO
AAA=
END";

/// Fixed-point observation of the Internet: counts unsolicited packets by port and source.
#[derive(Debug, Parser)]
#[command(name = "teiten", after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses this process's arguments; prints help, version or a usage error and ends the process
    /// when that is what they ask for.
    pub fn from_process() -> Self {
        Self::try_from_args(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Parses arguments, the program's name first.
    ///
    /// # Errors
    ///
    /// What help, version or a usage error have to say.
    pub fn try_from_args<A>(args: impl IntoIterator<Item = A>) -> Result<Self, clap::Error>
    where
        A: Into<std::ffi::OsString> + Clone,
    {
        Self::from_arg_matches(&Self::command_line().try_get_matches_from(args)?)
    }

    /// The command line's definition, each option with its environment variable.
    pub fn command_line() -> clap::Command {
        Self::command()
            .version(VERSION.as_str())
            .propagate_version(true)
            .max_term_width(100)
            .mut_subcommands(with_variables)
    }
}

fn with_variables(command: clap::Command) -> clap::Command {
    // These mean something else than the settings of the same name.
    let own: &[&str] = match command.get_name() {
        "replay" => &["state-dir", "archive-dir"],
        "sources" => &["asn"],
        _ => &[],
    };
    command.mut_args(|arg| {
        let key = crate::config::KEYS.iter().find(|key| Some(key.name) == arg.get_long());
        match (key, arg.get_help().map(ToString::to_string)) {
            (Some(key), Some(help)) if !own.contains(&key.name) => {
                arg.help(format!("{help} [env: {}]", key.variable()))
            }
            _ => arg,
        }
    })
}

/// The parts of an argument's help text, which the pages and the files of a package show apart.
#[derive(Debug)]
pub struct HelpParts {
    /// What it does.
    pub meaning: String,
    /// Its default, in words or as a value.
    pub default: Option<String>,
    /// Its environment variable.
    pub variable: Option<String>,
}

impl HelpParts {
    /// Those of `argument`, of [`Cli::command_line`].
    pub fn of(argument: &clap::Arg) -> Self {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let (help, variable) = taken(&help, "[env: ");
        let (meaning, default) = taken(&help, "[default: ");
        Self { meaning, default, variable }
    }
}

/// Takes `[mark …]` out of a text.
fn taken(text: &str, mark: &str) -> (String, Option<String>) {
    let Some((before, rest)) = text.split_once(mark) else { return (text.to_owned(), None) };
    let (inner, after) = rest.split_once(']').expect("a mark ends");
    (format!("{}{after}", before.trim_end()), Some(inner.to_owned()))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe: attach, count, geolocate, keep the ledger, serve metrics
    ///
    /// Attaches an XDP program that only counts (its verdict is always XDP_PASS), drains it at every
    /// interval and at each local hour and day, and serves the counters on /metrics.
    ///
    /// SIGTERM drains once more and exits; the pinned program keeps counting, so a restart or an
    /// upgrade loses nothing. SIGINT (Ctrl-C) also removes the program and the pins. SIGHUP reloads
    /// the configuration and says what needs a restart.
    ///
    /// Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root).
    Run(Box<RunArgs>),
    /// Count capture files by the same rules; needs no privilege
    ///
    /// Reads pcap and pcapng, also compressed with gzip or zstd, of any size in constant memory.
    /// Packet times give day and hour. Without --observe every destination counts. A record that cannot
    /// be used is left out, named and counted; the exit status is then 1.
    #[command(after_help = REPLAY_EXAMPLE)]
    Replay(Box<ReplayArgs>),
    /// Validate configuration, database, interfaces and kernel; change nothing
    ///
    /// Takes the options of `teiten run` and says what it would do. Exits with 0 when it would start,
    /// with 2 when it would not.
    Check(Box<RunArgs>),
    /// Show what the running sensor sees now
    Status(StatusArgs),
    /// Remove pinned programs, links and maps
    ///
    /// Counting ends. What was counted since the last drain of a stopped daemon is taken into its
    /// ledger first.
    Detach(DetachArgs),
    /// Show the busiest sources of a day, from the archive
    ///
    /// Reads what `teiten run --archive-dir` has archived, up to the last drain. Shows addresses of remote hosts,
    /// as otherwise only `teiten samples` does with --pcapng or --unmasked.
    #[command(after_help = SOURCES_HELP)]
    Sources(Box<SourcesArgs>),
    /// Inspect, export or verify the ledger
    Ledger(LedgerArgs),
    /// Show what packets to chosen ports held
    ///
    /// Shows the contents that --samples kept, each once: text as text, the rest as a dump, with the name of
    /// the question where it is known. Hosts, the sensor's addresses, e-mail addresses and long numbers are
    /// hidden.
    #[command(after_help = SAMPLES_HELP)]
    Samples(SamplesArgs),
}

/// Options of `teiten run` and `teiten check`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// Read further settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub kernel: KernelArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub counting: CountingArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub samples: SampleArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub daemon: DaemonArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub log: LogArgs,
}

/// How the program is attached and drained.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Observation")]
pub struct KernelArgs {
    /// Interface to observe (repeatable) [default: the one of the default route]
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// How to attach: auto (native, else generic with a warning), native, generic [default: auto]
    #[arg(long, value_name = "MODE")]
    pub xdp_mode: Option<String>,
    /// Sources × ports held per drain interval once the logs are full; fewer where all maps
    /// would take more than half of the memory [default: 1048576]
    #[arg(long, value_name = "N")]
    pub source_table: Option<String>,
    /// Kernel memory that may grow with the CPUs that there may ever be, 32MiB at least; more CPUs than it has room
    /// for share counters and logs [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub kernel_memory: Option<String>,
    /// Time between drains, 100ms to 1h; the ends of local hours and days are drained too [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub drain_interval: Option<String>,
    /// Directory of the pins; must lie on a bpffs, which is mounted there when it is not [default:
    /// /sys/fs/bpf/teiten]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<String>,
}

/// What counts, and as what.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Counting")]
pub struct CountingArgs {
    /// Destination address or prefix that counts as the sensor (repeatable) [default: run: the
    /// interface's own unicast addresses, followed as they change; replay: every destination]
    #[arg(long, value_name = "CIDR")]
    pub observe: Vec<String>,
    /// Source address or prefix never counted as accesses: management networks, own monitoring
    /// (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub exclude_source: Vec<String>,
    /// Service really offered here, like 22/tcp: counted apart (repeatable)
    #[arg(long, value_name = "PORT/PROTO")]
    pub service: Vec<String>,
    /// Ports charted as one, like messenger=1026-1039/udp,1434/udp (repeatable)
    #[arg(long, value_name = "NAME=LIST")]
    pub port_group: Vec<String>,
    /// Port that always has series by region, hour and tool, like 445/tcp or 8/icmp (repeatable)
    #[arg(long, value_name = "PORT/PROTO")]
    pub feature: Vec<String>,
    /// Ports with a series of their own; the rest is port="other" [default: 500]
    #[arg(long, value_name = "N")]
    pub max_ports: Option<String>,
    /// How many other ports get series by region, hour and tool [default: 30]
    #[arg(long, value_name = "N")]
    pub feature_ports: Option<String>,
    /// Time zone of the observation day, an IANA name like Asia/Tokyo [default: the system's]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Name of the sensor, for the ledger and `teiten_sensor_info` [default: host name]
    #[arg(long, value_name = "NAME")]
    pub sensor_name: Option<String>,
    /// Country database; a changed file is read again [default: the embedded one]
    #[arg(long, value_name = "FILE.mmdb")]
    pub geoip: Option<String>,
    /// Database of autonomous systems, by which sources are counted by network; a changed file is read again
    #[arg(long, value_name = "FILE.mmdb")]
    pub asn: Option<String>,
    /// Addresses and prefixes of sources that are counted under a name, like research=/etc/teiten/research.txt;
    /// the first list that holds a source counts it; changed files are read again (repeatable)
    #[arg(long, value_name = "NAME=FILE")]
    pub source_list: Vec<String>,
}

/// What is kept of the packets themselves.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Samples")]
pub struct SampleArgs {
    /// Ports to keep the first bytes of accesses to, like 1026-1030/udp,27649/udp or 8/icmp; `feature` is
    /// every feature port, `all` every port; datagrams, TCP SYNs with data and ICMP requests are looked at
    /// (repeatable) [default: none]
    #[arg(long, value_name = "LIST")]
    pub samples: Vec<String>,
    /// Bytes that are kept of a packet's content, 1024 at most [default: 768]
    #[arg(long, value_name = "N")]
    pub sample_bytes: Option<String>,
    /// Contents that are kept of each port and day, 1000 at most; of the rest packets are counted
    /// [default: 20]
    #[arg(long, value_name = "N")]
    pub sample_contents: Option<String>,
}

/// What the daemon keeps and serves.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Ledger and metrics")]
pub struct DaemonArgs {
    /// Directory of the ledger [default: /var/lib/teiten]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Day detail kept in the ledger, days [default: 400]
    #[arg(long, value_name = "N")]
    pub keep_days: Option<String>,
    /// Directory in which every source is archived as Parquet; addresses of remote hosts are personal data in many
    /// countries [default: no archive]
    #[arg(long, value_name = "DIR")]
    pub archive_dir: Option<String>,
    /// How much the archive keeps, like 400d or 50GB; the oldest goes first (repeatable: one of each)
    /// [default: no bound]
    #[arg(long, value_name = "DAYS|SIZE")]
    pub archive_keep: Vec<String>,
    /// How long a new series stays at 0 after a scrape first showed it, so that increase() loses
    /// nothing; 0s turns the rule off [default: 75s]
    #[arg(long, value_name = "DURATION")]
    pub series_hold: Option<String>,
    /// Address of the HTTP server; `:9477` is every address (repeatable) [default: 127.0.0.1:9477]
    #[arg(long = "web.listen-address", value_name = "ADDR")]
    pub web_listen_address: Vec<String>,
    /// TLS, client certificates and basic auth, in exporter-toolkit's format
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<String>,
    /// Listen on the sockets that systemd hands over (a .socket unit) instead
    #[arg(
        long = "web.systemd-socket",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub web_systemd_socket: Option<String>,
    /// Path of the metrics [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    pub web_telemetry_path: Option<String>,
}

/// How to log, to standard error.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Level and filters, like info,sensor_user::drain=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Options of `teiten replay`.
#[derive(Clone, Debug, Default, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// Capture files, in the order of their times; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Also write a ledger into this directory
    ///
    /// Captures are added to what the ledger has, so the same one again counts again; sources count
    /// once a day in whatever order files and calls come. All captures of a call are added, or, after an
    /// error or an interruption, none. Only the flag counts here: a replay never writes into the state
    /// directory that the environment or the file names for the sensor.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Also archive every source in this directory, exactly what the ledger takes in
    ///
    /// Only the flag counts here, too.
    #[arg(long, value_name = "DIR", requires = "state_dir")]
    pub archive_dir: Option<String>,
    /// Add to the ledger even if another --sensor-name or --timezone has written it
    #[arg(long, requires = "state_dir")]
    pub any_sensor: bool,
    /// Address or prefix of the sensor's side in captures of both directions: what it sends is not
    /// counted, and answers to it are solicited (repeatable)
    ///
    /// Several captures, also of one direction each, are then taken together by packet time; within one,
    /// the order of the file counts. Without --observe, only destinations on the sensor's side count. A TCP
    /// connection that is older than the capture is known from the first segment that the sensor's side
    /// sends; a question that is older is not.
    #[arg(long, value_name = "CIDR")]
    pub local: Vec<String>,
    /// Show hosts, addresses and numbers in samples as they came [with --samples]
    #[arg(long)]
    pub unmasked: bool,
    /// Read further settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub counting: CountingArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub samples: SampleArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "see above")]
    pub log: LogArgs,
}

/// Options of `teiten status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// Print the JSON of /api/v1/status as it is
    #[arg(long)]
    pub json: bool,
    /// The daemon's settings, for where it listens
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Address of the daemon's HTTP server; the first one is asked [default: 127.0.0.1:9477]
    #[arg(long = "web.listen-address", value_name = "ADDR")]
    pub web_listen_address: Vec<String>,
    /// The daemon's TLS and authentication settings
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<String>,
    /// User, where the daemon asks for one; the password is in TEITEN_WEB_PASSWORD or a file
    #[arg(long = "web.user", value_name = "NAME")]
    pub web_user: Option<String>,
    /// File with the user's password
    #[arg(long = "web.password-file", value_name = "FILE")]
    pub web_password_file: Option<String>,
    /// Client certificate (PEM), where the daemon asks for one
    #[arg(long = "web.client-cert-file", value_name = "FILE")]
    pub web_client_cert_file: Option<String>,
    /// Key of the client certificate (PEM)
    #[arg(long = "web.client-key-file", value_name = "FILE")]
    pub web_client_key_file: Option<String>,
}

/// Options of `teiten detach`.
#[derive(Clone, Debug, Default, Args)]
pub struct DetachArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// The daemon's settings, for the directory of the pins
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Directory of the pins [default: /sys/fs/bpf/teiten]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<String>,
    /// Directory of the ledger that takes the last counts in [default: /var/lib/teiten]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Directory of the archive that receives the last sources [default: none]
    #[arg(long, value_name = "DIR")]
    pub archive_dir: Option<String>,
}

const SOURCES_HELP: &str = "\
Examples:
  Today's busiest sources:
    teiten sources
  Who came to 23/tcp from Japan on a day, but for the scanners of no list:
    teiten sources --day 2026-11-29 --port 23/tcp --country JP --list none
  A hundred of one network, for programs:
    teiten sources --asn 64500 --limit 100 --json";

/// Options of `teiten sources`.
#[derive(Clone, Debug, Args)]
pub struct SourcesArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// Observation day, like 2010-07-01 [default: the last there is]
    #[arg(long, value_name = "DAY")]
    pub day: Option<Date>,
    /// Accesses to this port alone, like 23/tcp; TCP may be left out
    #[arg(long, value_name = "PORT/PROTO")]
    pub port: Option<String>,
    /// Sources of this country alone, like JP
    #[arg(long, value_name = "COUNTRY")]
    pub country: Option<String>,
    /// Sources of this network alone, like 64500 or AS64500
    #[arg(long, value_name = "N")]
    pub asn: Option<String>,
    /// Sources of this source list alone; `none` for those in no list
    #[arg(long, value_name = "NAME")]
    pub list: Option<String>,
    /// What this sensor saw alone, where several have one archive
    #[arg(long, value_name = "NAME")]
    pub sensor: Option<String>,
    /// Accesses to services instead of all others
    #[arg(long)]
    pub services: bool,
    /// How many sources to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Print as JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print as CSV
    #[arg(long)]
    pub csv: bool,
    /// The daemon's settings, for the directories
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Directory of the archive [default: none]
    #[arg(long, value_name = "DIR")]
    pub archive_dir: Option<String>,
    /// Directory of the ledger, which tells what is committed [default: /var/lib/teiten]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
}

/// Options of `teiten ledger`.
#[derive(Clone, Debug, Args)]
pub struct LedgerArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// What to do with it.
    #[command(subcommand)]
    pub command: LedgerCommand,
    /// The daemon's settings, for the directory of the ledger
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<String>,
    /// Directory of the ledger, or a ledger that was moved aside (repeatable for tables of `export`)
    /// [default: /var/lib/teiten]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Vec<String>,
    /// Directory of the archive, which `verify` compares with the ledger [default: none]
    #[arg(long, value_name = "DIR", global = true)]
    pub archive_dir: Option<String>,
}

const SAMPLES_HELP: &str = "\
Examples:
  What came to 1026/udp on the last day that has samples:
    teiten samples --port 1026/udp
  All of July 2010, for programs:
    teiten samples --from 2010-07-01 --to 2010-07-31 --json
  A capture that can be shared:
    teiten samples --port 27649/udp --pcapng samples.pcapng";

/// Options of `teiten samples`.
#[derive(Clone, Debug, Default, Args)]
pub struct SamplesArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help text of the command")]
    pub flags: Flags,
    /// Ports to show, like 1026/udp or 1026-1030/udp (repeatable) [default: all that have samples]
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = slots)]
    pub port: Vec<String>,
    /// Observation day to show, like 2010-07-01 [default: the last that has samples]
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    pub day: Option<Date>,
    /// First observation day [default: the first there is]
    #[arg(long, value_name = "DAY")]
    pub from: Option<Date>,
    /// Last observation day [default: the last there is]
    #[arg(long, value_name = "DAY")]
    pub to: Option<Date>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the first packet of each content into this file instead, as pcapng; `-` is standard output
    ///
    /// Headers and times are those of the packets. The sensor's address is replaced by one for
    /// documentation, what is hidden by asterisks, and checksums are corrected.
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,
    /// Hide nothing: show hosts, addresses and numbers as they came
    #[arg(long)]
    pub unmasked: bool,
    /// The daemon's settings, for the directory of the ledger and the sensor's addresses
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Directory of the ledger, or a ledger that was moved aside [default: /var/lib/teiten]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
}

const DAYS_HELP: &str = "\
Examples:
  All days, as a table:
    teiten ledger days
  The ranking of July 2010, with the ten busiest ports and countries:
    teiten ledger days --from 2010-07-01 --to 2010-07-31 --ports 10 --countries 10
  The same for programs:
    teiten ledger days --from 2010-07-01 --to 2010-07-31 --ports 10 --countries 10 --json";

/// The kinds of the long table, and what OpenMetrics has.
static EXPORT_HELP: LazyLock<String> = LazyLock::new(|| {
    // Time is exported in milliseconds.
    let kinds = COUNTERS.iter().filter(|counter| counter.labels.is_empty() && counter.kind != "observed");
    let mut lines = vec![String::from(" ")];
    for word in
        kinds.map(|counter| format!(" {},", counter.kind)).chain([" observed_milliseconds".to_owned()])
    {
        if lines.last().is_some_and(|line| line.len() + word.len() > HELP_WIDTH) {
            lines.push(String::from(" "));
        }
        lines.last_mut().expect("there is one from the start").push_str(&word);
    }
    format!("{EXPORT_KINDS}{}\n                   one `value` a day{EXPORT_REST}", lines.join("\n"))
});

/// Columns of the longest line of a help text that clap does not wrap.
const HELP_WIDTH: usize = 90;

const EXPORT_KINDS: &str = "\
CSV and Parquet are one long table with a column `kind`. Each kind counts all
accesses in its own way, so choose one, or they are counted three times and more:

  port, country    accesses and cumulative sources of all ports, of all countries:
                   each sums up to the day
  port_country     the same of feature ports by country
  asn              the same by network: its number in `asn`, its name in `name`
  list             the same by source list, in `name`; list_hosts: its hosts, in `value`
  port_list        the same of feature ports by source list
  breadth          hosts (`value`) and accesses by how many ports they reached (`name`)
  port_hour        accesses by local hour; `name` is `other` for ports without series
  group, service   accesses and sources of port groups and of real services by country;
                   `name` is the group
  tool             accesses by scanner, in `name`; port_tool: the same of feature ports;
                   country_tool: by country
  packets, bytes   all packets by class (`name`), in `value`
  backscatter      packets by what answered, in `value`
  unread           packets of class non_ip by kind (`name`), in `value`
  malformed        packets of class malformed by reason (`name`), in `value`
  samples          packets that could be sampled by result (`name`), in `value`
";

const EXPORT_REST: &str = "

Columns: day, kind, transport, port, country, hour, accesses, sources, name, value,
sensor, what port and country are called (port_name, port_en, port_ja, country_en,
country_ja), asn. What a kind does not have is empty.

OpenMetrics has every counter at the beginning and end of each local day, and the hours as
recording rules make them: what rules and dashboards read. Two months of a quiet sensor
are some thirty megabytes, 15 to 20 times the ledger, and promtool takes seconds for them
with the option below (minutes without). It ends at least three hours ago unless --end
says otherwise. Counters get the labels job=\"teiten\" and sensor=\"NAME\".

Examples:
  A gap in Prometheus, filled; then move the directories in blocks/ to Prometheus' data directory:
    teiten ledger export --format openmetrics --label instance=192.0.2.1:9477 \\
      --from 2026-10-01 --to 2026-10-31 --output ledger.om
    promtool tsdb create-blocks-from --max-block-duration=162h openmetrics ledger.om blocks
  Accesses by port of three sensors, as CSV:
    teiten ledger export --format csv --state-dir a --state-dir b --state-dir c | grep -E '^day|,port,'
  For notebooks:
    teiten ledger export --format parquet --output ledger.parquet";

const VERIFY_HELP: &str = "\
Looks at the write-ahead log, every day, every counter and the source sets, and changes nothing; a running
daemon is not disturbed, and does the same every hour.

Examples:
    teiten ledger verify
    teiten ledger verify --state-dir /var/lib/teiten/ledger.sqlite.corrupt-20260102T030405Z";

/// What can be done with a ledger.
#[derive(Clone, Debug, Subcommand)]
pub enum LedgerCommand {
    /// List the observation days with their totals, or rank their ports, countries and networks
    #[command(after_help = DAYS_HELP)]
    Days {
        /// First observation day, like 2010-07-01 [default: the first there is]
        #[arg(long, value_name = "DAY")]
        from: Option<Date>,
        /// Last observation day [default: the last there is]
        #[arg(long, value_name = "DAY")]
        to: Option<Date>,
        /// Rank the N busiest ports of these days
        #[arg(long, value_name = "N")]
        ports: Option<usize>,
        /// Rank the N busiest countries of these days
        #[arg(long, value_name = "N")]
        countries: Option<usize>,
        /// Rank the N busiest networks of these days
        #[arg(long, value_name = "N")]
        networks: Option<usize>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write days for Prometheus, notebooks or query engines
    ///
    /// `openmetrics` is what `promtool tsdb create-blocks-from openmetrics` takes, to fill a gap in
    /// Prometheus.
    #[command(after_help = EXPORT_HELP.as_str())]
    Export {
        /// Form of the export
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// First observation day, like 2010-07-01 [default: the first there is]
        #[arg(long, value_name = "DAY")]
        from: Option<Date>,
        /// Last observation day [default: the last there is]
        #[arg(long, value_name = "DAY")]
        to: Option<Date>,
        /// OpenMetrics: leave hours out that end after this instant, like 2026-11-01T00:00:00+09:00
        /// [default: the last even hour of UTC that is three hours ago]
        ///
        /// Prometheus holds its newest three hours in memory and drops them, of every job, when it gets
        /// blocks of the same time.
        #[arg(long, value_name = "TIME")]
        end: Option<Timestamp>,
        /// OpenMetrics: further label of the counters, like instance=192.0.2.1:9477, so that they are the
        /// series that Prometheus scrapes (repeatable)
        #[arg(long, value_name = "NAME=VALUE")]
        label: Vec<String>,
        /// File to write; `-` is standard output
        #[arg(long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Prove the identities day by day; exits with 1 when one fails
    #[command(after_help = VERIFY_HELP)]
    Verify,
}

/// Form of `teiten ledger export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// OpenMetrics text.
    Openmetrics,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Checks ports like `1026/udp`.
fn slots(text: &str) -> Result<String, String> {
    crate::config::parse_slots(text).map(|_| text.to_owned())
}

/// Takes the values of all settings from the options of a command, so that one more setting needs no more than
/// its option.
impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self::collect(|key| {
            let option = key.name.replace(['-', '.'], "_");
            // Not every command has every option.
            let values = matches.try_get_many::<String>(&option).ok().flatten();
            values.into_iter().flatten().cloned().collect()
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command_line().debug_assert();
    }

    #[test]
    fn help_of_export_and_the_page_of_the_ledger_name_every_kind() {
        let page = include_str!("../../docs/ledger.md");
        let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let help: Vec<&str> = words(&EXPORT_HELP).collect();
        for counter in COUNTERS {
            let kind = if counter.kind == "observed" { "observed_milliseconds" } else { counter.kind };
            assert!(help.contains(&kind), "EXPORT_KINDS lacks {kind}");
            // Those without labels are in one row.
            let has_labels = !counter.labels.is_empty();
            assert!(!has_labels || page.contains(&format!("`{kind}`")), "docs/ledger.md lacks {kind}");
        }
    }

    #[test]
    fn every_key_is_a_flag_of_run_or_replay_and_every_flag_of_run_is_a_key() {
        let command = Cli::command_line();
        let flags = |name: &str| -> Vec<String> {
            let command = command.find_subcommand(name).unwrap();
            command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
        };
        let (run, replay, status) = (flags("run"), flags("replay"), flags("status"));
        for key in &KEYS {
            assert!(run.iter().chain(&replay).chain(&status).any(|flag| flag == key.name), "--{}", key.name);
        }
        for flag in &run {
            assert!(KEYS.iter().any(|key| key.name == flag), "--{flag}");
        }
        assert_eq!(run, flags("check"), "check validates what run takes");
    }
}
