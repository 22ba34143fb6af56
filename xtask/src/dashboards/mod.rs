//! Generates what `grafana/` holds: the dashboards in two languages and the recording rules.

mod annotations;
mod colors;
mod common;
pub mod lint;
mod monthly;
mod panels;
mod port;
pub mod ports;
mod queries;
mod region;
mod regions;
mod rules;
mod sensors;
pub mod site;
mod zones;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use panels::{Language, label_variable};
use serde_json::{Value, json};
pub use site::Site;

/// The repository's `grafana/` directory.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana")
}

/// What to generate, and where.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DashboardsArgs {
    /// Change nothing; fail unless the files are what their source gives
    #[arg(long)]
    pub check: bool,
    /// Write everything that an installation needs into this directory, which may be new, instead of
    /// the committed files below grafana/
    #[arg(long, value_name = "DIRECTORY")]
    pub out: Option<PathBuf>,
    /// Whose files they are.
    #[command(flatten)]
    pub site: Site,
}

/// Writes every generated file, or with `check` says which of them differ.
///
/// # Errors
/// When a file cannot be read or written, with `check` when one is not current, and when another site than
/// the committed one is to replace it.
pub fn generate(args: &DashboardsArgs) -> anyhow::Result<()> {
    let mut files = files(&args.site)?;
    let into = if let Some(out) = &args.out {
        files.extend(args.site.by_hand(&directory())?);
        out.clone()
    } else {
        anyhow::ensure!(
            args.site == Site::default(),
            "the files below grafana/ are those of {} and job {}; name a directory with --out for others",
            Site::default().zone,
            Site::default().job
        );
        directory()
    };
    let mut stale = Vec::new();
    for (name, text) in files {
        let path = into.join(&name);
        let current = std::fs::read_to_string(&path).ok();
        if current.as_deref() == Some(text.as_str()) {
            continue;
        }
        if args.check {
            stale.push(name);
            continue;
        }
        std::fs::create_dir_all(path.parent().context("a file has a directory")?)
            .with_context(|| format!("make a directory for {}", path.display()))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    anyhow::ensure!(
        stale.is_empty(),
        "not current in {}: {}; run `cargo xtask dashboards` with the same options{}",
        into.display(),
        stale.join(", "),
        if args.out.is_none() { " and commit the result" } else { "" }
    );
    Ok(())
}

/// Every generated file by its path below `grafana/`.
fn files(site: &Site) -> anyhow::Result<Vec<(String, String)>> {
    let mut files: Vec<(String, String)> =
        rules::files(site)?.into_iter().map(|(name, text)| (format!("prometheus/{name}"), text)).collect();
    for l in Language::ALL {
        for (name, dashboard) in dashboards(l, site) {
            let mut text = String::new();
            write_json(&dashboard, 0, &mut text);
            files.push((format!("dashboards/teiten-{name}.{}.json", l.code()), text + "\n"));
        }
    }
    Ok(files)
}

/// The text of a generated file, by its path below `grafana/`.
///
/// # Errors
/// When there is no such file, or the bundled time zone database cannot be read.
pub fn generated(site: &Site, name: &str) -> anyhow::Result<String> {
    let found = files(site)?.into_iter().find(|(path, _)| path == name);
    Ok(found.with_context(|| format!("no file {name} is generated"))?.1)
}

/// What the rules would have recorded at midnight of a sensor's counters, given as metric, labels and value: name, labels
/// without the sensor, and value. The value is the same for each operation.
#[must_use]
pub fn daily_series(counters: &[(&str, &str, f64)]) -> Vec<(String, String, f64)> {
    rules::daily_series(counters)
}

/// JSON with a line for whatever fits on one.
fn write_json(value: &Value, indent: usize, out: &mut String) {
    let line = value.to_string();
    if line.len() <= 120 {
        out.push_str(&line);
        return;
    }
    let elements: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, v)| (format!("{}: ", json!(key)), v)).collect(),
        Value::Array(list) => list.iter().map(|v| (String::new(), v)).collect(),
        _ => return out.push_str(&line),
    };
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    out.push(open);
    for (index, (key, element)) in elements.into_iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n(' ', indent + 1));
        out.push_str(&key);
        write_json(element, indent + 1, out);
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    out.push(close);
}

fn dashboards(l: Language, site: &Site) -> [(&'static str, Value); 4] {
    let month = ("now-1M/M", "now-1M/M");
    [
        (
            "monthly",
            dashboard(
                (l, site),
                "monthly",
                l.t("Teiten: monthly report", "Teiten：月次報告"),
                l.t(
                    "Every figure of the monthly report. Choose one calendar month as the time range.",
                    "月次報告の全ての図。期間には1か月を選ぶ。",
                ),
                month,
                monthly::variables(l),
                &monthly::panels(l),
            ),
        ),
        (
            "port",
            dashboard(
                (l, site),
                "port",
                l.t("Teiten: port", "Teiten：ポート"),
                l.t(
                    "One port or port group: where its accesses come from and where they arrive.",
                    "1つのポートまたはポートグループの発信元と観測点。",
                ),
                ("now-28d/d", "now"),
                port::variables(l),
                &port::panels(l),
            ),
        ),
        (
            "region",
            dashboard(
                (l, site),
                "region",
                l.t("Teiten: region", "Teiten：地域"),
                l.t("One region of sources: its ports and its days.", "1つの発信元地域の宛先と推移。"),
                ("now-28d/d", "now"),
                region::variables(l),
                &region::panels(l),
            ),
        ),
        (
            "sensors",
            dashboard(
                (l, site),
                "sensors",
                l.t("Teiten: sensors", "Teiten：観測点"),
                l.t(
                    "Health and coverage of each sensor: what could be mistaken for a trend.",
                    "各観測点の稼働状況と観測範囲。",
                ),
                ("now-7d/d", "now"),
                Vec::new(),
                &sensors::panels(l, site),
            ),
        ),
    ]
}

fn dashboard(
    (l, site): (Language, &Site),
    name: &str,
    title: &str,
    description: &str,
    (from, to): (&str, &str),
    variables: Vec<Value>,
    panels: &[Value],
) -> Value {
    let mut list = vec![
        json!({
            "type": "datasource", "name": "datasource", "label": l.t("Data source", "データソース"), "query": "prometheus",
            "current": {}, "hide": 0, "includeAll": false, "multi": false, "options": [], "refresh": 1, "regex": "", "skipUrlSync": false,
        }),
        label_variable("sensor", l.t("Sensor", "観測点"), "teiten_sensor_info, sensor", true, ""),
    ];
    list.extend(variables);
    let links: Vec<Value> = [("monthly", l.t("Month", "月次報告")), ("port", l.t("Port", "ポート")), ("region", l.t("Region", "地域")), ("sensors", l.t("Sensors", "観測点"))]
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, title)| {
            json!({
                "type": "link", "title": title, "url": format!("/d/teiten-{other}-{}", l.code()), "icon": "dashboard", "tooltip": "",
                "tags": [], "asDropdown": false, "includeVars": true, "keepTime": *other != "sensors", "targetBlank": false,
            })
        })
        .collect();
    json!({
        "uid": format!("teiten-{name}-{}", l.code()),
        "title": title,
        "description": description,
        "tags": ["teiten", l.code()],
        "timezone": site.zone,
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": false,
        "weekStart": "",
        "refresh": "",
        "time": { "from": from, "to": to },
        "timepicker": {},
        "templating": { "list": list },
        "annotations": { "list": annotations::list(l, name) },
        "links": links,
        "panels": panels,
    })
}
