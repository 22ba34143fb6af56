//! What a process uses, as the kernel tells it.

use anyhow::{Context as _, Result};
use std::fs;
use std::time::Duration;

/// CPU time of one thread.
pub(super) fn thread_cpu(process: u32, thread: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/task/{thread}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let nanos = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
    Ok(Duration::from_nanos(nanos.with_context(|| format!("read the first number of {path}"))?))
}

/// CPU time of all threads that a process has.
pub(super) fn cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/task");
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(&path).with_context(|| format!("list {path}"))? {
        let thread = thread?.file_name().to_string_lossy().parse().context("read a thread's number")?;
        // It may just have ended.
        sum += thread_cpu(process, thread).unwrap_or_default();
    }
    Ok(sum)
}

/// A size that `/proc/PROCESS/status` tells, bytes: `VmRSS`, `VmHWM`.
pub(super) fn memory(process: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let size = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = size.and_then(|size| size.split_ascii_whitespace().next()?.parse::<f64>().ok());
    Ok(kibibytes.with_context(|| format!("find {field} in {path}"))? * 1024.0)
}

/// Lets `VmHWM` begin again.
pub(super) fn forget_peak(process: u32) -> Result<()> {
    let path = format!("/proc/{process}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// Bytes that a process has had written to storage.
pub(super) fn written(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    bytes.with_context(|| format!("find write_bytes in {path}"))
}
