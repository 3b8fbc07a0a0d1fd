//! Tier 3: socket LB translates in the system call, for IPv4 sockets and for IPv6 sockets that dial IPv4-mapped addresses,
//! and no packet is translated by tc then. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use portolan_core::service::Protocol::{Tcp, Udp};
use support::cgroup::OwnCgroup;
use support::talk::{at, tcp_server, udp_server};
use support::world::{CLUSTER_IP, NODE, NODE_PORT, POD_B, REMOTE_POD, VIP, World};

const PATIENCE: Duration = Duration::from_secs(2);

/// As an IPv4 or an IPv6 socket spells the address.
fn spelled(address: Ipv4Addr, port: u16, v6: bool) -> SocketAddr {
    let ip = if v6 { IpAddr::V6(address.to_ipv6_mapped()) } else { IpAddr::V4(address) };
    SocketAddr::new(ip, port)
}

fn unconnected(v6: bool) -> UdpSocket {
    let socket = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn sockets_of_both_families_believe_that_they_talk_to_the_service() {
    let Some(mut world) = World::new("socketlb") else { return };
    let cgroup = OwnCgroup::enter();
    world.socket_lb(cgroup.path());
    tcp_server(&world.b, POD_B, 8080);
    udp_server(&world.far, REMOTE_POD, 8080);
    world.serve("web", Tcp, 80, &[at(POD_B, 8080)]);
    world.serve("dns", Udp, 53, &[at(REMOTE_POD, 8080)]);
    for (who, ns) in [("pod", &world.a), ("node", &world.node)] {
        for v6 in [false, true] {
            for (ip, tcp, udp) in [(CLUSTER_IP, 80, 53), (VIP, 80, 53), (NODE, NODE_PORT, NODE_PORT)] {
                let case = format!("{who} -> {ip}, IPv6 socket: {v6}");
                let dialled = spelled(ip, tcp, v6);
                let peer = ns.run(|| TcpStream::connect_timeout(&dialled, PATIENCE).and_then(|tcp| tcp.peer_addr()));
                assert_eq!(peer.unwrap_or_else(|error| panic!("{case}: {error}")), dialled, "{case}");
                let dialled = spelled(ip, udp, v6);
                let socket = ns.run(|| unconnected(v6));
                socket.send_to(b"hello", dialled).unwrap();
                let (_, from) = socket.recv_from(&mut [0; 100]).unwrap_or_else(|error| panic!("udp {case}: {error}"));
                assert_eq!(from, dialled, "{case}: the answer must come from whom was asked");
            }
        }
    }
    for hook in ["connect4", "sendmsg4", "connect6"] {
        assert!(world.counter(hook, "service-new") >= 6, "{hook}");
    }
    for hook in ["from-pod", "to-netdev", "to-lo"] {
        assert_eq!(world.counter(hook, "service-new"), 0, "{hook} had nothing left to do");
    }
}

#[test]
fn what_nobody_serves_is_refused_in_the_system_call() {
    let Some(mut world) = World::new("socketlb-reject") else { return };
    let cgroup = OwnCgroup::enter();
    world.socket_lb(cgroup.path());
    world.serve("web", Tcp, 80, &[]);
    world.serve("dns", Udp, 53, &[]);
    for v6 in [false, true] {
        for (tcp, udp) in [(80, 53), (81, 54)] {
            let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{tcp} {udp}: {error}");
            refused(world.a.run(|| TcpStream::connect_timeout(&spelled(VIP, tcp, v6), PATIENCE)).unwrap_err());
            let socket = world.a.run(|| unconnected(v6));
            refused(socket.send_to(b"hello", spelled(VIP, udp, v6)).unwrap_err());
        }
    }
    assert!(world.counter("connect4", "reject-no-backend") > 0);
    assert!(world.counter("connect6", "reject-no-port") > 0);
    assert_eq!(world.counter("from-pod", "reject-no-backend"), 0);
}
