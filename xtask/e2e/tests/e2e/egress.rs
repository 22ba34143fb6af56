//! How the daemon learns what the sensor sends, where TCX cannot be had, on links without Ethernet and
//! through VLANs. Needs root.

use crate::common::pair::{PEER, ask, joined, packets, partners, rejoin, socket, start, wait_class};
use crate::common::tcx;
use crate::common::{output, teiten};
use lab::netns::{Interface, Netns, Tun, join_tuns};
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;

fn tracking(daemon: &Daemon) -> String {
    let samples = daemon.metrics().unwrap();
    let [(labels, _)] = samples.series("teiten_flow_tracking") else { panic!("one interface") };
    labels["method"].clone()
}

/// What `tc` shows of the filters and queueing disciplines of the sensor's interface.
fn tc(lab: &Lab, words: &str) -> String {
    // A program's bytes are written with blanks.
    output(lab.sensor.command("tc").args(words.split(' ').map(|word| word.replace('|', " "))))
}

fn filters(lab: &Lab) -> usize {
    tc(lab, "filter show dev eth0 egress").matches("teiten_egress_eth").count()
}

fn has_clsact(lab: &Lab) -> bool {
    tc(lab, "qdisc show dev eth0").contains("clsact")
}

#[test]
fn without_tcx_a_clsact_filter_learns_and_outlives_the_daemon() {
    needs_root!();
    needs_program!("tc");
    let lab = joined();
    let _full = tcx::fill(&lab.sensor, INTERFACE);
    let [sensor, peer] = partners(&lab);
    let daemon = start(&lab, &["--interface", INTERFACE]);
    assert_eq!((tracking(&daemon).as_str(), filters(&lab)), ("clsact", 1));
    ask(&sensor, &peer);
    wait_class(&daemon, "solicited", 1);

    // Killed: the filter keeps learning, and the next daemon takes its place, not a second one.
    daemon.stop(Signal::SIGKILL).unwrap();
    assert_eq!(filters(&lab), 1);
    let second = socket(&lab.internet, &format!("{PEER}:124"));
    ask(&sensor, &second);
    let daemon = start(&lab, &["--interface", INTERFACE]);
    assert_eq!((tracking(&daemon).as_str(), filters(&lab)), ("clsact", 1), "{}", daemon.log());
    second.send_to(b"more", sensor.local_addr().unwrap()).unwrap();
    wait_class(&daemon, "solicited", 3);
    assert_eq!(packets(&daemon, "access"), 0);

    // Stopped: likewise.
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    assert_eq!(filters(&lab), 1);
    let daemon = start(&lab, &["--interface", INTERFACE]);
    assert_eq!(filters(&lab), 1);
    // Someone removes it: it comes back.
    tc(&lab, "qdisc del dev eth0 clsact");
    wait_until("the filter", || filters(&lab) == 1);
    daemon.wait_log("egress program was detached");
    let third = socket(&lab.internet, &format!("{PEER}:125"));
    ask(&sensor, &third);
    wait_class(&daemon, "solicited", 4);

    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(!has_clsact(&lab), "nothing is left behind: {}", tc(&lab, "qdisc show dev eth0"));
}

#[test]
fn detach_removes_the_filter_and_leaves_what_belongs_to_others() {
    needs_root!();
    needs_program!("tc");
    for others in [false, true] {
        let lab = joined();
        let _full = tcx::fill(&lab.sensor, INTERFACE);
        if others {
            tc(&lab, "qdisc add dev eth0 clsact");
            tc(&lab, "filter add dev eth0 egress prio 7 bpf bytecode 1,6|0|0|0 classid 1:7");
        }
        let daemon = start(&lab, &["--interface", INTERFACE]);
        assert_eq!((tracking(&daemon).as_str(), filters(&lab)), ("clsact", 1));
        assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
        assert_eq!(filters(&lab), 1);
        let mut detach = lab.command(teiten());
        detach.arg("detach").arg("--pin-dir").arg(lab.pin_dir()).arg("--state-dir").arg(lab.state_dir());
        output(&mut detach);
        assert_eq!((filters(&lab), has_clsact(&lab)), (0, others));
        assert_eq!(tc(&lab, "filter show dev eth0 egress").contains("1:7"), others);
    }
}

#[test]
fn without_tcx_and_clsact_it_counts_and_says_what_it_does_not_know() {
    needs_root!();
    needs_program!("tc");
    let lab = joined();
    let _full = tcx::fill(&lab.sensor, INTERFACE);
    // It has the place of clsact, and no filters for what is sent.
    tc(&lab, "qdisc add dev eth0 ingress");
    let [sensor, peer] = partners(&lab);
    let daemon = start(&lab, &["--interface", INTERFACE]);
    assert_eq!(tracking(&daemon), "none");
    ask(&sensor, &peer);
    wait_class(&daemon, "access", 1);
    assert_eq!(packets(&daemon, "solicited"), 0);
    let log = daemon.log();
    assert!(log.contains("cannot see what this host sends") && log.contains(INTERFACE), "{log}");
    let status = daemon.status().unwrap().to_string();
    assert!(status.contains("it is not known what eth0 sends"), "{status}");
    assert!(daemon.stop(Signal::SIGINT).unwrap().success());
    assert!(tc(&lab, "qdisc show dev eth0").contains("ingress"), "what others made stays");
}

/// Asks over UDP, TCP and ICMP from `here` to `there`; how many packets come back.
fn converse(lab: &Lab, here: &str, there: &str) -> u64 {
    ask(&socket(&lab.sensor, &format!("{here}:40000")), &socket(&lab.internet, &format!("{there}:123")));
    output(lab.sensor.command("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "10", there]));
    let address = format!("{there}:80").parse().unwrap();
    let listener = lab.internet.run(|| std::net::TcpListener::bind(address)).unwrap().unwrap();
    let client = lab.sensor.connect(address, PATIENCE).unwrap();
    drop(listener.accept().unwrap());
    // The end comes after everything else; what is left is this host's to send.
    assert_eq!(std::io::Read::read(&mut &client, &mut [0; 8]).unwrap(), 0);
    drop(client);
    // An answer, two echo replies; SYN+ACK, FIN, and the ACK of this host's FIN.
    6
}

fn tun(netns: &Netns, address: &str) -> Tun {
    let interface = Interface::new("tun0").address(address.parse().unwrap());
    Tun::new(netns, &interface).unwrap()
}

#[test]
fn conversations_over_a_link_without_ethernet_are_solicited() {
    needs_root!();
    let lab = Lab::without_link(1500).unwrap();
    join_tuns(tun(&lab.sensor, "198.18.0.1/24"), tun(&lab.internet, "198.18.0.2/24")).unwrap();
    let daemon = start(&lab, &["--interface", "tun0"]);
    assert_eq!(tracking(&daemon), "tcx");
    wait_class(&daemon, "solicited", converse(&lab, "198.18.0.1", PEER));
    assert_eq!(packets(&daemon, "access") + packets(&daemon, "backscatter"), 0);
}

/// Who does not get the interface leaves nothing on it.
#[test]
fn a_refused_start_leaves_no_program_on_what_is_sent() {
    needs_root!();
    let (lab, other) = (joined(), Lab::without_link(1500).unwrap());
    let _first = start(&lab, &["--interface", INTERFACE]);
    assert_eq!(tcx::attached(&lab.sensor, INTERFACE), 1);
    let mut second = lab.sensor.command_with(&other.mounts, teiten());
    std::fs::create_dir_all(other.pin_dir()).unwrap();
    second.args(["run", "--interface", INTERFACE, "--web.listen-address", "127.0.0.1:9999"]);
    second.arg("--pin-dir").arg(other.pin_dir()).arg("--state-dir").arg(other.state_dir());
    assert!(!second.output().unwrap().status.success());
    assert_eq!(tcx::attached(&lab.sensor, INTERFACE), 1);
}

/// An interface that goes takes its attachments with it; one of its name is observed again, and what it
/// sends too.
#[test]
fn an_interface_that_comes_back_is_tracked_again() {
    needs_root!();
    let lab = joined();
    // The interface's own addresses come back a moment after it does.
    let daemon = start(&lab, &["--interface", INTERFACE, "--observe", "198.18.0.1/32"]);
    ask_once(&lab, 4000);
    wait_class(&daemon, "solicited", 1);
    output(lab.sensor.command("ip").args(["link", "delete", INTERFACE]));
    rejoin(&lab);
    daemon.wait_log("attached again");
    ask_once(&lab, 4001);
    wait_class(&daemon, "solicited", 2);
    assert_eq!(tracking(&daemon), "tcx");
    assert_eq!(packets(&daemon, "access"), 0);
    assert!(!daemon.log().contains("cannot see what this host sends"), "{}", daemon.log());
}

fn ask_once(lab: &Lab, port: u16) {
    let ours = socket(&lab.sensor, &format!("198.18.0.1:{port}"));
    ask(&ours, &socket(&lab.internet, &format!("{PEER}:{port}")));
}

#[test]
fn a_detached_tcx_link_comes_back() {
    needs_root!();
    needs_program!("bpftool");
    let lab = joined();
    let [sensor, peer] = partners(&lab);
    let daemon = start(&lab, &["--interface", INTERFACE]);
    assert_eq!(tracking(&daemon), "tcx");
    let pin = lab.layout_dir().join("links/eth0%egress");
    output(lab.command("bpftool").args(["link", "detach", "pinned"]).arg(&pin));
    daemon.wait_log("egress program was detached");
    ask(&sensor, &peer);
    wait_class(&daemon, "solicited", 1);
}
