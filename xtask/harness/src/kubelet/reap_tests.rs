//! Tests of [`super`].
use super::*;

#[test]
fn a_mask_outlives_exec_unless_it_is_taken_back() {
    // On a thread of its own: the mask stays with it.
    let blocked_in_child = |unblock: bool| {
        let thread = std::thread::spawn(move || {
            SigSet::from_iter([Signal::SIGTERM]).thread_block().unwrap();
            let mut command = Command::new("grep");
            command.args(["-q", "^SigBlk:[[:space:]]*0*$", "/proc/self/status"]);
            if unblock {
                sys::unblock_signals(&mut command);
            }
            !command.status().unwrap().success()
        });
        thread.join().unwrap()
    };
    assert!(blocked_in_child(false), "a program would never hear SIGTERM");
    assert!(!blocked_in_child(true));
}
