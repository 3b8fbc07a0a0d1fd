//! Which controllers run, in the words of kube-controller-manager's `--controllers`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

macro_rules! controllers {
    ($($(#[$about:meta])* $variant:ident = $name:literal,)*) => {
        /// A controller, by the name that kube-controller-manager has for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Controller {
            $($(#[$about])* #[doc = concat!("\n\n`", $name, "`")] $variant,)*
        }

        impl Controller {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

controllers! {
    /// Writes the rules of others into the cluster roles that collect them.
    ClusterRoleAggregation = "clusterrole-aggregation-controller",
    /// A pod on every node.
    DaemonSet = "daemonset-controller",
    /// ReplicaSets for each revision of a Deployment.
    Deployment = "deployment-controller",
    /// How many pods of each disruption budget may be evicted.
    Disruption = "disruption-controller",
    /// The Endpoints of Services.
    Endpoints = "endpoints-controller",
    /// The EndpointSlices of Services.
    EndpointSlice = "endpointslice-controller",
    /// EndpointSlices of the Endpoints that others write.
    EndpointSliceMirroring = "endpointslice-mirroring-controller",
    /// Deletes what has lost its owners.
    GarbageCollector = "garbage-collector-controller",
    /// Pods that run to their end; Jobs whose time is over are deleted, too.
    Job = "job-controller",
    /// Empties namespaces that end.
    Namespace = "namespace-controller",
    /// Gives nodes their ranges of pod addresses.
    NodeIpam = "node-ipam-controller",
    /// Tells which nodes are lost.
    NodeLifecycle = "node-lifecycle-controller",
    /// Keeps claims that pods use.
    PersistentVolumeClaimProtection = "persistentvolumeclaim-protection-controller",
    /// Keeps volumes that are bound.
    PersistentVolumeProtection = "persistentvolume-protection-controller",
    /// Ends pods that nobody else will end.
    PodGarbageCollector = "pod-garbage-collector-controller",
    /// As many pods as are wanted.
    ReplicaSet = "replicaset-controller",
    /// As many pods as are wanted, in the old way.
    ReplicationController = "replicationcontroller-controller",
    /// The authority of the cluster, in each namespace.
    RootCaCertificatePublisher = "root-ca-certificate-publisher-controller",
    /// The account `default`, in each namespace.
    ServiceAccount = "serviceaccount-controller",
    /// Tokens of the Secrets that ask for one.
    ServiceAccountToken = "serviceaccount-token-controller",
    /// Pods with names of their own.
    StatefulSet = "statefulset-controller",
    /// Ends pods that do not bear the taints of their node.
    TaintEviction = "taint-eviction-controller",
    /// Tells kubelets how long they may keep what they have read.
    Ttl = "ttl-controller",
    /// Gives pods their nodes. A program of its own in a real cluster.
    Scheduler = "kube-scheduler",
    /// The endpoints of the Service `kubernetes`. A real kube-apiserver writes them itself.
    KubernetesService = "kubernetes-service",
}

impl fmt::Display for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<Self, UnknownController> {
        let found = Self::ALL.iter().find(|controller| controller.name() == name);
        found.copied().ok_or_else(|| UnknownController(name.to_owned()))
    }
}

/// No controller has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownController(String);

impl fmt::Display for UnknownController {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = Controller::ALL.iter().map(|controller| controller.name()).collect();
        write!(formatter, "there is no controller {:?}; there are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownController {}

/// Which controllers run. As text it is kube-controller-manager's `--controllers`: `*` is all, `*,-job-controller` all but
/// one, `job-controller,kube-scheduler` these two, and nothing is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSelection(BTreeSet<Controller>);

impl Default for ControllerSelection {
    fn default() -> Self {
        Self::all()
    }
}

impl ControllerSelection {
    /// All controllers.
    pub fn all() -> Self {
        Self::only(Controller::ALL.iter().copied())
    }

    /// No controller.
    pub fn none() -> Self {
        Self::only([])
    }

    /// These controllers.
    pub fn only(controllers: impl IntoIterator<Item = Controller>) -> Self {
        Self(controllers.into_iter().collect())
    }

    /// The same without one.
    #[must_use]
    pub fn without(mut self, controller: Controller) -> Self {
        self.0.remove(&controller);
        self
    }

    /// The same and one more.
    #[must_use]
    pub fn with(mut self, controller: Controller) -> Self {
        self.0.insert(controller);
        self
    }

    /// Whether it runs.
    pub fn has(&self, controller: Controller) -> bool {
        self.0.contains(&controller)
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for ControllerSelection {
    type Err = UnknownController;

    fn from_str(text: &str) -> Result<Self, UnknownController> {
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let mut selection = if words.contains(&"*") { Self::all() } else { Self::none() };
        // The first word about a controller counts, as it does there.
        for word in words.iter().rev().filter(|word| **word != "*") {
            selection = match word.strip_prefix('-') {
                Some(name) => selection.without(name.parse()?),
                None => selection.with(word.parse()?),
            };
        }
        Ok(selection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_read_as_kube_controller_manager_reads_it() {
        let all = ControllerSelection::all;
        let jobs = ControllerSelection::only([Controller::Job]);
        for (text, want) in [
            ("*", all()),
            ("", ControllerSelection::none()),
            ("*,-job-controller", all().without(Controller::Job)),
            ("-job-controller,*", all().without(Controller::Job)),
            ("-job-controller", ControllerSelection::none()),
            ("job-controller", jobs.clone()),
            ("job-controller,-job-controller", jobs.clone()),
            ("job-controller, kube-scheduler", jobs.with(Controller::Scheduler)),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        let error = "*,-jobs".parse::<ControllerSelection>().unwrap_err().to_string();
        assert!(error.contains("\"jobs\"") && error.contains("job-controller"), "{error}");
    }

    #[test]
    fn names_are_unique() {
        for controller in Controller::ALL {
            assert_eq!(controller.name().parse(), Ok(*controller));
        }
    }
}
