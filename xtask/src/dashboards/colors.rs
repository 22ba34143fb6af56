//! Colours that a port or a region keeps in every chart. What has none gets one by its place in the chart.

use serde_json::{Value, json};

use super::panels::by_name;

include!("../../../report/src/palette/named.rs");

fn fixed(color: &str) -> Value {
    json!({ "mode": "fixed", "fixedColor": color })
}

/// Overrides for charts whose series are ports and `other`.
pub(super) fn ports(other: &str) -> Vec<Value> {
    PORTS
        .iter()
        .chain(&[(other, OTHER)])
        .map(|(name, color)| by_name(name, &[("color", fixed(color))]))
        .collect()
}

/// Scanning tools: a family of tools has a family of colours.
const TOOLS: [(&str, &str); 6] = [
    ("zmap", "#1f77b4"),
    ("zmap4", "#aec7e8"),
    ("masscan", "#ff7f0e"),
    ("mirai", "#d62728"),
    ("nmap", "#2ca02c"),
    ("stateless", "#9467bd"),
];

/// Overrides for charts whose series are tools; `unknown` is the label of those without one, shown as `name`.
pub(super) fn tools(unknown: &str, name: &str) -> Vec<Value> {
    let tools = TOOLS.iter().map(|(tool, color)| by_name(tool, &[("color", fixed(color))]));
    tools.chain([other_named(unknown, name)]).collect()
}

/// The colour of a region.
pub(super) fn region(code: &str) -> Option<Value> {
    REGIONS.iter().find(|(known, _)| *known == code).map(|(_, color)| fixed(color))
}

/// The override for what no source list holds: no colour of the palette, which the lists have, is near it.
pub(super) fn unlisted(name: &str) -> Value {
    by_name(name, &[("color", fixed("#4f5b66"))])
}

/// The override for the sum of the others.
pub(super) fn other(name: &str) -> Value {
    by_name(name, &[("color", fixed(OTHER))])
}

/// The same for a label's value, which is shown as `name`.
pub(super) fn other_named(value: &str, name: &str) -> Value {
    by_name(value, &[("displayName", json!(name)), ("color", fixed(OTHER))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first colours of `palette-classic` in Grafana's light and dark theme, as many as a chart has
    /// ports: what a port without a colour of its own gets by its place.
    const PALETTES: [[&str; 11]; 2] = [
        [
            "#56A64B", "#E0B400", "#3274D9", "#FF780A", "#E02F44", "#A352CC", "#19730E", "#CC9D00",
            "#1250B0", "#E55400", "#AD0317",
        ],
        [
            "#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C", "#B877D9", "#37872D", "#E0B400",
            "#1F60C4", "#FA6400", "#C4162A",
        ],
    ];

    fn distance(a: &str, b: &str) -> f64 {
        let channel = |color: &str, at: usize| {
            f64::from(u8::from_str_radix(&color[at..at + 2], 16).expect("two hexadecimal digits"))
        };
        [1, 3, 5].map(|at| (channel(a, at) - channel(b, at)).powi(2)).iter().sum::<f64>().sqrt()
    }

    #[test]
    fn every_tool_has_a_color_of_its_own() {
        let mut known: Vec<&str> = TOOLS.iter().map(|(tool, _)| *tool).collect();
        known.push(sensor_common::Tool::Other.name());
        known.sort_unstable();
        let mut all = sensor_common::Tool::ALL.map(sensor_common::Tool::name);
        all.sort_unstable();
        assert_eq!(known, all);
        for (index, (tool, color)) in TOOLS.iter().enumerate() {
            for (other, beside) in TOOLS[index + 1..].iter().chain(&[("other", OTHER)]) {
                assert!(distance(color, beside) >= 20.0, "{tool} and {other} look alike");
            }
        }
    }

    #[test]
    fn no_two_series_of_a_chart_look_alike() {
        for palette in PALETTES {
            for own in [PORTS, REGIONS] {
                let all: Vec<&str> =
                    own.iter().map(|(_, color)| *color).chain(palette).chain([OTHER]).collect();
                for (index, a) in all.iter().enumerate() {
                    for b in &all[index + 1..] {
                        assert!(distance(a, b) >= 20.0, "{a} and {b} are {:.1} apart", distance(a, b));
                    }
                }
            }
        }
    }
}
