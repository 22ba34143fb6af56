//! What an interface sends, seen by a filter of its clsact queueing discipline: the way before TCX
//! (Linux 6.6).
//!
//! A filter needs no descriptor and no pin to stay when its process ends. The next daemon replaces it in
//! place, so that nothing that is sent meanwhile goes unseen.

use super::interface::Interface;
use super::netlink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use std::io;

/// Of a queueing discipline's two blocks of filters, by the handle of their parent
/// (`TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS` of `linux/pkt_sched.h`).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// The discipline's own handle, and its parent's (`TC_H_CLSACT`).
const HANDLE: u32 = 0xffff_0000;
const PARENT: u32 = 0xffff_fff1;

/// The discipline's name.
const CLSACT: &str = "clsact";

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    /// Priority in the upper half, protocol in the lower (network byte order).
    info: u32,
    handle: u32,
    /// Of a BPF filter, its program's.
    name: Option<String>,
}

impl Filter {
    fn is_ours(&self) -> bool {
        self.name.as_deref().is_some_and(|name| super::program_names::EGRESS.contains(&name))
    }
}

fn message(index: u32, parent: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = parent.into();
    message
}

/// The filters of an interface in one block; none when it has no clsact.
fn filters(index: u32, block: u32) -> io::Result<Vec<Filter>> {
    let mut filters = Vec::new();
    let request = RouteNetlinkMessage::GetTrafficFilter(message(index, block));
    netlink::dump(NETLINK_ROUTE, request, |answer| {
        // Of each priority there is a message without a filter, too.
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer
            && u32::from(filter.header.handle) != 0
        {
            filters.push(Filter {
                info: filter.header.info,
                handle: filter.header.handle.into(),
                name: name(&filter.attributes),
            });
        }
    })?;
    Ok(filters)
}

fn name(attributes: &[TcAttribute]) -> Option<String> {
    let options = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    })
}

/// Whether our filter is there.
pub(super) fn is_attached(index: u32) -> bool {
    filters(index, EGRESS).is_ok_and(|filters| filters.iter().any(Filter::is_ours))
}

/// Attaches `program` to what `interface` sends, in place of what an earlier daemon left there; returns
/// whether the interface had no clsact before.
///
/// # Errors
///
/// What the kernel says, ENOENT where clsact is not built in; and when another discipline has its place.
pub(super) fn attach(program: &mut SchedClassifier, interface: &Interface) -> Result<bool, ProgramError> {
    let is_new = add_discipline(interface.index).map_err(TcError::IoError)?;
    let link = match ours(interface) {
        Ok(Some(link)) => program.attach_to_link(link),
        Ok(None) => {
            let options = TcAttachOptions::Netlink(NlOptions::default());
            program.attach_with_options(&interface.name, TcAttachType::Egress, options)
        }
        Err(error) => Err(TcError::IoError(error).into()),
    };
    match link {
        Ok(id) => {
            // Dropped, it would detach.
            std::mem::forget(program.take_link(id)?);
            Ok(is_new)
        }
        Err(error) => {
            if is_new {
                // The first error is the one to tell.
                let _ = remove_discipline(interface.index);
            }
            Err(error)
        }
    }
}

/// The filter that an earlier daemon left.
fn ours(interface: &Interface) -> io::Result<Option<SchedClassifierLink>> {
    let filters = filters(interface.index, EGRESS)?;
    let link = filters.iter().find(|filter| filter.is_ours()).map(|filter| {
        let (priority, handle) = ((filter.info >> 16) as u16, TcHandle::from(filter.handle));
        SchedClassifierLink::attached(&interface.name, TcAttachType::Egress, priority, handle, None)
    });
    link.transpose()
}

/// Removes our filters, and with `also_discipline` the clsact too, unless someone else has filters
/// there by now.
///
/// # Errors
///
/// What netlink returns; that there was nothing to remove is none.
pub(super) fn detach(index: u32, also_discipline: bool) -> io::Result<()> {
    for filter in filters(index, EGRESS)?.iter().filter(|filter| filter.is_ours()) {
        let mut message = message(index, EGRESS);
        message.header.handle = filter.handle.into();
        message.header.info = filter.info;
        netlink::order(NETLINK_ROUTE, RouteNetlinkMessage::DelTrafficFilter(message))?;
    }
    if also_discipline && filters(index, EGRESS)?.is_empty() && filters(index, INGRESS)?.is_empty() {
        remove_discipline(index)?;
    }
    Ok(())
}

/// Gives the interface a clsact; `false` when it has one.
fn add_discipline(index: u32) -> io::Result<bool> {
    let mut message = message(index, PARENT);
    message.header.handle = HANDLE.into();
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    match netlink::create(NETLINK_ROUTE, RouteNetlinkMessage::NewQueueDiscipline(message)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => match discipline(index)? {
            Some(kind) if kind == CLSACT => Ok(false),
            // The kernel would take the filter, and run it on what arrives.
            other => Err(io::Error::other(format!(
                "the queueing discipline {} has the place of clsact",
                other.as_deref().unwrap_or("of another kind")
            ))),
        },
        Err(error) => Err(error),
    }
}

/// What the interface has in the place of clsact.
fn discipline(index: u32) -> io::Result<Option<String>> {
    let mut kind = None;
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index as i32));
    netlink::dump(NETLINK_ROUTE, request, |answer| {
        if let RouteNetlinkMessage::NewQueueDiscipline(found) = answer
            && (found.header.index as u32, u32::from(found.header.parent)) == (index, PARENT)
        {
            kind = found.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            });
        }
    })?;
    Ok(kind)
}

fn remove_discipline(index: u32) -> io::Result<()> {
    let mut message = message(index, PARENT);
    message.header.handle = HANDLE.into();
    match netlink::order(NETLINK_ROUTE, RouteNetlinkMessage::DelQueueDiscipline(message)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        result => result,
    }
}
