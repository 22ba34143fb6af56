//! An engine that speaks the HTTP API of Prometheus: the daily series that the recording rules make.
//!
//! A day's sample is at the local midnight that ends the day, up to a quarter of an hour late. A selector of a
//! range, evaluated at one time, gives the samples themselves: no step and no extrapolation lies between.

use super::{Input, Reading, Sensor};
use crate::period::by_month;
use crate::words::Text;
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sensor_counters::{Counter, Pair, Unit, counter, join};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Kinds whose growth by day the recording rules record.
const RECORDED: [&str; 13] = [
    "port",
    "country",
    "port_country",
    "port_hour",
    "group",
    "service",
    "tool",
    "list",
    "asn",
    "packets",
    "backscatter",
    "hosts",
    "overflow",
];

/// The series that tells whether a day was recorded at all.
const OBSERVED: &str = "sensor:teiten_observation_seconds:day";

/// Where the operating system keeps the certificates of authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How the engine is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) url: String,
    /// User and password.
    pub(crate) basic: Option<(String, String)>,
    pub(crate) bearer: Option<String>,
    /// Certificates of the authorities that are trusted, instead of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Further headers, such as `X-Scope-OrgID`.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    /// The zone of sensors that do not tell theirs.
    pub(crate) timezone: Option<TimeZone>,
}

/// An engine, and what it knows of the sensors.
pub(crate) struct Prometheus {
    access: Access,
    agent: ureq::Agent,
    sensors: Vec<Sensor>,
    index: HashMap<String, usize>,
    warnings: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Found>,
    #[serde(default)]
    warnings: Vec<String>,
    /// `VictoriaMetrics`' cluster: a part of its storage did not answer.
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

impl Element {
    fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }
}

impl Prometheus {
    /// Asks which sensors there are in `days`, and what is known of them.
    pub(crate) fn connect(access: Access, days: &RangeInclusive<Date>) -> Result<Self> {
        let agent = agent(&access)?;
        let mut this =
            Self { access, agent, sensors: Vec::new(), index: HashMap::new(), warnings: BTreeSet::new() };
        let found = this.over(&format!("count by (sensor) (count_over_time({OBSERVED}[RANGE]))"), days)?;
        if found.is_empty() {
            this.without_records(days)?;
        }
        let names: BTreeSet<String> =
            found.iter().map(|element| element.label("sensor").to_owned()).collect();
        this.sensors = names.iter().map(|name| Sensor::named(name)).collect();
        this.index = names.into_iter().enumerate().map(|(index, name)| (name, index)).collect();
        this.describe(days)?;
        for sensor in &this.sensors {
            ensure!(
                sensor.timezone.is_some(),
                "{}: no teiten_sensor_info of sensor {:?} tells its time zone; give it with --timezone, as in \
                 --timezone Asia/Tokyo",
                this.access.url,
                sensor.name
            );
        }
        Ok(this)
    }

    /// Says why there is nothing, when that is not because nothing was observed.
    fn without_records(&mut self, days: &RangeInclusive<Date>) -> Result<()> {
        let ever = self.over(&format!("count(count_over_time({OBSERVED}[RANGE]))"), &earlier(days))?;
        let counters = self.over("count(count_over_time(teiten_accesses_total[RANGE]))", days)?;
        ensure!(
            !ever.is_empty(),
            "{} has no recorded series {OBSERVED}{}. The recording rules make it: copy \
             grafana/prometheus/rules/*.yml to where `rule_files` of prometheus.yml points, and for the days \
             before run\n  cargo xtask record --prometheus {} --from {} --to {} --into DATA_DIRECTORY",
            self.access.url,
            if counters.is_empty() { ", and no counters of Teiten" } else { " of the counters that it has" },
            self.access.url,
            days.start(),
            days.end()
        );
        bail!(
            "{} has no recorded day of {} to {}; if the counters of that time are there, run\n  cargo xtask \
             record --prometheus {} --from {} --to {} --into DATA_DIRECTORY",
            self.access.url,
            days.start(),
            days.end(),
            self.access.url,
            days.start(),
            days.end()
        )
    }

    /// Zones, versions, addresses and databases.
    fn describe(&mut self, days: &RangeInclusive<Date>) -> Result<()> {
        for element in self
            .over("max by (sensor, timezone) (max_over_time(timestamp(teiten_sensor_info)[RANGE:6h]))", days)?
            .into_iter()
            .chain(self.over("max by (sensor, timezone) (last_over_time(teiten_sensor_info[RANGE]))", days)?)
        {
            if let Some(sensor) = self.index.get(element.label("sensor"))
                && let Ok(zone) = TimeZone::get(element.label("timezone"))
            {
                self.sensors[*sensor].timezone.get_or_insert(zone);
            }
        }
        for sensor in &mut self.sensors {
            if sensor.timezone.is_none() {
                sensor.timezone.clone_from(&self.access.timezone);
            }
        }
        let versions = "max by (sensor, version) (last_over_time(teiten_build_info[RANGE]))";
        for element in self.over(versions, days)? {
            if let Some(sensor) = self.index.get(element.label("sensor")) {
                self.sensors[*sensor].versions.push(element.label("version").to_owned());
            }
        }
        for (family, at) in [("ipv4", 0), ("ipv6", 1)] {
            let query = format!(
                "max by (sensor) (max_over_time(teiten_monitored_addresses{{family=\"{family}\"}}[RANGE]))"
            );
            for element in self.over(&query, days)? {
                if let Some(sensor) = self.index.get(element.label("sensor"))
                    && let Some(count) = number(&element)
                {
                    self.sensors[*sensor].addresses.get_or_insert([0, 0])[at] = count;
                }
            }
        }
        for function in ["min", "max"] {
            let query = format!(
                "{function} by (sensor) ({function}_over_time(teiten_geoip_build_timestamp_seconds[RANGE]))"
            );
            for element in self.over(&query, days)? {
                if let Some(sensor) = self.index.get(element.label("sensor"))
                    && let Some(at) = number(&element).and_then(|at| Timestamp::from_second(at as i64).ok())
                {
                    let day = at.to_zoned(TimeZone::UTC).date();
                    let known = &mut self.sensors[*sensor].geoip;
                    if !known.contains(&day) {
                        known.push(day);
                    }
                }
            }
        }
        Ok(())
    }

    /// A query whose `RANGE` reaches over the days, wherever on earth they begin.
    fn over(&mut self, query: &str, days: &RangeInclusive<Date>) -> Result<Vec<Element>> {
        let at = |day: Date| day.to_zoned(TimeZone::UTC).map(|it| it.timestamp().as_second());
        let (start, end) = (at(*days.start())? - 86_400, at(*days.end())? + 3 * 86_400);
        self.ask(&query.replace("RANGE", &format!("{}s", end - start)), end)
    }

    fn ask(&mut self, query: &str, at: i64) -> Result<Vec<Element>> {
        let url = format!("{}/api/v1/query", self.access.url.trim_end_matches('/'));
        let context = || format!("{}: query {query}", self.access.url);
        let mut request = self.agent.post(&url);
        if let Some((user, password)) = &self.access.basic {
            let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            request = request.header("Authorization", format!("Basic {token}"));
        }
        if let Some(token) = &self.access.bearer {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.access.headers {
            request = request.header(name, value);
        }
        let at = at.to_string();
        // Thanos and VictoriaMetrics answer with a part of the counts unless they are asked not to.
        let form =
            [("query", query), ("time", &at), ("partial_response", "false"), ("deny_partial_response", "1")];
        let mut response = request.send_form(form).map_err(|error| {
            let url = &self.access.url;
            match error {
                ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Io(_)
                    if url.starts_with("https://") =>
                {
                    anyhow::anyhow!(
                        "{url}: no connection by TLS: {error}; check the address, give http:// if it has no TLS, or its \
                         authority's certificate with --ca FILE"
                    )
                }
                ureq::Error::Timeout(_) => anyhow::anyhow!(
                    "{url}: no answer within {} s to {query}; --timeout allows more",
                    self.access.timeout.as_secs()
                ),
                error => anyhow::anyhow!(
                    "{url} cannot be reached: {error}; check the address and whether it runs"
                ),
            }
        })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| {
            anyhow::anyhow!(
                "{}: the answer to {query} broke off: {error}; run this again, with a longer --timeout if it took that \
                 long",
                self.access.url
            )
        })?;
        let parsed: Result<Answer, _> = serde_json::from_slice(&body);
        let answer = match (status.as_u16(), parsed) {
            (401 | 403, _) => bail!(
                "{}: {status}; check --user with --password-file, or --bearer-token-file; a tenant's name goes with \
                 --header X-Scope-OrgID=NAME",
                self.access.url
            ),
            (_, Ok(answer)) => answer,
            (200, Err(error)) => bail!(
                "{}: the answer is not that of Prometheus' HTTP API ({error}); give the address before /api/v1/query",
                self.access.url
            ),
            (404, Err(_)) => bail!("{}: {status}; give the address before /api/v1/query", self.access.url),
            (_, Err(_)) => {
                let text = String::from_utf8_lossy(&body);
                let text: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
                let advice = if text.contains("HTTPS") || text.contains("https") {
                    "give its address with https://"
                } else {
                    "its log, or that of a proxy before it, says why; then run this again"
                };
                bail!("{}: {status} {text:?} to {query}; {advice}", self.access.url)
            }
        };
        if answer.status != "success" {
            let error = answer.error.unwrap_or_else(|| status.to_string());
            // Its limits of one query.
            let advice = if error.contains("too many samples") {
                "; raise its --query.max-samples"
            } else if error.contains("timed out") || error.contains("timeout") {
                "; raise its --query.timeout"
            } else {
                ""
            };
            bail!("{}: {error} in {query}{advice}", self.access.url);
        }
        ensure!(
            !answer.is_partial,
            "{}: a part of its storage does not answer, so counts would be missing; run this again when all of it does",
            self.access.url
        );
        self.warnings.extend(answer.warnings);
        let data = answer.data.context("no data").with_context(context)?;
        ensure!(matches!(data.kind.as_str(), "vector" | "matrix"), "a {} is no answer to {query}", data.kind);
        Ok(data.result)
    }

    /// One calendar month or less of one recorded series.
    fn read_series(
        &mut self,
        counter: &Counter,
        number: usize,
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(&Reading<'_>),
    ) -> Result<()> {
        let Some(record) = record(counter, number) else { return Ok(()) };
        // Of replicas that recorded the same day, the one that has seen more.
        let mut values: BTreeMap<(usize, String, Date), u64> = BTreeMap::new();
        for element in self.over(&format!("{record}[RANGE]"), days)? {
            let Some(sensor) = self.index.get(element.label("sensor")).copied() else { continue };
            let zone = self.sensors[sensor].timezone.clone().unwrap_or(TimeZone::UTC);
            let mut labels = String::new();
            for label in counter.labels {
                join(&mut labels, element.label(label));
            }
            for (at, value) in &element.values {
                // Half a day before its end a day is the same one whatever its clock did.
                let end = Timestamp::from_second(*at as i64)?;
                let day = (end - 12.hours()).to_zoned(zone.clone()).date();
                let value: f64 = value.parse().with_context(|| format!("{record}: value {value:?}"))?;
                if days.contains(&day) && value.is_finite() && value >= 0.0 {
                    let value = match counter.numbers[number].unit {
                        Unit::Nanoseconds => (value * 1e9).round() as u64,
                        _ => value.round() as u64,
                    };
                    let known = values.entry((sensor, labels.clone(), day)).or_default();
                    *known = value.max(*known);
                }
            }
        }
        for ((sensor, labels, day), value) in values {
            let Some(series) = counter.parse(&labels) else { continue };
            let mut pair: Pair = [0, 0];
            pair[number] = value;
            each(&Reading { sensor, day, series: &series, value: pair });
        }
        Ok(())
    }
}

/// Two years up to the days.
fn earlier(days: &RangeInclusive<Date>) -> RangeInclusive<Date> {
    *days.start() - 2.years()..=*days.end()
}

fn number(element: &Element) -> Option<u64> {
    let value: f64 = element.value.as_ref()?.1.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

/// The name under which a counter's days are recorded.
fn record(counter: &Counter, number: usize) -> Option<String> {
    let metric = counter.numbers[number].metric?.strip_suffix("_total")?;
    let mut name = String::from("sensor");
    for label in counter.labels {
        write!(name, "_{label}").expect("memory");
    }
    Some(format!("{name}:{metric}:day"))
}

fn agent(access: &Access) -> Result<ureq::Agent> {
    let mut tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if access.url.starts_with("https://") {
        let system = AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
        let file = access.ca.as_deref().or(system).context(
            "no certificates of authorities are installed; give --ca FILE, or install ca-certificates",
        )?;
        let pem = std::fs::read(file).with_context(|| format!("--ca {}", file.display()))?;
        let authorities: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        ensure!(!authorities.is_empty(), "--ca {}: no certificate in PEM form", file.display());
        tls = tls.root_certs(RootCerts::new_with_certs(&authorities));
    } else {
        ensure!(
            access.url.starts_with("http://"),
            "--prometheus {}: an address begins with http:// or https://",
            access.url
        );
    }
    Ok(ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(access.timeout))
        .tls_config(tls.build())
        .user_agent(concat!("teiten-report/", env!("CARGO_PKG_VERSION")))
        .build()
        .into())
}

impl Input for Prometheus {
    fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    fn read(
        &mut self,
        kinds: &[&str],
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(&Reading<'_>),
    ) -> Result<()> {
        // A month at a time bounds what an answer takes.
        for days in by_month(days) {
            for kind in kinds.iter().filter(|kind| RECORDED.contains(kind) || **kind == "observed") {
                let counter = counter(kind).with_context(|| format!("the catalogue has no {kind}"))?;
                for number in 0..counter.numbers.len() {
                    if counter.numbers[number].unit != Unit::Bytes {
                        self.read_series(counter, number, &days, each)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn origin(&self) -> Text {
        Text::new(
            "the daily series that the recording rules of a Prometheus made",
            "Prometheusの記録ルールによる日ごとの系列",
        )
    }

    fn limits(&self, _names: &[Option<&str>]) -> Vec<Text> {
        let mut limits = vec![Text::new(
            "The recorded series have ports without a series of their own in sum only, and not the sources that no \
             longer fitted into a day's set.",
            "記録された系列では、個別の系列を持たないポートは合計のみであり、1日の集合に収まらなかった発信元の数は含まれない。",
        )];
        limits.extend(self.warnings.iter().map(|warning| {
            Text::new(
                format!("The engine that was asked warned: {warning}"),
                format!("照会先からの警告：{warning}"),
            )
        }));
        limits
    }
}
