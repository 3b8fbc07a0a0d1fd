//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn a_service_is_told_as_kubernetes_tells_it() {
    let service = |ip: &str| -> Service {
        serde_json::from_value(json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": ip, "ports": [
            {"name": "sql-main", "port": 5432, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}))
        .unwrap()
    };
    let env = variables(&service("10.96.0.9"));
    for (name, value) in [
        ("MY_DB_SERVICE_HOST", "10.96.0.9"),
        ("MY_DB_SERVICE_PORT", "5432"),
        ("MY_DB_SERVICE_PORT_SQL_MAIN", "5432"),
        ("MY_DB_PORT", "tcp://10.96.0.9:5432"),
        ("MY_DB_PORT_5432_TCP", "tcp://10.96.0.9:5432"),
        ("MY_DB_PORT_53_UDP", "udp://10.96.0.9:53"),
        ("MY_DB_PORT_53_UDP_PROTO", "udp"),
        ("MY_DB_PORT_53_UDP_PORT", "53"),
        ("MY_DB_PORT_53_UDP_ADDR", "10.96.0.9"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(variables(&service("None")).is_empty());
}
