//! The committed files of `grafana/`: current, well-formed, and accepted by promtool.

use std::path::PathBuf;
use std::process::Command;

use xtask::dashboards;

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
    dashboards::generate(true).expect("current files");
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
    promtool(&["check", "config", "--syntax-only"], &yaml("remote-write"));
    promtool(&["check", "config"], &[dashboards::directory().join("prometheus/prometheus.yml")]);
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
    let mut seen = std::collections::BTreeSet::new();
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
