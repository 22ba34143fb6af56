//! Ports of this host for what the demo shows.

use anyhow::{Context as _, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// The port that people expect `whose` on, or a free one when that is taken, which is said; any for 0.
pub(super) fn near(expected: u16, whose: &str) -> Result<SocketAddr> {
    let bind =
        |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    if let Ok(address) = bind(expected) {
        return Ok(address);
    }
    let address = bind(0).context("find a port")?;
    println!("port {expected} is taken; {whose} takes {}", address.port());
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(near(port, "the test").unwrap().port(), port);
        drop(taken);
        assert_eq!(near(port, "the test").unwrap().port(), port);
    }
}
