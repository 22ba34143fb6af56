//! The parser over any bytes, near-valid ones above all: no panic, no read outside the frame, no
//! port that is not a port, and agreement with an independent parser.

mod properties;

use properties::{Checked, check};
use proptest::prelude::*;
use sensor_common::Link;

/// One IPv6 extension header: its type, and its size in units of 8 bytes (of which the fragment
/// header ignores the number).
type Extension = (u8, u8);

/// What follows the tags, before IP.
#[derive(Clone, Copy, Debug)]
enum Tunnel {
    Nothing,
    /// `PPPoE`, its PPP protocol field compressed or not, and how much its length field is off.
    Session {
        compressed: bool,
        off: i8,
    },
    /// MPLS labels.
    Labels(u8),
}

/// A frame before it is written, with lengths that are right unless `lie` says otherwise.
#[derive(Clone, Debug)]
struct Recipe {
    link: Link,
    tags: Vec<u16>,
    tunnel: Tunnel,
    v6: bool,
    options: u8,
    extensions: Vec<Extension>,
    fragment: u16,
    protocol: u8,
    transport: Vec<u8>,
    /// Byte to overwrite (counted from the IP header), and with what.
    lie: Option<(u8, u8)>,
    /// Bytes to cut off at the end.
    cut: u8,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let tag = prop::sample::select(vec![0x8100, 0x88a8, 0x9100, 0x9200]);
    let tunnel = prop_oneof![
        6 => Just(Tunnel::Nothing),
        1 => (any::<bool>(), prop_oneof![3 => Just(0), 1 => -3..3_i8])
            .prop_map(|(compressed, off)| Tunnel::Session { compressed, off }),
        1 => (1..5_u8).prop_map(Tunnel::Labels),
    ];
    let size = prop_oneof![20 => 0..4_u8, 1 => 60..=255_u8];
    let extension = (prop::sample::select(vec![0, 43, 44, 51, 60, 135, 139, 140]), size);
    let extensions = prop_oneof![
        12 => prop::collection::vec(extension.clone(), 0..8),
        1 => prop::collection::vec(extension, 8..80),
    ];
    let fragment = prop_oneof![8 => Just(0), 2 => (0..16_u32).prop_map(|bit| 1 << bit), 1 => any::<u16>()];
    let protocol = prop_oneof![8 => prop::sample::select(vec![1, 6, 17, 58, 132]), 1 => any::<u8>()];
    let lie = prop::option::weighted(0.3, (0..60_u8, any::<u8>()));
    let cut = prop_oneof![3 => Just(0), 1 => 0..80_u8];
    let ip = (any::<bool>(), 0..=10_u8, extensions, fragment, protocol);
    let link = prop::sample::select(vec![Link::Ethernet, Link::Ip]);
    let around = (link, prop::collection::vec(tag, 0..4), tunnel, lie, cut, transport());
    (ip, around).prop_map(
        |((v6, options, extensions, fragment, protocol), (link, tags, tunnel, lie, cut, transport))| Recipe {
            link,
            tags,
            tunnel,
            v6,
            options,
            extensions,
            fragment,
            protocol,
            transport,
            lie,
            cut,
        },
    )
}

/// A transport header that fits TCP and UDP alike more often than chance would have it, with a length
/// of UDP's and an offset of TCP's data that are off by a little otherwise.
fn transport() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![4 => Just(None), 1 => (0..80_u16).prop_map(Some)];
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    (bytes, any::<bool>(), length, 4..=7_u8).prop_map(|(mut bytes, dns, length, offset)| {
        let length = length.unwrap_or(bytes.len() as u16);
        if bytes.len() >= 20 {
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes[12] = offset << 4;
        }
        if dns && bytes.len() >= 2 {
            bytes[..2].copy_from_slice(&53_u16.to_be_bytes());
        }
        bytes
    })
}

fn frame(recipe: &Recipe) -> Vec<u8> {
    let mut frame = Vec::new();
    if recipe.link == Link::Ethernet {
        frame.extend([0x02; 12]);
        for tag in &recipe.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        match recipe.tunnel {
            Tunnel::Nothing => frame.extend(if recipe.v6 { [0x86, 0xdd] } else { [0x08, 0x00] }),
            Tunnel::Session { compressed, .. } => {
                frame.extend([0x88, 0x64, 0x11, 0, 0, 9, 0, 0]);
                if !compressed {
                    frame.push(0);
                }
                frame.push(if recipe.v6 { 0x57 } else { 0x21 });
            }
            Tunnel::Labels(labels) => {
                frame.extend([0x88, 0x47]);
                for label in 1..=labels {
                    frame.extend([0, label, u8::from(label == labels), 64]);
                }
            }
        }
    }
    let ip = frame.len();
    if recipe.v6 {
        let mut extensions = Vec::new();
        for (at, (kind, size)) in recipe.extensions.iter().enumerate() {
            let next = recipe.extensions.get(at + 1).map_or(recipe.protocol, |(kind, _)| *kind);
            match kind {
                44 => {
                    extensions.extend([next, 0]);
                    extensions.extend(recipe.fragment.to_be_bytes());
                    extensions.extend([0; 4]);
                }
                // Units of 4 bytes, not counting the first two.
                51 => {
                    let size = size % 64;
                    extensions.extend([next, 2 * size + 2]);
                    extensions.extend(vec![0; 8 * (usize::from(size) + 2) - 2]);
                }
                _ => {
                    extensions.extend([next, *size]);
                    extensions.extend(vec![0; 8 * (usize::from(*size) + 1) - 2]);
                }
            }
        }
        let length = (extensions.len() + recipe.transport.len()) as u16;
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([recipe.extensions.first().map_or(recipe.protocol, |(kind, _)| *kind), 64]);
        frame.extend((0..32).map(|byte| 0x20 + byte));
        frame.extend(extensions);
    } else {
        let header = 20 + 4 * usize::from(recipe.options);
        let length = (header + recipe.transport.len()) as u16;
        frame.extend([0x40 + (header / 4) as u8, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0xd4, 0x31]);
        frame.extend(recipe.fragment.to_be_bytes());
        frame.extend([64, recipe.protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
        frame.extend(vec![1; header - 20]);
    }
    frame.extend(&recipe.transport);
    if recipe.link == Link::Ethernet
        && let Tunnel::Session { compressed, off } = recipe.tunnel
    {
        let ppp = ip - if compressed { 1 } else { 2 };
        let length = (frame.len() - ppp) as u16;
        frame[ppp - 2..ppp].copy_from_slice(&length.wrapping_add_signed(off.into()).to_be_bytes());
    }
    if let Some((at, byte)) = recipe.lie
        && let Some(place) = frame.get_mut(ip + usize::from(at))
    {
        *place = byte;
    }
    frame.truncate(frame.len().saturating_sub(usize::from(recipe.cut)));
    frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_keep_every_property(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes, Link::Ethernet);
        check(&bytes, Link::Ip);
    }

    #[test]
    fn near_valid_frames_keep_every_property(recipe in recipe()) {
        check(&frame(&recipe), recipe.link);
    }
}

#[test]
fn the_frames_above_reach_every_outcome() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut outcomes = [0; 3];
    for _ in 0..5_000 {
        let recipe = recipe().new_tree(&mut runner).unwrap().current();
        outcomes[match check(&frame(&recipe), recipe.link) {
            Checked::Refused => 0,
            Checked::Alone => 1,
            Checked::Agreed => 2,
        }] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 250), "refused, alone, agreed: {outcomes:?}");
}
