//! How programs are attached, as labels and messages name it.

/// What generic mode does to the counts. It runs after the kernel has merged packets, and an XDP program
/// does not see how many segments a packet is made of.
pub const GENERIC_MERGES: &str = "packets that were merged (GRO, LRO) or came unsegmented over a virtual link \
                                  count as one";

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has built a packet buffer.
    Generic,
}

impl Mode {
    /// The word for it in labels and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How packets that an interface sends are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// By a TCX link (Linux 6.6).
    Tcx,
    /// By a filter of the clsact qdisc.
    Clsact,
    /// Not at all: answers to this host count as if no one had asked.
    None,
}

impl Tracking {
    /// The word for it in labels and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::None => "none",
        }
    }
}
