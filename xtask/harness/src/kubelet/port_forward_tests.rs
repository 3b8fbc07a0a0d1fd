//! Tests of [`super`]: a client of SPDY, and programs on this machine's loopback in place of a pod's.
use tokio::net::TcpListener;

use super::super::spdy::client::{Client, Heard};
use super::*;

fn start() -> (Client, tokio::task::JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let target = Target { netns: None, pod: "d/p".into() };
    (Client::new(far), tokio::spawn(forward(Connection::start(near), target)))
}

/// Opens the two streams of a connection: that of errors, on which a client says nothing, and that of data.
async fn open(client: &mut Client, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request)];
    let error = client.open(&headers("error"), true).await;
    let data = client.open(&headers("data"), false).await;
    assert_eq!(client.hear().await, Some(Heard::Reply(error)));
    assert_eq!(client.hear().await, Some(Heard::Reply(data)));
    (error, data)
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_the_errors_end_last() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut client, server) = start();
    let (error, data) = open(&mut client, listener.local_addr().unwrap().port(), "0").await;
    let (mut program, _) = listener.accept().await.unwrap();
    client.send(data, false, b"que").await;
    client.send(data, true, b"stion").await;
    let mut question = Vec::new();
    program.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    program.write_all(b"answer").await.unwrap();
    drop(program);
    let mut answer = Vec::new();
    loop {
        match client.hear().await.unwrap() {
            Heard::Data { id, last, data: piece } if id == data => {
                answer.extend_from_slice(&piece);
                if last {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answer, b"answer");
    assert_eq!(client.hear().await, Some(Heard::Data { id: error, last: true, data: Vec::new() }));
    drop(client);
    server.await.unwrap();
}

/// kubectl 1.27 waits for the end of the errors before it ends anything itself.
#[tokio::test]
async fn a_program_that_has_ended_ends_it_though_the_client_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut client, _server) = start();
    let (error, data) = open(&mut client, listener.local_addr().unwrap().port(), "0").await;
    drop(listener.accept().await.unwrap());
    assert_eq!(client.hear().await, Some(Heard::Data { id: data, last: true, data: Vec::new() }));
    assert_eq!(client.hear().await, Some(Heard::Data { id: error, last: true, data: Vec::new() }));
}

#[tokio::test]
async fn several_connections_go_side_by_side_and_one_that_is_reset_goes_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut client, _server) = start();
    let (_, first) = open(&mut client, port, "0").await;
    let (mut one, _) = listener.accept().await.unwrap();
    let (_, second) = open(&mut client, port, "1").await;
    let (mut two, _) = listener.accept().await.unwrap();
    client.reset(first).await;
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0, "its connection has ended");
    client.send(second, false, b"x").await;
    assert_eq!(two.read(&mut [0]).await.unwrap(), 1);
    drop(client);
    assert_eq!(two.read(&mut [0]).await.unwrap(), 0, "a client that goes takes its connections along");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_on_the_stream_of_errors() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (mut client, _server) = start();
    for (request, (port, want)) in [(free, "refused"), (0, "port 0 is none")].into_iter().enumerate() {
        let (error, _) = open(&mut client, port, &request.to_string()).await;
        let mut said = String::new();
        loop {
            match client.hear().await.unwrap() {
                Heard::Data { id, last, data } if id == error => {
                    said += &String::from_utf8(data).unwrap();
                    if last {
                        break;
                    }
                }
                Heard::Data { last: true, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(said.starts_with(&format!("error forwarding port {port} to pod d/p: ")), "{said}");
        assert!(said.contains(want), "{said}");
    }
}

#[tokio::test]
async fn halves_without_the_other_are_not_kept_without_end() {
    let (mut client, server) = start();
    for at in 0..=HALVES {
        client.open(&[("streamtype", "data"), ("port", "1"), ("requestid", &at.to_string())], false).await;
    }
    while client.hear().await.is_some() {}
    drop(client);
    server.await.unwrap();
}
