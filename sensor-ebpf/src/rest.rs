//! What functions of the program leave to do for each other.

/// What is left to do with a packet, in one word, so that functions can return it: one of those below, or
/// [`Candidate::bits`](crate::candidate::Candidate::bits), which is none of them.
pub type Rest = u32;
/// Nothing.
pub const NOTHING: Rest = 0;
/// It is stored, and its class depends on a lookup among the flows.
pub const FLOWS: Rest = 1;
/// Its headers may extend beyond its first piece.
pub const PIECES: Rest = 2;
/// It is stored ([`Scratch`](crate::scratch::Scratch)), to be judged and counted.
pub const STORED: Rest = 3;
