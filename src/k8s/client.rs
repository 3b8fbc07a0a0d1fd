//! The connection to the API server: by the address of the configuration, as the pod's service account, or by a
//! kubeconfig.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{AuthInfo, Cluster, Context as KubeContext, KubeConfigOptions, Kubeconfig, NamedAuthInfo};
use kube::config::{NamedCluster, NamedContext};

use crate::api::config::Config;

/// Where Kubernetes mounts a pod's credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A client for the API server that `config` names. The agent programs the ClusterIP, so it must not depend on it
/// (cilium/cilium #9018).
///
/// # Errors
/// If the credentials are not there.
pub async fn connect(config: &Config) -> Result<Client> {
    let dir = Path::new(SERVICE_ACCOUNT);
    let token = dir.join("token");
    let ca = dir.join("ca.crt");
    for file in [&token, &ca] {
        std::fs::metadata(file).with_context(|| format!("the pod's credentials: {}", file.display()))?;
    }
    let host = match config.k8s_service_host.parse::<std::net::Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]"),
        Err(_) => config.k8s_service_host.clone(),
    };
    // As a kubeconfig with a token *file*: the client reads it anew when it has been rotated.
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: "api".into(),
            cluster: Some(Cluster {
                server: Some(format!("https://{host}:{}", config.k8s_service_port)),
                certificate_authority: Some(ca.display().to_string()),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: "pod".into(),
            auth_info: Some(AuthInfo { token_file: Some(token.display().to_string()), ..AuthInfo::default() }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: "pod".into(),
            context: Some(KubeContext { cluster: "api".into(), user: Some("pod".into()), ..KubeContext::default() }),
            ..NamedContext::default()
        }],
        current_context: Some("pod".into()),
        ..Kubeconfig::default()
    };
    client(kubeconfig).await
}

/// A client by a kubeconfig file, for a component that runs outside of the cluster.
///
/// # Errors
/// If the file cannot be read or used.
pub async fn connect_by(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig);
    let read = read.with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
    client(read).await.with_context(|| format!("by the kubeconfig {}", kubeconfig.display()))
}

async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    let client_config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("making a client configuration")?;
    Client::try_from(client_config).context("making a client")
}
