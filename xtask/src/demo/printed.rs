//! The printed report of the model history's last whole month.

use super::prometheus::Prometheus;
use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use lab::command;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The zone of the model's sensors.
const ZONE: &str = "Asia/Tokyo";

/// Writes it into `directory` in both languages, as HTML and, if `program` can, as PDF, and says where it is.
pub(super) fn write(program: &Path, prometheus: &Prometheus, directory: &Path) -> Result<()> {
    let zone = TimeZone::get(ZONE).context("find the time zone of the model")?;
    let today = Timestamp::now().to_zoned(zone).date();
    let month = (today.first_of_month() - 1.day()).strftime("%Y-%m").to_string();
    let help = command::output(Command::new(program).arg("--help"))?;
    let endings = if help.contains("--font") { &["html", "pdf"][..] } else { &["html"] };
    for language in ["en", "ja"] {
        for ending in endings {
            let file: PathBuf = directory.join(format!("report.{language}.{ending}"));
            let mut report = Command::new(program);
            report.args(["--month", &month, "--lang", language, "--timezone", ZONE]);
            report.arg("--prometheus").arg(format!("http://{}", prometheus.address));
            report.arg("--output").arg(&file);
            command::run(&mut report)?;
            println!("the report of {month}  {}", file.display());
        }
    }
    Ok(())
}
