//! Tests of [`super`].
use super::*;

/// What `/proc/self/fd` of a child names, for a file that is open here without close-on-exec.
fn inherited(prepare: impl FnOnce(&mut Command)) -> String {
    let file = File::open("/proc/version").unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "readlink /proc/self/fd/* /proc/$$/fd/*"]);
    prepare(&mut command);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_session_of_its_own_keeps_no_descriptor_of_the_caller() {
    assert!(inherited(|_| ()).contains("/proc/version"), "the test sees what is inherited");
    assert!(!inherited(own_session).contains("/proc/version"));
}

#[test]
fn a_command_need_not_read_its_input() {
    // More than a pipe holds: whoever writes it meets the end of the reader.
    let input = "x".repeat(1 << 20);
    let output = output_of(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), &input).unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), b"why\n".as_slice()));
    let output = output_of(&mut Command::new("cat"), "some").unwrap();
    assert!(output.status.success() && output.stdout == b"some");
}

#[test]
fn a_descriptor_is_given_through_a_socket() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let (near, far) = UnixStream::pair().unwrap();
    let (mut kept, given) = UnixStream::pair().unwrap();
    send(&near, Some(&given.into())).unwrap();
    let mut received = UnixStream::from(receive(&far).unwrap().unwrap());
    kept.write_all(b"x").unwrap();
    received.read_exact(&mut [0]).unwrap();
    send(&near, None).unwrap();
    assert!(receive(&far).unwrap().is_none(), "a byte alone");
    far.set_nonblocking(true).unwrap();
    assert_eq!(receive(&far).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(near);
    assert!(receive(&far).unwrap().is_none(), "the end");
}
