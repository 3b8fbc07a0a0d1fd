//! What is attached to the machine itself: BPF programs at its cgroup v2 root and at its own devices. A cluster attaches
//! its programs in its nodes only, at no time here.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
const TCX: [(u32, &str); 2] = [(46, "ingress"), (47, "egress")];
/// Attach types go up to here (Linux 6.12); the kernel refuses those that are not a cgroup's.
const ATTACH_TYPES: u32 = 60;
/// Programs that one place can show.
const PROGRAMS: usize = 64;

/// The attribute of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Ids of the programs at a place; none where the kernel does not know this kind of place.
#[allow(unsafe_code, reason = "bpf(2)")]
fn query(target: u32, attach_type: u32) -> Vec<u32> {
    let mut ids = [0_u32; PROGRAMS];
    let mut attr = Query { target, attach_type, count: PROGRAMS as u32, ..Query::default() };
    attr.prog_ids = ids.as_mut_ptr() as u64;
    // SAFETY: `attr` is the part of `union bpf_attr` for this command; it and the buffer, whose length it gives, outlive
    // the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut attr, size_of::<Query>()) };
    if done == 0 { ids[..(attr.count as usize).min(PROGRAMS)].to_vec() } else { Vec::new() }
}

/// All that is attached, a line an item.
pub(crate) fn take() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut cgroups = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    if let Some(root) = cgroups.next().and_then(|line| line.split(' ').nth(1)) {
        let dir = std::fs::File::open(root).expect("the root of cgroup v2");
        for kind in 0..ATTACH_TYPES {
            let ids = query(u32::try_from(dir.as_raw_fd()).expect("a descriptor"), kind);
            all.extend(ids.into_iter().map(|id| format!("program {id} at {root}, attach type {kind}")));
        }
    }
    for device in nix::net::if_::if_nameindex().expect("devices").iter() {
        for (kind, direction) in TCX {
            let ids = query(device.index(), kind);
            all.extend(ids.into_iter().map(|id| format!("program {id} at {:?} {direction}", device.name())));
        }
    }
    all
}

/// Looks all the time, until it is asked what it has seen.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    /// Begins to look for what is not attached now.
    pub(crate) fn start() -> Self {
        let before = take();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                seen.extend(take().difference(&before).cloned());
                if last {
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread }
    }

    /// Looks once more, ends, and returns what was attached meanwhile.
    pub(crate) fn seen(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch")
    }

    /// Ends, and panics with what was attached meanwhile.
    pub(crate) fn assert_nothing(self) {
        let seen = self.seen();
        assert!(seen.is_empty(), "attached to the machine itself: {seen:#?}");
    }
}

/// The part of `union bpf_attr` that loading a small program needs.
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The part of `union bpf_attr` that a TCX link needs.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u64,
    revision: u64,
}

/// Attaches a program that lets everything pass to a device of this thread's network namespace, as long as the link lives.
#[allow(unsafe_code, reason = "bpf(2)")]
pub(crate) fn attach_nothing(ifindex: u32) -> OwnedFd {
    // r0 = TCX_PASS; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let load =
        ProgLoad { kind: 3, count: 2, instructions: instructions.as_ptr() as u64, license: c"MIT".as_ptr() as u64 };
    let call = |command: libc::c_int, attr: *const libc::c_void, size: usize| {
        // SAFETY: `attr` is the part of `union bpf_attr` for the command, of the size given; it and what it points to
        // outlive the call. What comes back is a new descriptor.
        unsafe {
            let fd = libc::syscall(libc::SYS_bpf, command, attr, size);
            assert!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor"))
        }
    };
    let program = call(5, (&raw const load).cast(), size_of::<ProgLoad>());
    let number = u32::try_from(program.as_raw_fd()).expect("a descriptor");
    let link = LinkCreate { program: number, ifindex, attach_type: TCX[0].0, flags: 0, relative: 0, revision: 0 };
    call(28, (&raw const link).cast(), size_of::<LinkCreate>())
}
