//! `teiten samples`: what packets to chosen ports held.

use super::tell_losses;
use crate::cli::SamplesArgs;
use crate::config::{Config, parse_slots};
use crate::ledger::Ledger;
use crate::samples::pcapng;
use crate::samples::show::{Query, note, render};
use crate::system::output::{Output, say};
use crate::system::whole_file::write_file;
use anyhow::{Context, bail};
use jiff::civil::Date;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

/// Shows what is asked for of the ledger in the configuration's state directory, and tells whether the ledger is
/// whole.
///
/// # Errors
///
/// There is no ledger, it cannot be read, or the output cannot be written.
pub fn run(config: &Config, args: &SamplesArgs) -> anyhow::Result<bool> {
    let asked = super::days(args.from, args.to)?;
    let mut query = query(config, args.unmasked);
    for port in &args.port {
        query.slots.extend(parse_slots(port).map_err(|why| anyhow::anyhow!("--port {port}: {why}"))?);
    }
    let ledger = Ledger::open_read_only(&config.state_dir)?;
    for loss in ledger.aside()? {
        say(format_args!("warning: {loss}"));
    }
    let is_whole = tell_losses(&ledger, "error", "what is lost");
    // All days, since each tells addresses of the sensor.
    let mut days = ledger.samples(&(Date::MIN..=Date::MAX))?;
    let masker = query.masker(days.iter().flat_map(|(_, samples)| samples.rows()));
    let asked = match (args.day, args.from.or(args.to)) {
        (Some(day), _) => day..=day,
        (None, Some(_)) => asked,
        (None, None) => {
            let last = days.last().map_or(Date::MAX, |(day, _)| *day);
            last..=last
        }
    };
    let is_any = !days.is_empty();
    days.retain(|(day, _)| asked.contains(day));
    if let Some(file) = &args.pcapng {
        if file == Path::new("-") && io::stdout().is_terminal() {
            bail!("a capture is not for terminals; give --pcapng FILE, or redirect");
        }
        let rows: Vec<_> = days
            .iter()
            .flat_map(|(_, samples)| samples.rows())
            .filter(|row| query.slots.is_empty() || query.slots.contains(&row.slot))
            .collect();
        if file == Path::new("-") {
            let mut out = BufWriter::new(Output::lock());
            pcapng::write(&rows, masker.as_ref(), &mut out)?;
            out.flush()?;
        } else {
            write_file(file, |out| pcapng::write(&rows, masker.as_ref(), out))
                .with_context(|| format!("cannot write the capture `{}`", file.display()))?;
        }
        return Ok(is_whole);
    }
    let ports = query.of_days(&days, masker.as_ref());
    let mut out = BufWriter::new(Output::lock());
    if args.json {
        serde_json::to_writer_pretty(&mut out, &ports)?;
        writeln!(out)?;
    } else if ports.is_empty() {
        writeln!(
            out,
            "{}",
            if is_any {
                "no samples of these days and ports"
            } else {
                "no samples; --samples says of which ports they are kept"
            }
        )?;
    } else {
        write!(out, "{}", render(&ports, &config.timezone))?;
        writeln!(out, "\n{}", note(args.unmasked))?;
    }
    out.flush()?;
    Ok(is_whole)
}

/// What hides the sensor's addresses: those that the configuration names, and those that packets went to.
pub(super) fn query(config: &Config, unmasked: bool) -> Query {
    let own = config.observe.iter().chain(&config.local).copied().collect();
    Query { own, unmasked, ..Query::default() }
}
