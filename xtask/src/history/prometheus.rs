//! A Prometheus of one's own on loopback, and the backfill of the recording rules into it.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::Value;

use lab::netns::child_command;
use lab::wait;

/// A GET to loopback: status and body.
///
/// # Errors
/// When no one listens, or the answer is not HTTP.
pub fn get(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    // HTTP/1.0, so that the answer is neither chunked nor kept open.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    answer(stream)
}

/// A form POST to loopback: status and body.
///
/// # Errors
/// When no one listens, or the answer is not HTTP.
pub fn post(port: u16, path: &str, form: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
    let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    let body = body.join("&");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    answer(stream)
}

fn answer(mut stream: TcpStream) -> anyhow::Result<(u16, String)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("memory");
        }
    }
    out
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A running Prometheus; it ends with this value.
pub struct Server {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
    /// Its data directory.
    pub data: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is not yet reaped, so the number is still its own.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the installed Prometheus on the blocks in `directory/data`.
    ///
    /// # Errors
    /// When it is not installed or does not become ready.
    pub fn start(directory: &Path, config: &str) -> anyhow::Result<Self> {
        Self::start_on(free_port()?, directory, config)
    }

    /// [`Self::start`] on a port of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::start`]; and when the port is taken.
    pub fn start_on(port: u16, directory: &Path, config: &str) -> anyhow::Result<Self> {
        let data = directory.join("data");
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let child = child_command("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("prometheus.log"))?)
            .spawn()
            .context("start prometheus")?;
        let mut server = Self { child, port, data };
        let log = directory.join("prometheus.log");
        let ready = wait::poll(wait::PATIENCE, || match server.child.try_wait() {
            Ok(None) => get(port, "/-/ready").is_ok_and(|(status, _)| status == 200).then_some(Ok(())),
            Ok(Some(status)) => {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                Some(Err(anyhow!("prometheus on port {port} ended with {status}: {}", log.trim())))
            }
            Err(error) => Some(Err(error.into())),
        });
        ready.with_context(|| format!("prometheus did not become ready; see {}", log.display()))??;
        Ok(server)
    }

    /// The result of a query at one time.
    ///
    /// # Errors
    /// When Prometheus refuses the query.
    pub fn instant(&self, query: &str, at: f64) -> anyhow::Result<Vec<Value>> {
        self.query("/api/v1/query", &[("query", query), ("time", &at.to_string())])
    }

    /// The result of a query over a range.
    ///
    /// # Errors
    /// When Prometheus refuses the query.
    pub fn range(&self, query: &str, start: i64, end: i64, step: i64) -> anyhow::Result<Vec<Value>> {
        let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
        self.query(
            "/api/v1/query_range",
            &[("query", query), ("start", &start), ("end", &end), ("step", &step)],
        )
    }

    fn query(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let (status, body) = post(self.port, path, form)?;
        let answer: Value = serde_json::from_str(&body)?;
        if status != 200 {
            bail!("{} in {}", answer["error"], form[0].1);
        }
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

/// Turns `OpenMetrics` into blocks of `data`.
///
/// # Errors
/// When promtool is not installed or refuses the file.
pub fn create_blocks(openmetrics: &Path, data: &Path) -> anyhow::Result<()> {
    let output = child_command("promtool")
        // Its temporary files go with the caller's, also when it is killed.
        .env("TMPDIR", openmetrics.parent().context("a file has a directory")?)
        // promtool reads the whole file once more for every block: one block is best.
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=40000h"])
        .args([openmetrics, data])
        .output()
        .context("start promtool")?;
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A recording rule of a rule file.
#[derive(Debug)]
pub struct Rule {
    /// Name of the recorded series.
    pub record: String,
    /// Its expression.
    pub expr: String,
}

/// The recording rules of a file that the dashboards' generator wrote.
///
/// # Errors
/// When the file cannot be read.
pub fn rules(path: &Path) -> anyhow::Result<Vec<Rule>> {
    Ok(parse_rules(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?))
}

/// The recording rules of a text that the dashboards' generator wrote.
#[must_use]
pub fn parse_rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines() {
        if let Some(record) = line.strip_prefix("      - record: ") {
            rules.push(Rule { record: record.to_owned(), expr: String::new() });
        } else if let Some(rule) = rules.last_mut() {
            // The expression's own lines; static labels are not needed to evaluate it.
            let folded = line.strip_prefix("          ").filter(|l| !l.starts_with("zone:"));
            if let Some(line) = line.strip_prefix("        expr: ").filter(|l| *l != ">-").or(folded) {
                rule.expr += line;
                rule.expr.push('\n');
            }
        }
    }
    rules
}

/// The rules of a day in the order in which they read each other: `:midnight`, `:day` and `:full`.
#[must_use]
pub fn by_day(rules: &[Rule]) -> [Vec<&Rule>; 3] {
    [":midnight", ":day", ":full"].map(|end| rules.iter().filter(|rule| rule.record.ends_with(end)).collect())
}

/// Evaluates rules at the given times in a running Prometheus, writes what they record and says how
/// many samples that is.
///
/// # Errors
/// When a rule does not evaluate.
pub fn evaluate(
    server: &Server,
    rules: &[&Rule],
    (start, end, step): (i64, i64, i64),
    out: &mut dyn std::io::Write,
) -> anyhow::Result<usize> {
    let mut samples = 0;
    for rule in rules {
        for series in server.range(&rule.expr, start, end, step)? {
            let labels: Vec<String> = series["metric"]
                .as_object()
                .context("labels")?
                .iter()
                .filter(|(name, _)| *name != "__name__")
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            for point in series["values"].as_array().context("values")? {
                let value = point[1].as_str().context("a value")?;
                writeln!(out, "{}{{{}}} {value} {}", rule.record, labels.join(","), point[0])?;
                samples += 1;
            }
        }
    }
    Ok(samples)
}

/// Rules, and the times of their evaluation in their order: first, last, step.
type Pass<'a> = (&'a [&'a Rule], &'a [(i64, i64, i64)]);

/// Fills `directory/data` with the model history of `report` and with everything that the
/// recording rules would have recorded of it.
///
/// # Errors
/// When promtool or Prometheus are not installed, or refuse what they are given.
pub fn backfill(report: super::HistoryReport, directory: &Path) -> anyhow::Result<()> {
    let data = directory.join("data");
    std::fs::create_dir_all(&data)?;
    let file = directory.join("history.om");
    let months = report.months();
    let (start, end) = (months[0].start(), months[5].end());
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
    super::write_openmetrics(report, &mut out)?;
    out.flush()?;
    create_blocks(&file, &data)?;

    let grafana = crate::dashboards::directory().join("prometheus");
    let zone = rules(&grafana.join("rules/teiten-zone.yml"))?;
    let (sensors, zones): (Vec<&Rule>, Vec<&Rule>) =
        zone.iter().partition(|r| r.record.starts_with("sensor:"));
    let day = rules(&grafana.join("backfill/teiten-day.yml"))?;
    let [midnights, days, full] = by_day(&day);
    let month = rules(&grafana.join("backfill/teiten-month.yml"))?;
    let hour = rules(&grafana.join("backfill/teiten-hour.yml"))?;
    // Half a minute after midnight, where a live evaluation of these rules may fall; a quarter of
    // an hour later for the months; and each hour of the days that have hourly samples.
    let midnight = [(start + 30, end + 30, 86_400)];
    let hourly = [(end - 86_400 + 30, end + 30, 3600)];
    let months = months.map(|month| (month.end() + 930, month.end() + 930, 1));
    let tokyo: Vec<&Rule> = zones.into_iter().filter(|r| r.expr.contains("Asia/Tokyo")).collect();
    let month: Vec<&Rule> = month.iter().collect();
    let hour: Vec<&Rule> = hour.iter().collect();
    let passes: [&[Pass<'_>]; 6] = [
        &[(&tokyo, &midnight), (&tokyo, &months), (&tokyo, &hourly)],
        &[(&sensors, &midnight), (&sensors, &months), (&sensors, &hourly)],
        &[(&midnights, &midnight)],
        &[(&days, &midnight)],
        &[(&full, &midnight)],
        &[(&month, &months), (&hour, &hourly)],
    ];
    run_passes(directory, &passes)
}

/// Evaluates pass by pass: each reads what the one before recorded.
fn run_passes(directory: &Path, passes: &[&[Pass<'_>]]) -> anyhow::Result<()> {
    let data = directory.join("data");
    for pass in passes {
        let server = Server::start(directory, "")?;
        // A file for each set of times: within one, promtool drops what is out of order.
        let mut files = Vec::new();
        for (index, (rules, times)) in pass.iter().enumerate() {
            let file = directory.join(format!("pass-{index}.om"));
            let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
            let mut samples = 0;
            for times in *times {
                samples += evaluate(&server, rules, *times, &mut out)?;
            }
            writeln!(out, "# EOF")?;
            out.flush()?;
            if samples > 0 {
                files.push(file);
            }
        }
        drop(server);
        for file in files {
            create_blocks(&file, &data)?;
        }
    }
    Ok(())
}
