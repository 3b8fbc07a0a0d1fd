//! What aya 0.14 lacks of bpf(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_TCX: u32 = 11;

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens a pinned object.
///
/// # Errors
/// `NotFound` if there is no pin.
pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `attr` is the prefix of `union bpf_attr` for this command; it and the path outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<ObjGet>()) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program of a link in one step, for links that aya cannot (cgroup socket address programs).
///
/// # Errors
/// What bpf(2) says; `ENOLINK` if what the link was attached to is gone.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: u32::try_from(link.as_raw_fd()).unwrap_or(u32::MAX),
        new_prog_fd: u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: `attr` is the prefix of `union bpf_attr` for this command and outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw const attr, size_of::<LinkUpdate>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`, and as much of its union as the two link types that are used here need.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    target: u64,
    rest: [u64; 4],
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// A device, by its interface index in the device's own namespace; 0 if the device is gone.
    Tcx(u32),
    /// A cgroup, by its id; 0 if it is gone.
    Cgroup(u64),
    /// A link of another type, by its number in `enum bpf_link_type`.
    Other(u32),
}

/// Asks the kernel what a link is attached to. A link whose device or cgroup is gone still has its program.
///
/// # Errors
/// If the descriptor is no link.
pub fn link_target(link: BorrowedFd<'_>) -> io::Result<LinkTarget> {
    let mut info = LinkInfo::default();
    let attr = ObjGetInfo {
        bpf_fd: u32::try_from(link.as_raw_fd()).unwrap_or(u32::MAX),
        info_len: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` is the prefix of `union bpf_attr` for this command; it and the buffer, whose length it gives,
    // outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<ObjGetInfo>()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match info.kind {
        BPF_LINK_TYPE_TCX => LinkTarget::Tcx(info.target as u32),
        BPF_LINK_TYPE_CGROUP => LinkTarget::Cgroup(info.target),
        other => LinkTarget::Other(other),
    })
}

/// `SO_NETNS_COOKIE` of the calling thread's network namespace (Linux 5.14).
///
/// # Errors
/// If the kernel does not know the option.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the buffer is eight bytes and its length says so.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
