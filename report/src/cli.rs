//! The command line.

use crate::content::{self, Manner, Source};
use crate::data::{self, Data};
use crate::input::ledger::Ledgers;
use crate::input::parquet::Tables;
use crate::input::prometheus::{Access, Prometheus};
use crate::input::{Input, Sensor};
use crate::notes::{self, Notes};
use crate::period::{self, Period};
use crate::words::Lang;
use crate::{html, json};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{CommandFactory as _, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_user::system::output::{Output, end_by_closed_pipes, say};
use sensor_user::system::whole_file::write_file;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Writes the report of a month, a quarter or a year
#[derive(Debug, Parser)]
#[command(name = "teiten-report", version, max_term_width = 100)]
struct Cli {
    /// The month, as in 2010-07
    #[arg(long, value_name = "MONTH", value_parser = Period::month, group = "period")]
    month: Option<Period>,
    /// The quarter, as in 2010-Q3
    #[arg(long, value_name = "QUARTER", value_parser = Period::quarter, group = "period")]
    quarter: Option<Period>,
    /// The year, as in 2010
    #[arg(long, value_name = "YEAR", value_parser = Period::year, group = "period")]
    year: Option<Period>,

    /// A Prometheus, or what speaks its HTTP API, with the recorded series
    #[arg(long, value_name = "URL", group = "input")]
    prometheus: Option<String>,
    /// A state directory, or a copy of ledger.sqlite; several times
    #[arg(long, value_name = "PATH", group = "input")]
    ledger: Vec<PathBuf>,
    /// What `teiten ledger export --format parquet` wrote; several times
    #[arg(long, value_name = "FILE", group = "input")]
    parquet: Vec<PathBuf>,

    /// User for basic authentication
    #[arg(long, value_name = "NAME", requires = "password_file", help_heading = "Prometheus")]
    user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", requires = "user", help_heading = "Prometheus")]
    password_file: Option<PathBuf>,
    /// File with a bearer token
    #[arg(long, value_name = "FILE", conflicts_with = "user", help_heading = "Prometheus")]
    bearer_token_file: Option<PathBuf>,
    /// File with the certificates of the authorities to trust, instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Prometheus")]
    ca: Option<PathBuf>,
    /// Another header of each request, as in X-Scope-OrgID=teiten; several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header, help_heading = "Prometheus")]
    header: Vec<(String, String)>,
    /// How long an answer may take, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Prometheus")]
    timeout: u64,
    /// Time zone of sensors whose own is not known, as in Asia/Tokyo
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    timezone: Option<TimeZone>,

    /// Language of the report
    #[arg(long, value_enum, default_value_t = Lang::En)]
    lang: Lang,
    /// What the observation is called in the title and the text
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only these sensors, by name, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    sensors: Vec<String>,
    /// Number the sensors instead of naming them
    #[arg(long)]
    anonymous: bool,
    /// Markdown that goes to named places of the report
    #[arg(long, value_name = "FILE", conflicts_with = "init_notes")]
    notes: Option<PathBuf>,
    /// Write a file with the places that notes can have in this report, and no report
    #[arg(long, value_name = "FILE")]
    init_notes: Option<PathBuf>,
    /// The day on which the report is written: only days before it are in it. Today by default
    #[arg(long, value_name = "DAY", value_parser = period::day)]
    date: Option<Date>,

    /// Where to write; its ending says which format
    #[arg(long, short, value_name = "FILE", required_unless_present_any = ["init_notes", "format"])]
    output: Option<PathBuf>,
    /// File with a font for characters of a PDF that the program's own lacks; several times
    #[cfg(feature = "pdf")]
    #[arg(long, value_name = "FILE")]
    font: Vec<PathBuf>,
    /// The format, whatever the ending; without --output on standard output
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tagged, PDF/UA-1 and PDF/A-2b
    #[cfg(feature = "pdf")]
    Pdf,
    /// One self-contained file
    Html,
    /// Every number with its figure's name
    Json,
}

fn header(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a header is written as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn zone(text: &str) -> Result<TimeZone> {
    TimeZone::get(text).with_context(|| format!("no time zone {text:?}; write it as in Asia/Tokyo"))
}

/// The command line, for man page and completions.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).and_then(|bytes| cli.deliver(&bytes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("teiten-report: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What the program would write with these arguments, the first of which is its name.
///
/// # Errors
///
/// As the program's.
pub fn make<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> Result<Vec<u8>> {
    run(&Cli::try_parse_from(arguments)?)
}

impl Cli {
    /// Writes to where the options say.
    fn deliver(&self, bytes: &[u8]) -> Result<()> {
        if let Some(file) = self.init_notes.as_deref().or(self.output.as_deref()) {
            return write_file(file, |out| out.write_all(bytes))
                .with_context(|| format!("cannot write `{}`", file.display()));
        }
        end_by_closed_pipes();
        let mut out = Output::lock();
        Ok(out.write_all(bytes).and_then(|()| out.flush())?)
    }
}

fn run(cli: &Cli) -> Result<Vec<u8>> {
    let Some(period) = cli.month.or(cli.quarter).or(cli.year) else {
        bail!("give --month, --quarter or --year, as in --month 2010-07");
    };
    let format = match (&cli.init_notes, cli.format) {
        (Some(_), _) => None,
        (None, format) => Some(format.map_or_else(|| by_ending(cli.output.as_deref()), Ok)?),
    };
    let bar = progress();
    bar.set_message("sensors");
    let mut input = open(cli, period)?;
    let chosen: BTreeSet<&str> = cli.sensors.iter().map(String::as_str).collect();
    check_sensors(&*input, &chosen)?;
    let is_chosen = |name: &str| chosen.is_empty() || chosen.contains(name);
    input.observed_once(&data::reach(period), &is_chosen)?;
    let today = cli.date.unwrap_or_else(|| today(&*input, cli));
    bar.set_message(period.code());
    let mut data = Data::read(&mut *input, period, today, &is_chosen, &mut |steps| {
        bar.set_length(steps as u64);
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    if cli.anonymous {
        number(&mut data.sensors, cli.lang);
    }
    // Those that are not chosen have no name in the report.
    let mut names = data.sensors.iter().map(|sensor| sensor.name.as_str());
    let names: Vec<Option<&str>> = input
        .sensors()
        .iter()
        .map(|sensor| if is_chosen(&sensor.name) { names.next() } else { None })
        .collect();
    let source = Source::of(&*input, &names);
    let places = content::places(&data);
    if let Some(file) = &cli.init_notes {
        ensure!(!file.exists(), "--init-notes {}: the file exists; name another one", file.display());
        return Ok(notes::template(&period.code(), &places).into_bytes());
    }
    let notes = match &cli.notes {
        Some(file) => Notes::read(file, &places)?,
        None => Notes::default(),
    };
    let centre =
        cli.name.clone().unwrap_or_else(|| cli.lang.t("Teiten", "インターネット定点観測").to_owned());
    let manner = Manner { lang: cli.lang, centre, today };
    let document = content::write(&data, &manner, &notes, &source);
    match format.context("a format")? {
        Format::Html => Ok(html::write(&document).into_bytes()),
        Format::Json => Ok(json::write(&document, &content::headline(&data)).into_bytes()),
        #[cfg(feature = "pdf")]
        Format::Pdf => {
            let (bytes, missing) = crate::pdf::write(&document, crate::pdf::fonts(&cli.font)?)?;
            if !missing.is_empty() {
                let list: Vec<String> = missing
                    .iter()
                    .take(8)
                    .map(|c| format!("{} (U+{:04X})", c.escape_debug(), u32::from(*c)))
                    .collect();
                eprintln!(
                    "teiten-report: no glyph for {} of the report's characters, printed as □: {}. Give a font that has \
                     them with --font FILE.",
                    missing.len(),
                    list.join(", ")
                );
            }
            Ok(bytes)
        }
    }
}

#[cfg(feature = "pdf")]
const ENDINGS: &str = ".pdf, .html or .json";
#[cfg(not(feature = "pdf"))]
const ENDINGS: &str = ".html or .json";

fn by_ending(output: Option<&Path>) -> Result<Format> {
    let output = output.context("--format or --output says which format")?;
    match output.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => Ok(Format::Html),
        Some("json") => Ok(Format::Json),
        #[cfg(feature = "pdf")]
        Some("pdf") => Ok(Format::Pdf),
        #[cfg(not(feature = "pdf"))]
        Some("pdf") => bail!(
            "--output {}: this build has no PDF; build it with `--features pdf`, or end the name in .html and print it from a browser, or in .json",
            output.display()
        ),
        _ => bail!("--output {}: end the name in {ENDINGS}, or give --format", output.display()),
    }
}

fn open(cli: &Cli, period: Period) -> Result<Box<dyn Input>> {
    let secret = |option: &str, file: &Path| -> Result<String> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{option} {}", file.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    };
    if let Some(url) = &cli.prometheus {
        let basic = match (&cli.user, &cli.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret("--password-file", file)?)),
            _ => None,
        };
        let bearer =
            cli.bearer_token_file.as_deref().map(|file| secret("--bearer-token-file", file)).transpose()?;
        let access = Access {
            url: url.clone(),
            basic,
            bearer,
            ca: cli.ca.clone(),
            headers: cli.header.clone(),
            timeout: Duration::from_secs(cli.timeout),
            timezone: cli.timezone.clone(),
        };
        return Ok(Box::new(Prometheus::connect(access, &data::reach(period))?));
    }
    if !cli.ledger.is_empty() {
        return Ok(Box::new(Ledgers::open(&cli.ledger)?));
    }
    ensure!(
        !cli.parquet.is_empty(),
        "nothing to read; give --prometheus URL, or --ledger PATH or --parquet FILE for each sensor"
    );
    Ok(Box::new(Tables::open(&cli.parquet)?))
}

fn check_sensors(input: &dyn Input, chosen: &BTreeSet<&str>) -> Result<()> {
    let known: Vec<&str> = input.sensors().iter().map(|sensor| sensor.name.as_str()).collect();
    for name in chosen {
        ensure!(known.contains(name), "--sensors: no sensor {name:?}; there are {}", known.join(", "));
    }
    Ok(())
}

/// The day that runs where it began last.
fn today(input: &dyn Input, cli: &Cli) -> Date {
    let now = jiff::Timestamp::now();
    let zones = input.sensors().iter().map(|sensor| sensor.timezone.as_ref().or(cli.timezone.as_ref()));
    let days = zones.map(|zone| now.to_zoned(zone.cloned().unwrap_or_else(TimeZone::system)).date());
    days.min().unwrap_or_else(|| now.to_zoned(TimeZone::system()).date())
}

/// Replaces the sensors' names by numbers.
fn number(sensors: &mut [Sensor], lang: Lang) {
    let width = sensors.len().to_string().len();
    for (at, sensor) in sensors.iter_mut().enumerate() {
        let number = format!("{:0width$}", at + 1);
        sensor.name = match lang {
            Lang::En => format!("sensor {number}"),
            Lang::Ja => format!("観測点{number}"),
        };
    }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}").expect("a template of this program");
    ProgressBar::new(1).with_style(style)
}
