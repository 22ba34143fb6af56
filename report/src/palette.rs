//! What a port or a region looks like in every chart, of this month and of any other.
//!
//! Colour is never the only mark: each has a texture too, and a chart's legend is in the order of its parts.

use sensor_counters::{Country, PortLabel};

include!("palette/named.rs");

/// Colours of ports and regions that have none by name.
const UNNAMED: [&str; 12] = [
    "#4e79a7", "#f28e2b", "#b07aa1", "#59a14f", "#9c755f", "#76b7b2", "#edc948", "#af4b6c", "#6b6ecf",
    "#8ca252", "#c6a7e2", "#d98c5f",
];

/// A colour with a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Style {
    pub(crate) color: &'static str,
    pub(crate) texture: Texture,
}

/// What is drawn over a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Texture {
    Plain,
    Rising,
    Dots,
    Falling,
}

const TEXTURES: [Texture; 4] = [Texture::Plain, Texture::Rising, Texture::Dots, Texture::Falling];

impl Style {
    /// Amounts of this period, of the one before, and a line over them.
    pub(crate) const NOW: Self = Self { color: "#1f77b4", texture: Texture::Plain };
    pub(crate) const BEFORE: Self = Self { color: "#aec7e8", texture: Texture::Rising };
    pub(crate) const LINE: Self = Self { color: "#d62728", texture: Texture::Plain };
    pub(crate) const OTHERS: Self = Self { color: OTHER, texture: Texture::Plain };

    pub(crate) fn port(label: PortLabel) -> Self {
        let name = crate::words::port(label);
        Self::of(PORTS, &name)
    }

    pub(crate) fn country(country: Country) -> Self {
        Self::of(REGIONS, country.label())
    }

    fn of(named: &'static [(&str, &str)], name: &str) -> Self {
        named.iter().position(|(known, _)| *known == name).map_or_else(
            || {
                // FNV-1a: the same colour on every machine and in every month.
                let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
                let hash = (hash ^ hash >> 32) as usize;
                Self { color: UNNAMED[hash % UNNAMED.len()], texture: TEXTURES[1 + hash / UNNAMED.len() % 3] }
            },
            |at| Self { color: named[at].1, texture: TEXTURES[at % TEXTURES.len()] },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::{Slot, Transport};

    #[test]
    fn a_port_has_its_colour_and_texture_whatever_else_is_there() {
        let style = |port| Style::port(PortLabel::Own(Slot::new(Transport::Tcp, port)));
        assert_eq!(style(445).color, "#1f77b4");
        assert_eq!(style(4899), style(4899));
        assert_ne!(style(4899), style(2967));
    }

    #[test]
    fn neighbours_in_the_seeds_differ_also_in_grey() {
        let grey = |style: Style| {
            let channel = |at: usize| f64::from(u8::from_str_radix(&style.color[at..at + 2], 16).unwrap());
            0.299 * channel(1) + 0.587 * channel(3) + 0.114 * channel(5)
        };
        let ports = [445, 1433, 135, 139, 22, 23, 3389, 80, 8080];
        let styles: Vec<Style> =
            ports.iter().map(|port| Style::port(PortLabel::Own(Slot::new(Transport::Tcp, *port)))).collect();
        for pair in styles.windows(2) {
            assert!(
                pair[0].texture != pair[1].texture || (grey(pair[0]) - grey(pair[1])).abs() > 25.0,
                "{pair:?}"
            );
        }
    }
}
