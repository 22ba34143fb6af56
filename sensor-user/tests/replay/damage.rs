//! Captures of which a part cannot be used: the rest counts, and what was left out is reported.

use super::*;

fn syn() -> Vec<u8> {
    tcp(REMOTE, SENSOR, (40_000, 23), SYN)
}

/// Microseconds.
const TIME: u64 = BEFORE_FOUR as u64 * 1_000_000;

fn packet(endian: Endian) -> Vec<u8> {
    pcapng_packet(endian, 0, TIME, &syn())
}

/// Packets that counted, and what was reported.
fn told(capture: &[u8]) -> (u64, u64, Vec<String>) {
    let (_, outcome) = replay(&config(), &[capture]);
    let texts = outcome.errors.iter().map(|error| error.fault.to_string()).collect();
    (outcome.packets, outcome.contents.left_out, texts)
}

/// A pcapng file of raw IP: `head`, then these blocks.
fn pcapng(endian: Endian, blocks: &[&[u8]]) -> Vec<u8> {
    [&pcapng_head(endian, &[(101, 6, 0)]), &blocks.concat()[..]].concat()
}

#[test]
fn obsolete_packet_blocks_count() {
    for endian in [Endian::Little, Endian::Big] {
        let frame = syn();
        let mut body = [endian.u16(0), endian.u16(3)].concat();
        let length = frame.len() as u32;
        for number in [(TIME >> 32) as u32, TIME as u32, length, length] {
            body.extend(endian.u32(number));
        }
        body.extend(&frame);
        // `pack_flags`, of 4 bytes.
        body.extend([&endian.u16(2)[..], &endian.u16(4), &endian.u32(1), &[0; 4]].concat());
        let observation = observe(&config(), &pcapng(endian, &[&pcapng_block(endian, 2, &body)]));
        assert_eq!(observation.accesses, [(slot(23), 1)]);
        assert_eq!(observation.at.to_string(), "2010-07-09T03:59:59Z");
    }
}

#[test]
fn a_record_that_cannot_be_used_is_left_out_alone() {
    let (little, good) = (Endian::Little, packet(Endian::Little));
    let at = pcapng_head(little, &[(101, 6, 0)]).len() + good.len();
    let mut misfit = good.clone();
    misfit[20..24].copy_from_slice(&1000_u32.to_le_bytes());
    for (bad, why) in [
        (
            pcapng_packet(little, 0, u64::MAX, &syn()),
            "its time, 18446744073709551615 units, is before the year 1678 or after 2261",
        ),
        (pcapng_packet(little, 7, TIME, &syn()), "its interface, number 7, is not described"),
        (misfit, "its packet of 1000 bytes does not fit into it"),
        (pcapng_block(little, 6, &[0; 8]), "it is too short for a packet"),
    ] {
        let capture = pcapng(little, &[&good, &bad, &good]);
        // Before it: the section, the interface and one packet.
        let expected = format!("record 4 at byte {at} was left out: {why}");
        assert_eq!(told(&capture), (2, 1, vec![expected]));
    }
}

#[test]
fn many_records_that_are_left_out_are_told_by_their_number() {
    let bad = pcapng_packet(Endian::Little, 1, TIME, &syn());
    let blocks = vec![&bad[..]; 100];
    let (packets, left_out, texts) = told(&pcapng(Endian::Little, &blocks));
    assert_eq!((packets, left_out, texts.len()), (0, 100, 9));
    assert_eq!(texts[8], "92 more records were left out");
}

#[test]
fn blocks_without_packets_may_hold_anything() {
    let (little, good) = (Endian::Little, packet(Endian::Little));
    // A name resolution block whose records have no end, an interface's statistics without a body, options
    // that reach beyond their block.
    let names = pcapng_block(little, 4, &[1, 0, 8, 0, 192, 0, 2, 1, b'a', b'b', b'c', 0]);
    let statistics = pcapng_block(little, 5, &[]);
    let interface = pcapng_block(little, 1, &[101, 0, 0, 0, 0, 0, 0, 0, 2, 0, 99, 0]);
    let capture = pcapng(little, &[&good, &names, &statistics, &interface, &good]);
    assert_eq!(told(&capture), (2, 0, vec![]));
}

#[test]
fn a_clock_of_any_resolution_is_one() {
    let frame = syn();
    // 10^-20 s: 64 bits hold 0.18 s of it, and the rest is in `if_tsoffset`. 2^-40 s: a quarter.
    for (resolution, offset, time) in [
        (20, i64::from(BEFORE_FOUR), 10_000_000_000_000_000_000),
        (38, i64::from(BEFORE_FOUR), 1),
        (100, i64::from(BEFORE_FOUR), 1),
        (0xa8, i64::from(BEFORE_FOUR), 1 << 38),
        (0xff, i64::from(BEFORE_FOUR), 1),
    ] {
        let mut capture = pcapng_head(Endian::Little, &[(101, resolution, offset)]);
        capture.extend(pcapng_packet(Endian::Little, 0, time, &frame));
        let observation = observe(&config(), &capture);
        let nanoseconds = observation.at.as_nanosecond() - i128::from(BEFORE_FOUR) * 1_000_000_000;
        let expected = match resolution {
            20 => 100_000_000,
            0xa8 => 250_000_000,
            _ => 0,
        };
        assert_eq!(nanoseconds, expected, "{resolution}");
    }
}

#[test]
fn behind_a_senseless_length_the_next_record_is_found() {
    for endian in [Endian::Little, Endian::Big] {
        let good = packet(endian);
        let at = pcapng_head(endian, &[(101, 6, 0)]).len() + good.len();
        // Too short, no multiple of four, too long for the block, too long for the file, too long for any.
        for length in [8, good.len() as u32 + 1, good.len() as u32 + 4, 1 << 20, 0xffff_fff0] {
            let mut bad = good.clone();
            bad[4..8].copy_from_slice(&endian.u32(length));
            let (packets, left_out, texts) = told(&pcapng(endian, &[&good, &bad, &good, &good]));
            assert_eq!((packets, left_out), (3, 1), "{length}: {texts:?}");
            let expected = format!("{} bytes were left out from record 4 at byte {at} on: ", good.len());
            assert!(texts.len() == 1 && texts[0].starts_with(&expected), "{texts:?}");
        }
    }
    let records: Vec<Record> = (0..50).map(|second| (BEFORE_FOUR + second, 7, syn())).collect();
    for endian in [Endian::Little, Endian::Big] {
        for length in [1200_u32, 100_000, 300_000, u32::MAX] {
            let mut capture = pcap(endian, MICROSECONDS, 101, &records);
            // Of the 20th record.
            let at = 24 + 19 * 56;
            capture[at + 8..at + 12].copy_from_slice(&endian.u32(length));
            let (packets, left_out, texts) = told(&capture);
            assert_eq!((packets, left_out), (49, 1), "{length}: {texts:?}");
            let expected = format!("56 bytes were left out from record 20 at byte {at} on: ");
            assert!(texts.len() == 1 && texts[0].starts_with(&expected), "{texts:?}");
        }
    }
}

#[test]
fn what_follows_without_a_record_is_told_as_the_rest() {
    let records: Vec<Record> = (0..3).map(|second| (BEFORE_FOUR + second, 7, syn())).collect();
    let mut zeros = pcap(Endian::Little, MICROSECONDS, 101, &records);
    zeros.resize(zeros.len() + 10_000_000, 0);
    let text = "the last 10000000 bytes were left out, from record 4 at byte 192 on: there are zeros in place of a \
                record, and no record follows";
    assert_eq!(told(&zeros), (3, 1, vec![text.to_owned()]));
    let mut zeros = pcapng(Endian::Little, &[&packet(Endian::Little)]);
    let at = zeros.len();
    zeros.resize(at + 4096, 0);
    let text = format!(
        "the last 4096 bytes were left out, from record 4 at byte {at} on: there are zeros in place of a record, and no \
         record follows"
    );
    assert_eq!(told(&zeros), (1, 1, vec![text]));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn members_of_gzip_may_be_followed_by_zeros_and_by_nothing_else() {
    let capture =
        pcap(Endian::Little, MICROSECONDS, 101, &[(BEFORE_FOUR, 0, syn()), (BEFORE_FOUR, 0, syn())]);
    let (one, other) = capture.split_at(50);
    let members = [gzip(one), gzip(other)].concat();
    assert_eq!(told(&members), (2, 0, vec![]));
    assert_eq!(told(&[&members[..], &[0; 10_000]].concat()), (2, 0, vec![]));
    let (packets, _, texts) = told(&[&members[..], b"\0\0garbage"].concat());
    assert_eq!(
        (packets, texts),
        (2, vec!["read error after byte 136; everything before was counted".to_owned()])
    );
}

#[test]
fn frames_of_zstd_may_be_among_skippable_ones() {
    let capture =
        pcap(Endian::Little, MICROSECONDS, 101, &[(BEFORE_FOUR, 0, syn()), (BEFORE_FOUR, 0, syn())]);
    let (one, other) = capture.split_at(50);
    let skippable = |number: u8, bytes: &[u8]| {
        [&[0x50 + number, 0x2a, 0x4d, 0x18][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
    };
    let frame = |bytes| zstd::encode_all(bytes, 3).unwrap();
    let frames =
        [skippable(0, &[1, 2, 3, 4]), skippable(15, b""), frame(one), skippable(3, &[0; 1000]), frame(other)]
            .concat();
    assert_eq!(told(&frames), (2, 0, vec![]));
}

#[test]
fn other_compressions_and_formats_are_named() {
    for (magic, expected) in [
        (
            &[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4][..],
            "it is compressed with xz; decompress it: `xz -dc FILE | teiten",
        ),
        (b"BZh91AY&SY", "it is compressed with bzip2; "),
        (&[0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7, 0], "it is compressed with lz4; "),
        (b"snoop\0\0\0\0\0\0\x02", "it is a snoop capture; convert it: `editcap -F pcapng FILE NEW.pcapng`"),
    ] {
        let (_, _, texts) = told(magic);
        assert!(texts.len() == 1 && texts[0].starts_with(expected), "{texts:?}");
    }
}

#[test]
fn packets_without_a_time_are_told_and_have_no_day_in_a_ledger() {
    let little = Endian::Little;
    let frame = syn();
    let simple = pcapng_block(little, 3, &[&little.u32(frame.len() as u32)[..], &frame].concat());
    let without = [
        pcap(little, MICROSECONDS, 101, &[(0, 0, syn()), (0, 7, syn())]),
        pcapng(little, &[&simple, &simple]),
    ];
    for capture in without {
        let (_, outcome) = replay(&config(), &[&capture]);
        assert_eq!((outcome.packets, outcome.contents.untimed, outcome.contents.first), (2, 2, None));
        let (code, text, _) = teiten(&["replay", "-"], &capture);
        assert!(code == Some(0) && text.contains("of which 2 have no time of their own"), "{text}");
        assert!(!text.contains("1970-"), "{text}");
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let args = ["replay", "-", "--state-dir", state.to_str().unwrap()];
        let (code, text, errors) = teiten(&args, &capture);
        assert_eq!((code, text.as_str()), (Some(1), ""));
        assert!(errors.contains("2 packets have no time, so they have no day in a ledger"), "{errors}");
        assert!(!state.exists(), "a refusal leaves nothing");
    }
    // Beside packets that have one.
    let (_, outcome) = replay(&config(), &[&pcapng(little, &[&packet(little), &simple])]);
    assert_eq!((outcome.packets, outcome.contents.untimed), (2, 1));
    assert_eq!(outcome.contents.last.unwrap().to_string(), "2010-07-09T03:59:59Z");
}
