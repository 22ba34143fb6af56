//! What the figures were measured on.

use super::Context;
use anyhow::{Context as _, Result};
use lab::command;
use std::process::Command;

/// The machine, the moment and the versions.
pub(super) fn describe(context: &Context) -> Result<Vec<(String, String)>> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
    let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let cpus = read("/proc/cpuinfo")?;
    let field = |name: &str| {
        cpus.lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
            .map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
    };
    let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let virtual_machine = if cpus.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let memory = read("/proc/meminfo")?;
    let memory: u64 = memory
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|kibibytes| kibibytes.parse().ok())
        .context("read the size of memory")?;
    let load = read("/proc/loadavg")?;
    let busy = load.split_ascii_whitespace().next().unwrap_or("?").to_owned();
    let jit = match read("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => "off",
        Ok(_) => "on",
        Err(_) => "unknown",
    };
    let version = command::output(Command::new(&context.teiten).arg("--version"))?;
    Ok([
        (
            "CPU",
            format!(
                "{online} × {} (family {}, model {}){virtual_machine}",
                field("model name"),
                field("cpu family"),
                field("model")
            ),
        ),
        ("caches and clock", format!("{} of cache, {} MHz", field("cache size"), field("cpu MHz"))),
        ("memory", format!("{:.1} GiB", memory as f64 / 1_048_576.0)),
        ("kernel", format!("Linux {kernel}, BPF JIT {jit}")),
        ("program", version.lines().next().unwrap_or_default().to_owned()),
        ("when", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("load before", format!("{busy} (over one minute)")),
        ("rounds", context.rounds.to_string()),
    ]
    .map(|(what, value)| (what.to_owned(), value))
    .into())
}
