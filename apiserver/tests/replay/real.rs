//! A real kube-apiserver with its etcd, started from a directory of programs: on loopback, with data and credentials of
//! its own that go with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::server::{Other, Server};

/// Longest time until both answer.
const START: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// The running programs; dropping it ends them and removes what they wrote.
pub(crate) struct RealServer {
    programs: Arc<Programs>,
    pub(crate) server: Server,
    #[allow(dead_code, reason = "only kubectl needs it")]
    pub(crate) kubeconfig: PathBuf,
}

struct Programs {
    assets: PathBuf,
    dir: PathBuf,
    etcd: Mutex<Child>,
    api: Mutex<Child>,
    /// Controllers and scheduler, if they were asked for.
    more: Mutex<Vec<Child>>,
    etcd_port: u16,
    port: u16,
    token: String,
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in self.more.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for child in [&self.api, &self.etcd] {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            // One that has ended by itself cannot be killed, and need not be.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(assets: &Path, dir: &Path, name: &str, args: &[String]) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?;
    let program = assets.join(name);
    let mut command = Command::new(&program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

fn start_etcd(assets: &Path, dir: &Path, port: u16, peer: u16) -> Result<Child> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let args = [
        format!("--data-dir={}", dir.join("etcd").display()),
        "--log-level=warn".into(),
        "--unsafe-no-fsync".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    spawn(assets, dir, "etcd", &args)
}

/// As the recordings were made: no ServiceAccount admission, endpoints of `kubernetes` kept by nobody.
fn start_api(assets: &Path, dir: &Path, etcd_port: u16, port: u16) -> Result<Child> {
    let file = |name: &str| dir.join(name).display().to_string();
    let args = [
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        "--endpoint-reconciler-type=none".into(),
        format!("--cert-dir={}", file("certs")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--disable-admission-plugins=ServiceAccount".into(),
    ];
    spawn(assets, dir, "kube-apiserver", &args)
}

impl RealServer {
    /// Starts both programs in a directory of their own and waits until they serve.
    ///
    /// # Errors
    /// A program is missing or ends; its last words are in the error.
    pub(crate) async fn start(assets: &Path) -> Result<Self> {
        let (etcd_port, peer, port) = (free_port()?, free_port()?, free_port()?);
        let dir = std::env::temp_dir().join(format!("differential-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(dir.join("sa.key"), key.serialize_pem())?;
        std::fs::write(dir.join("sa.pub"), key.public_key_pem())?;
        let token = format!("{:032x}", fastrand::u128(..));
        std::fs::write(dir.join("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
        let etcd = Mutex::new(start_etcd(assets, &dir, etcd_port, peer)?);
        let api = Mutex::new(start_api(assets, &dir, etcd_port, port)?);
        let assets = assets.to_path_buf();
        let programs = Arc::new(Programs { assets, dir, etcd, api, more: Mutex::default(), etcd_port, port, token });
        programs.ready().await?;
        let forgetting = Arc::downgrade(&programs);
        let other = Other {
            port,
            connector: programs.connector()?,
            token: programs.token.clone(),
            compact: Box::new(move |revision| {
                let programs = forgetting.upgrade();
                Box::pin(async move {
                    let Some(programs) = programs else { return };
                    programs.forget(revision).await.unwrap_or_else(|error| panic!("compaction: {error:#}"));
                })
            }),
        };
        let kubeconfig = programs.kubeconfig()?;
        Ok(Self { server: Server::Other(Arc::new(other)), kubeconfig, programs })
    }

    /// Ids of the API server and of etcd.
    #[allow(dead_code, reason = "only the bench asks")]
    pub(crate) fn processes(&self) -> [u32; 2] {
        [&self.programs.api, &self.programs.etcd].map(|child| child.lock().unwrap_or_else(PoisonError::into_inner).id())
    }

    /// Starts the controllers and the scheduler beside it; nodes that are not heard of for so long are unknown.
    ///
    /// # Errors
    /// A program is missing.
    #[allow(dead_code, reason = "only stories need them")]
    pub(crate) fn start_controllers(&self, node_grace: u64) -> Result<()> {
        let Programs { assets, dir, .. } = &*self.programs;
        let kubeconfig = self.kubeconfig.display();
        let common = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
        ];
        let file = |name: &str| dir.join(name).display().to_string();
        let (secure, other) = (free_port()?, free_port()?);
        let manager = [
            format!("--secure-port={secure}"),
            format!("--root-ca-file={}", file("certs/apiserver.crt")),
            format!("--service-account-private-key-file={}", file("sa.key")),
            "--allocate-node-cidrs=true".into(),
            "--cluster-cidr=10.244.0.0/16".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            format!("--node-monitor-grace-period={node_grace}s"),
            format!("--node-startup-grace-period={node_grace}s"),
            "--node-monitor-period=1s".into(),
            "--kube-api-qps=1000".into(),
            "--kube-api-burst=1000".into(),
            "--authentication-tolerate-lookup-failure=true".into(),
        ];
        let scheduler = [format!("--secure-port={other}"), "--authentication-tolerate-lookup-failure=true".into()];
        let mut more = self.programs.more.lock().unwrap_or_else(PoisonError::into_inner);
        more.push(spawn(assets, dir, "kube-controller-manager", &[&common[..], &manager].concat())?);
        more.push(spawn(assets, dir, "kube-scheduler", &[&common[..], &scheduler].concat())?);
        Ok(())
    }

    /// Version of the server, such as `v1.34.4`.
    pub(crate) fn version(&self) -> Result<String> {
        let program = self.programs.assets.join("kube-apiserver");
        let output = Command::new(&program).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(text.rsplit(' ').next().unwrap_or_default().to_owned())
    }
}

impl Programs {
    fn certificate(&self) -> PathBuf {
        self.dir.join("certs/apiserver.crt")
    }

    /// Trusts the certificate that the server made for itself.
    fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.certificate())? {
            // The leaf is no authority; the one behind it is.
            let _ = roots.add(certificate?);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }

    async fn is_ready(&self) -> Result<bool> {
        let compact = Box::new(|_| Box::pin(futures::future::ready(())) as futures::future::BoxFuture<'static, ()>);
        let other = Other { port: self.port, connector: self.connector()?, token: self.token.clone(), compact };
        let path = "/api/v1/namespaces/default";
        for path in ["/readyz", path] {
            let request = Request::get(path).header("Authorization", format!("Bearer {}", self.token));
            match other.ask(request.body(Full::default())?).await {
                Ok(answer) if answer.status().is_success() => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            for (name, child) in [("etcd", &self.etcd), ("kube-apiserver", &self.api)] {
                let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
                if let Some(status) = ended {
                    bail!("{name} ended with {status}; its last words:\n{}", self.last_words(name));
                }
            }
            if self.certificate().is_file() && self.is_ready().await? {
                return Ok(());
            }
            if begun.elapsed() > START {
                let (etcd, api) = (self.last_words("etcd"), self.last_words("kube-apiserver"));
                bail!("the real server is not ready after {START:?}\netcd:\n{etcd}\nkube-apiserver:\n{api}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn last_words(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn kubeconfig(&self) -> Result<PathBuf> {
        let path = self.dir.join("kubeconfig");
        let cluster = json!({"server": format!("https://127.0.0.1:{}", self.port),
            "certificate-authority": self.certificate()});
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "real",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin"}}]});
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Compacts etcd, and starts the API server anew, since it keeps history in memory too.
    async fn forget(&self, revision: u64) -> Result<()> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.etcd_port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = json!({"revision": revision.to_string(), "physical": true}).to_string();
        let body: Full<hyper::body::Bytes> = Full::from(body);
        let request = Request::post("/v3/kv/compaction").header("host", "etcd").body(body)?;
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            let text = answer.into_body().collect().await?.to_bytes();
            bail!("etcd refuses to compact to {revision}: {}", String::from_utf8_lossy(&text));
        }
        {
            let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
            api.kill()?;
            api.wait()?;
            *api = start_api(&self.assets, &self.dir, self.etcd_port, self.port)?;
        }
        self.ready().await
    }
}
