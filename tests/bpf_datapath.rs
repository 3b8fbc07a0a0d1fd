//! Tier 3: the datapath carries real packets between network namespaces: a node with two pods, and everything else behind
//! its only device. Socket LB is out of the way here, so every packet goes through tc. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use portolan::datapath::flows;
use portolan_core::service::Protocol::{Tcp, Udp};
use support::icmp::{self, Pinger};
use support::talk::{anywhere, ask, at, connect_from, dial, tcp_server, tcp_server_once, udp_server, udp_socket};
use support::world::{CLUSTER_IP, FAR, NODE, NODE_PORT, OUTSIDE, POD_A, POD_B, REMOTE_POD, VIP, World};

#[test]
fn a_service_answers_from_pod_node_and_outside() {
    for backend in ["local", "remote"] {
        let Some(mut world) = World::new("service") else { return };
        let address = if backend == "local" { POD_B } else { REMOTE_POD };
        tcp_server(if backend == "local" { &world.b } else { &world.far }, address, 8080);
        udp_server(if backend == "local" { &world.b } else { &world.far }, address, 8080);
        world.serve("web", Tcp, 80, &[at(address, 8080)]);
        world.serve("dns", Udp, 53, &[at(address, 8080)]);
        for (who, ns) in [("pod", &world.a), ("node", &world.node), ("far", &world.far)] {
            let outside = who == "far";
            let mut frontends = vec![(NODE, NODE_PORT, NODE_PORT), (VIP, 80, 53)];
            if !outside {
                frontends.push((CLUSTER_IP, 80, 53));
            }
            for (ip, tcp, udp) in frontends {
                let case = format!("{who} -> {ip} ({backend} backend)");
                let mut tcp = dial(ns, None, at(ip, tcp)).unwrap_or_else(|error| panic!("tcp {case}: {error}"));
                tcp.echo("again").unwrap();
                let socket = udp_socket(ns, anywhere(), at(ip, udp)).unwrap();
                let udp = ask(&socket, 100).unwrap_or_else(|error| panic!("udp {case}: {error}"));
                for seen in [tcp.seen, udp] {
                    assert_eq!(seen.server, at(address, 8080), "{case}");
                    let client = match (who, backend) {
                        ("pod", _) => POD_A,
                        ("node", _) => NODE,
                        // The answer of a remote backend would go past this node.
                        (_, "remote") => NODE,
                        _ => FAR,
                    };
                    assert_eq!(*seen.client.ip(), client, "{case}");
                }
            }
        }
        let refused = dial(&world.far, None, at(CLUSTER_IP, 80)).map(|connection| connection.seen).unwrap_err();
        assert_ne!(refused.kind(), ErrorKind::ConnectionRefused, "a ClusterIP is silent to clients outside");
        assert!(world.counter("from-netdev", "drop-clusterip-from-outside") > 0);
    }
}

#[test]
fn one_source_port_serves_node_port_vip_and_backend_at_once() {
    let Some(mut world) = World::new("reuse") else { return };
    tcp_server(&world.b, POD_B, 8080);
    world.serve("web", Tcp, 80, &[at(POD_B, 8080)]);
    let from = Some(at(FAR, 45678));
    let mut held: Vec<_> = [at(POD_B, 8080), at(NODE, NODE_PORT), at(VIP, 80)]
        .into_iter()
        .map(|to| dial(&world.far, from, to).unwrap_or_else(|error| panic!("{to}: {error}")))
        .collect();
    for connection in &mut held {
        connection.echo("still here").unwrap();
    }
    let ports: std::collections::BTreeSet<u16> = held.iter().map(|connection| connection.seen.client.port()).collect();
    assert_eq!(ports.len(), 3, "the backend sees three connections: {ports:?}");
}

#[test]
fn without_a_backend_everyone_is_refused() {
    let Some(mut world) = World::new("reject") else { return };
    world.serve("web", Tcp, 80, &[]);
    world.serve("dns", Udp, 53, &[]);
    let mut tcp_refusals = 0;
    let mut udp_refusals = 0;
    for offload in [true, false] {
        if !offload {
            // The refusal then leaves with a checksum that the device's driver completes, if it was left to be completed.
            world.node.run(|| support::offload::off("eth0").unwrap());
        }
        for (who, ns) in [("pod", &world.a), ("node", &world.node), ("far", &world.far)] {
            for (ip, tcp, udp) in [(VIP, 80, 53), (NODE, NODE_PORT, NODE_PORT), (VIP, 81, 54)] {
                let case = format!("{who} -> {ip}:{tcp} (offload {offload})");
                let Err(error) = ns.run(|| connect_from(None, at(ip, tcp))) else { panic!("{case} was answered") };
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{case}: {error}");
                // An error that a connecting socket does not take at once shows as a second SYN, a second later.
                tcp_refusals += 1;
                let socket = udp_socket(ns, anywhere(), at(ip, udp)).unwrap();
                let error = ask(&socket, 100).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "udp {case}: {error}");
                udp_refusals += 1;
            }
        }
    }
    let refused = world.total("reject-no-backend") + world.total("reject-no-port");
    assert_eq!(refused, tcp_refusals + udp_refusals, "one packet, one refusal");
    assert_eq!(world.total("drop-rewrite"), 0);
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    let Some(mut world) = World::new("hairpin") else { return };
    tcp_server(&world.a, POD_A, 8080);
    world.serve("web", Tcp, 80, &[at(POD_A, 8080)]);
    for ip in [CLUSTER_IP, VIP] {
        let mut connection = dial(&world.a, None, at(ip, 80)).unwrap();
        connection.echo("me").unwrap();
        assert_eq!(*connection.seen.client.ip(), NODE, "its own address would be its own connection");
    }
}

#[test]
fn traffic_that_leaves_the_cluster_has_the_nodes_address() {
    let Some(world) = World::new("masquerade") else { return };
    tcp_server(&world.far, OUTSIDE, 80);
    udp_server(&world.far, OUTSIDE, 53);
    tcp_server(&world.far, REMOTE_POD, 80);
    tcp_server(&world.far, FAR, 80);
    for to in [at(OUTSIDE, 80), at(REMOTE_POD, 80), at(FAR, 80)] {
        let seen = dial(&world.a, None, to).unwrap().seen;
        let expected = if *to.ip() == OUTSIDE { NODE } else { POD_A };
        assert_eq!(*seen.client.ip(), expected, "pod -> {to}");
    }
    let socket = udp_socket(&world.a, anywhere(), at(OUTSIDE, 53)).unwrap();
    assert_eq!(*ask(&socket, 100).unwrap().client.ip(), NODE);
    // Two pods with one source port.
    let both =
        [(&world.a, POD_A), (&world.b, POD_B)].map(|(ns, ip)| dial(ns, Some(at(ip, 45678)), at(OUTSIDE, 80)).unwrap());
    assert_ne!(both[0].seen.client, both[1].seen.client);
    let pinger = Pinger::new(&world.a);
    pinger.echo(OUTSIDE, 0x1234, 56);
    let answer = pinger.wait(|packet| packet.kind() == 0).unwrap();
    assert_eq!((answer.source(), answer.id()), (OUTSIDE, 0x1234));
}

#[test]
fn fragments_follow_their_first() {
    let Some(mut world) = World::new("fragments") else { return };
    for (ns, address) in [(&world.b, POD_B), (&world.far, REMOTE_POD), (&world.far, OUTSIDE)] {
        udp_server(ns, address, 8080);
    }
    world.serve("local", Udp, 53, &[at(POD_B, 8080)]);
    let far = udp_socket(&world.far, anywhere(), at(VIP, 53)).unwrap();
    assert_eq!(ask(&far, 4000).unwrap().server, at(POD_B, 8080));
    let pod = udp_socket(&world.a, anywhere(), at(OUTSIDE, 8080)).unwrap();
    assert_eq!(*ask(&pod, 4000).unwrap().client.ip(), NODE);
    let pinger = Pinger::new(&world.a);
    pinger.echo(OUTSIDE, 0x4321, 4000);
    let answer = pinger.wait(|packet| packet.kind() == 0).expect("all fragments of a ping are masqueraded");
    assert_eq!((answer.id(), answer.data()), (0x4321, 4000));
}

#[test]
fn a_fragment_that_overtakes_its_first_is_dropped_only_where_it_would_be_translated() {
    let Some(mut world) = World::new("overtaken") else { return };
    world.serve("local", Udp, 53, &[at(POD_B, 8080)]);
    let socket = world.node.run(|| std::net::UdpSocket::bind((NODE, 9000))).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    icmp::udp_second_fragment_first(&world.far, (FAR, 9001), (NODE, 9000), &[7; 1200]);
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).expect("the node's own sockets get what the kernel puts together");
    assert_eq!(length, 1200);
    assert_eq!(world.total("drop-fragment"), 0);
    icmp::udp_second_fragment_first(&world.far, (FAR, 9001), (VIP, 53), &[7; 1200]);
    let counted = || world.counter("from-netdev", "drop-fragment");
    support::eventually("the fragment is counted as dropped", || counted() == 1);
}

#[test]
fn errors_about_a_translated_packet_reach_its_sender() {
    let Some(mut world) = World::new("errors") else { return };
    // No backend listens: the pod's stack answers with an error about a packet that the client never sent like that.
    world.serve("local", Udp, 53, &[at(POD_B, 8080)]);
    for (who, ns) in [("pod", &world.a), ("node", &world.node), ("far", &world.far)] {
        let socket = udp_socket(ns, anywhere(), at(VIP, 53)).unwrap();
        let error = ask(&socket, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{who}: {error}");
    }
    let pinger = Pinger::new(&world.a);
    let nowhere = std::net::Ipv4Addr::new(198, 51, 100, 99);
    pinger.echo(nowhere, 0x1234, 56);
    let error = pinger.wait(|packet| packet.kind() == 3).expect("an error about a masqueraded ping comes back");
    let quoted = error.quoted();
    assert_eq!((quoted.source(), quoted.destination(), quoted.id()), (POD_A, nowhere, 0x1234));
    assert!(error.sum_is_right() && quoted.sum_is_right(), "{error:?}");
}

#[test]
fn ports_of_closed_flows_are_used_again() {
    let ports = (40000, 40007);
    let Some(world) = World::with_snat_ports("reclaim", ports) else { return };
    tcp_server(&world.far, OUTSIDE, 80);
    for round in 0..64 {
        let connection = dial(&world.a, None, at(OUTSIDE, 80)).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!((ports.0..=ports.1).contains(&connection.seen.client.port()), "{:?}", connection.seen);
        close(connection.stream);
    }
    // Eight that stay open are all there is; the ninth finds no port and takes nobody else's.
    let mut open: Vec<_> = (0..8).filter_map(|_| dial(&world.a, None, at(OUTSIDE, 80)).ok()).collect();
    let dropped = world.total("drop-no-port");
    if open.len() == 8 {
        assert!(dial(&world.a, None, at(OUTSIDE, 80)).is_err());
        assert!(world.total("drop-no-port") > dropped);
    }
    assert!(open.len() >= 6, "sixteen draws find one of eight ports in most cases: {}", open.len());
    for connection in &mut open {
        connection.echo("mine").unwrap();
    }
}

/// Closes from the client's side and waits for the other to have done so too.
fn close(stream: std::net::TcpStream) {
    use std::io::Read;
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    (&stream).read_to_end(&mut rest).unwrap();
}

#[test]
fn a_backend_that_dials_its_former_client_keeps_its_own_address() {
    let Some(mut world) = World::new("backwards") else { return };
    tcp_server_once(&world.b, POD_B, 8080);
    world.serve("web", Tcp, 80, &[at(POD_B, 8080)]);
    close(dial(&world.far, Some(at(FAR, 45678)), at(VIP, 80)).unwrap().stream);
    tcp_server(&world.far, FAR, 45678);
    let seen = dial(&world.b, Some(at(POD_B, 8080)), at(FAR, 45678)).unwrap().seen;
    assert_eq!(seen.client, at(POD_B, 8080));
}

#[test]
fn a_flow_is_counted_once() {
    let Some(mut world) = World::new("counters") else { return };
    tcp_server(&world.far, REMOTE_POD, 80);
    tcp_server(&world.b, POD_B, 8080);
    world.serve("web", Tcp, 80, &[at(POD_B, 8080)]);
    let mut direct = dial(&world.a, None, at(REMOTE_POD, 80)).unwrap();
    let mut service = dial(&world.a, None, at(VIP, 80)).unwrap();
    for _ in 0..5 {
        direct.echo("x").unwrap();
        service.echo("x").unwrap();
    }
    assert_eq!(world.counter("from-pod", "direct"), 1);
    assert_eq!(world.counter("from-pod", "service-new"), 1);
    assert_eq!(world.counter("from-pod", "snat"), 0);
}

#[test]
fn a_link_whose_device_is_gone_is_told_from_one_that_works() {
    let Some(world) = World::new("links") else { return };
    let attached = |name: &str| {
        let links = portolan::datapath::read::links(world.datapath.pins()).unwrap();
        links.into_iter().find(|link| link.name == name).expect("the link is pinned").target != 0
    };
    assert!(attached("from_pod@lxca") && attached("from_pod@lxcb"));
    world.node.run(|| portolan::cni::wire::remove("lxca").unwrap());
    support::eventually("the kernel knows that the device is gone", || !attached("from_pod@lxca"));
    assert!(attached("from_pod@lxcb"));
}

#[test]
fn links_that_somebody_removes_are_attached_again() {
    let Some(mut world) = World::new("relink") else { return };
    tcp_server(&world.b, POD_B, 8080);
    world.serve("web", Tcp, 80, &[at(POD_B, 8080)]);
    let repair = |world: &mut World| {
        let World { node, datapath, .. } = world;
        node.run(|| datapath.repair_links().unwrap())
    };
    assert_eq!(repair(&mut world), Vec::<String>::new(), "nothing was removed");
    for name in ["from_pod@lxca", "to_lo@lo", "from_netdev@eth0"] {
        std::fs::remove_file(world.datapath.pins().join("links").join(name)).unwrap();
    }
    let by_pods_program = |world: &World| {
        // Without it the next program on the way translates, if there is one.
        drop(dial(&world.a, None, at(VIP, 80)));
        world.counter("from-pod", "service-new")
    };
    assert_eq!(by_pods_program(&world), 0, "it is detached");
    assert_eq!(repair(&mut world), ["from_netdev@eth0", "from_pod@lxca", "to_lo@lo"]);
    assert_eq!(repair(&mut world), Vec::<String>::new());
    assert_eq!(by_pods_program(&world), 1);
    // A device that is gone misses nothing; another one of its name misses both.
    world.node.run(|| portolan::cni::wire::remove("lxca").unwrap());
    assert_eq!(repair(&mut world), Vec::<String>::new());
    world.node.run(|| portolan::cni::wire::make("lxca", "eth0", &world.a.0, POD_A, 1500).map(drop).unwrap());
    assert_eq!(repair(&mut world), ["from_pod@lxca", "to_pod@lxca"]);
}

#[test]
fn both_entries_of_a_flow_that_has_just_begun_outlive_a_sweep() {
    let Some(mut world) = World::new("sweep") else { return };
    udp_server(&world.b, POD_B, 8080);
    udp_server(&world.far, REMOTE_POD, 8080);
    world.serve("dns", Udp, 53, &[at(POD_B, 8080), at(REMOTE_POD, 8080)]);
    let sockets: Vec<_> = (0..8).map(|_| udp_socket(&world.a, anywhere(), at(VIP, 53)).unwrap()).collect();
    let first: Vec<_> = sockets.iter().map(|socket| ask(socket, 100).unwrap().server).collect();
    let now = Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap());
    let (removed, kept) = flows::sweep(world.datapath.pins(), u64::try_from(now.as_nanos()).unwrap()).unwrap();
    assert_eq!((removed, kept), (0, 16), "one datagram is all that these flows have seen");
    let second: Vec<_> = sockets.iter().map(|socket| ask(socket, 100).unwrap().server).collect();
    assert_eq!(first, second, "a flow stays with its backend");
}
