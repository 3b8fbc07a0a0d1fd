//! Tests of [`super`].
use tokio::io::AsyncReadExt;

use super::*;

fn id() -> PodId {
    PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() }
}

fn input(once: bool) -> (Input, tokio::io::DuplexStream) {
    let (ours, program) = tokio::io::duplex(64);
    let write: Box<dyn AsyncWrite + Send + Unpin> = Box::new(ours);
    (Input { write: tokio::sync::Mutex::new(Some(write)), once, terminal: None }, program)
}

#[tokio::test]
async fn who_attaches_sees_what_is_written_from_then_on_and_the_end() {
    let running = Running::default();
    let stdio = running.add(&id(), "c", None);
    let mut out = Shown::new(&b"early"[..], Source::Out, stdio.clone());
    out.read_to_end(&mut Vec::new()).await.unwrap();
    let mut output = running.find(&id(), "c").unwrap().output.subscribe();
    let mut text = Vec::new();
    Shown::new(&b"late"[..], Source::Err, stdio.clone()).read_to_end(&mut text).await.unwrap();
    assert_eq!(text, b"late", "the log gets the same");
    assert_eq!(output.recv().await.unwrap(), (Source::Err, "late".into()));
    drop((out, stdio));
    assert_eq!(output.recv().await.unwrap_err(), RecvError::Closed);
    assert!(running.find(&id(), "c").is_none(), "one that has ended cannot be attached to");
}

#[tokio::test]
async fn the_next_run_of_a_container_takes_the_place_of_the_last() {
    let running = Running::default();
    let first = running.add(&id(), "c", None);
    let second = running.add(&id(), "c", None);
    drop(first);
    assert!(Arc::ptr_eq(&running.find(&id(), "c").unwrap(), &second));
    assert!(running.find(&id(), "other").is_none());
}

#[tokio::test]
async fn standard_input_stays_open_for_the_next_client_unless_it_is_for_one_only() {
    for once in [false, true] {
        let (input, mut program) = input(once);
        let input = Arc::new(input);
        let (typed, stdin) = mpsc::channel(4);
        typed.send(Bytes::from("typed")).await.unwrap();
        drop(typed);
        feed(stdin, input.clone()).await;
        let mut read = [0; 5];
        program.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"typed");
        assert_eq!(input.write.lock().await.is_none(), once);
    }
}

#[tokio::test]
async fn a_program_that_reads_no_more_is_no_error() {
    let (input, program) = input(false);
    drop(program);
    let (typed, stdin) = mpsc::channel(4);
    typed.send(Bytes::from("typed")).await.unwrap();
    drop(typed);
    let input = Arc::new(input);
    feed(stdin, input.clone()).await;
    assert!(input.write.lock().await.is_none());
}
