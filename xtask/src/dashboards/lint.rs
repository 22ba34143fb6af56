//! What every dashboard must satisfy: by itself, and on the model history in a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sensor_counters::{COUNTERS, Kind, OTHERS};
use serde_json::Value;

use crate::history::prometheus::{Server, rules};

/// What Prometheus itself adds for each target.
const ADDED: &[&str] = &["up", "scrape_duration_seconds"];

/// The metrics that a sensor exposes.
fn exposed() -> BTreeSet<String> {
    let counters =
        COUNTERS.iter().flat_map(sensor_counters::Counter::metrics).map(|(_, name, _)| name.to_owned());
    let others = OTHERS.iter().flat_map(|other| match other.kind {
        Kind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{}_{part}", other.name)).to_vec(),
        Kind::Counter | Kind::Gauge => vec![other.name.to_owned()],
    });
    counters.chain(others).collect()
}

/// A time range as Grafana has it: epoch milliseconds, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first millisecond.
    pub from: i64,
    /// The last millisecond.
    pub to: i64,
    /// Seconds by which the dashboard's zone is ahead of UTC.
    pub utc_offset: i64,
}

impl Range {
    /// As Grafana's Prometheus data source aligns a range query: to multiples of the step in
    /// the dashboard's zone.
    fn align(&self, millis: i64, step: i64) -> i64 {
        let step = step * 1000;
        let offset = self.utc_offset * 1000;
        ((millis + offset).div_euclid(step) * step - offset) / 1000
    }
}

/// One query of one panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// `uid/panel title/refId`.
    pub name: String,
    /// The panel's type.
    pub kind: String,
    /// The expression as written in the dashboard.
    pub expr: String,
    /// Whether it is evaluated once, at the end of the range.
    pub instant: bool,
    /// Least seconds between points.
    pub step: i64,
}

impl Query {
    /// The expression with variables filled in as Grafana fills them in.
    pub fn interpolate(&self, range: Range, variables: &[(&str, &str)]) -> String {
        let mut expr = self.expr.clone();
        let builtin = [
            ("${__from:date:seconds}", (range.from.div_euclid(1000)).to_string()),
            ("${__to:date:seconds}", (range.to.div_euclid(1000)).to_string()),
            ("${__range_s}", (((range.to - range.from) as f64 / 1000.0).round() as i64).to_string()),
            ("$__rate_interval", "20m".to_owned()),
            ("$__interval", format!("{}s", self.step)),
        ];
        for (name, value) in builtin {
            expr = expr.replace(name, &value);
        }
        for (name, value) in variables {
            expr = expr.replace(&format!("${name}"), value);
        }
        expr
    }

    /// Runs the query as Grafana would: the result, and how long Prometheus took.
    ///
    /// # Errors
    /// When Prometheus refuses the query.
    pub fn run(
        &self,
        server: &Server,
        range: Range,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<(Vec<Value>, Duration)> {
        let expr = self.interpolate(range, variables);
        let start = Instant::now();
        let result = if self.instant {
            server.instant(&expr, range.to as f64 / 1000.0)
        } else {
            server.range(
                &expr,
                range.align(range.from, self.step),
                range.align(range.to, self.step),
                self.step,
            )
        };
        Ok((result.with_context(|| self.name.clone())?, start.elapsed()))
    }
}

/// The committed dashboards, by file name.
///
/// # Errors
/// When one of them cannot be read.
pub fn committed() -> anyhow::Result<BTreeMap<String, Value>> {
    let mut dashboards = BTreeMap::new();
    for entry in std::fs::read_dir(super::directory().join("dashboards"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let name = path.file_name().context("a file name")?.to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path)?;
            dashboards.insert(name, serde_json::from_str(&text).context(path.display().to_string())?);
        }
    }
    Ok(dashboards)
}

/// Every query of a dashboard.
pub fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                name: format!(
                    "{}/{}/{}",
                    dashboard["uid"].as_str().unwrap_or_default(),
                    panel["title"].as_str().unwrap_or_default(),
                    target["refId"].as_str().unwrap_or_default()
                ),
                kind: panel["type"].as_str().unwrap_or_default().to_owned(),
                expr: target["expr"].as_str().unwrap_or_default().to_owned(),
                instant: target["instant"] == true,
                step: if target["interval"] == "1d" { 86_400 } else { 600 },
            });
        }
    }
    queries
}

/// The queries of a dashboard's annotations, `uid/annotation`, with a step in seconds.
pub fn annotations(dashboard: &Value, step: i64) -> Vec<Query> {
    let list = dashboard["annotations"]["list"].as_array();
    list.into_iter()
        .flatten()
        .map(|annotation| Query {
            name: format!(
                "{}/{}",
                dashboard["uid"].as_str().unwrap_or_default(),
                annotation["name"].as_str().unwrap_or_default()
            ),
            kind: "annotation".to_owned(),
            expr: annotation["target"]["expr"].as_str().unwrap_or_default().to_owned(),
            instant: false,
            step,
        })
        .collect()
}

/// What is wrong with the committed dashboards by themselves; empty when nothing is.
///
/// # Errors
/// When a file cannot be read.
pub fn lint() -> anyhow::Result<Vec<String>> {
    let mut known = exposed();
    known.extend(ADDED.iter().map(|metric| (*metric).to_owned()));
    for path in rule_paths()? {
        known.extend(rules(&path)?.into_iter().map(|r| r.record));
    }
    let mut findings = Vec::new();
    for (file, text) in rule_files()? {
        for name in metrics(&text).into_iter().filter(|name| !known.contains(*name)) {
            findings.push(format!("{file}: no sensor exposes and no rule records {name}"));
        }
    }
    let mut uids = BTreeSet::new();
    for (file, dashboard) in committed()? {
        let mut find = |what: String| findings.push(format!("{file}: {what}"));
        if !uids.insert(dashboard["uid"].to_string()) {
            find("its uid is another dashboard's".to_owned());
        }
        if !dashboard["schemaVersion"].as_i64().is_some_and(|v| (39..=42).contains(&v)) {
            find("schemaVersion is not 39 to 42".to_owned());
        }
        if !dashboard["timezone"].as_str().is_some_and(|t| t.contains('/')) {
            find("the time zone is not pinned".to_owned());
        }
        let variables: Vec<&str> = dashboard["templating"]["list"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v["name"].as_str())
            .collect();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap_or_default();
            if title.is_empty() {
                find(format!("panel {} has no title", panel["id"]));
            }
            if !ids.insert(panel["id"].to_string()) {
                find(format!("panel {} is there twice", panel["id"]));
            }
            if panel["type"] == "row" {
                continue;
            }
            if panel["description"].as_str().is_none_or(str::is_empty) {
                find(format!("{title}: no description"));
            }
            if panel["type"] == "text" {
                continue;
            }
            if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none_or(str::is_empty) {
                find(format!("{title}: no unit"));
            }
            if panel["targets"].as_array().is_none_or(Vec::is_empty) {
                find(format!("{title}: no query"));
            }
            for option in unset(panel) {
                find(format!("{title}: {option} is not set, and Grafana's own changes the look"));
            }
            if let Some(what) = coarse_axis(panel) {
                find(format!("{title}: {what}"));
            }
        }
        for query in queries(&dashboard).into_iter().chain(annotations(&dashboard, 600)) {
            for name in metrics(&query.expr) {
                if !known.contains(name) {
                    find(format!("{}: no sensor exposes and no rule records {name}", query.name));
                }
            }
            for name in used_variables(&query.expr) {
                if !variables.contains(&name) {
                    find(format!("{}: there is no variable {name}", query.name));
                }
            }
        }
    }
    Ok(findings)
}

/// Options of which Grafana has its own value, and which of them decide the look of a panel: JSON
/// pointers from the panel.
fn unset(panel: &Value) -> Vec<&'static str> {
    const COLOR: &str = "/fieldConfig/defaults/color/mode";
    const THRESHOLDS: &str = "/fieldConfig/defaults/thresholds/steps";
    let needed: &[&str] = match panel["type"].as_str().unwrap_or_default() {
        "stat" => &[
            COLOR,
            THRESHOLDS,
            "/options/colorMode",
            "/options/graphMode",
            "/options/textMode",
            "/options/showPercentChange",
            "/options/reduceOptions/calcs",
        ],
        "bargauge" => {
            &[COLOR, THRESHOLDS, "/options/displayMode", "/options/valueMode", "/options/reduceOptions/calcs"]
        }
        "state-timeline" => &[COLOR, THRESHOLDS, "/options/mergeValues", "/options/showValue"],
        "timeseries" => &[
            COLOR,
            "/fieldConfig/defaults/custom/drawStyle",
            "/fieldConfig/defaults/custom/lineWidth",
            "/fieldConfig/defaults/custom/fillOpacity",
            "/fieldConfig/defaults/custom/gradientMode",
            "/fieldConfig/defaults/custom/showPoints",
            "/fieldConfig/defaults/custom/spanNulls",
            "/fieldConfig/defaults/custom/stacking/mode",
            "/fieldConfig/defaults/custom/thresholdsStyle/mode",
            "/options/legend/displayMode",
            "/options/tooltip/mode",
        ],
        "trend" => &[COLOR, "/options/xField", "/options/legend/displayMode", "/options/tooltip/mode"],
        "barchart" => &[
            COLOR,
            "/fieldConfig/defaults/custom/fillOpacity",
            "/fieldConfig/defaults/custom/gradientMode",
            "/fieldConfig/defaults/custom/thresholdsStyle/mode",
            "/options/orientation",
            "/options/showValue",
            "/options/stacking",
            "/options/legend/displayMode",
            "/options/tooltip/mode",
        ],
        "piechart" => &[
            COLOR,
            "/options/sort",
            "/options/pieType",
            "/options/displayLabels",
            "/options/legend/displayMode",
            "/options/tooltip/mode",
        ],
        _ => &[],
    };
    needed.iter().filter(|option| panel.pointer(option).is_none_or(Value::is_null)).copied().collect()
}

/// What makes an axis of shares useless: ticks between 0 and 100 % that no decimals are left for.
fn coarse_axis(panel: &Value) -> Option<&'static str> {
    let defaults = &panel["fieldConfig"]["defaults"];
    if panel["options"]["stacking"] == "percent" || defaults["custom"]["stacking"]["mode"] == "percent" {
        return Some("stacked percents have an axis without a unit; query shares, with unit percentunit");
    }
    (defaults["unit"] == "percentunit" && !defaults["decimals"].is_null())
        .then_some("decimals round the ticks of percentunit to 0 and 1")
}

/// Every rule file, also those that not every installation has.
fn rule_paths() -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for directory in ["prometheus/rules", "prometheus/optional"] {
        for entry in std::fs::read_dir(super::directory().join(directory))? {
            paths.push(entry?.path());
        }
    }
    Ok(paths)
}

/// Every rule file with its name, comments left out.
fn rule_files() -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in rule_paths()? {
        let text = std::fs::read_to_string(&path)?;
        let rules: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        files.push((path.display().to_string(), rules.join("\n")));
    }
    Ok(files)
}

/// Names in front of `{`, which every selector of the dashboards has, or of `[`.
fn metrics(expr: &str) -> Vec<&str> {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expr.match_indices(['{', '['])
        .filter_map(|(at, _)| {
            let head = &expr[..at];
            Some(&head[head.trim_end_matches(name).len()..])
                .filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .collect()
}

fn used_variables(expr: &str) -> Vec<&str> {
    expr.match_indices('$')
        .filter_map(|(at, _)| {
            let tail = &expr[at + 1..];
            let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
            Some(&tail[..end]).filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .collect()
}
