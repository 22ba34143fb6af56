//! Who answers is not always who was asked: questions to groups, TFTP, and a peer that speaks first. Needs
//! root.

use crate::common::output;
use crate::common::pair::{PEER, ask, joined, packets, partners, socket, start, wait_class};
use lab::sensor::{INTERFACE, WIRE};
use lab::wait::{PATIENCE, wait_until};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};

#[test]
fn answers_to_groups_and_from_other_ports_are_solicited_and_remote_hosts_there_are_not() {
    needs_root!();
    let lab = joined();
    for (netns, interface) in [(&lab.sensor, INTERFACE), (&lab.internet, WIRE)] {
        output(netns.command("ip").args(["route", "add", "224.0.0.0/4", "dev", interface]));
    }
    let daemon = start(&lab, &["--interface", INTERFACE]);
    let mut word = [0; 16];
    let mut solicited = 0;
    let mut accesses = 0;
    // Own port and whom it asks: SSDP, mDNS, LLMNR, NetBIOS (the network's broadcast address).
    for (own, asked) in [
        (40_001, "239.255.255.250:1900"),
        (40_002, "224.0.0.251:5353"),
        (40_003, "224.0.0.252:5355"),
        (40_004, "198.18.0.255:137"),
        (137, "198.18.0.255:137"),
    ] {
        let port = asked.rsplit(':').next().unwrap();
        let responder = socket(&lab.internet, &format!("0.0.0.0:{port}"));
        let group: Ipv4Addr = asked.split(':').next().unwrap().parse().unwrap();
        if group.is_multicast() {
            responder.join_multicast_v4(&group, &PEER.parse().unwrap()).unwrap();
        }
        let querier = socket(&lab.sensor, &format!("198.18.0.1:{own}"));
        querier.set_broadcast(true).unwrap();
        querier.send_to(b"who is there", asked).unwrap();
        let (_, from) = responder.recv_from(&mut word).unwrap();
        responder.send_to(b"me", from).unwrap();
        querier.recv_from(&mut word).unwrap();
        solicited += 1;
        wait_class(&daemon, "solicited", solicited);
        // No one asked from the port beside it.
        responder.send_to(b"me", ("198.18.0.1", own + 1)).unwrap();
        accesses += 1;
        wait_class(&daemon, "access", accesses);
    }

    // TFTP's data comes from another port, and continues there.
    let client = socket(&lab.sensor, "198.18.0.1:40010");
    let [server, data] = [69, 50_069].map(|port| socket(&lab.internet, &format!("{PEER}:{port}")));
    client.send_to(b"\0\x01file\0byte\0", (PEER, 69)).unwrap();
    let (_, from) = server.recv_from(&mut word).unwrap();
    data.send_to(b"\0\x03\0\x01data", from).unwrap();
    client.recv_from(&mut word).unwrap();
    client.send_to(b"\0\x04\0\x01", (PEER, 50_069)).unwrap();
    data.recv_from(&mut word).unwrap();
    data.send_to(b"\0\x03\0\x02data", from).unwrap();
    solicited += 2;
    wait_class(&daemon, "solicited", solicited);

    let ping = output(lab.sensor.command("ping").args([
        "-6",
        "-n",
        "-c",
        "2",
        "-w",
        "20",
        &format!("ff02::1%{INTERFACE}"),
    ]));
    assert!(ping.contains("bytes from fe80:"), "{ping}");
    wait_until("the echo reply", || packets(&daemon, "solicited") > solicited);
    assert_eq!((packets(&daemon, "access"), packets(&daemon, "backscatter")), (accesses, 0));
}

/// Connections to a declared service take no place from what this host starts.
#[test]
fn visitors_of_a_declared_service_leave_no_trace_among_what_the_sensor_started() {
    needs_root!();
    let lab = joined();
    let listener = lab.sensor.run(|| TcpListener::bind("198.18.0.1:22")).unwrap().unwrap();
    let daemon = start(&lab, &["--interface", INTERFACE, "--service", "22/tcp"]);
    let [sensor, peer] = partners(&lab);
    ask(&sensor, &peer);
    for _ in 0..500 {
        let mut client = lab.internet.connect(listener.local_addr().unwrap(), PATIENCE).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
    let value = |metric: &str| daemon.metrics().unwrap().sum(metric);
    wait_until("the visits", || value("teiten_service_accesses_total") == 500);
    wait_until("the flows", || value("teiten_flows") - value("teiten_flows_accepted") == 1);
    peer.send_to(b"more", sensor.local_addr().unwrap()).unwrap();
    wait_class(&daemon, "solicited", 2);
    assert_eq!(value("teiten_flow_failures_total"), 0);
    for class in ["access", "backscatter", "other"] {
        assert_eq!(packets(&daemon, class), 0, "{class}");
    }
    let log = daemon.log();
    assert!(!log.contains("flow table") && !log.contains("cannot be kept"), "{log}");
}
