//! What an interface's driver does to packets before a program can count them: asked by the ethtool ioctl and the
//! generic netlink family `netdev`, without changing anything.

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// One of three answers: a value, that there is none to be had here, or that this user may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The kernel says so.
    Is(T),
    /// Kernel or driver does not say.
    Unsaid,
    /// This user may not ask.
    NotAllowed,
}

impl<T> Answer<T> {
    fn of(result: io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Is(value),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::NotAllowed,
            Err(_) => Self::Unsaid,
        }
    }

    /// The value, if there is one.
    pub fn known(&self) -> Option<&T> {
        if let Self::Is(value) = self { Some(value) } else { None }
    }
}

/// Receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// In use.
    pub used: u32,
    /// That the driver can have.
    pub most: u32,
    /// Whether they send as well (`combined` of `ethtool -L`, else `rx`).
    pub are_combined: bool,
}

/// What the driver says that it takes of XDP (Linux 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Programs.
    pub takes_programs: bool,
    /// Programs for packets that are larger than a page.
    pub takes_fragments: bool,
}

/// An interface's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Bytes of the largest packet without its link header.
    pub mtu: Answer<u32>,
    /// Names of the kernel's features that are on (`ethtool --show-features`).
    pub features: Answer<Vec<String>>,
    /// Its receive queues.
    pub channels: Answer<Channels>,
    /// What it takes of XDP.
    pub xdp: Answer<Xdp>,
}

/// Asks about the interface of this name and index. Blocks, shortly.
pub fn ask(name: &str, index: u32) -> Adapter {
    Adapter {
        mtu: Answer::of(mtu(name)),
        features: Answer::of(features(name)),
        channels: Answer::of(channels(name)),
        xdp: Answer::of(xdp(index)),
    }
}

// linux/ethtool.h and linux/sockios.h.
const SIOCGIFMTU: libc::c_ulong = 0x8921;
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// `struct ifreq`, whose second half is a union.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    union: [u8; 24],
}

/// One request about the interface `name`; returns the union as the kernel leaves it.
///
/// # Safety
///
/// A pointer in `union` must be valid for what the request reads and writes.
unsafe fn request(name: &str, number: libc::c_ulong, union: [u8; 24]) -> io::Result<[u8; 24]> {
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it, and no one else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut request = Request { name: [0; libc::IFNAMSIZ], union };
    // A zero ends it.
    if name.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request is as large as `struct ifreq` and outlives the call; the caller vouches for the union.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(request.union) }
}

/// One ethtool command on the interface `name`: `words` begins with the command's number, and has room for what it
/// writes.
fn ethtool(name: &str, words: &mut [u32]) -> io::Result<()> {
    let mut union = [0; 24];
    let pointer = words.as_mut_ptr().expose_provenance().to_ne_bytes();
    union[..pointer.len()].copy_from_slice(&pointer);
    // SAFETY: the callers give as much room as their command writes.
    unsafe { request(name, SIOCETHTOOL, union) }.map(drop)
}

/// Bytes of the largest packet without its link header.
fn mtu(name: &str) -> io::Result<u32> {
    // SAFETY: the union holds a number.
    let [first, second, third, fourth, ..] = unsafe { request(name, SIOCGIFMTU, [0; 24]) }?;
    Ok(u32::from_ne_bytes([first, second, third, fourth]))
}

/// Which features are on.
fn features(name: &str) -> io::Result<Vec<String>> {
    // cmd, reserved, the set as a mask of 64 bits, and its length.
    let mut set = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
    let [low, high] = mask(1 << ETH_SS_FEATURES);
    (set[2], set[3]) = (low, high);
    ethtool(name, &mut set)?;
    let count = set[4] as usize;
    let words = ETH_GSTRING_LEN / size_of::<u32>();

    // cmd, set, length, and the names.
    let mut names = vec![0; 3 + count * words];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    ethtool(name, &mut names)?;

    // cmd, blocks, and for each 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut bits = vec![0; 2 + blocks * 4];
    bits[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    ethtool(name, &mut bits)?;

    let is_on = |feature: usize| bits[2 + feature / 32 * 4 + 2] >> (feature % 32) & 1 == 1;
    let name_of = |feature: usize| {
        let bytes: Vec<u8> =
            names[3 + feature * words..][..words].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    Ok((0..count).filter(|feature| is_on(*feature)).map(name_of).collect())
}

/// The words of a 64-bit field, as they lie in memory.
fn mask(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4)]
}

/// The receive queues.
fn channels(name: &str) -> io::Result<Channels> {
    // cmd; the most of rx, tx, other and combined; and as many of each.
    let mut words = [0; 9];
    words[0] = ETHTOOL_GCHANNELS;
    ethtool(name, &mut words)?;
    let [_, most_rx, _, _, most_combined, rx, _, _, combined] = words;
    let are_combined = most_combined > 0;
    Ok(Channels {
        used: rx + combined,
        most: if are_combined { most_combined } else { most_rx },
        are_combined,
    })
}

// linux/genetlink.h and linux/netdev.h.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_RX_SG: u64 = 32;
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;

/// What the driver of the interface `index` takes.
fn xdp(index: u32) -> io::Result<Xdp> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = generic(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0")?;
    let family = attribute(&family, CTRL_ATTR_FAMILY_ID).and_then(|value| value.try_into().ok());
    let family = u16::from_ne_bytes(family.ok_or(io::ErrorKind::InvalidData)?);
    let device = generic(&socket, family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes())?;
    let features = attribute(&device, NETDEV_A_DEV_XDP_FEATURES).and_then(|value| value.try_into().ok());
    let features = u64::from_ne_bytes(features.ok_or(io::ErrorKind::InvalidData)?);
    Ok(Xdp {
        takes_programs: features & NETDEV_XDP_ACT_BASIC != 0,
        takes_fragments: features & NETDEV_XDP_ACT_RX_SG != 0,
    })
}

/// Asks a generic netlink family with one attribute, and returns the attributes of its answer.
fn generic(socket: &Socket, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let attribute_length = 4 + value.len();
    let length = NLMSG_HEADER + GENL_HEADER + attribute_length.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port: the answer on this socket is to the only question.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_length as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    socket.send(&message, 0)?;
    let mut answer = vec![0; 16 * 1024];
    let size = socket.recv(&mut &mut answer[..], 0)?;
    answer.truncate(size);
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let code = answer.get(NLMSG_HEADER..NLMSG_HEADER + 4).and_then(|bytes| bytes.try_into().ok());
        let code = i32::from_ne_bytes(code.ok_or(io::ErrorKind::InvalidData)?);
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(answer.get(NLMSG_HEADER + GENL_HEADER..).ok_or(io::ErrorKind::InvalidData)?.to_vec())
}

/// The value of the first attribute of this type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [low, high, first, second, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        // The upper two bits are flags.
        let kind = u16::from_ne_bytes([first, second]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A virtual cable in a network namespace of this thread's own.
    fn cable() -> bool {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: a network namespace needs root");
            return false;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        for arguments in ["link add eth0 type veth peer name far", "link add br0 type bridge"] {
            let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        true
    }

    fn index(name: &str) -> u32 {
        super::super::sys::interface_index(name).unwrap()
    }

    /// Switches features of an interface on or off, as `ethtool --features` does it (`ETHTOOL_SFLAGS`).
    fn set_flags(name: &str, flags: u32) -> io::Result<()> {
        ethtool(name, &mut [0x26, flags])
    }

    /// `ETH_FLAG_RXVLAN`.
    const RX_VLAN: u32 = 1 << 8;

    #[test]
    fn features_are_read_as_they_are_switched() {
        if !cable() {
            return;
        }
        let is_on = |features: &[String], name: &str| features.iter().any(|feature| feature == name);
        set_flags("eth0", RX_VLAN).unwrap();
        let on = features("eth0").unwrap();
        assert!(is_on(&on, "rx-vlan-hw-parse"), "{on:?}");
        set_flags("eth0", 0).unwrap();
        let off = features("eth0").unwrap();
        assert!(!is_on(&off, "rx-vlan-hw-parse") && is_on(&off, "rx-checksum"), "{off:?}");
        assert_eq!(mtu("eth0").unwrap(), 1500);
        // The cable merges nothing.
        assert!(!is_on(&on, "rx-lro") && !is_on(&on, "rx-gro-hw"), "{on:?}");
    }

    #[test]
    fn queues_are_read_and_a_link_without_any_says_nothing() {
        if !cable() {
            return;
        }
        let found = channels("eth0").unwrap();
        assert!(found.used >= 1 && found.most >= found.used, "{found:?}");
        assert_eq!(Answer::of(channels("br0")), Answer::Unsaid);
        assert_eq!(Answer::of(features("none")), Answer::Unsaid);
        assert!(channels("a-name-that-is-too-long").is_err());
    }

    #[test]
    fn a_cable_takes_programs_and_a_bridge_takes_none() {
        if !cable() {
            return;
        }
        match Answer::of(xdp(index("eth0"))) {
            // Linux 6.3 and later.
            Answer::Is(found) => {
                assert!(found.takes_programs && found.takes_fragments, "{found:?}");
                assert!(!xdp(index("br0")).unwrap().takes_programs);
                assert!(xdp(9999).is_err());
            }
            other => println!("skipped: this kernel does not say what drivers take ({other:?})"),
        }
    }

    #[test]
    fn attributes_are_found_among_others() {
        let attributes = [&[5, 0, 1, 0, 7, 0, 0, 0][..], &[6, 0, 3, 0x80, 1, 2, 0, 0], &[4, 0]].concat();
        assert_eq!(attribute(&attributes, 1), Some(&[7][..]));
        assert_eq!(attribute(&attributes, 3), Some(&[1, 2][..]));
        assert_eq!(attribute(&attributes, 2), None);
        // A length beyond the end, and one that would not advance.
        assert_eq!(attribute(&[9, 0, 1, 0, 7], 1), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 7], 2), None);
    }
}
