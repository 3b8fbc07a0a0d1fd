//! Tests of [`super`].
use super::client::{Client, Heard};
use super::*;

fn pair() -> (Client, Connection) {
    let (near, far) = tokio::io::duplex(1 << 20);
    (Client::new(far), Connection::start(near))
}

#[tokio::test]
async fn streams_are_answered_and_carry_bytes_both_ways() {
    let (mut client, mut server) = pair();
    let first = client.open(&[("Streamtype", "stdin"), ("port", "80")], false).await;
    let second = client.open(&[("streamtype", "error")], true).await;
    assert_eq!(client.hear().await, Some(Heard::Reply(first)));
    assert_eq!(client.hear().await, Some(Heard::Reply(second)));
    let (mut one, mut two) = (server.next().await.unwrap(), server.next().await.unwrap());
    assert_eq!((one.headers["streamtype"].as_str(), one.headers["port"].as_str()), ("stdin", "80"));
    assert_eq!(two.headers["streamtype"], "error");
    client.send(first, false, b"in").await;
    client.send(first, true, b"put").await;
    assert_eq!(one.data.recv().await.unwrap(), "in");
    assert_eq!(one.data.recv().await.unwrap(), "put");
    assert_eq!(one.data.recv().await, None, "its side is ended");
    assert_eq!(two.data.recv().await, None, "opened with nothing to say");
    two.writer.send(b"out").await.unwrap();
    two.writer.finish().await.unwrap();
    assert_eq!(client.hear().await, Some(Heard::Data { id: second, last: false, data: b"out".to_vec() }));
    assert_eq!(client.hear().await, Some(Heard::Data { id: second, last: true, data: Vec::new() }));
}

#[tokio::test]
async fn pings_are_answered_and_resets_told() {
    let (mut client, mut server) = pair();
    client.ping(7).await;
    assert_eq!(client.hear().await, Some(Heard::Ping(7)));
    let id = client.open(&[], false).await;
    let mut stream = server.next().await.unwrap();
    client.send(id, false, b"x").await;
    client.reset(id).await;
    (&mut stream.reset).await.unwrap();
    assert_eq!(stream.data.recv().await.unwrap(), "x");
    assert_eq!(stream.data.recv().await, None);
    let mut other = {
        client.open(&[], false).await;
        server.next().await.unwrap()
    };
    drop(client);
    assert!((&mut other.reset).await.is_err(), "the connection has ended");
    server.gone().await;
    assert!(server.next().await.is_none());
}

#[tokio::test]
async fn what_nobody_reads_is_dropped_and_holds_nothing_up() {
    let (mut client, mut server) = pair();
    let (deaf, heard) = (client.open(&[], false).await, client.open(&[], false).await);
    drop(server.next().await.unwrap().data);
    let mut stream = server.next().await.unwrap();
    for _ in 0..10 * QUEUE {
        client.send(deaf, false, b"nobody").await;
    }
    client.send(99, false, b"no such stream").await;
    client.send(heard, true, b"somebody").await;
    assert_eq!(stream.data.recv().await.unwrap(), "somebody");
}

#[tokio::test(start_paused = true)]
async fn all_that_was_written_arrives_before_the_end_and_the_client_may_go_on_sending() {
    let (mut client, mut server) = pair();
    let id = client.open(&[], false).await;
    let stream = server.next().await.unwrap();
    let closing = tokio::spawn(async move {
        for _ in 0..100 {
            stream.writer.send(&[b'z'; 1000]).await.unwrap();
        }
        stream.writer.finish().await.unwrap();
        drop(stream);
        server.close().await;
    });
    client.send(id, false, &[0; 100_000]).await;
    let rest = client.rest().await;
    assert_eq!((rest[&id].0.len(), rest[&id].1), (100_000, true));
    // The client does not go: it is not waited for without end.
    closing.await.unwrap();
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[0x80, 4, 0, 1, 0, 0, 0, 0], &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]] {
        let (mut client, mut server) = pair();
        client.write(bytes).await;
        if bytes[0] & 0x80 == 0 {
            // Data of a stream that is not there, cut off by the end.
            drop(client);
        }
        assert!(server.next().await.is_none(), "{bytes:02x?}");
    }
    let too_long = [0x80, 3, 0, 1, 0, 1, 0, 1];
    assert!(frame::read(&mut &too_long[..]).await.unwrap_err().to_string().contains("65537 bytes"));
    assert!(frame::read(&mut &too_long[..3]).await.unwrap_err().to_string().contains("within a frame"));
    assert_eq!(frame::read(&mut &[][..]).await.unwrap(), None);
}

#[tokio::test]
async fn more_than_a_frame_holds_becomes_several() {
    let data = vec![7; (1 << 24) + 5];
    let frames = frame::data(1, true, &data);
    let mut rest = &frames[..];
    let Some(Frame::Data { last: false, data: first, .. }) = frame::read(&mut rest).await.unwrap() else {
        panic!("the first is not the last")
    };
    let Some(Frame::Data { last: true, data: second, .. }) = frame::read(&mut rest).await.unwrap() else {
        panic!("the second is the last")
    };
    assert_eq!((first.len() + second.len(), rest.len()), (data.len(), 0));
}
