//! Table tests of the selection rules.
use super::*;

fn name() -> ServiceName {
    ServiceName { namespace: "default".into(), name: "web".into() }
}

fn service() -> Service {
    Service {
        cluster_ips: vec!["10.96.0.9".parse().unwrap()],
        external_ips: vec!["198.18.9.9".parse().unwrap()],
        ingress_ips: vec!["198.18.0.7".parse().unwrap()],
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: Some(30080) }],
    }
}

fn slice(endpoints: &[(&str, bool, bool, bool)]) -> Slice {
    Slice {
        service: name(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
        endpoints: endpoints
            .iter()
            .map(|(address, ready, serving, terminating)| Endpoint {
                address: address.parse().unwrap(),
                ready: *ready,
                serving: *serving,
                terminating: *terminating,
            })
            .collect(),
    }
}

#[track_caller]
fn check(slices: &[Slice], selectable: &[&str], known: usize) {
    let ports = service_ports(&BTreeMap::from([(name(), service())]), slices);
    let port = ports.values().next().unwrap();
    let addresses: Vec<String> = port.selectable.iter().map(|backend| backend.address.to_string()).collect();
    assert_eq!(addresses, selectable);
    assert_eq!(port.known.len(), known);
    assert!(port.known.iter().all(|backend| backend.port == 8080));
}

#[test]
fn ready_endpoints_of_all_slices_are_selectable() {
    check(
        &[slice(&[("10.0.0.1", true, true, false)]), slice(&[("10.0.0.2", true, true, false)])],
        &["10.0.0.1", "10.0.0.2"],
        2,
    );
}

#[test]
fn unready_endpoints_stay_known_but_get_nothing_new() {
    check(&[slice(&[("10.0.0.1", true, true, false), ("10.0.0.2", false, false, false)])], &["10.0.0.1"], 2);
}

#[test]
fn terminating_endpoints_serve_only_where_none_is_ready() {
    check(&[slice(&[("10.0.0.1", true, true, false), ("10.0.0.2", false, true, true)])], &["10.0.0.1"], 2);
    check(&[slice(&[("10.0.0.1", false, false, false), ("10.0.0.2", false, true, true)])], &["10.0.0.2"], 2);
    check(&[slice(&[("10.0.0.2", false, false, true)])], &[], 1);
}

#[test]
fn a_port_of_another_name_or_protocol_has_no_backends() {
    let mut other = slice(&[("10.0.0.1", true, true, false)]);
    other.ports = vec![("metrics".into(), Protocol::Tcp, 9090), (String::new(), Protocol::Udp, 8080)];
    check(&[other], &[], 0);
}

#[test]
fn every_kind_of_frontend_is_there() {
    let ports = service_ports(&BTreeMap::from([(name(), service())]), []);
    let kinds: BTreeSet<FrontendKind> = ports.values().flat_map(|port| port.frontends.iter().map(|f| f.kind)).collect();
    assert_eq!(kinds.len(), 4);
    let node_port = ports.values().flat_map(|p| &p.frontends).find(|f| f.kind == FrontendKind::NodePort).unwrap();
    assert!(node_port.address.is_unspecified() && node_port.port == 30080);
}
