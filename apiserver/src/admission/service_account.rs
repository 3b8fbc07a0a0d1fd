//! Every pod runs as a service account, and finds its token, the authority and its namespace in a projected volume.

use serde_json::{Value, json};

use super::shown_name;
use crate::auth::node::refers;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::store::Key;
use crate::verbs::meta;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and seven seconds by which the lifetime of such tokens is known.
const TOKEN_SECONDS: i64 = 3607;
/// Pods that only mirror a file of the kubelet.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn admit(state: &mut State, pod: &mut Value) -> Outcome<()> {
    if !state.access.service_accounts {
        return Ok(());
    }
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return mirror(pod);
    }
    let name = match pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => "default".to_owned(),
    };
    pod["spec"]["serviceAccountName"] = json!(name);
    pod["spec"]["serviceAccount"] = json!(name);
    let namespace = meta(pod, "namespace").to_owned();
    let key = Key { resource: "/serviceaccounts".into(), namespace: namespace.clone(), name: name.clone() };
    let Some(account) = state.store.get(&key) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        return Err(Failure::forbidden("", "pods", shown_name(pod), &why));
    };
    let automount = |object: &Value| object["automountServiceAccountToken"].as_bool();
    if automount(&pod["spec"]).or(automount(&account)).unwrap_or(true) {
        mount(state, pod);
    }
    if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())
    {
        pod["spec"]["imagePullSecrets"] = json!(secrets);
    }
    Ok(())
}

/// A pod that mirrors a file has nothing of the cluster.
fn mirror(pod: &Value) -> Outcome<()> {
    let no = |what: &str| {
        let why = format!("a mirror pod may not reference {what}");
        Err(Failure::forbidden("", "pods", shown_name(pod), &why))
    };
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return no("service accounts");
    }
    for (secrets, what) in [(true, "secrets"), (false, "configmaps")] {
        if refers(&pod["spec"], secrets, None) {
            return no(what);
        }
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    if volumes.into_iter().any(|volume| volume["persistentVolumeClaim"].is_object()) {
        return no("persistentvolumeclaims");
    }
    Ok(())
}

fn mount(state: &mut State, pod: &mut Value) {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let known = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX));
    let known = known.map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| state.chance.name(VOLUME_PREFIX));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let own = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            container["volumeMounts"] = mounts.into_iter().chain([own]).collect();
            needed = true;
        }
    }
    if !needed || known.is_some() {
        return;
    }
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]);
    let volume = json!({"name": name, "projected": {"sources": sources, "defaultMode": 420}});
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    pod["spec"]["volumes"] = volumes.into_iter().chain([volume]).collect();
}
