//! What an installation decides: its zone, what its Prometheus calls the sensors, and where things are.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// The zone of the committed files.
pub const ZONE: &str = "Asia/Tokyo";
/// The job of the committed files.
pub const JOB: &str = "teiten";
const GRAFANA_URL: &str = "http://127.0.0.1:3000";
const RUNBOOK_URL: &str = "https://docs.example.net/teiten/runbooks.md";
const RETENTION: &str = "400d";

/// How an installation differs from the committed files.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Site {
    /// Time zone of the dashboards, and of sensors that do not say theirs; an IANA name
    #[arg(long, value_name = "ZONE", default_value = ZONE, value_parser = zone)]
    pub zone: String,
    /// Name of the sensors' job in Prometheus
    #[arg(long, value_name = "NAME", default_value = JOB, value_parser = job)]
    pub job: String,
    /// Address of Grafana, for links in alerts
    #[arg(long, value_name = "URL", default_value = GRAFANA_URL, value_parser = url)]
    pub grafana_url: String,
    /// Address of docs/runbooks.md where you keep it, for links in alerts
    #[arg(long, value_name = "URL", default_value = RUNBOOK_URL, value_parser = url)]
    pub runbook_url: String,
    /// How long Prometheus keeps samples
    #[arg(long, value_name = "TIME", default_value = RETENTION, value_parser = retention)]
    pub retention: String,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            zone: ZONE.to_owned(),
            job: JOB.to_owned(),
            grafana_url: GRAFANA_URL.to_owned(),
            runbook_url: RUNBOOK_URL.to_owned(),
            retention: RETENTION.to_owned(),
        }
    }
}

/// An IANA name, in its own spelling.
///
/// # Errors
/// When there is no such zone.
pub fn zone(name: &str) -> Result<String, String> {
    let zone = jiff::tz::TimeZoneDatabase::bundled().get(name);
    let zone = zone.map_err(|_| "there is no such time zone; give an IANA name like Europe/Berlin")?;
    Ok(zone.iana_name().unwrap_or(name).to_owned())
}

/// A name that needs no quoting in `PromQL`, YAML and JSON.
///
/// # Errors
/// When it would.
pub fn job(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    is_plain
        .then(|| name.to_owned())
        .ok_or_else(|| "begin with a letter and use letters, digits and _ . : / - only".to_owned())
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\#{}".contains(c);
    rest.filter(|rest| !rest.is_empty() && rest.chars().all(plain))
        .map(|_| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| "give an address like https://grafana.example.net".to_owned())
}

fn retention(text: &str) -> Result<String, String> {
    let days = text.strip_suffix('d').map(str::parse::<u32>).or_else(|| {
        text.strip_suffix('y').map(|years| years.parse::<u32>().map(|years| years.saturating_mul(365)))
    });
    match days {
        Some(Ok(days)) if days >= 37 => Ok(text.to_owned()),
        Some(Ok(_)) => Err("alerts compare with the last 36 days; keep 37d or more".to_owned()),
        _ => Err("give days or years, like 400d or 2y".to_owned()),
    }
}

impl Site {
    /// The matcher of the sensors' job.
    #[must_use]
    pub fn matcher(&self) -> String {
        format!("job=\"{}\"", self.job)
    }

    /// The files that are written by hand for the default site, by their path below `grafana/`, for this one.
    ///
    /// # Errors
    /// When a file cannot be read, or says nowhere what it is to say otherwise.
    pub(super) fn by_hand(&self, grafana: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let own = Self::default();
        let url = |name: &str, url: &str| format!("{name}: {url}");
        let retention = |time: &str| format!("retention.time={time}");
        let prometheus = [
            (format!("job_name: {}", own.job), format!("job_name: {}", self.job)),
            (url("grafana_url", &own.grafana_url), url("grafana_url", &self.grafana_url)),
            (url("runbook_url", &own.runbook_url), url("runbook_url", &self.runbook_url)),
            (retention(&own.retention), retention(&self.retention)),
        ];
        let alerts = [(own.matcher(), self.matcher())];
        let files: [(&str, &[(String, String)]); 13] = [
            ("mixin.libsonnet", &[]),
            ("../docs/runbooks.md", &alerts),
            ("prometheus/prometheus.yml", &prometheus),
            ("prometheus/prometheus.default", &[(retention(&own.retention), retention(&self.retention))]),
            ("prometheus/rules/teiten-alerts.yml", &alerts),
            ("prometheus/optional/teiten-left-out.yml", &alerts),
            ("prometheus/alertmanager.yml", &[]),
            ("prometheus/teiten.tmpl", &[]),
            ("prometheus/remote-write/mimir.yml", &[]),
            ("prometheus/remote-write/thanos.yml", &[]),
            ("prometheus/remote-write/victoriametrics.yml", &[]),
            ("provisioning/dashboards/teiten.yml", &[]),
            ("provisioning/datasources/teiten.yml", &[]),
        ];
        let read = |(name, replacements): (&str, &[(String, String)])| {
            let mut text =
                std::fs::read_to_string(grafana.join(name)).with_context(|| format!("read {name}"))?;
            for (from, to) in replacements {
                ensure!(text.contains(from), "grafana/{name} has no `{from}`");
                text = text.replace(from, to);
            }
            Ok((name.trim_start_matches("../docs/").to_owned(), text))
        };
        files.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        site: Site,
    }

    fn parse(arguments: &[&str]) -> Result<Site, String> {
        let arguments = ["test"].iter().chain(arguments);
        Arguments::try_parse_from(arguments).map(|a| a.site).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_it_is_the_committed_one() {
        assert_eq!(parse(&[]).unwrap(), Site::default());
    }

    #[test]
    fn what_would_break_a_file_is_refused_with_the_way_out() {
        for (option, value, way_out) in [
            ("--zone", "Europe/Berlim", "IANA name like Europe/Berlin"),
            ("--job", "a\"b", "letters, digits and"),
            ("--job", "", "letters, digits and"),
            ("--grafana-url", "grafana", "https://grafana.example.net"),
            ("--runbook-url", "https://a b", "https://grafana.example.net"),
            ("--retention", "400", "400d or 2y"),
            ("--retention", "15d", "37d or more"),
        ] {
            let error = parse(&[option, value]).unwrap_err();
            assert!(error.contains(option) && error.contains(way_out), "{error}");
        }
        let site = parse(&["--grafana-url", "https://g.example/", "--zone", "europe/berlin"]).unwrap();
        assert_eq!((site.grafana_url.as_str(), site.zone.as_str()), ("https://g.example", "Europe/Berlin"));
    }
}
