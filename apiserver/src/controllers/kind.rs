//! The kinds that controllers read and write, and where the API has them.

use std::borrow::Cow;

/// A kind of object, in the version that is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind {
    /// API group, empty for core.
    pub(crate) group: Cow<'static, str>,
    /// Plural, as in paths.
    pub(crate) plural: Cow<'static, str>,
    /// Version.
    pub(crate) version: Cow<'static, str>,
    /// Kind of one object.
    pub(crate) name: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
}

impl Kind {
    const fn builtin(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        name: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            plural: Cow::Borrowed(plural),
            version: Cow::Borrowed(version),
            name: Cow::Borrowed(name),
            namespaced,
        }
    }

    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        crate::registry::group_version(&self.group, &self.version)
    }

    /// Path of a collection (`name` empty), an object, or its subresource.
    pub(crate) fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.plural);
        for part in [name, subresource].into_iter().filter(|part| !part.is_empty()) {
            path += &format!("/{part}");
        }
        path
    }
}

pub(crate) const CONFIG_MAPS: Kind = Kind::builtin("", "v1", "configmaps", "ConfigMap", true);
pub(crate) const ENDPOINTS: Kind = Kind::builtin("", "v1", "endpoints", "Endpoints", true);
pub(crate) const EVENTS: Kind = Kind::builtin("", "v1", "events", "Event", true);
pub(crate) const NAMESPACES: Kind = Kind::builtin("", "v1", "namespaces", "Namespace", false);
pub(crate) const NODES: Kind = Kind::builtin("", "v1", "nodes", "Node", false);
pub(crate) const PODS: Kind = Kind::builtin("", "v1", "pods", "Pod", true);
pub(crate) const REPLICATION_CONTROLLERS: Kind =
    Kind::builtin("", "v1", "replicationcontrollers", "ReplicationController", true);
pub(crate) const SECRETS: Kind = Kind::builtin("", "v1", "secrets", "Secret", true);
pub(crate) const PERSISTENT_VOLUMES: Kind = Kind::builtin("", "v1", "persistentvolumes", "PersistentVolume", false);
pub(crate) const PERSISTENT_VOLUME_CLAIMS: Kind =
    Kind::builtin("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true);
pub(crate) const SERVICE_ACCOUNTS: Kind = Kind::builtin("", "v1", "serviceaccounts", "ServiceAccount", true);
pub(crate) const SERVICES: Kind = Kind::builtin("", "v1", "services", "Service", true);
pub(crate) const CONTROLLER_REVISIONS: Kind =
    Kind::builtin("apps", "v1", "controllerrevisions", "ControllerRevision", true);
pub(crate) const DAEMON_SETS: Kind = Kind::builtin("apps", "v1", "daemonsets", "DaemonSet", true);
pub(crate) const DEPLOYMENTS: Kind = Kind::builtin("apps", "v1", "deployments", "Deployment", true);
pub(crate) const REPLICA_SETS: Kind = Kind::builtin("apps", "v1", "replicasets", "ReplicaSet", true);
pub(crate) const STATEFUL_SETS: Kind = Kind::builtin("apps", "v1", "statefulsets", "StatefulSet", true);
pub(crate) const JOBS: Kind = Kind::builtin("batch", "v1", "jobs", "Job", true);
pub(crate) const ENDPOINT_SLICES: Kind =
    Kind::builtin("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true);
pub(crate) const POD_DISRUPTION_BUDGETS: Kind =
    Kind::builtin("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
pub(crate) const LEASES: Kind = Kind::builtin("coordination.k8s.io", "v1", "leases", "Lease", true);
pub(crate) const NEW_EVENTS: Kind = Kind::builtin("events.k8s.io", "v1", "events", "Event", true);

/// What is watched from the beginning; every controller may read these from the cache.
pub(crate) const WATCHED: [Kind; 20] = [
    NAMESPACES,
    NODES,
    LEASES,
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    SERVICES,
    ENDPOINTS,
    ENDPOINT_SLICES,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    JOBS,
    PODS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
];
