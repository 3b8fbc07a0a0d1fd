//! Least privilege, on a real server: each right that the product's roles give is taken away in turn, and something must
//! be denied then that is not denied otherwise (the invariants see to the latter). A right whose absence nobody notices
//! should not be given.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::audit::Audit;
use crate::cluster::Cluster;
use crate::cluster::install::{self, api_of, apply_one};

/// Namespace of the product.
const NAMESPACE: &str = "kube-system";
/// How the names of its service accounts begin.
const OURS: &str = "portolan-";
/// Time in which a missing right must be noticed.
const NOTICED: Duration = Duration::from_secs(30);
/// Time in which a change of the exercise bears fruit, if the right that is missing is another one's.
const FRUIT: Duration = Duration::from_secs(3);
/// Time for a new operator to take over: the lease of 15 s, a request's deadline, and its start.
const SERVED: Duration = Duration::from_secs(60);
/// Pool of the exercise.
const POOL: &str = "least-privilege";
/// Service of the exercise.
const SERVICE: &str = "least-privilege";

/// A role and who has it.
#[derive(Clone, Debug)]
struct Grant {
    /// `ClusterRole` or `Role`.
    kind: &'static str,
    role: String,
    account: String,
    /// Rules as they are written.
    written: Vec<PolicyRule>,
    /// One verb on one resource each.
    rights: Vec<Right>,
}

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right {
    group: String,
    /// With its subresource, as in `services/status`.
    resource: String,
    verb: String,
    names: Vec<String>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// The rights of some rules, one by one.
pub(super) fn rights(rules: &[PolicyRule]) -> Vec<Right> {
    let mut all = Vec::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                all.extend(rule.verbs.iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    names: rule.resource_names.clone().unwrap_or_default(),
                }));
            }
        }
    }
    all
}

/// The rules for all rights but one.
pub(super) fn without(rights: &[Right], at: usize) -> Vec<PolicyRule> {
    let others = rights.iter().enumerate().filter(|(index, _)| *index != at);
    others
        .map(|(_, right)| PolicyRule {
            api_groups: Some(vec![right.group.clone()]),
            resources: Some(vec![right.resource.clone()]),
            verbs: vec![right.verb.clone()],
            resource_names: (!right.names.is_empty()).then(|| right.names.clone()),
            ..PolicyRule::default()
        })
        .collect()
}

/// Whether an event of the audit log says that the account was denied this.
pub(super) fn denies(event: &Value, account: &str, right: &Right) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let resource = match text(&object["subresource"]) {
        sub if sub.is_empty() => text(&object["resource"]),
        sub => format!("{}/{sub}", text(&object["resource"])),
    };
    event["responseStatus"]["code"] == 403
        && event["user"]["username"] == format!("system:serviceaccount:{NAMESPACE}:{account}")
        && event["verb"] == right.verb
        && text(&object["apiGroup"]) == right.group
        && resource == right.resource
}

/// Takes each right away in turn. Afterwards the roles are as they were, and new pods run.
///
/// # Errors
/// With all rights that nobody missed.
pub(super) async fn prove(client: &Client, cluster: &dyn Cluster) -> Result<()> {
    if cluster.audit_log().is_none() {
        bail!("this provider has no audit log, by which denied requests are seen");
    }
    let grants = grants(client).await?;
    if grants.is_empty() {
        bail!("no role is bound to a service account {NAMESPACE}/{OURS}…");
    }
    let mut idle = Vec::new();
    let mut tried = Ok(());
    'all: for grant in &grants {
        for at in 0..grant.rights.len() {
            let began = Instant::now();
            tried = try_without(client, cluster, grant, at).await.map(|noticed| {
                let right = &grant.rights[at];
                if noticed {
                    eprintln!(
                        "    {} without {right}: denied after {:.1} s",
                        grant.account,
                        began.elapsed().as_secs_f64()
                    );
                } else {
                    idle.push(format!("{} {}: {right}", grant.kind, grant.role));
                }
            });
            // Whatever happened: the next one is tried with this one in place.
            write(client, grant, &grant.written).await?;
            if tried.is_err() {
                break 'all;
            }
        }
    }
    remove_exercise(client).await?;
    install::restart(client, install::PORTOLAN).await?;
    install::wait_until_ready(client, cluster).await?;
    let served = until_served(client).await;
    tried?;
    served?;
    if idle.is_empty() { Ok(()) } else { bail!("nothing is denied without these rights:\n  {}", idle.join("\n  ")) }
}

/// The product's roles.
async fn grants(client: &Client) -> Result<Vec<Grant>> {
    let account = |subjects: Option<Vec<Subject>>| {
        subjects.into_iter().flatten().find_map(|subject| {
            let ours = subject.kind == "ServiceAccount"
                && subject.namespace.as_deref() == Some(NAMESPACE)
                && subject.name.starts_with(OURS);
            ours.then_some(subject.name)
        })
    };
    let mut all = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&ListParams::default()).await? {
        if let Some(account) = account(binding.subjects) {
            let role = Api::<ClusterRole>::all(client.clone()).get(&binding.role_ref.name).await?;
            let written = role.rules.unwrap_or_default();
            let rights = rights(&written);
            all.push(Grant { kind: "ClusterRole", role: binding.role_ref.name, account, written, rights });
        }
    }
    for binding in Api::<RoleBinding>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await? {
        if let Some(account) = account(binding.subjects) {
            let role = Api::<Role>::namespaced(client.clone(), NAMESPACE).get(&binding.role_ref.name).await?;
            let written = role.rules.unwrap_or_default();
            let rights = rights(&written);
            all.push(Grant { kind: "Role", role: binding.role_ref.name, account, written, rights });
        }
    }
    Ok(all)
}

async fn write(client: &Client, grant: &Grant, rules: &[PolicyRule]) -> Result<()> {
    let api = api_of(client, "rbac.authorization.k8s.io/v1", grant.kind, Some(NAMESPACE)).await?;
    let patch = json!({ "rules": rules });
    api.patch(&grant.role, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
        .with_context(|| format!("writing {} {}", grant.kind, grant.role))
}

/// Whether something is denied without this right.
async fn try_without(client: &Client, cluster: &dyn Cluster, grant: &Grant, at: usize) -> Result<bool> {
    let right = &grant.rights[at];
    let mut audit = Audit::from_now_on(cluster)?;
    write(client, grant, &without(&grant.rights, at)).await?;
    if right.resource == "leases" && right.verb == "create" {
        // Only who finds none makes one.
        let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
        for name in grant.rights.iter().filter(|other| other.resource == right.resource).flat_map(|other| &other.names)
        {
            gone(leases.delete(name, &DeleteParams::default()).await)?;
        }
    }
    // All is listed and watched again at the start.
    install::restart(client, &labels(client, &grant.account).await?).await?;
    let mut denied =
        || -> Result<bool> { Ok(audit.fresh(cluster)?.iter().any(|event| denies(event, &grant.account, right))) };
    let deadline = Instant::now() + NOTICED;
    let mut pool_wanted = true;
    while Instant::now() < deadline {
        exercise(client, pool_wanted).await?;
        let turn = Instant::now() + FRUIT;
        while Instant::now() < turn {
            if denied()? {
                return Ok(true);
            }
            if has_address(client).await? == pool_wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pool_wanted = !pool_wanted;
    }
    denied()
}

/// Waits until the operator works again: one that could not release its lease keeps its successor waiting for it.
async fn until_served(client: &Client) -> Result<()> {
    exercise(client, true).await?;
    let deadline = Instant::now() + SERVED;
    while !has_address(client).await? {
        if Instant::now() > deadline {
            bail!("with all rights given back, the operator gives no address after {SERVED:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    remove_exercise(client).await
}

/// Labels of the pods that run as this account.
async fn labels(client: &Client, account: &str) -> Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await?;
    let name = pods.iter().find_map(|pod| {
        let runs_as = pod.spec.as_ref()?.service_account_name.as_deref()?;
        (runs_as == account).then(|| pod.labels().get("app.kubernetes.io/name").cloned())?
    });
    Ok(format!("app.kubernetes.io/name={}", name.with_context(|| format!("no pod runs as {account}"))?))
}

/// A Service whose pool comes and goes: status writes of both, and Events that are told more than once.
async fn exercise(client: &Client, pool_wanted: bool) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": "default", "labels": {"pool": POOL}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    apply_one(client, &service).await?;
    if pool_wanted {
        let pool = json!({"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumLoadBalancerIPPool",
            "metadata": {"name": POOL},
            "spec": {"blocks": [{"cidr": "198.18.3.0/24"}], "serviceSelector": {"matchLabels": {"pool": POOL}}}});
        return apply_one(client, &pool).await.map(drop);
    }
    gone(pools(client).await?.delete(POOL, &DeleteParams::default()).await)
}

async fn pools(client: &Client) -> Result<Api<DynamicObject>> {
    api_of(client, "cilium.io/v2alpha1", "CiliumLoadBalancerIPPool", None).await
}

async fn has_address(client: &Client) -> Result<bool> {
    let service = Api::<Service>::namespaced(client.clone(), "default").get(SERVICE).await?;
    let balancer = service.status.and_then(|status| status.load_balancer);
    Ok(balancer.and_then(|balancer| balancer.ingress).is_some_and(|ingress| !ingress.is_empty()))
}

async fn remove_exercise(client: &Client) -> Result<()> {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    gone(services.delete(SERVICE, &DeleteParams::default()).await)?;
    gone(pools(client).await?.delete(POOL, &DeleteParams::default()).await)
}

/// What is not there any more is as good as deleted.
fn gone<T>(deleted: kube::Result<T>) -> Result<()> {
    match deleted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "privilege_tests.rs"]
mod tests;
