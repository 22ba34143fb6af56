//! Whose XDP program is attached to an interface, and what removes it.

use super::interface::Interface;
use super::{Mode, sys};
use std::fmt;

/// The program that has the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The interface.
    pub interface: String,
    /// Id of the program, when the kernel tells it.
    pub program: Option<u32>,
    /// Its name, when this process may read it.
    pub name: Option<String>,
    /// How it is attached.
    pub kind: Kind,
}

/// How a program is attached, which decides what detaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a link of this id.
    Link(u32),
    /// By netlink, in this mode.
    Netlink(Mode),
    /// This process may not read it, or it has changed meanwhile.
    Unknown,
}

impl Occupant {
    /// The program that is attached to `interface`.
    pub(super) fn of(interface: &Interface, program: Option<u32>) -> Self {
        let program = program.or(interface.xdp.map(|(_, program)| program));
        let name = program.and_then(|program| sys::program_name(program).ok());
        let kind = match sys::xdp_link_of(interface.index) {
            Ok(Some(link)) => Kind::Link(link.id),
            Ok(None) => interface.xdp.map_or(Kind::Unknown, |(mode, _)| Kind::Netlink(mode)),
            Err(_) => Kind::Unknown,
        };
        Self { interface: interface.name.clone(), program, name, kind }
    }

    /// Whether it is called like a program of teiten's.
    pub(super) fn is_teitens(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.starts_with("teiten_"))
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        write!(f, "interface {interface} already has an XDP program")?;
        match (self.program, &self.name) {
            (Some(id), Some(name)) => write!(f, " (id {id}, {name})")?,
            (Some(id), None) => write!(f, " (id {id})")?,
            (None, _) => {}
        }
        f.write_str("; ")?;
        if self.is_teitens() {
            f.write_str(
                "it is teiten's, pinned in another --pin-dir or held by another daemon: stop that daemon, then \
                 `teiten detach --pin-dir DIR`, which saves its counts; without them ",
            )?;
        } else {
            f.write_str("it belongs to another program; ")?;
        }
        let by_netlink = |mode| match mode {
            Mode::Native => "xdpdrv",
            Mode::Generic => "xdpgeneric",
        };
        match &self.kind {
            Kind::Link(id) => write!(f, "`bpftool link detach id {id}` detaches it")?,
            Kind::Netlink(mode) => {
                write!(f, "`ip link set dev {interface} {} off` detaches it", by_netlink(*mode))?;
            }
            Kind::Unknown => write!(
                f,
                "`bpftool link list` shows whether a link attaches it (`bpftool link detach id ID` detaches that), \
                 else `ip link set dev {interface} xdpdrv off` or `xdpgeneric off` does"
            )?,
        }
        f.write_str("; or observe another interface")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupant(name: Option<&str>, kind: Kind) -> String {
        let name = name.map(str::to_owned);
        Occupant { interface: "eth0".to_owned(), program: Some(7), name, kind }.to_string()
    }

    #[test]
    fn each_kind_of_attachment_names_what_detaches_it() {
        let text = occupant(Some("xdp_pass"), Kind::Link(3));
        assert_eq!(
            text,
            "interface eth0 already has an XDP program (id 7, xdp_pass); it belongs to another program; \
             `bpftool link detach id 3` detaches it; or observe another interface"
        );
        let text = occupant(None, Kind::Netlink(Mode::Generic));
        assert!(text.contains("(id 7)") && text.contains("`ip link set dev eth0 xdpgeneric off`"), "{text}");
        assert!(occupant(None, Kind::Netlink(Mode::Native)).contains("xdpdrv off"));
        let text = occupant(None, Kind::Unknown);
        assert!(text.contains("bpftool link list") && text.contains("xdpdrv off"), "{text}");
    }

    #[test]
    fn counts_of_teitens_own_program_are_saved_first() {
        let text = occupant(Some("teiten_eth"), Kind::Link(3));
        assert!(text.contains("`teiten detach --pin-dir DIR`"), "{text}");
    }
}
