//! Tests of [`super`].
use super::*;

fn added() -> Added {
    Added {
        address: "10.244.1.7".parse().unwrap(),
        host_name: "lxc0123456789ab".into(),
        host_mac: "aa:bb:cc:dd:ee:01".into(),
        pod_name: "eth0".into(),
        pod_mac: "aa:bb:cc:dd:ee:02".into(),
        netns: "/run/netns/x".into(),
    }
}

#[test]
fn only_old_results_carry_the_address_version() {
    for version in VERSIONS {
        let result = result(version, &added());
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["address"], "10.244.1.7/32");
        assert_eq!(result["ips"][0].get("version").is_some(), version.starts_with("0."), "{version}");
        assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/x");
    }
}

#[test]
fn an_unknown_version_is_code_1_and_garbage_code_6() {
    assert_eq!(NetConf::parse(r#"{"cniVersion":"2.0.0","name":"x"}"#).unwrap_err().code, 1);
    assert_eq!(NetConf::parse("{").unwrap_err().code, 6);
}

#[test]
fn a_missing_variable_is_named() {
    let env = |name: &str| match name {
        "CNI_CONTAINERID" => Some("c".to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        "CNI_ARGS" => Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web".to_owned()),
        _ => None,
    };
    let error = Params::from_env(env, true).unwrap_err();
    assert_eq!(error.code, 4);
    assert!(error.message.contains("CNI_NETNS"));
    let params = Params::from_env(env, false).unwrap();
    assert_eq!((params.namespace.as_str(), params.pod.as_str()), ("ns", "web"));
}
