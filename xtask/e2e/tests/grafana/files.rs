//! The committed files of `grafana/`: current, well-formed, and accepted by promtool.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::dashboards::{self, DashboardsArgs, Site};

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output = match Command::new("promtool").args(arguments).args(files).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: promtool cannot be run: {error}");
            return;
        }
    };
    assert!(
        output.status.success(),
        "promtool {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn yaml(directory: &str) -> Vec<PathBuf> {
    let directory = dashboards::directory().join("prometheus").join(directory);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn generated_files_are_current() {
    dashboards::generate(&DashboardsArgs { check: true, ..DashboardsArgs::default() })
        .expect("current files");
}

/// A site that has nothing in common with the committed one.
fn other_site() -> Site {
    Site {
        zone: "America/Sao_Paulo".to_owned(),
        job: "honeypots".to_owned(),
        grafana_url: "https://charts.example.org".to_owned(),
        runbook_url: "https://wiki.example.org/runbooks".to_owned(),
        retention: "2y".to_owned(),
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn another_site_has_its_own_files_and_nothing_of_the_committed_one() {
    let out = tempfile::tempdir().expect("a directory");
    let args = |check| DashboardsArgs { check, out: Some(out.path().to_owned()), site: other_site() };
    dashboards::generate(&args(false)).expect("files");
    dashboards::generate(&args(true)).expect("current files");
    let files = files_below(out.path());
    let committed = files_below(&dashboards::directory().join("prometheus/rules")).len();
    assert_eq!(files_below(&out.path().join("prometheus/rules")).len(), committed);
    let mut all = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a text");
        let own = Site::default();
        let matcher = format!("job=\\\"{}\\\"", own.job);
        let traces = [
            format!("job=\"{}\"", own.job),
            matcher,
            format!("job_name: {}", own.job),
            format!("\"timezone\": \"{}\"", own.zone),
            own.grafana_url,
            own.runbook_url,
            own.retention,
        ];
        for trace in traces {
            assert!(!text.contains(&trace), "{} has {trace}", file.display());
        }
        // The table of zones names every zone; what a sensor without one gets is the site's.
        if !file.ends_with("teiten-zone.yml") {
            assert!(!text.contains("Asia/Tokyo"), "{}", file.display());
        }
        all += &text;
    }
    let runbooks = std::fs::read_to_string(out.path().join("runbooks.md")).expect("the runbooks");
    assert!(runbooks.contains("{job=\"honeypots\""), "queries of another job");
    for own in
        ["job=\"honeypots\"", "job_name: honeypots", "https://charts.example.org", "* 0 + -10800", "time=2y"]
    {
        assert!(all.contains(own), "nowhere {own}");
    }
    let below = |directory: &str| files_below(&out.path().join("prometheus").join(directory));
    promtool(&["check", "rules"], &below("rules"));
    promtool(&["check", "rules"], &below("backfill"));
    promtool(&["check", "rules"], &below("optional"));
    promtool(&["check", "config"], &[out.path().join("prometheus/prometheus.yml")]);
}

#[test]
fn the_committed_files_are_not_replaced_by_another_sites() {
    let error = dashboards::generate(&DashboardsArgs { site: other_site(), ..DashboardsArgs::default() });
    assert!(error.expect_err("no directory was named").to_string().contains("--out"));
}

#[test]
fn dashboards_have_no_findings() {
    let findings = dashboards::lint::lint().expect("readable files");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn promtool_accepts_rules_and_configuration() {
    promtool(&["check", "rules"], &yaml("rules"));
    promtool(&["check", "rules"], &yaml("backfill"));
    promtool(&["check", "rules"], &yaml("optional"));
    promtool(&["check", "config", "--syntax-only"], &yaml("remote-write"));
    promtool(&["check", "config"], &[dashboards::directory().join("prometheus/prometheus.yml")]);
}

#[test]
fn the_mixin_gives_every_file_and_no_rule_twice() {
    let grafana = dashboards::directory();
    let directory = tempfile::tempdir().expect("a directory");
    let field = |name: &str| {
        let program = format!("(import 'mixin.libsonnet').{name}");
        let output = match Command::new("jsonnet").args(["-e", &program]).current_dir(&grafana).output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: jsonnet cannot be run: {error}");
                return None;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = directory.path().join(format!("{name}.json"));
        std::fs::write(&file, &output.stdout).expect("a file");
        Some((file, serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")))
    };
    let Some((rules, recorded)) = field("prometheusRules") else { return };
    let (alerts, fired) = field("prometheusAlerts").expect("jsonnet");
    let (_, boards) = field("grafanaDashboards").expect("jsonnet");
    promtool(&["check", "rules", "--lint=duplicate-rules", "--lint-fatal"], &[rules, alerts]);
    let groups = |value: &serde_json::Value| -> Vec<String> {
        let groups = value["groups"].as_array().expect("groups");
        groups.iter().map(|group| group["name"].as_str().expect("a name").to_owned()).collect()
    };
    let mut given = [groups(&recorded), groups(&fired)].concat();
    let mut committed: Vec<String> = yaml("rules")
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).expect("a text");
            let names = text.lines().filter_map(|line| line.strip_prefix("  - name: "));
            names.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    given.sort();
    committed.sort();
    assert_eq!(given, committed);
    let mut files: Vec<String> = files_below(&grafana.join("dashboards"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    let given: Vec<&String> = boards.as_object().expect("dashboards").keys().collect();
    assert_eq!(given, files.iter().collect::<Vec<_>>());
}

#[test]
fn promtool_unit_tests_pass() {
    // promtool uses one processor for a file.
    std::thread::scope(|scope| {
        for file in yaml("tests") {
            scope.spawn(|| promtool(&["test", "rules"], &[file]));
        }
    });
}

#[test]
fn every_explained_port_is_short_unique_and_bilingual() {
    let mut seen = BTreeSet::new();
    for port in dashboards::ports::table() {
        let name = format!("{}/{}", port.port, port.transport);
        assert!(seen.insert(name.clone()), "{name} is explained twice");
        assert!(matches!(port.transport.as_str(), "tcp" | "udp" | "icmp" | "icmpv6"), "{name}");
        assert!(!port.name.is_empty() && !port.source.is_empty(), "{name}");
        assert!(!port.en.is_empty() && port.en.len() < 160 && port.en.is_ascii(), "{name}: {}", port.en);
        assert!(!port.ja.is_empty() && !port.ja.is_ascii(), "{name}: {}", port.ja);
    }
    // Every port that the reports explain.
    for name in [
        "445/tcp",
        "135/tcp",
        "1026/udp",
        "1027/udp",
        "139/tcp",
        "8/icmp",
        "1433/tcp",
        "137/udp",
        "1028/udp",
        "1030/udp",
        "22/tcp",
        "23/tcp",
        "9415/tcp",
        "5060/udp",
        "27649/udp",
    ] {
        assert!(seen.contains(name), "{name} is not explained");
    }
}

/// Long options of a command and of those below it.
fn options(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(options)).collect()
}

#[test]
fn options_that_dashboards_and_alerts_name_exist() {
    let known = options(&sensor_user::cli::Cli::command_line());
    let mut files = files_below(&dashboards::directory().join("dashboards"));
    files.extend(yaml("rules"));
    let mut seen = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        for (_, rest) in text.match_indices("--").map(|(at, _)| text.split_at(at + 2)) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-' && c != '.');
            let name = &rest[..end.unwrap_or(rest.len())];
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                let name = name.trim_end_matches(['.', '-']);
                assert!(known.contains(name), "{} names --{name}", file.display());
                seen.insert(name.to_owned());
            }
        }
    }
    assert!(seen.contains("service") && seen.contains("geoip"), "{seen:?}");
}
