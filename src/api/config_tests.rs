//! Tests of [`super`].
use super::*;

const WALKTHROUGH: &str = "
k8sServiceHost: 172.18.0.2
k8sServicePort: 6443
clusterName: cilium-lb-ipam
kubeProxyReplacement: strict
routingMode: native
autoDirectNodeRoutes: true
ipv4NativeRoutingCIDR: 10.0.0.0/8
bpf: {masquerade: true}
ipam: {mode: cluster-pool}
installNoConntrackIptablesRules: true
debug: {enabled: true, verbose: datapath}
monitorAggregation: none
";

#[test]
fn the_walkthroughs_values_are_understood() {
    let config = Config::parse(WALKTHROUGH).unwrap();
    assert!(config.kube_proxy_replacement.0 && config.bpf.masquerade && config.socket_lb.enabled);
    assert_eq!(config.ipv4_native_routing_cidr.to_string(), "10.0.0.0/8");
}

#[track_caller]
fn check_error(line: &str, expected: &[&str]) {
    let error = format!("{:#}", Config::parse(&format!("{WALKTHROUGH}{line}\n")).unwrap_err());
    for word in expected {
        assert!(error.contains(word), "{word:?} is missing in {error:?}");
    }
}

#[test]
fn errors_name_key_and_place() {
    check_error("socketLb: {enabled: true}", &["socketLb", "line 14"]);
    check_error("socketLB: {enabled: maybe}", &["line 14"]);
    check_error("devices: eth0", &["devices", "line 14"]);
}
