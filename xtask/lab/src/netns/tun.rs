//! Tun devices: links whose frames begin with the IP header.

use super::{Interface, Netns, NetnsError, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

/// A tun device: what is written here, the namespace receives on it.
#[derive(Debug)]
pub struct Tun {
    device: File,
    interface: String,
}

impl Tun {
    /// Makes `interface` as a tun device in `netns`, with its addresses, up, and the default route.
    ///
    /// # Errors
    ///
    /// [`NetnsError::File`] when `/dev/net/tun` is missing or not permitted, [`NetnsError::Interface`].
    pub fn new(netns: &Netns, interface: &Interface) -> Result<Self> {
        let device = netns
            .run(|| open(&interface.name))?
            .map_err(|source| NetnsError::File { path: "/dev/net/tun".to_owned(), source })?;
        netns.configure(interface)?;
        netns.default_route_over(&interface.name)?;
        Ok(Self { device, interface: interface.name.clone() })
    }

    /// Hands one IP packet to the namespace. It has been through the interface's XDP program when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Interface`]; the kernel takes only packets that begin with version 4 or 6.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        self.device.write_all(packet).map_err(|source| NetnsError::Interface {
            action: format!("write a packet of {} bytes", packet.len()),
            interface: self.interface.clone(),
            source,
        })
    }
}

/// Joins two devices by threads that carry packets between them as long as this process lives: a link
/// without Ethernet, as by PPP.
///
/// # Errors
///
/// [`NetnsError::File`] when there are no descriptors left.
pub fn join_tuns(one: Tun, other: Tun) -> Result<()> {
    let again = |tun: &Tun| {
        tun.device.try_clone().map_err(|source| NetnsError::File { path: "/dev/net/tun".to_owned(), source })
    };
    for (from, to) in [(again(&one)?, again(&other)?), (other.device, one.device)] {
        std::thread::spawn(move || carry(from, to));
    }
    Ok(())
}

fn carry(mut from: File, mut to: File) {
    let mut packet = vec![0; 1 << 16];
    while let Ok(length) = from.read(&mut packet) {
        // While the other end is down, packets are lost, as on any line.
        let _ = to.write_all(&packet[..length]);
    }
}

fn open(name: &str) -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("name {name} is too long")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which lives through the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(device),
    }
}
