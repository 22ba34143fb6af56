//! What is in a lab's ledger, as `teiten ledger` prints it.

use super::{assert_same, by_port, ledger};
use lab::sensor::Lab;
use lab::traffic::{Class, Expectation};
use std::collections::BTreeMap;

/// Every port's accesses and sources, the hosts, and every identity, over all days together.
pub(crate) fn assert_ledger(lab: &Lab, expected: &Expectation) {
    let verified = ledger(lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");
    let csv = ledger(lab, &["export", "--format", "csv"]);
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let (kind, transport, port) = (at("kind"), at("transport"), at("port"));
    let (accesses, sources, value) = (at("accesses"), at("sources"), at("value"));
    let (mut by_accesses, mut by_sources, mut hosts) = (BTreeMap::new(), BTreeMap::new(), 0);
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        match fields[kind] {
            "port" => {
                let key = [fields[transport].to_owned(), fields[port].to_owned()];
                *by_accesses.entry(key.clone()).or_default() += number(accesses);
                *by_sources.entry(key).or_default() += number(sources);
            }
            "hosts" => hosts += number(value),
            _ => {}
        }
    }
    assert_eq!(by_accesses.values().sum::<u64>(), expected.packets(Class::Access));
    assert_same("accesses in the ledger", by_accesses, by_port(&expected.accesses));
    assert_same("sources in the ledger", by_sources, by_port(&expected.sources_by_port()));
    assert_eq!(hosts, expected.hosts.len() as u64, "hosts in the ledger");
}
