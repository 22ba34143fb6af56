//! A thread of another process, led from system call to system call.

use lab::wait::{PATIENCE, poll};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The thread, stopped whenever no one leads it on. Only the thread that attached may lead it.
pub(crate) struct Tracee(Pid);

/// A system call that begins.
pub(crate) struct Call {
    /// Its number.
    pub(crate) number: u64,
    /// Its first argument.
    argument: u64,
}

impl Call {
    pub(crate) fn is(&self, number: libc::c_long, argument: u64) -> bool {
        self.number == number as u64 && self.argument == argument
    }
}

impl Tracee {
    /// Stops the thread called `name` of a process, waiting until there is one.
    pub(crate) fn attach(process: u32, name: &str) -> Self {
        let thread = poll(PATIENCE, || thread_called(process, name));
        let thread = thread.unwrap_or_else(|| panic!("process {process} has no thread {name}"));
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }

    /// Lets it continue to the begin or the end of its next system call; returns the call at its begin,
    /// `None` at its end.
    pub(crate) fn step(&mut self) -> Option<Call> {
        loop {
            ptrace::syscall(self.0, None).unwrap();
            match waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceSyscall(_) => break,
                WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => {}
                other => panic!("the traced thread ended: {other:?}"),
            }
        }
        let info = ptrace::syscall_info(self.0).unwrap();
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: `op` tells that the kernel has written this member of the union.
        let entry = unsafe { info.u.entry };
        Some(Call { number: entry.nr, argument: entry.args[0] })
    }

    /// Lets it continue for as long as it takes to do something.
    pub(crate) fn let_go(&mut self) {
        ptrace::cont(self.0, None).unwrap();
    }

    /// Takes note of its end, so that its process can end.
    pub(crate) fn reap(self) {
        loop {
            match waitpid(self.0, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(Errno::ECHILD) => return,
                Ok(_) => {}
                Err(errno) => panic!("wait for the traced thread: {errno}"),
            }
        }
    }
}

fn thread_called(process: u32, name: &str) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let called = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let number = thread.file_name().to_str()?.parse().ok()?;
        (called.trim_end() == name).then(|| Pid::from_raw(number))
    })
}
