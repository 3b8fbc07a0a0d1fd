//! Tests of [`super`]: what is written can be read back.
use super::*;

#[test]
fn addresses_survive_the_round_trip() {
    for text in ["10.96.0.1", "0.0.0.0", "255.255.255.255", "2001:db8::7"] {
        let address: IpAddr = text.parse().unwrap();
        let (raw, family) = addr(address);
        assert_eq!(ip(&raw, family), address);
    }
}

#[test]
fn a_node_port_is_not_the_mapped_zero_address() {
    assert_eq!(addr("0.0.0.0".parse().unwrap()).0, abi::Addr::UNSPECIFIED);
    assert_ne!(addr("0.0.0.1".parse().unwrap()).0.words[2], 0);
}

#[test]
fn frontends_and_backends_survive_the_round_trip() {
    let key = FrontendKey { address: "10.96.0.1".parse().unwrap(), port: 443, protocol: Some(Protocol::Tcp) };
    assert_eq!(frontend_key_back(&frontend_key(&key)), Some(key));
    let wildcard = FrontendKey { address: "10.96.0.1".parse().unwrap(), port: 0, protocol: None };
    assert_eq!(frontend_key_back(&frontend_key(&wildcard)), Some(wildcard));
    for kind in [FrontendKind::ClusterIp, FrontendKind::NodePort, FrontendKind::LoadBalancer, FrontendKind::ExternalIp]
    {
        let entry = FrontendEntry { service: 7, kind };
        assert_eq!(frontend_val_back(frontend_val(entry)), Some(entry));
    }
    let value = Backend { address: "10.244.1.5".parse().unwrap(), port: 53, protocol: Protocol::Udp };
    assert_eq!(backend_back(&backend(&value)), Some(value));
}
