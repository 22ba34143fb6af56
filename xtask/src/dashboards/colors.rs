//! Colours that a port or a region keeps in every chart. What has none gets one by its place in the chart.

use serde_json::{Value, json};

use super::panels::by_name;

/// Of what is summed up as "other".
const OTHER: &str = "#7f7f7f";

/// Ports as they are named in charts.
const PORTS: &[(&str, &str)] = &[
    ("445/tcp", "#1f77b4"),
    ("135/tcp", "#e67808"),
    ("139/tcp", "#aec7e8"),
    ("1433/tcp", "#d62728"),
    ("Ping (ICMP)", "#8c564b"),
    ("22/tcp", "#2ca02c"),
    ("23/tcp", "#9467bd"),
    ("80/tcp", "#17becf"),
    ("443/tcp", "#9edae5"),
    ("8080/tcp", "#98df8a"),
    ("3389/tcp", "#e377c2"),
    ("5060/udp", "#bcbd22"),
    ("27649/udp", "#ff9896"),
    ("9415/tcp", "#f7b6d2"),
    ("1026/udp", "#ffbb78"),
    ("1027/udp", "#dbdb8d"),
    ("1028/udp", "#c49c94"),
    ("1030/udp", "#e7ba52"),
    ("137/udp", "#c5b0d5"),
    ("6379/tcp", "#393b79"),
    ("5900/tcp", "#637939"),
    ("53/udp", "#8c6d31"),
    ("123/udp", "#843c39"),
    ("2323/tcp", "#7b4173"),
];

/// Regions by their code.
const REGIONS: &[(&str, &str)] = &[
    ("CN", "#d62728"),
    ("US", "#1f77b4"),
    ("JP", "#e67808"),
    ("KR", "#2ca02c"),
    ("TW", "#9467bd"),
    ("RU", "#8c564b"),
    ("BR", "#98df8a"),
    ("DE", "#e377c2"),
    ("FR", "#17becf"),
    ("IN", "#bcbd22"),
    ("GB", "#aec7e8"),
    ("NL", "#ffbb78"),
    ("VN", "#ff9896"),
    ("HK", "#c5b0d5"),
    ("IT", "#dbdb8d"),
    ("TH", "#c49c94"),
    ("UA", "#9edae5"),
    ("ID", "#f7b6d2"),
    ("SG", "#e7ba52"),
    ("unknown", "#c7c7c7"),
];

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

/// The colour of a region.
pub(super) fn region(code: &str) -> Option<Value> {
    REGIONS.iter().find(|(known, _)| *known == code).map(|(_, color)| fixed(color))
}

/// The override for the sum of the others.
pub(super) fn other(name: &str) -> Value {
    by_name(name, &[("color", fixed(OTHER))])
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
