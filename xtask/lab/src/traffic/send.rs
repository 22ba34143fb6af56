//! Sends frames exactly: every one arrives, or there is an error.

use super::packet::Frames;
use crate::netns::{self, Counters, InterfaceCounters, Netns, Tun};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Frames handed to the kernel in one call.
const BATCH: usize = 64;
/// Frames that may be on their way: a veth's ring holds 256, the kernel's backlog 1,000.
const IN_FLIGHT: u64 = 64;
/// A receiver that takes nothing for so long is broken.
const STALLED: Duration = crate::wait::PATIENCE;

/// Why frames did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket could not be made.
    #[error("packet socket on {interface}: {source}; it needs root (CAP_NET_RAW)")]
    Socket {
        /// On which interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take a frame.
    #[error("send frame {index} of {bytes} bytes: {source}")]
    Refused {
        /// Which, from 0, in the order of sending.
        index: u64,
        /// Its length.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Frames were dropped on the way.
    #[error("{lost} of {sent} frames were dropped between the two ends of the link")]
    Lost {
        /// How many.
        lost: u64,
        /// Of how many.
        sent: u64,
    },
    /// The receiving end stopped taking frames.
    #[error("the receiver has taken {received} of {sent} frames and no more for {STALLED:?}")]
    Stalled {
        /// Frames taken.
        received: u64,
        /// Frames sent.
        sent: u64,
    },
    /// Counters could not be read.
    #[error(transparent)]
    Netns(#[from] netns::NetnsError),
}

type SendResult<T> = Result<T, SendError>;

/// Something that carries frames to a sensor.
pub trait Carry {
    /// Hands all of `frames` over, in order. They may still be on their way.
    ///
    /// # Errors
    ///
    /// [`SendError`]: how many were sent before is then unknown to the receiver's counts.
    fn send(&mut self, frames: &Frames) -> SendResult<()>;

    /// Returns when the receiving end has been through all frames sent, with their number.
    ///
    /// # Errors
    ///
    /// [`SendError::Lost`] or [`SendError::Stalled`] when not all of them arrived.
    fn settle(&mut self) -> SendResult<u64>;
}

/// Sends through one end of a veth pair, no faster than the other end takes.
///
/// A veth drops what its ring has no room for and tells no one but its counters, so the sender
/// keeps few frames in flight by reading the receiver's counter.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    sent: u64,
    here: InterfaceCounters,
    there: InterfaceCounters,
    here_at_start: Counters,
    there_at_start: Counters,
    backlog: Backlog,
}

impl Sender {
    /// Sends on `interface` of `netns`, whose other end is `peer` in `peer_netns`. Nothing else may
    /// send on that link.
    ///
    /// # Errors
    ///
    /// [`SendError::Socket`] without `CAP_NET_RAW`, [`SendError::Netns`] when an interface is missing.
    pub fn new(netns: &Netns, interface: &str, peer_netns: &Netns, peer: &str) -> SendResult<Self> {
        Self::with(netns, interface, peer_netns, peer, true)
    }

    /// As [`Sender::new`], past the programs and queueing disciplines that see what `interface` sends, as
    /// a host's own packets go. Others may send on the link, and then only [`SendError::Lost`] is returned.
    ///
    /// # Errors
    ///
    /// As [`Sender::new`].
    pub fn as_host(netns: &Netns, interface: &str, peer_netns: &Netns, peer: &str) -> SendResult<Self> {
        Self::with(netns, interface, peer_netns, peer, false)
    }

    fn with(
        netns: &Netns,
        interface: &str,
        peer_netns: &Netns,
        peer: &str,
        bypass: bool,
    ) -> SendResult<Self> {
        let index = netns.index(interface)?;
        let socket = netns
            .run(|| packet_socket(index, bypass))?
            .map_err(|source| SendError::Socket { interface: interface.to_owned(), source })?;
        let mut here = InterfaceCounters::open(netns, interface)?;
        let mut there = InterfaceCounters::open(peer_netns, peer)?;
        let (here_at_start, there_at_start) = (here.read()?, there.read()?);
        let backlog = Backlog::open()?;
        Ok(Self { socket, sent: 0, here, there, here_at_start, there_at_start, backlog })
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until at most `in_flight` frames are on their way.
    fn wait(&mut self, in_flight: u64) -> SendResult<()> {
        let mut progress = (0, Instant::now());
        loop {
            let received = self.there.read()?.rx_packets - self.there_at_start.rx_packets;
            if self.sent <= received + in_flight && self.backlog.len()? <= in_flight {
                return Ok(());
            }
            if received > progress.0 {
                progress = (received, Instant::now());
            } else if progress.1.elapsed() > Duration::from_millis(20) {
                // Dropped frames never arrive: say so now, not after the patience has run out.
                self.check_loss()?;
                if progress.1.elapsed() > STALLED {
                    return Err(SendError::Stalled { received, sent: self.sent });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::yield_now();
        }
    }

    /// A veth counts what the other end's ring or backlog had no room for. (The other end's own drops
    /// come later: frames for which its network stack has no use.)
    fn check_loss(&mut self) -> SendResult<()> {
        match self.here.read()?.tx_dropped - self.here_at_start.tx_dropped {
            0 => Ok(()),
            lost => Err(SendError::Lost { lost, sent: self.sent }),
        }
    }

    /// Hands over one batch; `frames` and `messages` describe the same frames.
    fn send_batch(&mut self, batch: &mut Batch) -> SendResult<()> {
        let mut done = 0;
        let since = Instant::now();
        while done < batch.messages.len() {
            let rest = &mut batch.messages[done..];
            // SAFETY: every message points to an entry of `batch.vectors`, and that to bytes of
            // `Frames`; all of them outlive the call and are only read.
            let taken = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            if let Ok(taken) = usize::try_from(taken) {
                done += taken;
                self.sent += taken as u64;
            } else {
                let source = io::Error::last_os_error();
                let busy = matches!(source.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR));
                if !busy || since.elapsed() > STALLED {
                    let bytes = batch.vectors[done].iov_len;
                    return Err(SendError::Refused { index: self.sent, bytes, source });
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }
}

impl Carry for Sender {
    fn send(&mut self, frames: &Frames) -> SendResult<()> {
        let mut batch = Batch::default();
        let mut frames = frames.iter();
        while frames.len() > 0 {
            batch.fill(frames.by_ref().take(BATCH));
            self.wait(IN_FLIGHT)?;
            self.send_batch(&mut batch)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> SendResult<u64> {
        self.wait(0)?;
        self.check_loss()?;
        Ok(self.sent)
    }
}

/// What `sendmmsg` reads: `messages[n]` points to `vectors[n]`.
#[derive(Default)]
struct Batch {
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

impl Batch {
    fn fill<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) {
        self.messages.clear();
        self.vectors.clear();
        self.vectors.extend(
            frames.map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            }),
        );
        self.messages.extend(self.vectors.iter_mut().map(|vector| {
            // SAFETY: all-zero bytes are a valid `mmsghdr`: no name, no control data, no vector.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        }));
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("frames", &self.vectors.len()).finish_non_exhaustive()
    }
}

/// A raw packet socket bound to the interface with this index; with `bypass`, around its queueing
/// discipline and egress programs.
fn packet_socket(index: u32, bypass: bool) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed. Protocol 0: it sends only.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and no one else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`.
    if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for (level, option, value) in [
        (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, libc::c_int::from(bypass)),
        // Frames in flight keep their memory from the socket's allowance.
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 16 << 20),
    ] {
        let value: libc::c_int = value;
        let length = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `value`.
        if unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// The kernel's queues between a device and the network stack, where frames wait for generic XDP.
#[derive(Debug)]
struct Backlog {
    statistics: File,
    text: String,
}

impl Backlog {
    const PATH: &str = "/proc/net/softnet_stat";

    fn open() -> SendResult<Self> {
        Ok(Self { statistics: File::open(Self::PATH).map_err(Self::error)?, text: String::new() })
    }

    /// Frames waiting, on the fullest CPU.
    fn len(&mut self) -> SendResult<u64> {
        self.text.clear();
        self.statistics
            .rewind()
            .and_then(|()| self.statistics.read_to_string(&mut self.text))
            .map_err(Self::error)?;
        Ok(longest_backlog(&self.text))
    }

    fn error(source: io::Error) -> SendError {
        SendError::Netns(netns::NetnsError::File { path: Self::PATH.to_owned(), source })
    }
}

/// One line for each CPU, hexadecimal; the twelfth number (since Linux 5.14) is the backlog.
fn longest_backlog(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| u64::from_str_radix(line.split_ascii_whitespace().nth(11)?, 16).ok())
        .max()
        .unwrap_or(0)
}

/// Sends IP packets into a tun device; the device is through with each when the call returns.
#[derive(Debug)]
pub struct TunSender {
    tun: Tun,
    sent: u64,
}

impl TunSender {
    /// Through `tun`.
    pub fn new(tun: Tun) -> Self {
        Self { tun, sent: 0 }
    }
}

impl Carry for TunSender {
    fn send(&mut self, frames: &Frames) -> SendResult<()> {
        for packet in frames.iter() {
            self.tun.send(packet)?;
            self.sent += 1;
        }
        Ok(())
    }

    fn settle(&mut self) -> SendResult<u64> {
        Ok(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_cpu_decides() {
        let text = "\
000004d2 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000010 00000000
0000162e 00000003 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000003f 00000001
";
        assert_eq!(longest_backlog(text), 63);
        assert_eq!(longest_backlog("000004d2 00000000\n"), 0, "older kernels do not say");
    }
}
