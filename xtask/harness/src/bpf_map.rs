//! Reading and editing a pinned BPF map as bytes, from outside of the product: for planting faults.

#![allow(unsafe_code, reason = "bpf(2)")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// Entries that are read at most; the maps of a test cluster are small.
const ENTRIES_MAX: usize = 100_000;

/// An open pinned hash map.
pub(crate) struct PinnedMap {
    fd: OwnedFd,
    key_size: usize,
    value_size: usize,
}

/// Key and value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

fn call<T>(command: libc::c_int, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` for the command, of the size given, and outlives the call; what it
    // points to is kept by the callers.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(done).unwrap_or(-1)) }
}

impl PinnedMap {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// If there is no pin, or it is no map.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        #[repr(C)]
        struct ObjGet {
            pathname: u64,
            fd: u32,
            flags: u32,
        }
        #[repr(C)]
        struct Info {
            fd: u32,
            length: u32,
            info: u64,
        }
        let describe = || format!("opening the pinned map {}", path.display());
        let name = CString::new(path.as_os_str().as_bytes())?;
        let fd =
            call(BPF_OBJ_GET, &ObjGet { pathname: name.as_ptr() as u64, fd: 0, flags: 0 }).with_context(describe)?;
        // SAFETY: the kernel has just given us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The head of `struct bpf_map_info`: type, id, key size, value size.
        let mut info = [0_u32; 4];
        let attr = Info { fd: number(&fd), length: 16, info: (&raw mut info) as u64 };
        call(BPF_OBJ_GET_INFO_BY_FD, &attr).with_context(describe)?;
        Ok(Self { fd, key_size: info[2] as usize, value_size: info[3] as usize })
    }

    /// All entries.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        for _ in 0..ENTRIES_MAX {
            let mut next = vec![0_u8; self.key_size];
            let before = all.last().map_or(0, |(key, _)| key.as_ptr() as u64);
            let attr = Element { key: before, value_or_next: next.as_mut_ptr() as u64, ..self.element() };
            match call(BPF_MAP_GET_NEXT_KEY, &attr) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
                Err(error) => return Err(error),
            }
            let mut value = vec![0_u8; self.value_size];
            let attr =
                Element { key: next.as_ptr() as u64, value_or_next: value.as_mut_ptr() as u64, ..self.element() };
            call(BPF_MAP_LOOKUP_ELEM, &attr)?;
            all.push((next, value));
        }
        Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")))
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn put(&self, (key, value): &Entry) -> io::Result<()> {
        let attr = Element { key: key.as_ptr() as u64, value_or_next: value.as_ptr() as u64, ..self.element() };
        call(BPF_MAP_UPDATE_ELEM, &attr).map(drop)
    }

    /// Removes an entry; one that is not there is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        match call(BPF_MAP_DELETE_ELEM, &Element { key: key.as_ptr() as u64, ..self.element() }) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn element(&self) -> Element {
        Element { map_fd: number(&self.fd), ..Element::default() }
    }
}

fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}
