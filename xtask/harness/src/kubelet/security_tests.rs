//! Tests of [`super`].
use serde_json::{Value, json};

use super::*;

fn privileges(pod: Value, container: Value) -> Result<Privileges> {
    let container: Container =
        serde_json::from_value(json!({"name": "c", "securityContext": container})).expect("a container");
    let pod: Pod = serde_json::from_value(json!({"spec": {"securityContext": pod, "containers": []}})).expect("a pod");
    Privileges::of(&pod, &container)
}

#[test]
fn the_containers_context_goes_before_the_pods() {
    let pod = json!({"runAsUser": 1, "runAsGroup": 2, "supplementalGroups": [3, 4], "fsGroup": 5});
    let found = privileges(pod.clone(), json!({})).unwrap();
    assert_eq!((found.user, found.group, found.groups), (1, 2, vec![3, 4, 5]));
    let found = privileges(pod, json!({"runAsUser": 0, "runAsGroup": 7})).unwrap();
    assert_eq!((found.user, found.group), (0, 7));
    let found = privileges(json!({}), json!({"runAsUser": 1000})).unwrap();
    assert_eq!((found.user, found.group), (1000, 0), "without runAsGroup it is the group of the image, root");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let of = |add: &[&str], drop: &[&str]| {
        privileges(json!({}), json!({"capabilities": {"add": add, "drop": drop}})).map(|found| found.capabilities)
    };
    assert_eq!(of(&[], &[]).unwrap(), Some(DEFAULT_CAPABILITIES.to_vec()));
    assert_eq!(of(&["NET_BIND_SERVICE", "CAP_NET_RAW"], &["ALL"]).unwrap(), Some(vec![10, 13]));
    assert_eq!(of(&["ALL"], &["BPF"]).unwrap().unwrap().len(), 40);
    assert!(!of(&[], &["NET_RAW"]).unwrap().unwrap().contains(&13));
    let error = of(&["NET_ADMINN"], &[]).unwrap_err().to_string();
    assert!(error.contains("NET_ADMINN"), "{error}");
    assert_eq!(privileges(json!({}), json!({"privileged": true})).unwrap().capabilities, None);
    assert_eq!(number("CHECKPOINT_RESTORE").unwrap(), 40);
}

#[test]
fn root_is_refused_where_the_pod_says_so() {
    assert!(privileges(json!({"runAsNonRoot": true}), json!({})).is_err());
    assert!(privileges(json!({"runAsNonRoot": true}), json!({"runAsUser": 5})).is_ok());
    assert!(privileges(json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false})).is_ok());
}
