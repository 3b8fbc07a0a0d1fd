//! Namespaces, mounts and cgroups: the harness's only room with `unsafe`.
#![allow(unsafe_code, reason = "fork, namespaces and capabilities need system calls before exec")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Makes a network namespace and returns a handle on it; the calling thread stays where it is.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn new_netns() -> io::Result<OwnedFd> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Runs `work` on a thread of its own that has entered the network namespace.
///
/// # Errors
/// If it cannot be entered, or `work` fails.
pub(crate) fn in_netns<T: Send>(
    namespace: impl AsFd + Send,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_thread(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}

/// Runs a command to its end, with `input` on its standard input. A command that ends without having read it all has its
/// own reasons, which its status and output tell.
///
/// # Errors
/// If it cannot be started, or its output not be read.
pub(crate) fn output_of(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

/// Lets the child die with the thread that starts it, also by SIGKILL.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        });
    }
}

/// Lets the child start with no signal blocked, whatever its parent waits for: a mask outlives exec.
pub(crate) fn unblock_signals(command: &mut Command) {
    // SAFETY: sigprocmask is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
}

/// Lets the child start in other namespaces: enters those of `enter`, then makes those of `make`, then joins a cgroup.
pub(crate) fn start_within(
    command: &mut Command,
    cgroup: Option<PathBuf>,
    enter: Vec<(OwnedFd, CloneFlags)>,
    make: CloneFlags,
) {
    // SAFETY: only system calls and a small write between fork and exec; the parent's allocator is not used by them
    // beyond what the kernel interface needs.
    unsafe {
        command.pre_exec(move || {
            if let Some(dir) = &cgroup {
                std::fs::write(dir.join("cgroup.procs"), "0")?;
            }
            for (fd, kind) in &enter {
                setns(fd.as_fd(), *kind)?;
            }
            if !make.is_empty() {
                unshare(make)?;
            }
            Ok(())
        });
    }
}

/// Gives the child a session of its own, so that the terminal's Ctrl-C does not reach it, and none of our caller's
/// descriptors but the standard three: it may outlive the caller, and would keep a lock (`flock FILE cargo xtask up`) or
/// the end of a pipe for as long.
pub(crate) fn own_session(command: &mut Command) {
    // SAFETY: system calls with scalars; both are async-signal-safe. Descriptors are closed at exec, not here, because
    // the parent hears of a failure by one of them.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            let marked = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

/// Lets Ctrl-C end this process at once again, after something had taken the signal over.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn default_interrupt() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }?;
    Ok(())
}

/// Exit code of a process as a shell tells it: 128 + signal where a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Mounts with the path in the error.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source, target, kind, flags, data).with_context(|| {
        format!("mounting {:?} ({kind:?}, {flags:?}) at {}", source.unwrap_or(target), target.display())
    })
}

/// Binds `source` to `target`, which is made if it is not there.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    let metadata = std::fs::metadata(source).with_context(|| format!("looking at {}", source.display()))?;
    if metadata.is_dir() {
        std::fs::create_dir_all(target)?;
    } else if !target.exists() {
        if let Some(dir) = target.parent() {
            std::fs::create_dir_all(dir)?;
        }
        File::create(target).with_context(|| format!("making {}", target.display()))?;
    }
    mount_at(Some(source), target, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount_at(None, target, None, flags, None)?;
    }
    Ok(())
}

/// Makes `root` the root of the calling process's mount namespace and lets go of the old one.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn pivot(root: &Path) -> Result<()> {
    std::env::set_current_dir(root).with_context(|| format!("entering {}", root.display()))?;
    nix::unistd::pivot_root(".", ".").with_context(|| format!("pivoting to {}", root.display()))?;
    umount2(".", MntFlags::MNT_DETACH).context("letting go of the old root")?;
    std::env::set_current_dir("/").context("entering the new root")
}

/// The cgroup v2 mount of this machine.
///
/// # Errors
/// If there is none.
pub(crate) fn cgroup2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(_), Some(path), Some("cgroup2")) = (fields.next(), fields.next(), fields.next()) {
            return Ok(path.into());
        }
    }
    bail!(
        "no cgroup v2 is mounted; mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )
}

/// Kills all that runs in a cgroup and below, and removes it. One that is not there is no error.
///
/// # Errors
/// If something stays.
pub(crate) fn remove_cgroup(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    unless_gone(std::fs::write(dir.join("cgroup.kill"), "1")).with_context(|| format!("killing {}", dir.display()))?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match remove_tree(dir) {
            Ok(()) => return Ok(()),
            Err(error) if std::time::Instant::now() > deadline => {
                return Err(error).with_context(|| format!("removing cgroup {}", dir.display()));
            }
            // Killed processes leave the cgroup when they are reaped; the kernel has no event for "may be removed".
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
}

/// Two runs may remove the same dead one at the same time; what the other has removed is no error.
pub(crate) fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_tree(&path)?;
        }
    }
    unless_gone(std::fs::remove_dir(dir))
}

/// Processes of a cgroup, as this process sees them.
pub(crate) fn cgroup_pids(dir: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The process of a cgroup that is PID 1 of its PID namespace.
pub(crate) fn init_of(dir: &Path) -> Option<i32> {
    cgroup_pids(dir).into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inner =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|ids| ids.split_whitespace().last());
        inner == Some("1")
    })
}

/// Drops all capabilities but these from the bounding set and from all others.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn keep_capabilities(keep: &[u8]) -> io::Result<()> {
    for capability in 0..=63_u8 {
        if keep.contains(&capability) {
            continue;
        }
        // SAFETY: a system call with scalars.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        if dropped != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
    }
    let mask: u64 = keep.iter().map(|capability| 1 << capability).sum();
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let header: [u32; 2] = [0x2008_0522, 0];
    let current = {
        let mut data = [0_u32; 6];
        // SAFETY: the buffers have the sizes of version 3.
        unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
        data
    };
    // Not more than what there is: the machine itself may lack some.
    let (low, high) = (low & current[1], high & current[4]);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Turns checksum offload for transmission off: receivers then verify checksums as behind a real wire, which veth
/// devices otherwise take on trust.
///
/// # Errors
/// If there is no such device in the calling thread's namespace.
pub(crate) fn checksum_offload_off(device: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut value = Value { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: plain data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request points to a value of the command's shape that outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Says a byte to the other end of a socket, and gives it a descriptor.
///
/// # Errors
/// If the other end has gone.
pub(crate) fn send(socket: impl AsFd, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let given: Vec<i32> = descriptor.iter().map(|fd| fd.as_raw_fd()).collect();
    let control: &[ControlMessage<'_>] = if given.is_empty() { &[] } else { &[ControlMessage::ScmRights(&given)] };
    let text = [io::IoSlice::new(b"\n")];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &text, control, MsgFlags::empty(), None)?;
    Ok(())
}

/// What [`send`] has given: waits for its byte, or for the end of the socket.
///
/// # Errors
/// `WouldBlock` if nothing has come yet and the socket does not wait.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    use std::os::fd::FromRawFd;
    let mut byte = [0];
    let mut text = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut text, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(given) = control
            && let Some(fd) = given.first()
        {
            // SAFETY: the kernel has just given us this descriptor, the only one there is room for.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// Makes the child the leader of a session of its own whose terminal is its standard input.
pub(crate) fn lead_terminal(command: &mut Command) {
    // SAFETY: system calls with scalars; both are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            let taken = libc::ioctl(0, libc::TIOCSCTTY, 0);
            if taken == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

/// Gives a terminal another size; programs in its foreground hear of it by SIGWINCH.
///
/// # Errors
/// If it is no terminal.
pub(crate) fn set_terminal_size(terminal: impl AsFd, size: &nix::pty::Winsize) -> io::Result<()> {
    // SAFETY: the size is of the kernel's own shape and outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a namespace of a process.
///
/// # Errors
/// If the process is gone.
pub(crate) fn namespace_of(pid: i32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    Ok(File::open(&path).with_context(|| format!("opening {path}"))?.into())
}

/// A detached copy of a mount and all below it. It stays in the peer group of the original, which is what bidirectional
/// propagation needs, and can be attached after the namespace's own mounts were made slaves.
///
/// # Errors
/// If there is nothing at the path.
pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE as libc::c_uint | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a detached mount.
///
/// # Errors
/// If the target is not there.
pub(crate) fn attach_mount(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(target.as_os_str().as_bytes())?;
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: the paths outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "sys_tests.rs"]
mod tests;
