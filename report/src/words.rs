//! The two languages, and how both write numbers, periods, ports and regions.

use crate::period::{Period, Unit};
use jiff::civil::Date;
use sensor_common::{Slot, Transport};
use sensor_counters::{Country, PortLabel};
use sensor_user::format;

pub(crate) use sensor_user::format::thousands as number;

/// The language of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    /// English
    En,
    /// Japanese
    Ja,
}

impl Lang {
    /// The text in this language.
    pub(crate) fn t<'a>(self, en: &'a str, ja: &'a str) -> &'a str {
        match self {
            Self::En => en,
            Self::Ja => ja,
        }
    }

    /// Its code.
    pub(crate) fn code(self) -> &'static str {
        self.t("en", "ja")
    }

    /// What follows a sentence before the next one.
    pub(crate) fn gap(self) -> &'static str {
        self.t(" ", "")
    }

    /// Several names as one text.
    pub(crate) fn list(self, names: &[String]) -> String {
        match (self, names) {
            (Self::Ja, _) => names.join("、"),
            (Self::En, [first, last]) => format!("{first} and {last}"),
            (Self::En, [all @ .., last]) if !all.is_empty() => format!("{}, and {last}", all.join(", ")),
            (Self::En, _) => names.concat(),
        }
    }

    /// `July 2010`, `2010年7月`.
    pub(crate) fn period(self, period: Period) -> String {
        let (year, month) = (period.first.year(), period.first.month());
        let quarter = (month + 2) / 3;
        match (self, period.unit) {
            (Self::En, Unit::Month) => format!("{} {year}", MONTHS[usize::from(month.unsigned_abs()) - 1]),
            (Self::Ja, Unit::Month) => format!("{year}年{month}月"),
            (Self::En, Unit::Quarter) => format!("the quarter {year}-Q{quarter}"),
            (Self::Ja, Unit::Quarter) => format!("{year}年第{quarter}四半期"),
            (Self::En, Unit::Year) => format!("{year}"),
            (Self::Ja, Unit::Year) => format!("{year}年"),
        }
    }

    /// A period on an axis: `2010-07`, `2010年7月`.
    pub(crate) fn tick(self, period: Period) -> String {
        match self {
            Self::En => period.code(),
            Self::Ja => self.period(period),
        }
    }

    /// `9 July`, `7月9日`.
    pub(crate) fn day(self, day: Date) -> String {
        match self {
            Self::En => format!("{} {}", day.day(), MONTHS[usize::from(day.month().unsigned_abs()) - 1]),
            Self::Ja => format!("{}月{}日", day.month(), day.day()),
        }
    }

    /// `2 to 9 July`, `7月2日～9日`; one day alone is that day.
    pub(crate) fn days(self, first: Date, last: Date) -> String {
        let same = first.first_of_month() == last.first_of_month();
        match self {
            _ if first == last => self.day(first),
            Self::En if same => format!("{} to {}", first.day(), self.day(last)),
            Self::En => format!("{} to {}", self.day(first), self.day(last)),
            Self::Ja if same => format!("{}～{}日", self.day(first), last.day()),
            Self::Ja => format!("{}～{}", self.day(first), self.day(last)),
        }
    }

    /// A region by its name.
    pub(crate) fn country(self, country: Country) -> String {
        country.names().map_or_else(|| country.label().to_owned(), |(en, ja)| self.t(en, ja).to_owned())
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A text in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    en: String,
    ja: String,
}

impl Text {
    pub(crate) fn new(en: impl Into<String>, ja: impl Into<String>) -> Self {
        Self { en: en.into(), ja: ja.into() }
    }

    pub(crate) fn of(&self, lang: Lang) -> &str {
        lang.t(&self.en, &self.ja)
    }
}

/// A port as charts and tables name it.
pub(crate) fn port(label: PortLabel) -> String {
    match label {
        PortLabel::Own(slot) => slot_name(slot),
        PortLabel::Rest(transport) => format!("other/{}", transport.name()),
    }
}

/// `445/tcp`, `Ping (ICMP)`, `ICMP 13`.
pub(crate) fn slot_name(slot: Slot) -> String {
    match (slot.transport(), slot.port()) {
        (Transport::Icmp, 8) => "Ping (ICMP)".to_owned(),
        (Transport::Icmpv6, 128) => "Ping (ICMPv6)".to_owned(),
        (Transport::Icmp, kind) => format!("ICMP {kind}"),
        (Transport::Icmpv6, kind) => format!("ICMPv6 {kind}"),
        (Transport::Other, number) => format!("IP {number}"),
        _ => slot.to_string(),
    }
}

/// Part of a whole in whole percent, rounded half up; `None` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<u64> {
    (whole > 0).then(|| format::percent(part, whole))
}

/// A quotient, rounded half up; `None` of nothing.
pub(crate) fn quotient(value: u64, by: u64, scale: u64) -> Option<u64> {
    let (value, by) = (u128::from(value) * u128::from(scale), u128::from(by));
    (by > 0).then(|| u64::try_from((2 * value + by) / (2 * by)).unwrap_or(u64::MAX))
}

/// A quotient with one decimal, rounded half up.
pub(crate) fn decimal(value: u64, by: u64) -> Option<String> {
    quotient(value, by, 10).map(|tenths| format!("{}.{}", number(tenths / 10), tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn percents_are_rounded_half_up() {
        assert_eq!(percent(1, 200), Some(1));
        assert_eq!(percent(1, 201), Some(0));
        assert_eq!(percent(u64::MAX, u64::MAX), Some(100));
        assert_eq!(percent(0, 0), None);
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [0, 999, 1_000, 543_415, 1_234_567].map(number),
            ["0", "999", "1,000", "543,415", "1,234,567"]
        );
        assert_eq!(decimal(543_415, 121_200).as_deref(), Some("4.5"));
        assert_eq!(decimal(19, 20).as_deref(), Some("1.0"));
    }

    #[test]
    fn days_are_written_shortly() {
        let (a, b, c) = (date(2010, 7, 2), date(2010, 7, 9), date(2010, 8, 1));
        assert_eq!(Lang::En.days(a, b), "2 to 9 July");
        assert_eq!(Lang::Ja.days(a, b), "7月2日～9日");
        assert_eq!(Lang::En.days(b, c), "9 July to 1 August");
        assert_eq!(Lang::En.days(a, a), "2 July");
    }

    #[test]
    fn lists_read_as_sentences() {
        let names = |n: usize| (0..n).map(|i| format!("s{i}")).collect::<Vec<_>>();
        assert_eq!([1, 2, 3].map(|n| Lang::En.list(&names(n))), ["s0", "s0 and s1", "s0, s1, and s2"]);
        assert_eq!(Lang::Ja.list(&names(2)), "s0、s1");
    }
}
