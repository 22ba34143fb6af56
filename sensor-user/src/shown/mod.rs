//! What people and programs are shown of the counts: one model, and its forms.

pub(crate) mod html;
mod note;
mod replay;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use note::Note;
pub use replay::{Report, render_report};
pub use status::{
    BackscatterRow, ClassRow, CountryRow, DayClassRow, DayStatus, GroupRow, Identity, Inputs, Interface,
    Loss, MalformedRow, Monitored, PortCountryRow, PortHourRow, PortRow, Status, Today, ToolRow, TotalStatus,
    UnreadRow,
};
pub use text::render;
