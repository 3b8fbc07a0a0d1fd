//! Names that other programs know portolan by.

/// Name under which writes are recorded in `managedFields`.
pub const FIELD_MANAGER: &str = "portolan-operator";
/// Namespace of portolan's own objects.
pub const NAMESPACE: &str = "kube-system";
/// Name of the operator's Lease.
pub const LEASE: &str = "portolan-operator";

/// Condition of a Service: the addresses it asks for are there.
pub const CONDITION_SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";
/// Condition of a pool: it overlaps another one.
pub const CONDITION_CONFLICT: &str = "cilium.io/PoolConflict";
/// Condition of a pool whose message is the number of addresses.
pub const CONDITION_TOTAL: &str = "cilium.io/IPsTotal";
/// Condition of a pool whose message is the number of free addresses.
pub const CONDITION_AVAILABLE: &str = "cilium.io/IPsAvailable";
/// Condition of a pool whose message is the number of addresses given out.
pub const CONDITION_USED: &str = "cilium.io/IPsUsed";
/// Condition of a pool: a block could not be understood. portolan's own; peers stay silent.
pub const CONDITION_INVALID: &str = "portolan.io/InvalidBlocks";

/// Reason: all is well.
pub const REASON_SATISFIED: &str = "satisfied";
/// Reason: no pool selects the Service.
pub const REASON_NO_POOL: &str = "no_pool";
/// Reason: all pools that select the Service are full.
pub const REASON_OUT_OF_IPS: &str = "out_of_ips";
/// Reason: two pools overlap.
pub const REASON_OVERLAP: &str = "cidr_overlap";
/// Reason: no pools overlap, or not any more.
pub const REASON_RESOLVED: &str = "resolved";
/// Reason of the counting conditions.
pub const REASON_NONE: &str = "noreason";
/// Reason: a block could not be understood.
pub const REASON_INVALID: &str = "invalid_block";

/// Synthetic key for pool selectors: the Service's namespace.
pub const SELECTOR_NAMESPACE: &str = "io.kubernetes.service.namespace";
/// Synthetic key for pool selectors: the Service's name.
pub const SELECTOR_NAME: &str = "io.kubernetes.service.name";

/// Label on EndpointSlices: the Service they belong to.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that gives a Service to another proxy.
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label that marks headless Services and their slices.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
