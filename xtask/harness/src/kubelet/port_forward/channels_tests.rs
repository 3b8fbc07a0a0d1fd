//! Tests of [`super`]: messages without a socket, and programs on this machine's loopback in place of a pod's.
use tokio::net::TcpListener;

use super::*;

fn query(ports: &[&str]) -> Vec<(String, String)> {
    ports.iter().map(|port| ("port".to_owned(), (*port).to_owned())).collect()
}

#[test]
fn ports_are_numbers_and_there_are_some() {
    assert_eq!(ports(&query(&["80", "90"])).unwrap(), [80, 90]);
    assert_eq!(ports(&query(&["80,90", "100"])).unwrap(), [80, 90, 100], "as kube-apiserver v1.34.4 passes them on");
    assert!(ports(&[]).unwrap_err().to_string().contains("required"));
    assert!(ports(&query(&["x"])).unwrap_err().to_string().contains("\"x\""));
    assert!(ports(&query(&["80"; 128])).unwrap_err().to_string().contains("127"));
}

#[tokio::test]
async fn each_port_has_channels_and_ends_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (client, messages) = futures::channel::mpsc::unbounded();
    let (out, mut heard) = mpsc::channel(16);
    let target = Target { netns: None, pod: "d/p".into() };
    let serving = tokio::spawn(exchange(messages, out, vec![port, free], target));
    let (mut program, _) = listener.accept().await.unwrap();
    client.unbounded_send(b"\0question".to_vec()).unwrap();
    let mut question = [0; 8];
    program.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"question");
    program.write_all(b"answer").await.unwrap();
    drop(program);
    let mut said: [Vec<u8>; 4] = Default::default();
    while let Some(frame) = heard.recv().await {
        said[usize::from(frame[0])].extend_from_slice(&frame[1..]);
    }
    serving.await.unwrap();
    assert_eq!(said[0], [&port.to_le_bytes()[..], b"answer"].concat());
    assert_eq!(said[1], port.to_le_bytes());
    assert_eq!(said[2], free.to_le_bytes());
    let error = String::from_utf8_lossy(&said[3][2..]).into_owned();
    assert!(error.starts_with(&format!("error forwarding port {free} to pod d/p: ")), "{error}");
}

#[tokio::test]
async fn a_client_that_goes_takes_its_connections_along() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (client, messages) = futures::channel::mpsc::unbounded::<Vec<u8>>();
    let (out, _heard) = mpsc::channel(16);
    let target = Target { netns: None, pod: "d/p".into() };
    let serving = tokio::spawn(exchange(messages, out, vec![port], target));
    let (mut program, _) = listener.accept().await.unwrap();
    drop(client);
    serving.await.unwrap();
    assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
}
