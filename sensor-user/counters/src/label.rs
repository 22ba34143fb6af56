//! What the labels of a series are made of.

use crate::country::Country;
use sensor_common::{Class, Flaw, LinkProtocol, Slot, Tool, Transport};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The value of one label, or of two that are always together.
pub trait Label: Sized {
    /// Calls `visit` with the value of each label, in order.
    fn values(&self, visit: &mut dyn FnMut(&str));

    /// Reads back what [`Label::values`] gave; `None` when it names nothing.
    fn parse(values: &mut Values<'_>) -> Option<Self>;

    /// Values that are known before anything is counted: their series always exist.
    fn fixed() -> Vec<Self> {
        Vec::new()
    }
}

/// Label values to be read, in order.
pub type Values<'a> = std::vec::IntoIter<Cow<'a, str>>;

/// Adds a label value to a text of several: joined by `,`, with `\` before each `,` and `\` within a value.
/// [`Counter::parse`](crate::Counter::parse) reads it back.
pub fn join(out: &mut String, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    for c in value.chars() {
        if matches!(c, ',' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// The label values in a text that [`join`] wrote.
pub(crate) fn split(text: &str) -> Values<'_> {
    let mut values = Vec::new();
    if text.is_empty() {
        return values.into_iter();
    }
    if !text.contains('\\') {
        values.extend(text.split(',').map(Cow::Borrowed));
        return values.into_iter();
    }
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            ',' => values.push(Cow::Owned(std::mem::take(&mut value))),
            c => value.push(c),
        }
    }
    values.push(Cow::Owned(value));
    values.into_iter()
}

/// The `transport` and `port` labels where only some ports have series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortLabel {
    /// A port with a series of its own.
    Own(Slot),
    /// All other ports of this transport: `port="other"`.
    Rest(Transport),
}

impl Label for PortLabel {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            Self::Own(slot) => slot.values(visit),
            Self::Rest(transport) => {
                visit(transport.name());
                visit("other");
            }
        }
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let transport = Transport::from_name(&values.next()?)?;
        let port = values.next()?;
        if port == "other" {
            return Some(Self::Rest(transport));
        }
        let port: u16 = port.parse().ok()?;
        (u32::from(port) < transport.ports()).then(|| Self::Own(Slot::new(transport, port)))
    }
}

impl Label for Slot {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.transport().name());
        visit(&self.port().to_string());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        match PortLabel::parse(values)? {
            PortLabel::Own(slot) => Some(slot),
            PortLabel::Rest(_) => None,
        }
    }
}

impl Label for Country {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.label());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        Self::from_label(&values.next()?)
    }
}

/// A name from the configuration.
impl Label for String {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self);
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        values.next().map(Cow::into_owned)
    }
}

/// An hour of the local day, `00` to `23`.
impl Label for u8 {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(&format!("{self:02}"));
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        values.next()?.parse().ok().filter(|hour| *hour < 24)
    }
}

impl Label for Class {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.name());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let value = values.next()?;
        Self::ALL.into_iter().find(|class| class.name() == value)
    }

    fn fixed() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

impl Label for Tool {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.name());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let value = values.next()?;
        Self::ALL.into_iter().find(|tool| tool.name() == value)
    }

    fn fixed() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

impl Label for Flaw {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.name());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let value = values.next()?;
        Self::ALL.into_iter().find(|flaw| flaw.name() == value)
    }

    fn fixed() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

/// What became of a packet whose content was looked at, as the `result` label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SampleResult {
    /// Its content is kept since.
    Kept,
    /// Its content was kept already.
    Known,
    /// Its content is not kept: a bound was reached before.
    OverBudget,
}

impl SampleResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kept, Self::Known, Self::OverBudget];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Known => "known",
            Self::OverBudget => "over_budget",
        }
    }
}

impl Label for SampleResult {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(self.name());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let value = values.next()?;
        Self::ALL.into_iter().find(|result| result.name() == value)
    }

    fn fixed() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

/// An autonomous system. Its number alone tells it from others: a name may change.
#[derive(Clone, Debug)]
pub struct AutonomousSystem {
    /// Its number, not 0.
    pub number: u32,
    /// Its name, not empty.
    pub name: Arc<str>,
}

impl PartialEq for AutonomousSystem {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for AutonomousSystem {}

impl PartialOrd for AutonomousSystem {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AutonomousSystem {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Hash for AutonomousSystem {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// The `asn` and `name` labels. A series has one name for its life, so a network that changes its name has
/// one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkLabel {
    /// A network with a series of its own.
    Own(AutonomousSystem),
    /// All other networks: `asn="other"`.
    Rest,
    /// Sources of no network, or of which no database tells: `asn="none"`.
    Nowhere,
}

impl NetworkLabel {
    const REST: &str = "other";
    const NOWHERE: &str = "none";

    /// The `asn` label's value.
    pub fn asn(&self) -> String {
        match self {
            Self::Own(network) => network.number.to_string(),
            Self::Rest => Self::REST.to_owned(),
            Self::Nowhere => Self::NOWHERE.to_owned(),
        }
    }

    /// The `name` label's value.
    pub fn name(&self) -> &str {
        match self {
            Self::Own(network) => &network.name,
            Self::Rest => Self::REST,
            Self::Nowhere => Self::NOWHERE,
        }
    }
}

impl Label for NetworkLabel {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(&self.asn());
        visit(self.name());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let (asn, name) = (values.next()?, values.next()?);
        match (asn.as_ref(), name.as_ref()) {
            (Self::REST, Self::REST) => Some(Self::Rest),
            (Self::NOWHERE, Self::NOWHERE) => Some(Self::Nowhere),
            (asn, name) => {
                let number = asn.parse().ok().filter(|number| *number != 0 && !name.is_empty())?;
                Some(Self::Own(AutonomousSystem { number, name: name.into() }))
            }
        }
    }
}

/// What a frame holds that is not IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unread {
    /// This.
    Kind(LinkProtocol),
    /// A kind that came when there were [`Unread::MAX`] already, or so many others at once that the
    /// program had no place for it.
    Rest,
}

impl Unread {
    /// Kinds with a series of their own: a remote host on the same line can send frames of any kind,
    /// and a series stays.
    pub const MAX: usize = 48;
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(protocol) => protocol.fmt(f),
            Self::Rest => f.write_str("other"),
        }
    }
}

impl Label for Unread {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        visit(&self.to_string());
    }

    fn parse(values: &mut Values<'_>) -> Option<Self> {
        let value = values.next()?;
        if value == "other" {
            return Some(Self::Rest);
        }
        LinkProtocol::from_label(&value).map(Self::Kind)
    }

    fn fixed() -> Vec<Self> {
        vec![Self::Rest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_values_are_split_as_they_were(values in prop::collection::vec("[a,\\\\ ]{1,5}", 1..4)) {
            let mut text = String::new();
            for value in &values {
                join(&mut text, value);
            }
            prop_assert_eq!(split(&text).collect::<Vec<_>>(), values);
        }
    }
}
