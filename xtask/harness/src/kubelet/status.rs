//! What a pod's status says, from what its containers do.

use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};

use super::node::now;

/// Exit code of a container whose end nobody has seen (as the real kubelet).
const LOST: i32 = 255;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) started: String,
    pub(super) finished: String,
    /// What it left as its last message.
    pub(super) message: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Not running, and why.
    Waiting { reason: &'static str, message: String },
    /// Running since.
    Running { started: String },
    /// Ended for good.
    Ended(Ended),
}

/// State of one container.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) doing: Doing,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u32,
    pub(super) ready: bool,
    pub(super) started: bool,
    /// An init container that runs on beside the containers.
    pub(super) sidecar: bool,
}

impl Live {
    pub(super) fn new(name: &str, image: &str, reason: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            doing: Doing::Waiting { reason, message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            sidecar: false,
        }
    }

    /// The container after what an earlier start of this node has said of it: if it has run, the node has ended under it,
    /// and this is its next run.
    pub(super) fn after(self, before: Option<&ContainerStatus>) -> Self {
        let Some(before) = before else { return self };
        let restarts = before.restart_count.max(0).unsigned_abs();
        let state = before.state.clone().unwrap_or_default();
        let began = match (state.running, state.terminated) {
            (Some(running), _) => running.started_at,
            (None, Some(ended)) => ended.started_at,
            (None, None) => return Self { restarts, ..self },
        };
        let started = began.map_or_else(now, |time| time.0.to_string());
        let last = Ended { code: LOST, started, finished: now(), message: "the node was started again".into() };
        Self { restarts: restarts + 1, last: Some(last), ..self }
    }

    fn to_json(&self, uid: &str) -> Value {
        let ended = |ended: &Ended| {
            let reason = if ended.code == 0 { "Completed" } else { "Error" };
            let mut json = json!({"exitCode": ended.code, "reason": reason,
                "startedAt": ended.started, "finishedAt": ended.finished});
            if !ended.message.is_empty() {
                json["message"] = json!(ended.message);
            }
            json
        };
        let state = match &self.doing {
            Doing::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
            Doing::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            Doing::Running { started } => json!({"running": {"startedAt": started}}),
            Doing::Ended(how) => json!({"terminated": ended(how)}),
        };
        json!({
            "name": self.name, "image": self.image, "imageID": self.image,
            "containerID": format!("portolan-e2e://{uid}/{}/{}", self.name, self.restarts),
            "restartCount": self.restarts, "ready": self.ready, "started": self.started, "state": state,
            "lastState": self.last.as_ref().map_or_else(|| json!({}), |last| json!({"terminated": ended(last)})),
        })
    }
}

/// State of a pod.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) init: Vec<Live>,
    pub(super) main: Vec<Live>,
    pub(super) pod_ip: Option<String>,
    pub(super) host_ip: String,
    pub(super) started: String,
    pub(super) sandbox: bool,
    pub(super) restart_policy: String,
    pub(super) conditions: Vec<(String, bool, String)>,
}

impl Board {
    /// The phase, as the API defines it.
    pub(super) fn phase(&self) -> &'static str {
        let ended = |live: &Live| match &live.doing {
            Doing::Ended(how) => Some(how.code),
            _ => None,
        };
        let never = self.restart_policy == "Never";
        if never && self.init.iter().any(|live| !live.sidecar && ended(live).is_some_and(|code| code != 0)) {
            return "Failed";
        }
        // Controllers take a terminal phase as final, and between two runs of a container all may have ended: only what
        // the restart policy will not start again counts.
        let over = |live: &Live| {
            matches!((self.restart_policy.as_str(), ended(live)), ("Never", Some(_)) | ("OnFailure", Some(0)))
        };
        if !self.main.is_empty() && self.main.iter().all(over) {
            return if self.main.iter().all(|live| ended(live) == Some(0)) { "Succeeded" } else { "Failed" };
        }
        let has_run = |live: &Live| !matches!(live.doing, Doing::Waiting { .. }) || live.restarts > 0;
        if self.main.iter().any(has_run) { "Running" } else { "Pending" }
    }

    fn initialized(&self) -> bool {
        let ended_well = |live: &Live| matches!(&live.doing, Doing::Ended(how) if how.code == 0);
        self.init.iter().all(|live| if live.sidecar { live.started || live.restarts > 0 } else { ended_well(live) })
    }

    /// Containers that the pod's readiness is made of.
    fn lasting(&self) -> impl Iterator<Item = &Live> {
        self.init.iter().filter(|live| live.sidecar).chain(&self.main)
    }

    fn containers_ready(&self) -> bool {
        !self.main.is_empty() && self.lasting().all(|live| live.ready)
    }

    /// The status document. A condition keeps the time of its last change.
    pub(super) fn document(&mut self, uid: &str) -> Value {
        let ready = self.containers_ready();
        let wanted = [
            ("PodReadyToStartContainers", self.sandbox),
            ("Initialized", self.initialized()),
            ("Ready", ready),
            ("ContainersReady", ready),
            ("PodScheduled", true),
        ];
        for (kind, status) in wanted {
            match self.conditions.iter_mut().find(|(name, _, _)| name == kind) {
                Some(entry) if entry.1 == status => {}
                Some(entry) => *entry = (kind.to_owned(), status, now()),
                None => self.conditions.push((kind.to_owned(), status, now())),
            }
        }
        let unready: Vec<&str> = self.lasting().filter(|live| !live.ready).map(|live| live.name.as_str()).collect();
        let conditions: Vec<Value> = self
            .conditions
            .iter()
            .map(|(kind, status, since)| {
                let mut condition = json!({
                    "type": kind, "status": if *status { "True" } else { "False" }, "lastTransitionTime": since,
                    "lastProbeTime": null, "reason": null, "message": null,
                });
                if !status && kind.ends_with("Ready") {
                    condition["reason"] = json!("ContainersNotReady");
                    condition["message"] = json!(format!("containers with unready status: [{}]", unready.join(" ")));
                }
                condition
            })
            .collect();
        let list = |lives: &[Live]| lives.iter().map(|live| live.to_json(uid)).collect::<Vec<_>>();
        json!({
            "phase": self.phase(), "conditions": conditions, "startTime": self.started,
            "hostIP": self.host_ip, "hostIPs": [{"ip": self.host_ip}],
            "podIP": self.pod_ip,
            "podIPs": self.pod_ip.as_ref().map(|ip| json!([{"ip": ip}])),
            "initContainerStatuses": list(&self.init), "containerStatuses": list(&self.main),
        })
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
