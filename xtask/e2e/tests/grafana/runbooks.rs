//! The queries of `docs/runbooks.md`, in a real Prometheus that knows the committed rules' names.

use std::process::Command;

use xtask::dashboards;
use xtask::history::prometheus::Server;

#[test]
fn prometheus_accepts_every_query() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: prometheus is not installed");
        return;
    }
    let page = dashboards::directory().join("../docs/runbooks.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), "scrape_configs: []\n").expect("prometheus");
    let mut queries = 0;
    for block in page.split("```promql\n").skip(1) {
        let (block, _) = block.split_once("```").expect("the end of the block");
        for query in block.lines() {
            server.instant(query, 0.0).unwrap_or_else(|error| panic!("{query}: {error:#}"));
            queries += 1;
        }
    }
    assert!(queries >= 20, "{queries} queries");
}
