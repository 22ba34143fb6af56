//! Attaches the program: either all of it, or nothing is changed.

use crate::config::{Config, XdpMode};
use crate::kernel::interface::Interface;
use crate::kernel::{self, ByCpu, Kernel, KernelError, MapSizes, Opened, Policy, Ready};
use crate::observation::Numbering;
use tracing::{error, info, warn};

/// Opens the kernel side and attaches to the `observed` interfaces. A failure takes back what it did.
pub(super) fn observe(
    config: &Config,
    numbering: Numbering,
    policy: &Policy,
    observed: &[Interface],
    released_first: &[String],
) -> Result<Ready, KernelError> {
    let mut opened = Kernel::open(&config.pin_dir, &sizes(config), numbering, policy)?;
    if let Err(error) = attach(&mut opened, observed, released_first, config.xdp_mode) {
        give_up(opened.undo());
        return Err(error);
    }
    let ready = opened.observe();
    if let Some(warning) = ready.kernel.keeper().warning() {
        warn!("{warning}");
    }
    Ok(ready)
}

/// Attaches to the interfaces, and only then ends what is attached to others, but for those that are
/// to be `released_first`.
fn attach(
    opened: &mut Opened,
    observed: &[Interface],
    released_first: &[String],
    wanted: XdpMode,
) -> Result<(), KernelError> {
    let names: Vec<String> = observed.iter().map(|interface| interface.name.clone()).collect();
    opened.adopt(observed)?;
    release(opened, |name| released_first.contains(name) && !names.contains(name))?;
    for interface in observed {
        let mode = opened.attach(interface, wanted)?;
        info!(interface = interface.name, mode = mode.name(), "observing");
    }
    // Until a default route tells what to observe, what an earlier daemon attached continues to count.
    if !names.is_empty() {
        release(opened, |name| !names.contains(name))?;
    }
    Ok(())
}

/// Ends what is attached to interfaces that are not wanted.
fn release(opened: &mut Opened, is_unwanted: impl Fn(&String) -> bool) -> Result<(), KernelError> {
    for name in opened.release_where(is_unwanted)? {
        warn!(interface = name, "no longer observed; its attachment has ended");
    }
    Ok(())
}

/// After a start that failed.
pub(super) fn give_up(undone: Result<Vec<String>, KernelError>) {
    match undone {
        Ok(left) if left.is_empty() => {}
        Ok(left) => warn!(
            interfaces = left.join(", "),
            "the program of an earlier start stays attached there and counts; `teiten detach` ends it"
        ),
        Err(error) => error!(
            error = &error as &dyn std::error::Error,
            "cannot undo what this start attached; `teiten detach` ends it"
        ),
    }
}

/// Sizes of maps. The source table has as many entries as were asked for, else as the memory allows.
fn sizes(config: &Config) -> MapSizes {
    let by_cpu = ByCpu::within(config.kernel_memory);
    if by_cpu.are_shared() {
        info!(
            cpus = by_cpu.cpus(),
            blocks = by_cpu.blocks(),
            memory_mb = by_cpu.bytes() / 1_000_000,
            "possible CPUs share counters and logs, to stay within --kernel-memory"
        );
    }
    let source_table = config.source_table.unwrap_or_else(|| {
        let memory = kernel::memory();
        let entries = by_cpu.default_source_table(memory);
        if entries < by_cpu.default_source_table(None) {
            info!(
                entries,
                memory_mb = memory.map(|bytes| bytes / 1_000_000),
                "source table is smaller than usual because of the memory limit; --source-table sets another size"
            );
        }
        entries
    });
    MapSizes { by_cpu, source_table }
}
