//! Tests of [`super`].
use super::super::spdy::client::Client;
use super::*;

fn asked(text: &str) -> Streams {
    Streams::parse(&super::super::server::query(Some(text.to_owned())))
}

#[test]
fn streams_are_named_in_both_ways() {
    let old = asked("input=1&output=1&error=1&command=x");
    assert_eq!(old, Streams { stdin: true, stdout: true, stderr: true, tty: false });
    assert_eq!(asked("stdin=true&stdout=true&stderr=true"), old);
    assert_eq!(asked("stdout=1&stderr=1&tty=true"), Streams { stdin: false, stdout: true, stderr: false, tty: true });
    assert_eq!(asked("stdin=false&output=0"), Streams { stdin: false, stdout: false, stderr: false, tty: false });
}

#[test]
fn the_status_names_the_exit_code() {
    assert_eq!(exited(0)["status"], "Success");
    let failed = exited(3);
    assert_eq!(failed["reason"], "NonZeroExitCode");
    assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
}

#[test]
fn a_size_has_two_sides() {
    let size = size(br#"{"Width":80,"Height":24}"#).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (80, 24));
    for wrong in [&br#"{"Width":0,"Height":24}"#[..], b"{}", b"80x24"] {
        assert!(super::size(wrong).is_err());
    }
}

/// A client with all its streams open, in the order of their names, and the session that was made of them.
async fn session(names: &[&str], streams: Streams) -> (Client, Vec<u32>, Session) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut client = Client::new(far);
    let mut ids = Vec::new();
    for name in names {
        ids.push(client.open(&[("streamtype", name)], false).await);
    }
    let session = spdy::session(Connection::start(near), streams).await.unwrap();
    (client, ids, session)
}

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

#[tokio::test]
async fn over_spdy_each_stream_ends_and_the_status_comes_last() {
    let (mut client, ids, mut session) = session(&["stdin", "error", "stderr", "stdout"], ALL).await;
    client.send(ids[0], true, b"typed").await;
    assert_eq!(session.stdin.recv().await.unwrap(), "typed");
    assert_eq!(session.stdin.recv().await, None);
    session.out.send(Said::Out("shown".into())).await.unwrap();
    session.out.send(Said::Err("wrong".into())).await.unwrap();
    let finished = tokio::spawn(session.finish(exited(4)));
    let rest = client.rest().await;
    drop(client);
    finished.await.unwrap();
    assert_eq!(rest[&ids[3]], (b"shown".to_vec(), true));
    assert_eq!(rest[&ids[2]], (b"wrong".to_vec(), true));
    assert_eq!(rest[&ids[1]], (exited(4).to_string().into_bytes(), true));
    assert!(!rest.contains_key(&ids[0]));
}

#[tokio::test]
async fn over_spdy_the_terminal_takes_every_size_in_whatever_pieces() {
    let tty = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let (mut client, ids, mut session) = session(&["error", "stdin", "stdout", "resize"], tty).await;
    client.send(ids[3], false, b"{\"Width\":80,\"Hei").await;
    client.send(ids[3], false, b"ght\":24}\n{\"Width\":").await;
    let first = session.sizes.wait_for(Option::is_some).await.unwrap().unwrap();
    assert_eq!((first.ws_col, first.ws_row), (80, 24));
    client.send(ids[3], false, b"100,\"Height\":50}\n").await;
    session.sizes.wait_for(|size| size.is_some_and(|size| size.ws_row == 50)).await.unwrap();
    drop(client);
    session.out.closed().await;
}

#[tokio::test(start_paused = true)]
async fn over_spdy_streams_that_do_not_come_are_not_waited_for_without_end() {
    let (near, far) = tokio::io::duplex(1 << 10);
    let mut client = Client::new(far);
    client.open(&[("streamtype", "stdin")], false).await;
    let error = spdy::session(Connection::start(near), ALL).await.err().unwrap();
    assert!(format!("{error:#}").contains("in time"), "{error:#}");
    let (near, far) = tokio::io::duplex(1 << 10);
    let mut client = Client::new(far);
    client.open(&[("streamtype", "resize")], false).await;
    let error = spdy::session(Connection::start(near), ALL).await.err().unwrap();
    assert!(format!("{error:#}").contains("\"resize\""), "{error:#}");
}

#[tokio::test]
async fn output_is_copied_to_its_end_or_until_the_client_goes() {
    let (out, mut said) = mpsc::channel(4);
    copy(&b"all of it"[..], out.clone(), Said::Err).await;
    assert_eq!(said.recv().await, Some(Said::Err("all of it".into())));
    drop(said);
    // One that never ends: this returns only because nobody listens.
    copy(tokio::io::repeat(1), out, Said::Out).await;
}
