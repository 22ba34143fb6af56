//! Raw `bpf(2)`: what aya 0.14 lacks. Batch operations on hash maps, arrays that are mapped into
//! memory, maps by id, and what a link is attached to.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_TYPE_XDP: u32 = 6;

const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// The map may be mapped into memory (Linux 5.5).
pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Calls `bpf(2)`.
///
/// # Safety
///
/// `attributes` must be a prefix of `union bpf_attr` for `command`, and every pointer in it must
/// be valid for what the command reads and writes.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the attributes; the size is that of the memory passed.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The index of the interface `name`, if there is one.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a string that ends with NUL and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// A descriptor that `bpf(2)` has just returned.
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just opened it for this process, and no one else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// Creates an array map that can be mapped and put into an array of maps.
///
/// # Errors
///
/// What `bpf(2)` returns: EPERM without `CAP_BPF`, ENOMEM, E2BIG for values that the kernel takes for
/// too large.
pub(super) fn create_mappable_array(name: &str, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size,
        max_entries: entries,
        // Not BPF_F_INNER_MAP, with which programs find values by a call instead of inline. The outer map's
        // template is one of these, so they need not differ from it.
        map_flags: BPF_F_MMAPABLE,
        map_name: map_name(name),
        ..CreateAttributes::default()
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_MAP_CREATE, &mut attributes) }.map(owned)
}

/// Creates an array of one map, which takes maps like `template`.
///
/// # Errors
///
/// What `bpf(2)` returns: EPERM without `CAP_BPF`, ENOMEM.
pub(super) fn create_array_of_maps(name: &str, template: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: template.as_raw_fd() as u32,
        map_name: map_name(name),
        ..CreateAttributes::default()
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_MAP_CREATE, &mut attributes) }.map(owned)
}

/// A name as the kernel takes it: at most 15 bytes and a zero.
fn map_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn address_of<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// Puts `inner` into slot 0 of an array of maps and returns when no program still runs that could
/// have seen what was there before.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn set_inner(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let key = 0_u32;
    let value = inner.as_raw_fd() as u32;
    let mut attributes = ElementAttributes {
        map_fd: outer.as_raw_fd() as u32,
        padding: 0,
        key: address_of(&key),
        value: address_of(&value),
        flags: 0,
    };
    // SAFETY: key and value live across the call and are u32, as array-of-maps elements are.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// The id of the map in slot 0 of an array of maps; `None` when the slot is empty.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn inner_id(outer: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let key = 0_u32;
    let mut value = 0_u32;
    let mut attributes = ElementAttributes {
        map_fd: outer.as_raw_fd() as u32,
        padding: 0,
        key: address_of(&key),
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    // SAFETY: key and value live across the call and are u32, as array-of-maps elements are.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value of a hash map under `key`. Both must be plain data of the map's sizes.
///
/// # Errors
///
/// What `bpf(2)` returns, but for ENOENT.
pub(super) fn lookup<K: Copy, V: Copy + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: address_of(key),
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    // SAFETY: key and value live across the call, and the caller vouches for their sizes.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `value` under `key` into a hash map. Both must be plain data of the map's sizes.
///
/// # Errors
///
/// What `bpf(2)` returns: E2BIG when the map is full.
pub(super) fn insert<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: address_of(key),
        value: address_of(value),
        flags: 0,
    };
    // SAFETY: key and value live across the call, and the caller vouches for their sizes.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

#[repr(C)]
struct PathAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn c_path(path: &std::path::Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins an object at `path` on a bpffs.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn pin(object: BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    let pathname = c_path(path)?;
    let mut attributes = PathAttributes {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path is a C string that lives across the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens what is pinned at `path`.
///
/// # Errors
///
/// What `bpf(2)` returns: ENOENT when nothing is.
pub(super) fn open_pinned(path: &std::path::Path) -> io::Result<OwnedFd> {
    let pathname = c_path(path)?;
    let mut attributes = PathAttributes { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path is a C string that lives across the call.
    unsafe { bpf(BPF_OBJ_GET, &mut attributes) }.map(owned)
}

#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Fills `info`, a prefix of the kernel's information structure for the object.
fn object_info<const WORDS: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; WORDS]> {
    let mut info = [0_u32; WORDS];
    let mut attributes = InfoAttributes {
        bpf_fd: object.as_raw_fd() as u32,
        info_len: (WORDS * 4) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which lives across the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Opens the map of this id.
///
/// # Errors
///
/// What `bpf(2)` returns: EPERM without `CAP_SYS_ADMIN`, ENOENT when there is none.
pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = IdAttributes { id, ..IdAttributes::default() };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_MAP_GET_FD_BY_ID, &mut attributes) }.map(owned)
}

/// What the kernel tells of a map (the first words of `struct bpf_map_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapInfo {
    /// Id.
    pub id: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries at most.
    pub max_entries: u32,
}

/// What the kernel tells of a map.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let [_map_type, id, _key_size, value_size, max_entries, _flags] = object_info::<6>(map)?;
    Ok(MapInfo { id, value_size, max_entries })
}

/// What the kernel tells of a link (`struct bpf_link_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id.
    pub id: u32,
    /// `BPF_LINK_TYPE_…`.
    pub link_type: u32,
    /// Id of its program.
    pub program: u32,
    /// Index of the interface it is attached to; 0 when that interface is gone. XDP and TCX links
    /// have it at the same place.
    pub interface: u32,
}

/// What the kernel tells of an XDP or TCX link.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let [link_type, id, program, _padding, interface, _attach_type] = object_info::<6>(link)?;
    Ok(LinkInfo { id, link_type, program, interface })
}

/// The XDP link of this interface, whichever process made it; `None` when no link attaches there.
///
/// # Errors
///
/// What `bpf(2)` returns: EPERM without `CAP_SYS_ADMIN`.
pub(super) fn xdp_link_of(interface: u32) -> io::Result<Option<LinkInfo>> {
    let mut id = 0;
    loop {
        let mut attributes = IdAttributes { id, ..IdAttributes::default() };
        // SAFETY: the attributes hold no pointers.
        match unsafe { bpf(BPF_LINK_GET_NEXT_ID, &mut attributes) } {
            Ok(_) => id = attributes.next_id,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut attributes = IdAttributes { id, ..IdAttributes::default() };
        // SAFETY: the attributes hold no pointers.
        let link = match unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attributes) }.map(owned) {
            Ok(link) => link,
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        let info = link_info(link.as_fd())?;
        if info.link_type == BPF_LINK_TYPE_XDP && info.interface == interface {
            return Ok(Some(info));
        }
    }
}

/// The name of the program of this id.
///
/// # Errors
///
/// What `bpf(2)` returns: EPERM without `CAP_SYS_ADMIN`, ENOENT when there is none.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let mut attributes = IdAttributes { id, ..IdAttributes::default() };
    // SAFETY: the attributes hold no pointers.
    let program = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }.map(owned)?;
    // The name follows 64 bytes of numbers in `struct bpf_prog_info`.
    let words = object_info::<20>(program.as_fd())?;
    let bytes: Vec<u8> = words[16..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[repr(C)]
struct LinkCreateAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an XDP program to an interface by a link (Linux 5.9), which ends with its last
/// descriptor and pin. aya falls back to netlink on EINVAL, whose attachments cannot be pinned.
///
/// # Errors
///
/// What `bpf(2)` returns: EBUSY or EEXIST when the interface has a program already, EOPNOTSUPP when
/// the driver has no XDP, ERANGE or EINVAL for its own limits.
pub(super) fn attach_xdp(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    create_link(program, interface, BPF_XDP, flags)
}

/// Attaches a classifier to what an interface sends, after those that are attached already, by a TCX
/// link (Linux 6.6), which ends with its last descriptor and pin.
///
/// # Errors
///
/// What `bpf(2)` returns: EINVAL or EOPNOTSUPP when the kernel has no TCX.
pub(super) fn attach_egress(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    create_link(program, interface, BPF_TCX_EGRESS, 0)
}

fn create_link(program: BorrowedFd<'_>, interface: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreateAttributes {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: interface,
        attach_type,
        flags,
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }.map(owned)
}

/// Replaces the program of a link, atomically.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `visit` with every entry of a hash map. Entries that are inserted or deleted meanwhile may
/// be missed or not; all others are visited once.
///
/// `K` and `V` must be plain data of the map's key and value size, which is checked for the value.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn for_each_entry<K: Copy + Default, V: Copy + Default>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut keys = vec![K::default(); 4096];
    let mut values = vec![V::default(); 4096];
    let mut cursor: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        let mut attributes = BatchAttributes {
            in_batch: cursor.as_ref().map_or(0, address_of),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values, for which there is room, and a
        // u32 cursor, as hash maps have.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let last = match result {
            Ok(_) => false,
            // The end: what came with it is valid.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket holds more than fits.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let room = keys.len() * 2;
                keys.resize(room, K::default());
                values.resize(room, V::default());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(attributes.count as usize) {
            visit(key, value);
        }
        if last {
            return Ok(());
        }
        cursor = Some(next);
    }
}

/// Deletes these keys from a hash map; those that are not in it are passed over.
///
/// # Errors
///
/// What `bpf(2)` returns.
pub(super) fn delete_all<K: Copy>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut attributes = BatchAttributes {
            in_batch: 0,
            out_batch: 0,
            keys: rest.as_ptr() as u64,
            values: 0,
            count: rest.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `count` keys.
        match unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attributes) } {
            Ok(_) => return Ok(()),
            // Stopped at a key that is not there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                rest = rest.get(attributes.count as usize + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The values of an array map, in this process's memory.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; it hands out raw pointers only.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `map`'s values from `begin` on, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// What `mmap(2)` returns.
    pub(super) fn new(map: BorrowedFd<'_>, begin: usize, length: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                begin as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::Other))?;
        Ok(Self { start, length })
    }

    /// Where it begins.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and no pointer into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
