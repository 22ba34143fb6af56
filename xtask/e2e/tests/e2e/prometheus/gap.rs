//! A gap filled from the ledger in a Prometheus that runs, as the documentation says.

use super::week::{Packet, Regions, SMB, observation, settings};
use crate::common::teiten;
use jiff::Timestamp;
use jiff::ToSpan as _;
use lab::command::run;
use lab::target;
use lab::wait::{PATIENCE, poll};
use sensor_user::ledger::Ledger;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use xtask::history::prometheus::Server;

/// A packet in each of the last full `hours`, drained hour by hour; and when the first hour began.
fn observe(state_dir: &Path, hours: i64) -> (Ledger, i64) {
    let mut ledger = Ledger::open(state_dir, settings()).unwrap();
    let now = Timestamp::now().as_second();
    let begin = now - now % 3600 - hours * 3600;
    let source = Ipv4Addr::new(203, 0, 113, 7);
    for hour in 1..=hours {
        let at = begin + hour * 3600;
        let packet = Packet { at: at - 1800, src: source, slot: SMB };
        ledger.fold(&observation(hour as u64, at, 3600, &[packet]), &Regions, &[]).unwrap();
    }
    (ledger, begin)
}

/// The one value of an expression now; none when there is no series.
fn value(server: &Server, expression: &str) -> Option<f64> {
    let now = Timestamp::now().as_millisecond() as f64 / 1000.0;
    let result = server.instant(expression, now).unwrap();
    assert!(result.len() < 2, "{expression}: {result:?}");
    result.first().map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
}

fn wait(server: &Server, expression: &str, until: impl Fn(f64) -> bool) {
    let came = poll(3 * PATIENCE, || value(server, expression).filter(|value| until(*value)));
    assert!(came.is_some(), "{expression}: {:?}", value(server, expression));
}

#[test]
fn a_gap_is_filled_in_the_same_series_and_no_job_loses_its_newest_samples() {
    needs_program!("prometheus");
    needs_program!("promtool");
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let hours = 80;
    let (mut ledger, begin) = observe(directory, hours);

    // The sensor has been scraped since a moment ago, and so has another job.
    let sensor = target::serve(format!("teiten_accesses_total{{transport=\"tcp\",port=\"445\"}} {hours}\n"));
    let foreign = target::serve("foreign 1\n".to_owned());
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: teiten\n    static_configs: \
         [{{ targets: ['127.0.0.1:{sensor}'], labels: {{ sensor: week }} }}]\n  - job_name: foreign\n    static_configs: \
         [{{ targets: ['127.0.0.1:{foreign}'] }}]\n"
    );
    let server = Server::start(directory, &config).unwrap();
    wait(&server, "count_over_time(foreign[1h])", |samples| samples >= 15.0);
    let until = Timestamp::now().as_second();
    let newest = format!("count_over_time(foreign[1h] @ {until})");
    let before = value(&server, &newest).unwrap();
    // The ledger has the time of these samples too.
    let last = begin + hours * 3600;
    ledger.fold(&observation(hours as u64 + 1, until, until - last, &[]), &Regions, &[]).unwrap();
    drop(ledger);

    let (file, blocks) = (directory.join("ledger.om"), directory.join("blocks"));
    let mut export = Command::new(teiten());
    export.args(["ledger", "export", "--format", "openmetrics", "--state-dir"]).arg(directory);
    export.arg("--label").arg(format!("instance=127.0.0.1:{sensor}")).arg("--output").arg(&file);
    run(&mut export).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["tsdb", "create-blocks-from", "--max-block-duration=162h", "openmetrics"]);
    run(promtool.arg(&file).arg(&blocks).env("TMPDIR", directory)).unwrap();
    for block in std::fs::read_dir(&blocks).unwrap() {
        let block = block.unwrap();
        std::fs::rename(block.path(), server.data.join(block.file_name())).unwrap();
    }

    // Yesterday's midnight at the sensor lies after any end that is safe, and within the gap.
    let zone = settings().timezone;
    let midnight = Timestamp::now().to_zoned(zone).start_of_day().unwrap().checked_sub(1.day()).unwrap();
    let midnight = midnight.timestamp().as_second();
    let sent = (midnight - begin) / 3600;
    // A plain sum, over what was scraped and what was filled in.
    let filled = format!("sum(teiten_accesses_total{{job=\"teiten\"}} @ {midnight})");
    wait(&server, &filled, |value| (value - sent as f64).abs() < 0.5);
    let whole = |server: &Server| {
        assert_eq!(value(server, &newest), Some(before));
        assert_eq!(value(server, "sum(last_over_time(teiten_accesses_total[5d]))"), Some(hours as f64));
        let series = "count(count_over_time(teiten_accesses_total{port=\"445\"}[5d]))";
        assert_eq!(value(server, series), Some(1.0));
    };
    whole(&server);
    // What is in memory only is read again from the log, where no block has its time.
    drop(server);
    whole(&Server::start(directory, &config).unwrap());
}
