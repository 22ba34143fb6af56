//! Frames of which headers lie beyond the first piece of a buffer in fragments.

use super::*;

/// `2001:db8::1 > 2001:db8::7: TCP 40000 > 445 [S]` after destination options of these sizes.
fn syn_after_options(sizes: &[usize]) -> Vec<u8> {
    let syn = &syn()[34..];
    let length = sizes.iter().sum::<usize>() + syn.len();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend((length as u16).to_be_bytes());
    frame.extend([60, 64]);
    frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    for (nth, size) in sizes.iter().enumerate() {
        let next = if nth + 1 == sizes.len() { 6 } else { 60 };
        frame.extend([next, (size / 8 - 1) as u8]);
        frame.resize(frame.len() + size - 2, 0);
    }
    frame.extend(syn);
    frame
}

/// A first piece of a page holds 3,520 bytes at most, and the SYN is beyond that.
#[test]
fn a_syn_in_a_later_piece_is_an_access() {
    let policy = Policy { observe: nets(&["2001:db8::7/128"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy, 16) else { return };
    for (sizes, link, from) in [
        (&[2_048, 1_600][..], Link::Ethernet, 0),
        (&[2_048, 1_600], Link::Ip, 14),
        (&[8, 2_048, 1_472, 16], Link::Ethernet, 0),
    ] {
        let frame = syn_after_options(sizes);
        let frame = &frame[from..];
        let program = if link == Link::Ethernet { "teiten_eth_frags" } else { "teiten_ip_frags" };
        let verdict = harness.judge(frame, link);
        assert_eq!(verdict.0.class, Class::Access);
        let before = harness.snapshot();
        harness.run(program, frame, 3);
        let mut wanted = before;
        for _ in 0..3 {
            wanted = expected(&wanted, &verdict, frame.len());
        }
        assert_eq!(harness.snapshot(), wanted, "{sizes:?}");
    }
    let drained = harness.switch(&Policy::default()).expect("switch");
    let source = "2001:db8::1".parse::<Ipv6Addr>().unwrap().to_bits();
    assert!(
        drained.counted.records_v6.iter().all(|(src, _)| *src == source),
        "{:x?}",
        drained.counted.records_v6
    );
    assert_eq!(drained.counted.ports, [(Slot::new(Transport::Tcp, 445), 9)]);
}

/// A header that the frame does not hold is malformed, in pieces or not.
#[test]
fn frames_in_pieces_are_judged_as_on_the_host() {
    let policy = Policy {
        observe: nets(&["2001:db8::7/128"]),
        excluded: nets(&["2001:db8::/64"]),
        ..Policy::default()
    };
    let Some(mut harness) = Harness::new(policy, 16) else { return };
    let whole = syn_after_options(&[2_048, 1_600]);
    // Excluded; longer options than are read; a frame that ends within the header; a pad of ARP.
    let mut arp = arp();
    arp.resize(3_900, 0);
    for frame in
        [whole.clone(), syn_after_options(&[2_048, 2_032, 64]), whole[..whole.len() - 2].to_vec(), arp]
    {
        let verdict = harness.judge(&frame, Link::Ethernet);
        let before = harness.snapshot();
        harness.run("teiten_eth_frags", &frame, 1);
        assert_eq!(harness.snapshot(), expected(&before, &verdict, frame.len()), "{verdict:?}");
    }
    let drained = harness.switch(&Policy::default()).expect("switch");
    let classes = [Class::Excluded, Class::Malformed, Class::NonIp];
    assert_eq!(classes.map(|class| drained.counted.counts.packets[class as usize]), [1, 2, 1]);
}

/// What departs makes a conversation, and the answer to it is found in a later piece.
#[test]
fn an_answer_in_a_later_piece_is_solicited() {
    let policy = Policy { observe: nets(&["2001:db8::7/128"]), ..Policy::default() };
    let Some(mut harness) = Harness::new(policy, 16) else { return };
    harness.kernel.generations.use_flows();
    // 2001:db8::7:445 asks 2001:db8::1:40000.
    let mut question = syn_after_options(&[]);
    question[20] = 6;
    let (source, destination) = question[22..54].split_at_mut(16);
    source.swap_with_slice(destination);
    let (source, destination) = question[54..58].split_at_mut(2);
    source.swap_with_slice(destination);
    harness.send(LinkLayer::Ethernet, &question);
    let mut answer = syn_after_options(&[2_048, 1_600]);
    let flags = answer.len() - 7;
    answer[flags] = 0x12;
    harness.run("teiten_eth_frags", &answer, 2);
    let drained = harness.switch(&Policy::default()).expect("switch");
    assert_eq!(drained.counted.counts.packets[Class::Solicited as usize], 2);
}
