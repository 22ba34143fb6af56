//! What an interface says it sent, received and dropped.

use super::{Netns, NetnsError, Result};
use std::fs::File;
use std::io::{Read, Seek};

/// Counters of one interface, packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received. On a veth with a native XDP program: that the program has finished with.
    pub rx_packets: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Not sent. On a veth: that the other end had no room for.
    pub tx_dropped: u64,
}

/// Reads the counters of one interface again and again, from outside its namespace.
#[derive(Debug)]
pub struct InterfaceCounters {
    /// `/proc/net/dev` shows the namespace in which it was opened, whichever process reads it.
    devices: File,
    interface: String,
    text: String,
}

impl InterfaceCounters {
    /// For `interface` in `netns`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::File`] when `/proc` is not there, [`NetnsError::Namespace`] when the namespace cannot be
    /// entered.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let devices = netns.run(|| File::open("/proc/thread-self/net/dev"))?.map_err(proc_error)?;
        Ok(Self { devices, interface: interface.to_owned(), text: String::with_capacity(1024) })
    }

    /// The counters now.
    ///
    /// # Errors
    ///
    /// [`NetnsError::File`] when the interface is gone.
    pub fn read(&mut self) -> Result<Counters> {
        self.text.clear();
        self.devices
            .rewind()
            .and_then(|()| self.devices.read_to_string(&mut self.text))
            .map_err(proc_error)?;
        parse(&self.text, &self.interface)
            .ok_or_else(|| proc_error(std::io::Error::other(format!("no interface {}", self.interface))))
    }
}

fn proc_error(source: std::io::Error) -> NetnsError {
    NetnsError::File { path: "/proc/net/dev".to_owned(), source }
}

/// `NAME: bytes packets errs drop fifo frame compressed multicast`, then the same of what was sent.
fn parse(text: &str, interface: &str) -> Option<Counters> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let mut fields = line.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
    let mut next = |skip: usize| fields.nth(skip).flatten();
    Some(Counters { rx_packets: next(1)?, rx_dropped: next(1)?, tx_packets: next(5)?, tx_dropped: next(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC_NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1296000    1500    3    7    0     0          0        12   864000    1100    2    9    0     0       0          0
";

    #[test]
    fn counters_are_read_from_their_columns() {
        let expected = Counters { rx_packets: 1500, rx_dropped: 7, tx_packets: 1100, tx_dropped: 9 };
        assert_eq!(parse(PROC_NET_DEV, "eth0"), Some(expected));
        assert_eq!(parse(PROC_NET_DEV, "eth"), None, "a prefix of a name is another interface");
    }
}
