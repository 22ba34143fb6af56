//! What the person on call gets: every alert has its texts and links in both languages, and a section of
//! `docs/runbooks.md`, whose queries name what is recorded.

use super::{links, read};
use crate::dashboards;
use crate::history::prometheus::rules;
use anyhow::{Result, ensure};
use sensor_counters::{COUNTERS, OTHERS};
use std::collections::BTreeSet;

/// Annotations of every alert.
const TEXTS: [&str; 4] = ["summary", "description", "summary_ja", "description_ja"];

/// Looks at the alert rules and their page.
///
/// # Errors
///
/// Names each alert and section that lacks something.
pub(super) fn check() -> Result<()> {
    let (alerts, page) = (read("grafana/prometheus/rules/teiten-alerts.yml")?, read("docs/runbooks.md")?);
    let uids = dashboards::lint::committed()?
        .values()
        .filter_map(|dashboard| dashboard["uid"].as_str().map(str::to_owned))
        .collect();
    let mut findings = findings(&alerts, &page, &uids);
    let known = known()?;
    for block in page.split("```promql\n").skip(1) {
        let query = block.split("```").next().unwrap_or_default();
        let unknown = metrics(query).into_iter().filter(|name| !known.contains(*name));
        findings.extend(
            unknown.map(|name| format!("docs/runbooks.md: no sensor exposes and no rule records {name}")),
        );
    }
    ensure!(findings.is_empty(), "alerts and their runbooks:\n{}", findings.join("\n"));
    Ok(())
}

/// What a sensor exposes and what the rules record.
fn known() -> Result<BTreeSet<String>> {
    let counters = COUNTERS.iter().flat_map(|counter| counter.metrics().map(|(_, name, _)| name.to_owned()));
    let mut known: BTreeSet<String> =
        counters.chain(OTHERS.iter().map(|other| other.name.to_owned())).collect();
    for file in std::fs::read_dir(dashboards::directory().join("prometheus/rules"))? {
        known.extend(rules(&file?.path())?.into_iter().map(|rule| rule.record));
    }
    Ok(known)
}

/// The names of series in a query that are Teiten's.
fn metrics(query: &str) -> Vec<&str> {
    let names = query.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
    names.filter(|name| name.starts_with("teiten_") || name.contains(':')).collect()
}

fn findings(alerts: &str, page: &str, uids: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let sections: Vec<(&str, &str)> = page
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect();
    let mut names = BTreeSet::new();
    for alert in alerts.split("- alert: ").skip(1) {
        let (name, rule) = alert.split_once('\n').unwrap_or((alert, ""));
        names.insert(name);
        let annotation = |key: &str| {
            let (_, text) = rule.split_once(&format!("\n          {key}: "))?;
            // Up to the next key of the same depth or less.
            let end = text.match_indices('\n').find(|(at, _)| {
                let line = text[at + 1..].lines().next().unwrap_or_default();
                !line.trim().is_empty() && line.len() - line.trim_start().len() <= 10
            });
            Some(end.map_or(text, |(at, _)| &text[..at]))
        };
        for key in TEXTS {
            match annotation(key) {
                None => findings.push(format!("{name}: no annotation {key}")),
                Some(text) if key.ends_with("_ja") == text.is_ascii() => {
                    findings.push(format!("{name}: {key} is in the wrong language"));
                }
                Some(_) => {}
            }
        }
        let dashboard = annotation("dashboard").unwrap_or_default();
        let uid = dashboard
            .split_once("{{ $externalLabels.grafana_url }}/d/")
            .and_then(|(_, rest)| rest.split_once('?'))
            .map(|(uid, _)| uid);
        let is_known = uid.is_some_and(|uid| {
            uid.strip_suffix("en")
                .is_some_and(|stem| uids.contains(uid) && uids.contains(&format!("{stem}ja")))
        });
        if !is_known || !dashboard.contains("from=") || !dashboard.contains("&to=") {
            findings.push(format!(
                "{name}: dashboard is no absolute link to one that is there, with its time range"
            ));
        }
        let anchor =
            annotation("runbook_url").and_then(|url| url.trim().trim_end_matches('"').split_once('#'));
        if !anchor.is_some_and(|(_, anchor)| sections.iter().any(|(head, _)| links::anchor(head) == anchor)) {
            findings.push(format!("{name}: runbook_url has no section in docs/runbooks.md"));
        }
    }
    for (head, text) in sections {
        if !names.contains(head) {
            findings.push(format!("docs/runbooks.md: no alert is called {head}"));
        }
        for part in ["- **Look at**: ", "- **Usually**: ", "- **Do**: ", "```promql\n"] {
            if !text.contains(part) {
                findings.push(format!("docs/runbooks.md: {head} has no {:?}", part.trim()));
            }
        }
        if text.is_ascii() {
            findings.push(format!("docs/runbooks.md: {head} has no Japanese text"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERT: &str = "      - alert: A
        annotations:
          summary: >-
            s
          description: d
          summary_ja: \"要\"
          description_ja: \"説\"
          dashboard: >-
            {{ $externalLabels.grafana_url }}/d/x-en?from=1&to=now
          runbook_url: \"docs/runbooks.md#a\"
";
    const PAGE: &str =
        "# Runbooks\n\n## A\n- **Look at**: l\n- **Usually**: u\n- **Do**: d\n```promql\nup\n```\n手順\n";

    fn uids() -> BTreeSet<String> {
        ["x-en", "x-ja"].map(str::to_owned).into()
    }

    #[test]
    fn the_committed_alerts_have_no_findings() {
        check().unwrap();
    }

    #[test]
    fn a_whole_alert_has_no_findings() {
        assert_eq!(findings(ALERT, PAGE, &uids()), [""; 0]);
    }

    #[test]
    fn series_are_told_from_labels_and_functions() {
        let query = "topk(5, sensor:teiten_x:today{sensor=\"s\"}) / time() - teiten_y{job=\"teiten\"}";
        assert_eq!(metrics(query), ["sensor:teiten_x:today", "teiten_y"]);
    }

    #[test]
    fn each_part_that_lacks_is_named() {
        for (part, instead) in [
            ("          summary: >-\n            s\n", ""),
            ("要", "s"),
            ("from=1", ""),
            ("{{ $externalLabels.grafana_url }}", ""),
            ("x-en", "y-en"),
            ("#a", "#b"),
            ("alert: A", "alert: B"),
        ] {
            let found = findings(&ALERT.replace(part, instead), PAGE, &uids());
            assert_eq!(found.len(), 1, "{part}: {found:?}");
        }
        for part in ["- **Do**: d\n", "手順", "```promql"] {
            let found = findings(ALERT, &PAGE.replace(part, ""), &uids());
            assert_eq!(found.len(), 1, "{part}: {found:?}");
        }
    }
}
