//! What an interface, its driver and what is stacked on it do to the counts.

use super::{Finding, Level};
use crate::config::{Config, XdpMode};
use crate::kernel::GENERIC_MERGES;
use crate::kernel::adapter::{Adapter, Answer, Channels, Xdp};
use crate::kernel::interface::Interface;
use crate::kernel::network::Network;

/// Bytes of the largest packet that fits in a page beside what XDP keeps there, as veth and virtio have it.
const PAGE_MTU: u32 = 3506;

/// What joins packets before a program sees them, with what `ethtool -K` calls it.
const MERGES: [(&str, &str); 2] = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
/// Drops frames of VLANs that have no interface.
const VLAN_FILTER: &str = "rx-vlan-filter";
/// Takes tags off.
const VLAN_STRIPPING: &str = "rx-vlan-hw-parse";

/// An interface and what was found about it.
#[derive(Clone, Debug)]
pub(super) struct ObservedLine {
    pub(super) adapter: Adapter,
    /// Tunnels and sessions whose packets travel in those of the interface.
    pub(super) carried: Vec<String>,
    /// Whether the kernel's `PPPoE` has a session on it.
    pub(super) has_pppoe: bool,
}

impl ObservedLine {
    /// What `network` knows of the interface, and its driver says.
    pub(super) fn of(interface: &Interface, network: &Network, adapter: Adapter) -> Self {
        let inner =
            network.links.iter().filter(|link| link.lower == Some(interface.index) && link.is_tunnel());
        Self {
            adapter,
            carried: inner.map(|link| link.name.clone()).collect(),
            has_pppoe: network.pppoe.contains(&interface.name),
        }
    }
}

/// What is to be said of a line on a machine of so many CPUs.
pub(super) fn judge(config: &Config, name: &str, line: &ObservedLine, cpus: usize) -> Vec<Finding> {
    let adapter = &line.adapter;
    let mut findings = vec![
        mode(config, name, adapter),
        offloads(config, name, &adapter.features),
        channels(name, &adapter.channels, cpus),
    ];
    if line.has_pppoe {
        findings.push(Finding::new(
            Level::Good,
            name,
            "carries a PPPoE session: IP inside is read and counts for the session's addresses; observe this \
             interface or the session, not both",
        ));
    }
    if !line.carried.is_empty() {
        let text = format!(
            "carries the tunnel {}: here its packets count as those of the far end; those inside count where the tunnel \
             is observed, and twice where both are",
            line.carried.join(", ")
        );
        findings.push(Finding::new(Level::Good, name, text));
    }
    findings
}

/// Whether the program would run in the driver.
fn mode(config: &Config, name: &str, adapter: &Adapter) -> Finding {
    let cost = format!("generic mode costs more per packet, and {GENERIC_MERGES}");
    if config.xdp_mode == XdpMode::Generic {
        let text = format!("--xdp-mode generic: {cost}; leave it out where the driver takes XDP programs");
        return Finding::new(Level::Warning, name, text);
    }
    let mtu = adapter.mtu.known().copied().unwrap_or_default();
    match adapter.xdp {
        Answer::Is(Xdp { takes_programs: false, .. }) => {
            let way_out = match config.xdp_mode {
                XdpMode::Native => "native mode was asked for and would fail; `--xdp-mode auto`",
                _ => {
                    "would attach generically; observe an interface below it whose driver does, if there is one"
                }
            };
            Finding::new(Level::Warning, name, format!("the driver takes no XDP programs: {way_out}; {cost}"))
        }
        Answer::Is(Xdp { takes_fragments: false, .. }) if mtu > PAGE_MTU => Finding::new(
            Level::Warning,
            name,
            format!(
                "MTU {mtu}, and the driver takes XDP programs only where a packet fits in a page: would attach \
                 generically; {cost}; `ip link set dev {name} mtu 1500`, unless larger packets are needed"
            ),
        ),
        Answer::Is(_) => Finding::new(Level::Good, name, format!("the driver takes XDP programs; MTU {mtu}")),
        Answer::Unsaid if mtu > PAGE_MTU => Finding::new(
            Level::Warning,
            name,
            format!(
                "MTU {mtu}: some drivers take XDP programs only where a packet fits in a page, and this kernel does not \
                 say whether this one does; the log at the start tells the mode; {cost}"
            ),
        ),
        Answer::Unsaid => Finding::new(
            Level::Good,
            name,
            format!(
                "MTU {mtu}; this kernel does not say whether the driver takes XDP programs, the log at the start does"
            ),
        ),
        Answer::NotAllowed => Finding::new(
            Level::Warning,
            name,
            "not allowed to ask whether the driver takes XDP programs; run `sudo teiten check`",
        ),
    }
}

/// What the adapter does to packets before the program sees them.
fn offloads(config: &Config, name: &str, features: &Answer<Vec<String>>) -> Finding {
    let features = match features {
        Answer::Is(features) => features,
        Answer::Unsaid => return Finding::new(Level::Good, name, "the driver says nothing of offloads"),
        Answer::NotAllowed => {
            let text = "not allowed to ask for offloads; run `sudo teiten check`";
            return Finding::new(Level::Warning, name, text);
        }
    };
    let is_on = |feature: &str| features.iter().any(|on| on == feature);
    let merges: Vec<&str> =
        MERGES.iter().filter(|(feature, _)| is_on(feature)).map(|(_, called)| *called).collect();
    if !merges.is_empty() {
        let off: Vec<String> = merges.iter().map(|called| format!("{called} off")).collect();
        let text = format!(
            "{} is on: the adapter joins packets of a connection before the program sees them, and several count as one; \
             `ethtool -K {name} {}`",
            merges.join(" and "),
            off.join(" ")
        );
        return Finding::new(Level::Warning, name, text);
    }
    // A telescope's or mirror port's tags are of others.
    if is_on(VLAN_FILTER) && !config.observe.is_empty() {
        let text = format!(
            "rx-vlan-filter is on: the adapter drops tagged frames of VLANs that have no interface here; for a mirror \
             port or trunk `ethtool -K {name} rx-vlan-filter off`"
        );
        return Finding::new(Level::Warning, name, text);
    }
    let tags = if is_on(VLAN_STRIPPING) {
        "VLAN tags are taken off by the adapter, which changes no count"
    } else {
        "VLAN tags are left to the program, which reads past them"
    };
    Finding::new(Level::Good, name, format!("no offload joins packets; {tags}"))
}

/// Whether more CPUs could receive.
fn channels(name: &str, channels: &Answer<Channels>, cpus: usize) -> Finding {
    let (used, most, kind) = match channels {
        Answer::Is(Channels { used, most, are_combined }) => {
            (*used, *most, if *are_combined { "combined" } else { "rx" })
        }
        Answer::Unsaid => {
            return Finding::new(Level::Good, name, "the driver says nothing of receive queues");
        }
        Answer::NotAllowed => {
            let text = "not allowed to ask for receive queues; run `sudo teiten check`";
            return Finding::new(Level::Warning, name, text);
        }
    };
    let useful = most.min(u32::try_from(cpus).unwrap_or(u32::MAX));
    if used < useful {
        let text = format!(
            "{used} of {most} receive queues, {cpus} CPUs: packets of a flood are dropped earlier than necessary; `ethtool -L {name} {kind} \
             {useful}`"
        );
        return Finding::new(Level::Warning, name, text);
    }
    Finding::new(Level::Good, name, format!("{used} of {most} receive queues, {cpus} CPUs"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    fn good() -> ObservedLine {
        let on = |names: &[&str]| Answer::Is(names.iter().map(|name| (*name).to_owned()).collect());
        ObservedLine {
            adapter: Adapter {
                mtu: Answer::Is(1500),
                features: on(&["rx-checksum", VLAN_STRIPPING, VLAN_FILTER]),
                channels: Answer::Is(Channels { used: 4, most: 8, are_combined: true }),
                xdp: Answer::Is(Xdp { takes_programs: true, takes_fragments: false }),
            },
            carried: vec![],
            has_pppoe: false,
        }
    }

    fn warnings(flags: &[&str], line: &ObservedLine) -> Vec<String> {
        let findings = judge(&config(flags), "eth0", line, 4);
        findings.iter().filter(|it| it.level != Level::Good).map(|it| it.text.clone()).collect()
    }

    #[test]
    fn a_line_that_changes_no_count_gives_no_warning() {
        assert_eq!(warnings(&[], &good()), [""; 0]);
        let unsaid = ObservedLine {
            adapter: Adapter {
                mtu: Answer::Is(1500),
                features: Answer::Unsaid,
                channels: Answer::Unsaid,
                xdp: Answer::Unsaid,
            },
            ..good()
        };
        assert_eq!(warnings(&[], &unsaid), [""; 0]);
    }

    #[test]
    fn each_cause_of_wrong_numbers_is_named_with_what_ends_it() {
        let with = |change: fn(&mut ObservedLine)| {
            let mut line = good();
            change(&mut line);
            line
        };
        let merging = with(|line| {
            line.adapter.features = Answer::Is(vec!["rx-lro".into(), "rx-gro-hw".into()]);
        });
        let jumbo = with(|line| line.adapter.mtu = Answer::Is(9000));
        let unknown_jumbo =
            with(|line| (line.adapter.mtu, line.adapter.xdp) = (Answer::Is(9000), Answer::Unsaid));
        let none =
            with(|line| line.adapter.xdp = Answer::Is(Xdp { takes_programs: false, takes_fragments: false }));
        let single = with(|line| {
            line.adapter.channels = Answer::Is(Channels { used: 1, most: 2, are_combined: false });
        });
        for (flags, line, words) in [
            (&[][..], &merging, "`ethtool -K eth0 lro off rx-gro-hw off`"),
            (&["--observe", "192.0.2.0/24"], &good(), "`ethtool -K eth0 rx-vlan-filter off`"),
            (&[], &jumbo, "`ip link set dev eth0 mtu 1500`"),
            (&[], &unknown_jumbo, "MTU 9000: some drivers"),
            (&[], &none, "would attach generically; observe an interface below it"),
            (&["--xdp-mode", "native"], &none, "would fail; `--xdp-mode auto`"),
            (&["--xdp-mode", "generic"], &good(), "--xdp-mode generic: generic mode costs more per packet"),
            (
                &[],
                &single,
                "1 of 2 receive queues, 4 CPUs: packets of a flood are dropped earlier than necessary; `ethtool -L eth0 rx 2`",
            ),
        ] {
            let said = warnings(flags, line);
            assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
        }
        // A driver that takes larger packets is not to be changed.
        let capable = with(|line| {
            line.adapter.mtu = Answer::Is(9000);
            line.adapter.xdp = Answer::Is(Xdp { takes_programs: true, takes_fragments: true });
        });
        assert_eq!(warnings(&[], &capable), [""; 0]);
    }

    #[test]
    fn what_may_not_be_asked_is_said_of_each() {
        let mut line = good();
        line.adapter.features = Answer::NotAllowed;
        line.adapter.channels = Answer::NotAllowed;
        line.adapter.xdp = Answer::NotAllowed;
        let said = warnings(&[], &line);
        assert!(said.len() == 3 && said.iter().all(|text| text.contains("not allowed to ask")), "{said:?}");
    }

    #[test]
    fn what_travels_inside_is_named() {
        let line = ObservedLine { carried: vec!["wg0".into()], has_pppoe: true, ..good() };
        let text: Vec<String> = judge(&config(&[]), "eth0", &line, 4).into_iter().map(|it| it.text).collect();
        assert!(text.iter().any(|text| text.contains("carries a PPPoE session")), "{text:?}");
        assert!(text.iter().any(|text| text.contains("carries the tunnel wg0")), "{text:?}");
    }
}
