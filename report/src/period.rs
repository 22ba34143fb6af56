//! The months, quarters and years that a report is of.

use anyhow::{Context as _, Result};
use jiff::ToSpan as _;
use jiff::civil::Date;
use std::ops::RangeInclusive;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Month,
    Quarter,
    Year,
}

impl Unit {
    fn months(self) -> i32 {
        match self {
            Self::Month => 1,
            Self::Quarter => 3,
            Self::Year => 12,
        }
    }
}

/// A calendar month, quarter or year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) unit: Unit,
    /// Its first day.
    pub(crate) first: Date,
}

const DAY: &str = "a day is written as in 2010-07-09, of a year from 0100 to 9998";
const MONTH: &str = "a month is written as in 2010-07, of a year from 0100 to 9998";
const QUARTER: &str = "a quarter is written as in 2010-Q3, of a year from 0100 to 9998";
const YEAR: &str = "a year is written as in 2010, from 0100 to 9998";

/// A year of four digits that every calculation with days around it is possible in.
fn year(text: &str) -> Option<i16> {
    let is_year = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|year| is_year && (100..=9998).contains(year))
}

/// A number of nothing but digits.
fn digits(text: &str) -> Option<i8> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A day, `2010-07-09`, in a year from 0100 to 9998.
pub(crate) fn day(text: &str) -> Result<Date> {
    let day: Option<Date> = text.parse().ok();
    let day = day.filter(|_| text.len() == 10 && text.get(..4).is_some_and(|text| year(text).is_some()));
    day.context(DAY)
}

impl Period {
    /// `2010-07`.
    pub(crate) fn month(text: &str) -> Result<Self> {
        let parts = text
            .split_once('-')
            .and_then(|(year, month)| (month.len() == 2).then_some((self::year(year)?, digits(month)?)));
        let first = parts.and_then(|(year, month)| Date::new(year, month, 1).ok());
        Ok(Self { unit: Unit::Month, first: first.context(MONTH)? })
    }

    /// `2010-Q3`.
    pub(crate) fn quarter(text: &str) -> Result<Self> {
        let parts = text
            .split_once("-Q")
            .and_then(|(year, quarter)| (quarter.len() == 1).then_some((self::year(year)?, digits(quarter)?)))
            .filter(|(_, quarter)| (1..=4).contains(quarter));
        let (year, quarter) = parts.context(QUARTER)?;
        let first = Date::new(year, quarter * 3 - 2, 1).context(QUARTER)?;
        Ok(Self { unit: Unit::Quarter, first })
    }

    /// `2010`.
    pub(crate) fn year(text: &str) -> Result<Self> {
        let first = year(text).and_then(|year| Date::new(year, 1, 1).ok());
        Ok(Self { unit: Unit::Year, first: first.context(YEAR)? })
    }

    /// Its last day.
    pub(crate) fn last(self) -> Date {
        self.after(1).first - 1.day()
    }

    /// The period so many later.
    fn after(self, count: i32) -> Self {
        Self { first: self.first + (self.unit.months() * count).months(), ..self }
    }

    /// The period so many earlier.
    pub(crate) fn before(self, count: i32) -> Self {
        self.after(-count)
    }

    /// Its days.
    pub(crate) fn days(self) -> RangeInclusive<Date> {
        self.first..=self.last()
    }

    /// `2010-07`, `2010-Q3`, `2010`.
    pub(crate) fn code(self) -> String {
        let year = self.first.year();
        match self.unit {
            Unit::Month => format!("{year:04}-{:02}", self.first.month()),
            Unit::Quarter => format!("{year:04}-Q{}", (self.first.month() + 2) / 3),
            Unit::Year => format!("{year:04}"),
        }
    }
}

/// Every day of a range.
pub(crate) fn each_day(days: &RangeInclusive<Date>) -> impl Iterator<Item = Date> {
    let end = *days.end();
    days.start().series(1.day()).take_while(move |day| *day <= end)
}

/// A range of days in pieces that lie in one calendar month each.
pub(crate) fn by_month(days: &RangeInclusive<Date>) -> Vec<RangeInclusive<Date>> {
    let mut pieces = Vec::new();
    let mut first = *days.start();
    while first <= *days.end() {
        let last = first.last_of_month().min(*days.end());
        pieces.push(first..=last);
        first = last + 1.day();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn periods_are_read_as_they_are_written_and_end_with_their_last_day() {
        for (period, code, last) in [
            (Period::month("2010-07"), "2010-07", date(2010, 7, 31)),
            (Period::month("2024-02"), "2024-02", date(2024, 2, 29)),
            (Period::quarter("2010-Q3"), "2010-Q3", date(2010, 9, 30)),
            (Period::year("2010"), "2010", date(2010, 12, 31)),
        ] {
            let period = period.unwrap();
            assert_eq!((period.code().as_str(), period.last()), (code, last));
        }
        for wrong in ["2010-13", "2010-7", "10-07", "July", "2010-07-01", ""] {
            assert!(Period::month(wrong).is_err(), "{wrong}");
        }
        assert!(Period::quarter("2010-Q5").is_err());
        assert!(Period::quarter("2010-3").is_err());
        assert!(Period::year("210").is_err());
        assert!(day("2010-07-09").is_ok_and(|day| day == date(2010, 7, 9)));
        for wrong in
            ["2010-07", "2010-02-30", "2010-07-09T00:00", "9999-01-01", "-009999-01-01", "0001-01-01"]
        {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn years_without_room_around_them_are_refused_and_the_others_have_all_their_days() {
        for year in ["9999", "0000", "-999", "+999", "0099"] {
            assert!(Period::year(year).is_err(), "{year}");
            assert!(Period::month(&format!("{year}-12")).is_err(), "{year}");
            assert!(Period::quarter(&format!("{year}-Q4")).is_err(), "{year}");
        }
        for year in ["9998", "0100"] {
            let period = Period::year(year).unwrap();
            assert_eq!(by_month(&period.days()).len(), 12);
            assert_eq!(period.before(5).first.month(), 1);
        }
    }

    #[test]
    fn the_period_before_january_is_in_the_year_before() {
        let codes = |period: Period| [1, 5].map(|count| period.before(count).code());
        assert_eq!(codes(Period::month("2026-01").unwrap()), ["2025-12", "2025-08"]);
        assert_eq!(codes(Period::quarter("2026-Q1").unwrap()), ["2025-Q4", "2024-Q4"]);
        assert_eq!(codes(Period::year("2026").unwrap()), ["2025", "2021"]);
    }

    #[test]
    fn pieces_of_a_range_are_months() {
        let pieces = by_month(&(date(2010, 5, 20)..=date(2010, 7, 3)));
        assert_eq!(
            pieces,
            [
                date(2010, 5, 20)..=date(2010, 5, 31),
                date(2010, 6, 1)..=date(2010, 6, 30),
                date(2010, 7, 1)..=date(2010, 7, 3)
            ]
        );
    }
}
