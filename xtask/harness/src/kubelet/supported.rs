//! Which fields of a pod this kubelet carries out. A field that it does not know is refused by its name: a pod that runs
//! without what its author asked for proves nothing.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// Fields that are carried out, or mean nothing on a node (what the scheduler and controllers read). `*` is any element of
/// a list, and a path that ends in `/` allows all below it.
const FIELDS: &[&str] = &[
    "nodeName",
    "nodeSelector/",
    "affinity/",
    "tolerations/",
    "topologySpreadConstraints/",
    "schedulerName",
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "overhead/",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "serviceAccount",
    "serviceAccountName",
    "automountServiceAccountToken",
    "hostname",
    "subdomain",
    "hostNetwork",
    "hostAliases/",
    "dnsPolicy",
    "dnsConfig/",
    "enableServiceLinks",
    "hostUsers",
    // Images lie on the node: nothing is pulled.
    "imagePullSecrets/",
    "os/",
    "securityContext/runAsUser",
    "securityContext/runAsGroup",
    "securityContext/runAsNonRoot",
    "securityContext/supplementalGroups/",
    "securityContext/supplementalGroupsPolicy",
    "securityContext/fsGroup",
    "securityContext/fsGroupChangePolicy",
    // The default profile of this runtime is none.
    "securityContext/seccompProfile/type=RuntimeDefault",
    "securityContext/seccompProfile/type=Unconfined",
    "securityContext/appArmorProfile/type=RuntimeDefault",
    "securityContext/appArmorProfile/type=Unconfined",
    "volumes/*/name",
    "volumes/*/hostPath/",
    "volumes/*/emptyDir/",
    "volumes/*/configMap/",
    "volumes/*/secret/",
    "volumes/*/downwardAPI/",
    "volumes/*/projected/defaultMode",
    "volumes/*/projected/sources/*/serviceAccountToken/",
    "volumes/*/projected/sources/*/configMap/",
    "volumes/*/projected/sources/*/secret/",
    "volumes/*/projected/sources/*/downwardAPI/",
];

/// The same for each container.
const CONTAINER_FIELDS: &[&str] = &[
    "name",
    "image",
    "imagePullPolicy",
    "command/",
    "args/",
    "workingDir",
    "stdin",
    "stdinOnce",
    "tty",
    "ports/*/name",
    "ports/*/containerPort",
    "ports/*/protocol",
    "env/",
    "envFrom/",
    // The scheduler counts requests; limits are told to the container, but no controller enforces them (README).
    "resources/limits/",
    "resources/requests/",
    "resizePolicy/",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts/*/name",
    "volumeMounts/*/mountPath",
    "volumeMounts/*/subPath",
    "volumeMounts/*/subPathExpr",
    "volumeMounts/*/readOnly",
    "volumeMounts/*/mountPropagation",
    "volumeMounts/*/recursiveReadOnly=Disabled",
    "volumeMounts/*/recursiveReadOnly=IfPossible",
    "securityContext/privileged",
    "securityContext/capabilities/",
    "securityContext/runAsUser",
    "securityContext/runAsGroup",
    "securityContext/runAsNonRoot",
    "securityContext/readOnlyRootFilesystem",
    "securityContext/allowPrivilegeEscalation",
    "securityContext/procMount=Default",
    "securityContext/seccompProfile/type=RuntimeDefault",
    "securityContext/seccompProfile/type=Unconfined",
    "securityContext/appArmorProfile/type=RuntimeDefault",
    "securityContext/appArmorProfile/type=Unconfined",
    "lifecycle/postStart/exec/",
    "lifecycle/postStart/httpGet/",
    "lifecycle/postStart/sleep/",
    "lifecycle/preStop/exec/",
    "lifecycle/preStop/httpGet/",
    "lifecycle/preStop/sleep/",
];

/// The same for each probe.
const PROBE_FIELDS: &[&str] = &[
    "exec/",
    "httpGet/",
    "tcpSocket/",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
];

/// Finds what this kubelet does not carry out.
///
/// # Errors
/// With all such fields.
pub(super) fn check(pod: &Pod) -> Result<()> {
    let Some(spec) = &pod.spec else { bail!("the pod has no spec") };
    let mut spec = serde_json::to_value(spec)?;
    let mut refused = Vec::new();
    let host_network = spec["hostNetwork"] == true;
    for (list, init) in [("initContainers", true), ("containers", false)] {
        let Some(containers) = spec.as_object_mut().and_then(|spec| spec.remove(list)) else { continue };
        for container in containers.as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            check_container(container, init, host_network, &format!("{list}[{name}]."), &mut refused);
        }
    }
    walk(&spec, FIELDS, "", "", &mut refused);
    if refused.is_empty() {
        return Ok(());
    }
    bail!("not supported by the harness's kubelet: {}", refused.join(", "))
}

fn check_container(container: &Value, init: bool, host_network: bool, place: &str, refused: &mut Vec<String>) {
    let mut rest = container.clone();
    let Some(fields) = rest.as_object_mut() else { return };
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        if let Some(probe_fields) = fields.remove(probe) {
            walk(&probe_fields, PROBE_FIELDS, "", &format!("{place}{probe}."), refused);
        }
    }
    if init && fields.get("restartPolicy").is_some_and(|policy| policy == "Always") {
        fields.remove("restartPolicy");
    }
    for port in fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        // The API server fills it in where the container's ports are the node's anyway.
        if let Some(port) = port.as_object_mut().filter(|_| host_network) {
            port.remove("hostPort");
        }
    }
    walk(&rest, CONTAINER_FIELDS, "", place, refused);
}

/// Goes down to the values and names those whose path is not among the known.
fn walk(value: &Value, known: &[&str], path: &str, place: &str, refused: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    if !path.is_empty() && known.contains(&format!("{path}/").as_str()) {
        return;
    }
    match value {
        Value::Null | Value::Bool(false) => {
            // `false` asks for nothing, but where it is the default that is true.
            if value == false && path == "hostUsers" {
                refused.push(format!("{place}{path}"));
            }
        }
        // As the API server fills in `grpc.service`.
        Value::String(text) if text.is_empty() => {}
        Value::Object(fields) => {
            for (name, inner) in fields {
                walk(inner, known, &below(name), place, refused);
            }
            let named_only = known.iter().any(|field| field.starts_with(&format!("{path}/")));
            if fields.is_empty() && !path.is_empty() && !named_only {
                refused.push(format!("{place}{}", dotted(path)));
            }
        }
        Value::Array(items) => {
            for inner in items {
                walk(inner, known, &below("*"), place, refused);
            }
        }
        scalar => {
            let exact = scalar.as_str().map(|text| format!("{path}={text}"));
            let fine = known.contains(&path) || exact.is_some_and(|exact| known.contains(&exact.as_str()));
            if !fine {
                refused.push(format!("{place}{}", dotted(path)));
            }
        }
    }
}

fn dotted(path: &str) -> String {
    path.replace('/', ".").replace(".*", "[]")
}

#[cfg(test)]
#[path = "supported_tests.rs"]
mod tests;
