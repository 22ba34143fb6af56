//! What people and programs are shown of the counters: one model of rows, and its forms.
//!
//! As JSON, fields may be added; none is renamed or changes its meaning.

pub(crate) mod html;
mod note;
mod report;
mod rows;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use note::Note;
pub use report::{Report, render_report};
pub use rows::{
    BackscatterRow, BandRow, ClassRow, CountryRow, Counts, GroupRow, ListRow, MalformedRow, NetworkRow,
    PortCountryRow, PortHourRow, PortListRow, PortName, PortRow, ToolRow, UnreadRow,
};
pub use status::{
    ArchiveStatus, ArchiveWorks, DayClassRow, DayStatus, Identity, Inputs, Loss, Monitored,
    ObservedInterface, Status,
};
pub use text::render;
