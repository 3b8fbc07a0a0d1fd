//! Cluster roles that collect the rules of others by label: the controller that writes the rules into them.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::rbac::{GROUP, collects};
use super::user::User;
use crate::server::ApiServer;
use crate::verbs::meta;

const ACCOUNT: &str = "clusterrole-aggregation-controller";
const PATH: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// Keeps aggregated roles whole, until it is dropped.
pub async fn run(server: ApiServer) {
    let mut head = server.head();
    let mut seen = 0;
    loop {
        head.mark_unchanged();
        let (newest, roles) = server.cluster_roles();
        if newest != seen {
            seen = newest;
            for (name, rules) in stale(&roles) {
                // A conflict or a role that is gone shows itself as another change.
                if let Err(message) = write(&server, &name, &rules).await {
                    eprintln!("aggregation of the cluster role {name}: {message}");
                }
            }
        }
        if head.changed().await.is_err() {
            return;
        }
    }
}

/// Aggregating roles whose rules are not those of the roles that they collect, with what they should be.
fn stale(roles: &[Arc<Value>]) -> Vec<(String, Value)> {
    let aggregating = roles.iter().filter(|role| role["aggregationRule"].is_object());
    let wanted = aggregating.map(|role| {
        let collected = roles.iter().filter(|other| {
            meta(other, "name") != meta(role, "name") && collects(role, other["metadata"]["labels"].as_object())
        });
        let mut rules: Vec<Value> = Vec::new();
        for rule in collected.flat_map(|other| other["rules"].as_array().into_iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        (role, rules)
    });
    wanted
        .filter(|(role, rules)| role["rules"].as_array().map_or(&[][..], Vec::as_slice) != rules.as_slice())
        .map(|(role, rules)| (meta(role, "name").to_owned(), json!(rules)))
        .collect()
}

async fn write(server: &ApiServer, name: &str, rules: &Value) -> Result<(), String> {
    let body =
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let request = Request::patch(format!("{PATH}/{name}?fieldManager={ACCOUNT}&force=true"))
        .header(CONTENT_TYPE, "application/apply-patch+yaml")
        .extension(User::service_account("kube-system", ACCOUNT, ""))
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    let answer = server.handle(request).await;
    if answer.status().is_success() {
        return Ok(());
    }
    let code = answer.status();
    let text = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Err(format!("{code}: {}", String::from_utf8_lossy(&text)))
}
