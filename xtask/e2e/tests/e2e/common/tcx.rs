//! A kernel without TCX, as far as one interface can tell: it has as many programs as it takes.

use lab::netns::Netns;
use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Commands, a program type and an attach type of `linux/bpf.h`.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_QUERY: c_long = 16;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_EGRESS: u32 = 47;

/// `r0 = -1; exit`: the next program decides.
static PASS_ON: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
static LICENSE: [u8; 4] = *b"GPL\0";

#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 12],
}

fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: both callers' attributes begin like the kernel's union for the command, are zero after
    // what they set, and point to statics only; the size passed is theirs.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for this process, and no one else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach_one(index: u32) -> io::Result<[OwnedFd; 2]> {
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: PASS_ON.len() as u32,
        insns: PASS_ON.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        rest: [0; 12],
    };
    let program = bpf(BPF_PROG_LOAD, &mut load)?;
    let mut link = [program.as_raw_fd() as u32, index, BPF_TCX_EGRESS, 0];
    Ok([bpf(BPF_LINK_CREATE, &mut link)?, program])
}

/// How many programs are attached to what `interface` sends.
pub(crate) fn attached(netns: &Netns, interface: &str) -> u32 {
    let index = netns.index(interface).unwrap();
    // Interface, attach type, two words of flags, where to put the programs, room for how many, and
    // the revision and links that no one asked for.
    let mut query = [index, BPF_TCX_EGRESS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the attributes are the kernel's for the command, with no pointer in them.
    let result = netns.run(|| unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, query.as_mut_ptr(), size_of_val(&query))
    });
    assert_eq!(result.unwrap(), 0, "{}", io::Error::last_os_error());
    query[6]
}

/// Attaches programs that do nothing to what `interface` sends until the kernel takes no more (64 since
/// Linux 6.6); they go with what is returned.
pub(crate) fn fill(netns: &Netns, interface: &str) -> Vec<[OwnedFd; 2]> {
    let index = netns.index(interface).unwrap();
    netns
        .run(|| {
            let mut attached = Vec::new();
            loop {
                match attach_one(index) {
                    Ok(one) => attached.push(one),
                    // The chain is full.
                    Err(error) if error.raw_os_error() == Some(libc::ERANGE) => return attached,
                    Err(error) => panic!("attach program {}: {error}", attached.len()),
                }
            }
        })
        .unwrap()
}
