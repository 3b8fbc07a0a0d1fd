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
/// Condition of a pool: something in its spec could not be understood. portolan's own; peers stay silent.
pub const CONDITION_INVALID: &str = "portolan.io/InvalidSpec";

/// Reason: all is well.
pub const REASON_SATISFIED: &str = "satisfied";
/// Reason: no pool selects the Service.
pub const REASON_NO_POOL: &str = "no_pool";
/// Reason: all pools that select the Service are full.
pub const REASON_OUT_OF_IPS: &str = "out_of_ips";
/// Reason: the pool with the address that the Service asks for does not select it.
pub const REASON_MISMATCH: &str = "pool_selector_mismatch";
/// Reason: another Service has the address that the Service asks for.
pub const REASON_ALLOCATED: &str = "already_allocated";
/// Reason: nothing of what the Service asks for is an address. portolan's own; peers give out any address then.
pub const REASON_NOT_AN_ADDRESS: &str = "invalid_request";
/// Reason: two pools overlap.
pub const REASON_OVERLAP: &str = "cidr_overlap";
/// Reason: no pools overlap, or not any more.
pub const REASON_RESOLVED: &str = "resolved";
/// Reason of the counting conditions.
pub const REASON_NONE: &str = "noreason";
/// Reason: something in the spec could not be understood.
pub const REASON_INVALID: &str = "invalid_spec";

/// Reason of an Event: a Service has got addresses.
pub const EVENT_ALLOCATED: &str = "IPAllocated";
/// Reason of an Event: a Service has lost its addresses and has no new ones.
pub const EVENT_RELEASED: &str = "IPReleased";
/// Reason of an Event: a Service does not have what it asks for.
pub const EVENT_FAILED: &str = "IPAMFailed";
/// Reason of an Event: an address stood in the status of two Services, and this one loses it.
pub const EVENT_DUPLICATE: &str = "IPDuplicate";

/// Annotation: addresses that a Service asks for, separated by commas.
pub const ANNOTATION_IPS: &str = "lbipam.cilium.io/ips";
/// The annotation's former name; it counts where the newer one is absent.
pub const ANNOTATION_IPS_FORMER: &str = "io.cilium/lb-ipam-ips";

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
