//! Countries as the `country` label names them.

use std::fmt;

/// The region of a source: an ISO 3166-1 alpha-2 code, or one of two words of our own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// The database does not know the address.
    pub const UNKNOWN: Self = Self([0, 0]);
    /// The address cannot come from the Internet (private, loopback, link-local, documentation …).
    pub const PRIVATE: Self = Self([0, 1]);

    /// The country with this ISO 3166-1 alpha-2 code, in either case; `None` when it is not two
    /// letters, or one of the two regions (Asia/Pacific, Europe) for which databases use such a code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::from_letters(code).filter(|country| !matches!(&country.0, b"AP" | b"EU"))
    }

    fn from_letters(code: &str) -> Option<Self> {
        match *code.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The country that a label names: a code, `unknown` or `private`.
    pub fn from_label(label: &str) -> Option<Self> {
        match label {
            "unknown" => Some(Self::UNKNOWN),
            "private" => Some(Self::PRIVATE),
            // Whatever a database named before is still read.
            code => Self::from_letters(code),
        }
    }

    /// A number below [`Country::INDEXES`] that differs for each country.
    pub const fn index(self) -> usize {
        // Letters and numbers are below 128.
        (self.0[0] as usize) << 7 | self.0[1] as usize
    }

    /// How many indexes there are.
    pub const INDEXES: usize = 1 << 14;

    /// The label's value.
    pub fn label(&self) -> &str {
        match *self {
            Self::UNKNOWN => "unknown",
            Self::PRIVATE => "private",
            _ => std::str::from_utf8(&self.0).expect("made from ASCII letters"),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_read_back_as_written() {
        for label in ["JP", "US", "unknown", "private"] {
            assert_eq!(Country::from_label(label).unwrap().label(), label);
        }
        assert_eq!(Country::from_code("jp").unwrap().label(), "JP");
        assert_eq!(Country::from_code("J1"), None);
        assert_eq!(Country::from_code("AP"), None);
        assert_eq!(Country::from_code("eu"), None);
        assert_eq!(Country::from_label(""), None);
    }
}
