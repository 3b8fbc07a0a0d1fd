//! Nodes whose kubelets only say that pods run: enough for Deployments to become available and Jobs to complete.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{ManifestError, ask, message, pod_status};
use crate::auth::User;
use crate::auth::user::NODES;
use crate::clock::seconds;
use crate::server::{ApiServer, AsUser};
use crate::verbs::{locked, meta};

/// How often a kubelet renews the lease of its node.
const HEARTBEAT: Duration = Duration::from_secs(10);
const MERGE: &str = "application/merge-patch+json";

/// What becomes of a pod on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodFate {
    /// It runs and is ready.
    Run,
    /// It ends well.
    Succeed,
    /// It ends badly.
    Fail,
    /// Nothing, for now: it is asked again when something changes.
    Wait,
}

type Fate = Arc<dyn Fn(&Value) -> PodFate + Send + Sync>;

/// A node without containers. Pods that are bound to it run and are ready at once, those of Jobs succeed, and those that are
/// deleted go.
#[derive(Clone)]
pub struct FakeNode {
    name: String,
    labels: BTreeMap<String, String>,
    capacity: BTreeMap<String, String>,
    fate: Fate,
}

impl fmt::Debug for FakeNode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FakeNode").field("name", &self.name).finish_non_exhaustive()
    }
}

fn usual(pod: &Value) -> PodFate {
    let mut owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    if owners.any(|owner| owner["kind"] == "Job") { PodFate::Succeed } else { PodFate::Run }
}

impl FakeNode {
    /// A node with 8 CPUs and 32 GiB, for 110 pods.
    pub fn new(name: impl Into<String>) -> Self {
        let capacity = [("cpu", "8"), ("memory", "32Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];
        let capacity = capacity.map(|(what, much)| (what.to_owned(), much.to_owned())).into();
        Self { name: name.into(), labels: BTreeMap::new(), capacity, fate: Arc::new(usual) }
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// With so much of something: `("cpu", "2")`.
    #[must_use]
    pub fn capacity(mut self, resource: impl Into<String>, amount: impl Into<String>) -> Self {
        self.capacity.insert(resource.into(), amount.into());
        self
    }

    /// With another answer to what becomes of a pod, which is a whole object here.
    #[must_use]
    pub fn pods(mut self, fate: impl Fn(&Value) -> PodFate + Send + Sync + 'static) -> Self {
        self.fate = Arc::new(fate);
        self
    }

    /// Registers the node, and keeps it until what is returned is dropped; then the node is silent, as after a power cut.
    ///
    /// # Errors
    /// The server refuses the node.
    pub async fn start(self, server: &ApiServer) -> Result<RunningNode, ManifestError> {
        let user = User::new(format!("system:node:{}", self.name), &[NODES]);
        let kubelet = Kubelet { client: server.as_user(user), server: server.clone(), node: self };
        kubelet.register().await?;
        kubelet.beat().await;
        Ok(RunningNode(tokio::spawn(kubelet.run())))
    }
}

/// A node that goes on until this is dropped.
#[derive(Debug)]
#[must_use = "the node is silent when this is dropped"]
pub struct RunningNode(JoinHandle<()>);

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Kubelet {
    node: FakeNode,
    server: ApiServer,
    client: AsUser,
}

impl Kubelet {
    async fn register(&self) -> Result<(), ManifestError> {
        let name = &self.node.name;
        let mut labels = self.node.labels.clone();
        labels.entry("kubernetes.io/hostname".into()).or_insert_with(|| name.clone());
        labels.entry("kubernetes.io/os".into()).or_insert_with(|| "linux".into());
        labels.entry("kubernetes.io/arch".into()).or_insert_with(|| "amd64".into());
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}});
        let (code, answer) = self.ask(Method::POST, "/api/v1/nodes", "application/json", &node).await;
        // One that is there already is this one, after a restart.
        if !matches!(code, 201 | 409) {
            return Err(self.refused(code, &answer));
        }
        let path = format!("/api/v1/nodes/{name}");
        let (_, found) = self.ask(Method::GET, &path, MERGE, &Value::Null).await;
        let status = json!({"status": self.status(&found)});
        let (code, answer) = self.ask(Method::PATCH, &format!("{path}/status"), MERGE, &status).await;
        if code != 200 {
            return Err(self.refused(code, &answer));
        }
        // Where no controller looks after nodes, nobody else would say that pods may come.
        let not_ready = |taint: &&Value| taint["key"] != "node.kubernetes.io/not-ready";
        let taints: Vec<&Value> = found["spec"]["taints"].as_array().into_iter().flatten().filter(not_ready).collect();
        let (code, answer) = self.ask(Method::PATCH, &path, MERGE, &json!({"spec": {"taints": taints}})).await;
        if code == 200 { Ok(()) } else { Err(self.refused(code, &answer)) }
    }

    fn status(&self, node: &Value) -> Value {
        let now = self.now();
        let condition = |type_: &str, status: &str, reason: &str| {
            json!({"type": type_, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now,
                "lastTransitionTime": now})
        };
        let conditions = json!([
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ]);
        let address = json!({"type": "InternalIP", "address": address(node, 192)});
        let host = json!({"type": "Hostname", "address": self.node.name});
        json!({"capacity": self.node.capacity, "allocatable": self.node.capacity, "conditions": conditions,
            "addresses": [address, host]})
    }

    async fn run(self) {
        let mut head = self.server.head();
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        // What could not be done comes back with the next change; what was done need not be done again.
        let mut gone = std::collections::BTreeSet::new();
        loop {
            head.mark_unchanged();
            for pod in self.pods() {
                if meta(&pod, "deletionTimestamp").is_empty() {
                    self.bring_up(&pod).await;
                } else if gone.insert(meta(&pod, "uid").to_owned()) {
                    self.let_go(&pod).await;
                }
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return },
                _ = beats.tick() => self.beat().await,
            }
        }
    }

    /// The pods that are bound to this node.
    fn pods(&self) -> Vec<Arc<Value>> {
        let state = locked(&self.server.state);
        let pods = state.store.list(&Arc::from("/pods"), "").map(|(_, pod)| pod);
        pods.filter(|pod| pod["spec"]["nodeName"] == self.node.name.as_str()).collect()
    }

    async fn bring_up(&self, pod: &Value) {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let fate = (self.node.fate)(pod);
        let due = match fate {
            PodFate::Wait => false,
            PodFate::Run => matches!(phase, "" | "Pending"),
            PodFate::Succeed | PodFate::Fail => matches!(phase, "" | "Pending" | "Running"),
        };
        if !due {
            return;
        }
        let (host, address, now) = (self.host(), address(pod, 10), self.now());
        let address = if pod["spec"]["hostNetwork"] == true { host.clone() } else { address };
        let status = match fate {
            PodFate::Run | PodFate::Wait => pod_status::running(pod, &host, &address, &now),
            PodFate::Succeed | PodFate::Fail => pod_status::ended(pod, &host, &address, &now, fate == PodFate::Succeed),
        };
        self.say(Method::PATCH, &format!("{}/status", path(pod)), MERGE, &json!({"status": status})).await;
    }

    async fn let_go(&self, pod: &Value) {
        let only = json!({"uid": pod["metadata"]["uid"]});
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": only});
        self.say(Method::DELETE, &path(pod), "application/json", &options).await;
    }

    /// Says once more that the node is there.
    async fn beat(&self) {
        let now = self.server.clock().now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({"holderIdentity": self.node.name, "leaseDurationSeconds": 40, "renewTime": now});
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": self.node.name, "namespace": "kube-node-lease"}, "spec": spec});
        let (code, _) =
            self.ask(Method::PATCH, &format!("{leases}/{}", self.node.name), MERGE, &json!({"spec": spec})).await;
        if code == 404 {
            self.say(Method::POST, leases, "application/json", &lease).await;
        }
    }

    fn host(&self) -> String {
        let key =
            crate::store::Key { resource: "/nodes".into(), namespace: String::new(), name: self.node.name.clone() };
        let node = locked(&self.server.state).store.get(&key);
        let first = node.as_ref().and_then(|node| node["status"]["addresses"][0]["address"].as_str());
        first.unwrap_or_default().to_owned()
    }

    fn now(&self) -> String {
        seconds(self.server.clock().now())
    }

    fn refused(&self, code: u16, answer: &Value) -> ManifestError {
        ManifestError::Refused { what: format!("Node {}", self.node.name), code, message: message(answer) }
    }

    async fn ask(&self, method: Method, path: &str, media_type: &str, body: &Value) -> (u16, Value) {
        ask(self.client.clone(), method, path, media_type, body).await
    }

    /// As `ask`; a refusal is told, for nobody waits for the answer.
    async fn say(&self, method: Method, path: &str, media_type: &str, body: &Value) {
        let (code, answer) = self.ask(method.clone(), path, media_type, body).await;
        // Somebody else was faster, which shows itself as another change.
        if !matches!(code, 200..300 | 404 | 409) {
            tracing::warn!(node = self.node.name, %method, path, code, "refused: {}", message(&answer));
        }
    }
}

/// An address that nobody else has: it follows from the revision of the object.
fn address(object: &Value, first: u8) -> String {
    let revision: u32 = meta(object, "resourceVersion").parse().unwrap_or_default();
    // 10.128.0.0/9 for pods, 192.168.0.0/16 for nodes.
    let second = if first == 10 { 128 + (revision >> 16) % 128 } else { 168 };
    format!("{first}.{second}.{}.{}", (revision >> 8) & 0xff, revision & 0xff)
}

fn path(pod: &Value) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", meta(pod, "namespace"), meta(pod, "name"))
}
