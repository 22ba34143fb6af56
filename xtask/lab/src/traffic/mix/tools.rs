//! The marks of scanners in SYNs.

use crate::traffic::expectation::Tool;
use crate::traffic::packet::{Ip, Tcp};
use rand::Rng;
use std::net::{IpAddr, Ipv4Addr};

/// `ZMap`'s IP identification (Durumeric et al. 2013).
pub(super) const ZMAP_ID: u16 = 54_321;

/// masscan's IP identification: the low 16 bits of destination ^ port ^ sequence number, as masscan
/// 1.3.2 sends it.
fn masscan_id(dst: Ipv4Addr, port: u16, sequence: u32) -> u16 {
    (u32::from(dst) ^ u32::from(port) ^ sequence) as u16
}

/// What `ZMap` 4 writes as options, with the time where it writes it: `smallest-probes`, `windows`, `linux`, `bsd`.
fn zmap_options(rng: &mut impl Rng) -> Vec<u8> {
    let [a, b, c, d]: [u8; 4] = rng.random();
    match rng.random_range(0..4) {
        0 => vec![2, 4, 5, 0xb4],
        1 => vec![2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
        2 => vec![2, 4, 5, 0xb4, 4, 2, 8, 10, a, b, c, d, 0, 0, 0, 0, 1, 3, 3, 7],
        _ => vec![2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, a, b, c, d, 0, 0, 0, 0, 4, 2, 0, 0],
    }
}

/// Gives a SYN the mark of `tool`, and of no other. Those of IPv6 have no tool.
pub(in crate::traffic) fn sign(tool: Tool, ip: &mut Ip, tcp: &mut Tcp, rng: &mut impl Rng) {
    match tool {
        Tool::Zmap4 => {
            (ip.may_fragment, tcp.window, tcp.options) = (true, Some(u16::MAX), zmap_options(rng));
        }
        Tool::Nmap => {
            (ip.may_fragment, ip.ttl) = (true, rng.random_range(20..=59));
            (tcp.window, tcp.options) = (Some(1024), vec![2, 4, 5, 0xb4]);
        }
        Tool::Stateless => (ip.ttl, tcp.options) = (rng.random_range(200..=255), Vec::new()),
        // Beyond this a SYN would bear the marks of a stateless tool.
        Tool::Other if tcp.options.is_empty() => ip.ttl = ip.ttl.min(199),
        Tool::Zmap | Tool::Masscan | Tool::Mirai | Tool::Other => {}
    }
    let IpAddr::V4(dst) = ip.dst else { return };
    loop {
        tcp.sequence = if tool == Tool::Mirai { dst.into() } else { rng.random() };
        ip.id = match tool {
            Tool::Zmap => ZMAP_ID,
            Tool::Masscan => masscan_id(dst, tcp.dst, tcp.sequence),
            Tool::Mirai | Tool::Zmap4 | Tool::Nmap | Tool::Stateless | Tool::Other => rng.random(),
        };
        let marks = [
            (Tool::Mirai, tcp.sequence == u32::from(dst)),
            (Tool::Zmap, ip.id == ZMAP_ID),
            (Tool::Masscan, ip.id == masscan_id(dst, tcp.dst, tcp.sequence)),
        ];
        if marks.into_iter().all(|(other, marked)| marked == (other == tool)) {
            return;
        }
    }
}
