//! Traffic of which it is known, from how it was made, what a sensor must count.

mod expectation;
pub mod messenger;
mod mix;
pub mod packet;
mod places;
mod radiation;
mod send;
mod site;

pub use expectation::{Class, Expectation, Meaning, Port, Tool, Transport, Volume};
pub use mix::{Duplex, Flaw, Kind, Mix, Round, Sample};
pub use packet::{
    Extension, Fragment, Frames, Ip, Tag, Tcp, ethernet, ethertype, flag, icmp, protocol, sctp, udp,
};
pub use places::countries;
pub use radiation::{Event, Plan, Radiation};
pub use send::{Carry, SendError, Sender, TunSender};
pub use site::{Link, Site, Tagging};
