//! One request to the kernel over netlink, and what it answers.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use std::fmt::Debug;
use std::io;

/// Bytes that one read takes; the kernel sends no more at once.
const BUFFER: usize = 64 * 1024;

/// Asks for a list over `protocol` (`NETLINK_…`) and calls `visit` with each of its messages.
///
/// # Errors
///
/// What netlink returns. Messages of which the crates do not know something are left out.
pub(super) fn dump<M>(protocol: isize, request: M, visit: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>>,
{
    converse(protocol, NLM_F_REQUEST | NLM_F_DUMP, request, visit)
}

/// Has something done over `protocol` (`NETLINK_…`).
///
/// # Errors
///
/// What netlink returns.
pub(super) fn order<M>(protocol: isize, request: M) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>>,
{
    converse(protocol, NLM_F_REQUEST | NLM_F_ACK, request, |_| ())
}

/// Has something made over `protocol` (`NETLINK_…`) that is not there yet.
///
/// # Errors
///
/// What netlink returns: EEXIST when it is there.
pub(super) fn create<M>(protocol: isize, request: M) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>>,
{
    converse(protocol, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, request, |_| ())
}

fn converse<M>(protocol: isize, flags: u16, request: M, mut visit: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<M>>,
{
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..size];
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length() as usize;
            match NetlinkMessage::<M>::deserialize(rest).map(|message| message.payload) {
                // A dump that fails, as without the kernel's module for the protocol, ends with the
                // error's number.
                Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(()),
                Ok(NetlinkPayload::Error(error)) if error.code.is_none() => return Ok(()),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => visit(message),
                _ => {}
            }
            // Messages begin at multiples of 4 bytes.
            rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
        }
    }
}
