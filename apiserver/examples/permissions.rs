//! Is the RBAC manifest of a controller enough? Its client is the service account that it has in a cluster, and the server
//! allows what the roles allow.
//!
//! ```text
//! cargo test -p apiserver --example permissions
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, with the line")]

use apiserver::testing::apply;
use apiserver::{ApiServer, Options};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::Role;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

/// What is installed with the controller. It forgets that reading is not writing.
const MANIFESTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: labeller}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: labeller}
rules:
- apiGroups: ['']
  resources: [configmaps]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: labeller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: labeller}
subjects:
- {kind: ServiceAccount, name: labeller, namespace: default}
";

/// What the controller does.
async fn label(client: Client, name: &str) -> kube::Result<ConfigMap> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let patch = json!({"metadata": {"labels": {"seen": "true"}}});
    maps.get(name).await?;
    maps.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    a_role_that_lacks_a_verb_is_found_out().await;
}

async fn a_role_that_lacks_a_verb_is_found_out() {
    let server = ApiServer::start(Options::default()).unwrap();
    apply(&server, MANIFESTS).await.unwrap();
    // Nobody is named here, so this is the administrator.
    let admin = Client::new(server.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    Api::<ConfigMap>::default_namespaced(admin.clone()).create(&PostParams::default(), &map).await.unwrap();

    let account = Client::new(server.as_service_account("default", "labeller"), "default");
    let refused = label(account.clone(), "m").await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 403);
    assert!(status.message.contains("cannot patch resource \"configmaps\""), "{}", status.message);

    let more = json!([{"op": "add", "path": "/rules/0/verbs/-", "value": "patch"}]);
    let roles: Api<Role> = Api::default_namespaced(admin);
    let more = Patch::<Role>::Json(serde_json::from_value(more).unwrap());
    roles.patch("labeller", &PatchParams::default(), &more).await.unwrap();
    assert_eq!(label(account, "m").await.unwrap().metadata.labels.unwrap()["seen"], "true");
}

#[cfg(test)]
#[tokio::test]
async fn test() {
    a_role_that_lacks_a_verb_is_found_out().await;
}
