//! etcd and kube-apiserver on loopback, with RBAC and an audit log, on ports of their own. They end with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::eventually;

/// A control plane without controllers.
pub(crate) struct ApiServer {
    pub(crate) client: Client,
    pub(crate) dir: PathBuf,
    assets: PathBuf,
    port: u16,
    // In the order in which they are ended.
    _processes: [Process; 2],
}

/// A child that is killed when its owner goes.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs are left in {}", self.dir.display());
        } else {
            std::fs::remove_dir_all(&self.dir).expect("removing the test's directory");
        }
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl ApiServer {
    /// Starts both, waits until they are ready, and installs the CRDs and the operator's rights.
    pub(crate) async fn start(assets: &Path, name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("portolan-live-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let key = rcgen::KeyPair::generate().unwrap();
        write(&dir, "sa.key", &key.serialize_pem());
        write(&dir, "sa.pub", &key.public_key_pem());
        let token = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned();
        write(&dir, "tokens.csv", &format!("{token},admin,admin,system:masters\n"));
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]});
        write(&dir, "audit-policy.json", &policy.to_string());
        let file = |name: &str| dir.join(name).display().to_string();
        let etcd = spawn(
            &dir,
            assets,
            "etcd",
            &[
                format!("--data-dir={}", file("etcd")),
                "--log-level=warn".into(),
                "--unsafe-no-fsync".into(),
                format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
            ],
        );
        let api = spawn(
            &dir,
            assets,
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                format!("--secure-port={port}"),
                // The endpoints of Service kubernetes may not be loopback, so nobody keeps them.
                "--endpoint-reconciler-type=none".into(),
                format!("--cert-dir={}", file("certs")),
                "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".into(),
                "--authorization-mode=Node,RBAC".into(),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", file("sa.pub")),
                format!("--service-account-signing-key-file={}", file("sa.key")),
                "--disable-admission-plugins=ServiceAccount".into(),
                format!("--audit-policy-file={}", file("audit-policy.json")),
                format!("--audit-log-path={}", file("audit.log")),
            ],
        );
        let processes = [api, etcd];
        let certificate = dir.join("certs/apiserver.crt");
        eventually("the API server makes its certificate", Duration::from_secs(60), || async {
            std::fs::metadata(&certificate).ok().filter(|file| file.len() > 0).map(drop).ok_or("none".to_owned())
        })
        .await;
        let kubeconfig = write_kubeconfig(&dir, "admin", port, &token);
        let client = client(&kubeconfig).await;
        let server = Self { client, dir, assets: assets.to_path_buf(), port, _processes: processes };
        eventually("the API server is ready", Duration::from_secs(60), || async {
            let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(server.client.clone());
            server.try_kubectl(&["get", "--raw", "/readyz"])?;
            for name in ["default", "kube-system"] {
                namespaces.get(name).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
        .await;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/install");
        for name in ["00-crds.yaml", "10-rbac.yaml"] {
            server.kubectl(&["apply", "-f", &manifests.join(name).display().to_string()]);
        }
        server.kubectl(&["wait", "--for=condition=Established", "crd/ciliumloadbalancerippools.cilium.io"]);
        server
    }

    /// Runs kubectl as the administrator and returns what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
    }

    /// Runs kubectl as the administrator; an error is what it says about it.
    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let kubeconfig = self.dir.join("admin.kubeconfig");
        let output =
            Command::new(self.assets.join("kubectl")).env("KUBECONFIG", kubeconfig).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A kubeconfig of a service account in kube-system with the operator's rights and no others.
    pub(crate) async fn operator_kubeconfig(&self, account: &str) -> PathBuf {
        if account != "portolan-operator" {
            let user = format!("kube-system:{account}");
            self.kubectl(&["-n", "kube-system", "create", "serviceaccount", account]);
            let of = format!("--serviceaccount={user}");
            self.kubectl(&["create", "clusterrolebinding", account, "--clusterrole=portolan-operator", &of]);
            self.kubectl(&["-n", "kube-system", "create", "rolebinding", account, "--role=portolan-operator", &of]);
        }
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "kube-system");
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        write_kubeconfig(&self.dir, account, self.port, &answer.status.unwrap().token)
    }

    /// Status writes of Services by this account since then that the API server has carried out.
    pub(crate) fn writes_since(&self, account: &str, since: Timestamp) -> Vec<String> {
        let user = format!("system:serviceaccount:kube-system:{account}");
        let log = std::fs::read_to_string(self.dir.join("audit.log")).unwrap();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let done = records.filter(|record| {
            let at = record["requestReceivedTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            record["stage"] == "ResponseComplete"
                && record["user"]["username"] == user
                && record["verb"] == "patch"
                && record["objectRef"]["subresource"] == "status"
                && record["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
                && at.is_some_and(|at| at >= since)
        });
        done.map(|record| record["requestURI"].to_string()).collect()
    }

    /// Requests of the operator's account that it had no right to.
    pub(crate) fn forbidden(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.join("audit.log")).unwrap();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refused = records.filter(|record| record["responseStatus"]["code"] == 403);
        refused.map(|record| format!("{} {}", record["verb"], record["requestURI"])).collect()
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

fn spawn(dir: &Path, assets: &Path, name: &str, args: &[String]) -> Process {
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(assets.join(name));
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

fn write_kubeconfig(dir: &Path, user: &str, port: u16, token: &str) -> PathBuf {
    let path = dir.join(format!("{user}.kubeconfig"));
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": dir.join("certs/apiserver.crt"),
        }}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

async fn client(kubeconfig: &Path) -> Client {
    portolan::k8s::client::connect_by(kubeconfig).await.unwrap()
}
