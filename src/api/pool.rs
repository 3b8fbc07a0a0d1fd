//! `CiliumLoadBalancerIPPool`, in versions v2alpha1 and v2 with one schema, so that no version loses a field.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses for Services of type LoadBalancer.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2alpha1",
    kind = "CiliumLoadBalancerIPPool",
    plural = "ciliumloadbalancerippools",
    singular = "ciliumloadbalancerippool",
    shortname = "ippools",
    shortname = "ippool",
    shortname = "lbippool",
    shortname = "lbippools",
    category = "cilium",
    status = "PoolStatus",
    derive = "PartialEq",
    doc = "Addresses for Services of type LoadBalancer",
    printcolumn = r#"{"name":"Disabled","type":"boolean","jsonPath":".spec.disabled"}"#,
    printcolumn = r#"{"name":"Conflicting","type":"string","jsonPath":".status.conditions[?(@.type==\"cilium.io/PoolConflict\")].status"}"#,
    printcolumn = r#"{"name":"IPs Available","type":"string","jsonPath":".status.conditions[?(@.type==\"cilium.io/IPsAvailable\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Which Services may have addresses of this pool; absent or empty: all. Besides a Service's labels the keys
    /// `io.kubernetes.service.namespace` and `io.kubernetes.service.name` can be selected on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<ServiceSelector>,
    /// Ranges of addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<PoolBlock>,
    /// Deprecated: the former name of `blocks`. A pool with it leaves out the first and last address of each `cidr`
    /// unless `allowFirstLastIPs` says otherwise, as releases of its time did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<PoolBlock>,
    /// Whether the first and last address of a `cidr` may be given out: Yes or No.
    // Text, as is the selector's operator: one object from before the schema must not end the watch of all.
    #[serde(default, rename = "allowFirstLastIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Yes", "No"]))]
    pub allow_first_last_ips: Option<String>,
    /// No new addresses are given out; those given out stay.
    #[serde(default)]
    #[schemars(default)]
    pub disabled: bool,
}

/// A range of addresses: `cidr`, or `start` and optionally `stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolBlock {
    /// All addresses of a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// First address of a range, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Last address of a range, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

/// A label selector. All requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSelector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = label_value_schema()))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<SelectorRequirement>>,
}

/// A requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelectorRequirement {
    /// The label's key.
    pub key: String,
    /// How the key relates to the values: In, NotIn, Exists or DoesNotExist.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values: at least one with In and NotIn, none with Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

/// What Kubernetes admits as the value of a label.
fn label_value_schema() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    })
}

/// Status of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// Conditions; those that count have the number as their message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
