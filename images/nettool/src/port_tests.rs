//! Tests of [`super`], on loopback. Own addresses of the tests keep their ports apart from everybody else's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use super::*;
use crate::client;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A server, and where a client of it comes from.
fn server(last: u8) -> (TcpListener, SocketAddr, Source) {
    let address = IpAddr::V4(Ipv4Addr::new(127, 77, 0, last));
    let listener = TcpListener::bind((address, 0)).unwrap();
    let target = listener.local_addr().unwrap();
    // Nobody else has this address, so its ports are free; the table is searched by port alone.
    let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
    (listener, target, Source { source_port: Some(port), source_address: Some(address) })
}

fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 1 << 16]).is_ok() {}
}

#[test]
fn a_port_whose_former_connection_is_being_closed_is_waited_for() {
    let (listener, target, source) = server(1);
    let mut former = client::connect(target, source, TIMEOUT).unwrap();
    let mut peer = Some(listener.accept().unwrap().0);
    // The peer reads nothing, so the end of the stream cannot reach it: closed here, the connection is in FIN_WAIT1.
    fill(&mut former);
    drop(former);
    let error = client::connect(target, source, TIMEOUT).unwrap_err();
    assert!(is_taken(&error), "the kernel should refuse the port: {error}");
    let mut looks = 0;
    let (stream, _) = connect_when_free(
        source,
        target,
        TIMEOUT,
        || client::connect(target, source, TIMEOUT),
        || {
            looks += 1;
            if let Some(mut peer) = peer.take() {
                std::io::copy(&mut peer, &mut std::io::sink()).unwrap();
            }
        },
    )
    .unwrap();
    assert!(looks > 0);
    assert_eq!(stream.local_addr().unwrap().port(), source.source_port.unwrap());
    let (mut again, _) = listener.accept().unwrap();
    drop(stream);
    assert_eq!(again.read(&mut [0; 1]).unwrap(), 0, "the new connection is the one that was accepted");
}

#[test]
fn a_port_that_stays_taken_is_an_error_that_names_its_holder() {
    let (listener, target, source) = server(2);
    let _held = client::connect(target, source, TIMEOUT).unwrap();
    let timeout = Duration::from_millis(20);
    let error = connect_when_free(source, target, timeout, || client::connect(target, source, timeout), pause)
        .unwrap_err()
        .to_string();
    let port = source.source_port.unwrap();
    assert!(error.contains(&format!("source port {port} is still held")) && error.contains("ESTABLISHED"), "{error}");
    drop(listener);
}

#[test]
fn other_errors_are_not_waited_for() {
    let (listener, target, source) = server(3);
    let refused = SocketAddr::new(target.ip(), source.source_port.unwrap());
    drop(listener);
    let mut calls = 0;
    let mut once = |source: Source, error: i32| {
        calls = 0;
        let connect = || {
            calls += 1;
            Err::<(), _>(io::Error::from_raw_os_error(error))
        };
        let seen = connect_when_free(source, refused, TIMEOUT, connect, || panic!("there is nothing to wait for"));
        (seen.unwrap_err().raw_os_error(), calls)
    };
    assert_eq!(once(source, libc::ECONNREFUSED), (Some(libc::ECONNREFUSED), 1));
    assert_eq!(once(Source::default(), libc::EADDRNOTAVAIL), (Some(libc::EADDRNOTAVAIL), 1), "no port was asked for");
    // Nobody holds it: it may have gone a moment ago, so it is tried once more, and no longer.
    assert_eq!(once(source, libc::EADDRNOTAVAIL), (Some(libc::EADDRNOTAVAIL), 2));
}

#[test]
fn the_kernels_table_is_read() {
    let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
                   0: 0100007F:B26E 0200007F:0050 09 00000000:00000001 01:00000014 00000000\n\
                   1: 0100007F:B26E 0200007F:0051 06 00000000:00000000 03:000016BE 00000000\n";
    let all = parse(text);
    assert_eq!(
        all.iter().map(|one| (one.port, one.state, one.holds())).collect::<Vec<_>>(),
        [(45678, 9, true), (45678, TIME_WAIT, false)]
    );
    assert!(all[0].to_string().contains("LAST_ACK"));
}
