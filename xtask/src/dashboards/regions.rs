//! Names of regions by the value of the label `country`: the sensor's, with shorter ones for legends.

use sensor_counters::{Country, NAMES};

/// Where the usual name is shorter than the CLDR's, or says more than a chart needs.
const SHORTER: [(&str, &str, &str); 5] = [
    ("CC", "Cocos Islands", "ココス諸島"),
    ("CD", "DR Congo", "コンゴ民主共和国"),
    ("CG", "Congo", "コンゴ共和国"),
    ("MM", "Myanmar", "ミャンマー"),
    ("PS", "Palestine", "パレスチナ"),
];

/// Label, English name, Japanese name.
pub(super) fn names() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let own = [("private", Country::PRIVATE), ("unknown", Country::UNKNOWN)].map(|(label, country)| {
        let (en, ja) = country.names().expect("a name");
        (label, en, ja)
    });
    let shorter = |name: &(&str, _, _)| SHORTER.into_iter().find(|(code, ..)| *code == name.0);
    NAMES.iter().map(move |name| shorter(name).unwrap_or(*name)).chain(own)
}
