//! What is drawn over the charts: alerts that fired, and days that a sensor did not observe in full.

use serde_json::{Value, json};

use super::panels::{Language, datasource};
use super::queries;

/// Labels by which one alert differs from another.
const LABELS: &str = "alertname, severity, transport, port, group, sensor, reason";

/// The alerts that belong on a dashboard, as matchers of which each may be true. An alert without a sensor is of
/// several.
fn about(dashboard: &str) -> &'static [&'static str] {
    match dashboard {
        "port" => &[r#"transport="$transport",port="$port""#, r#"group="$group""#],
        "sensors" => &[r#"sensor!="""#],
        _ => &[r#"transport!="""#, r#"group!="""#],
    }
}

fn alerts(dashboard: &str) -> String {
    let fired: Vec<String> = about(dashboard)
        .iter()
        .map(|matchers| {
            format!(
                r#"max_over_time(ALERTS{{alertstate="firing",alertname=~"Teiten.+",sensor=~"$sensor|",{matchers}}}[$__interval])"#
            )
        })
        .collect();
    let fired = format!("max by ({LABELS}) ({})", fired.join(" or "));
    // What Grafana finds no label for it shows by the label's name: one label that is always there.
    format!(
        r#"label_replace(label_join(label_join({fired}, "name", "/", "port", "transport"), "what", " ", "name", "group", "sensor", "reason"), "what", "$1", "what", "/ +(.*)")"#
    )
}

/// The annotations of a dashboard.
pub(super) fn list(l: Language, dashboard: &str) -> Value {
    let annotation = |name: &str, color: &str, expression: &str, title: &str, text: &str, tags: &str| {
        json!({
            "name": name, "datasource": datasource(), "enable": true, "hide": false, "iconColor": color,
            "target": { "refId": "Anno", "expr": expression, "interval": "10m", "range": true, "instant": false },
            "titleFormat": title, "textFormat": text, "tagKeys": tags,
        })
    };
    json!([
        annotation(
            l.t("Alerts", "アラート"),
            "red",
            &alerts(dashboard),
            "{{alertname}}",
            "{{what}}",
            "severity"
        ),
        annotation(
            l.t("Gaps of observation", "観測の欠落"),
            "orange",
            &queries::gaps(),
            l.t("Gap of observation", "観測の欠落"),
            "{{sensor}}",
            "",
        ),
    ])
}
