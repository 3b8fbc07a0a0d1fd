//! A server with all controllers, and what tests do with it.

use std::time::Duration;

use apiserver::controllers::{ControllerOptions, RunningControllers, start};
use apiserver::{ApiServer, Options};
use serde_json::{Value, json};

/// A cluster in this process; it ends with the value.
pub(crate) struct Cluster {
    client: kube::Client,
    _controllers: RunningControllers,
}

impl Cluster {
    pub(crate) async fn start(seed: u64) -> Self {
        let server = ApiServer::start(Options::default().seed(seed)).unwrap();
        let options = ControllerOptions::default()
            .cluster_cidr("10.244.0.0/16".parse().unwrap())
            .root_ca("CA")
            .advertise_address("172.18.0.1:6443".parse().unwrap());
        let controllers = start(server.clone(), options);
        Self { client: kube::Client::new(server, "default"), _controllers: controllers }
    }

    async fn request(&self, method: &str, path: &str, media: &str, body: Option<Value>) -> Result<Value, kube::Error> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("content-type", media).body(bytes);
        self.client.request(request.unwrap()).await
    }

    async fn must(&self, method: &str, path: &str, media: &str, body: Option<Value>) -> Value {
        let answer = self.request(method, path, media, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.must("GET", path, "application/json", None).await
    }

    pub(crate) async fn find(&self, path: &str) -> Option<Value> {
        match self.request("GET", path, "application/json", None).await {
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            other => Some(other.unwrap_or_else(|error| panic!("GET {path}: {error}"))),
        }
    }

    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().unwrap().clone()
    }

    pub(crate) async fn create(&self, path: &str, object: Value) -> Value {
        self.must("POST", path, "application/json", Some(object)).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: Value) -> Value {
        self.must("PATCH", path, "application/merge-patch+json", Some(patch)).await
    }

    pub(crate) async fn delete(&self, path: &str, options: Value) -> Value {
        self.must("DELETE", path, "application/json", Some(options)).await
    }

    /// Lets the controllers do all that needs no time to pass.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// A node that is ready.
    pub(crate) async fn add_node(&self, name: &str) {
        self.create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
        let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"});
        let status = json!({"capacity": amounts, "allocatable": amounts, "conditions": [ready]});
        self.merge(&format!("/api/v1/nodes/{name}/status"), json!({"status": status})).await;
        self.merge(&format!("/api/v1/nodes/{name}"), json!({"spec": {"taints": null}})).await;
    }

    /// A Deployment or DaemonSet with the label `app`; `more` goes into its spec.
    pub(crate) async fn create_workload(&self, plural: &str, name: &str, more: Value) -> Value {
        let labels = json!({"app": name});
        let pod =
            json!({"containers": [{"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 80}]}]});
        let mut spec =
            json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let path = format!("/apis/apps/v1/namespaces/default/{plural}");
        self.create(&path, json!({"metadata": {"name": name}, "spec": spec})).await
    }
}

/// What kubelets do, at the tests' word.
impl Cluster {
    /// Every bound pod that is not ending is up and ready, with an address that follows from its place in the list.
    pub(crate) async fn run_pods(&self) {
        for pod in self.items("/api/v1/pods").await {
            let (metadata, status) = (&pod["metadata"], &pod["status"]);
            let bound = pod["spec"]["nodeName"].is_string();
            if !bound || metadata["deletionTimestamp"].is_string() || status["phase"] == "Running" {
                continue;
            }
            let revision: u32 = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
            let address = format!("10.244.{}.{}", revision / 250, revision % 250 + 1);
            let since = "2026-01-01T00:00:00Z";
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
            let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}, ready]});
            self.merge(&format!("{}/status", pod_path(&pod)), json!({"status": status})).await;
        }
        self.settle().await;
    }

    /// Every ending pod has ended.
    pub(crate) async fn end_pods(&self) {
        for pod in self.items("/api/v1/pods").await {
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.delete(&pod_path(&pod), json!({"gracePeriodSeconds": 0})).await;
            }
        }
        self.settle().await;
    }

    /// The node's kubelet says once more that it is ready.
    pub(crate) async fn beat(&self, node: &str, number: u32) {
        let heartbeat = format!("2026-01-01T{:02}:{:02}:00Z", number / 60, number % 60);
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
            "lastHeartbeatTime": heartbeat});
        self.merge(&format!("/api/v1/nodes/{node}/status"), json!({"status": {"conditions": [ready]}})).await;
    }

    /// A Service for the pods with label `app` of the same name.
    pub(crate) async fn create_service(&self, name: &str, target: &str) {
        let spec = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": target}]});
        self.create("/api/v1/namespaces/default/services", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// Addresses of a Service in its slices, and whether they are ready.
    pub(crate) async fn endpoints(&self, service: &str) -> Vec<(String, bool)> {
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let slices = self.items(&format!("{path}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")).await;
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        endpoints.map(|e| (e["addresses"][0].to_string(), e["conditions"]["ready"] == true)).collect()
    }
}

fn pod_path(pod: &Value) -> String {
    let part = |name: &str| pod["metadata"][name].as_str().unwrap().to_owned();
    format!("/api/v1/namespaces/{}/pods/{}", part("namespace"), part("name"))
}
