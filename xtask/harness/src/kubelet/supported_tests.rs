//! Tests of [`super`].
use serde_json::json;

use super::*;

fn refused(spec: Value) -> String {
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
    check(&pod).map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn what_the_api_server_fills_in_is_accepted() {
    let spec = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true, "nodeName": "n",
        "serviceAccountName": "default", "serviceAccount": "default", "priority": 0, "preemptionPolicy": "x",
        "hostPID": false, "shareProcessNamespace": false, "hostUsers": true,
        "volumes": [{"name": "t", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}, {"name": "e", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "resources": {}, "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1},
            "volumeMounts": [{"name": "t", "mountPath": "/t", "readOnly": true}]}],
    });
    assert_eq!(refused(spec), "");
}

#[test]
fn what_is_not_carried_out_is_refused_by_its_name() {
    let with = |container: Value| {
        let mut whole = json!({"name": "c", "image": "i"});
        whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        json!({"containers": [whole]})
    };
    for (spec, field) in [
        (json!({"containers": [], "hostPID": true}), "hostPID"),
        (json!({"containers": [], "hostUsers": false}), "hostUsers"),
        (json!({"containers": [], "runtimeClassName": "kata"}), "runtimeClassName"),
        (json!({"containers": [], "readinessGates": [{"conditionType": "x"}]}), "readinessGates[].conditionType"),
        (json!({"containers": [], "activeDeadlineSeconds": 5}), "activeDeadlineSeconds"),
        (json!({"containers": [], "securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}), "sysctls"),
        (json!({"containers": [], "volumes": [{"name": "v", "nfs": {"server": "s", "path": "p"}}]}), "nfs"),
        (with(json!({"livenessProbe": {"grpc": {"port": 1}}})), "containers[c].livenessProbe.grpc.port"),
        (with(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "containers[c].ports[].hostPort"),
        (with(json!({"securityContext": {"procMount": "Unmasked"}})), "containers[c].securityContext.procMount"),
        (with(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})), "seccompProfile"),
        (with(json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}})), "preStop.tcpSocket"),
        (with(json!({"volumeDevices": [{"name": "x", "devicePath": "/x"}]})), "volumeDevices"),
    ] {
        let said = refused(spec);
        assert!(said.contains(field), "{field}: {said:?}");
    }
    let host = json!({"hostNetwork": true, "containers": [
        {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    assert_eq!(refused(host), "");
}
