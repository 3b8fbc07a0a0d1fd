//! The control plane: processes in the network of the control-plane node, started again when they end. Either our own API
//! server, which runs the controllers too, or the real programs: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler. Both have the same certificates, the same address and the same audit log.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::layout::{POD_CIDR, SERVICE_CIDR};
use crate::sys;

/// Metadata of every request, once, when it is answered: enough to see who was refused what.
pub(super) const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
";

/// One program of the control plane.
struct Program {
    name: &'static str,
    args: Vec<String>,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

/// Which programs make a control plane, and where they lie.
pub(crate) enum Kind<'a> {
    /// Our own API server, in the directory of the built binaries.
    Embedded(&'a Path),
    /// The real programs.
    Real(&'a Path),
}

/// All programs of the control plane.
pub(crate) struct ControlPlane {
    programs_in: PathBuf,
    logs: PathBuf,
    cgroup: PathBuf,
    network: OwnedFd,
    programs: Vec<Program>,
}

impl ControlPlane {
    /// Prepares files and starts everything at once; each waits for what it needs by itself.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub(crate) fn start(
        dir: &Path,
        kind: &Kind<'_>,
        cgroup: &Path,
        network: OwnedFd,
        address: Ipv4Addr,
    ) -> Result<Self> {
        let data = dir.join("data");
        fs::create_dir_all(&data)?;
        sys::mount_at(Some(Path::new("tmpfs")), &data, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
        fs::write(dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        fs::create_dir_all(cgroup)?;
        let now = Instant::now();
        let program = |name, args| Program { name, args, child: None, started: now, pause: Duration::from_millis(250) };
        let (programs_in, programs) = match kind {
            Kind::Embedded(bin_dir) => (*bin_dir, vec![program("apiserver", embedded_args(dir, &data, address))]),
            Kind::Real(assets) => (
                *assets,
                vec![
                    program("etcd", etcd_args(&data)),
                    program("kube-apiserver", apiserver_args(dir, address)),
                    program("kube-controller-manager", controller_manager_args(dir)),
                    program("kube-scheduler", scheduler_args(dir)),
                ],
            ),
        };
        let logs = dir.join("logs");
        let mut all = Self { programs_in: programs_in.into(), logs, cgroup: cgroup.into(), network, programs };
        for at in 0..all.programs.len() {
            all.launch(at)?;
        }
        Ok(all)
    }

    fn launch(&mut self, at: usize) -> Result<()> {
        let program = &mut self.programs[at];
        let path = self.logs.join(format!("{}.log", program.name));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let mut command = Command::new(self.programs_in.join(program.name));
        command.args(&program.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let network = self.network.try_clone()?;
        let enter = vec![(network, CloneFlags::CLONE_NEWNET)];
        sys::start_within(&mut command, Some(self.cgroup.clone()), enter, CloneFlags::empty());
        sys::own_session(&mut command);
        let child =
            command.spawn().with_context(|| format!("starting {}", self.programs_in.join(program.name).display()))?;
        program.child = Some(child);
        program.started = Instant::now();
        Ok(())
    }

    /// Starts again what has ended, with a growing pause for what keeps ending.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub(crate) fn tend(&mut self) -> Result<()> {
        for at in 0..self.programs.len() {
            let program = &mut self.programs[at];
            let ended = match &mut program.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                eprintln!("{} ended: {status}", program.name);
                program.child = None;
                let lasted = program.started.elapsed();
                program.pause = if lasted > Duration::from_secs(30) {
                    Duration::from_millis(250)
                } else {
                    (program.pause * 2).min(Duration::from_secs(10))
                };
                program.started = Instant::now();
            }
            if program.child.is_none() && program.started.elapsed() >= program.pause {
                self.launch(at)?;
            }
        }
        Ok(())
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn etcd_args(data: &Path) -> Vec<String> {
    flags(&[
        ("data-dir", data.display().to_string()),
        ("log-level", "warn".into()),
        // The data ends with the cluster; nothing is gained by waiting for a disk.
        ("unsafe-no-fsync", "true".into()),
        ("listen-client-urls", "http://127.0.0.1:2379".into()),
        ("advertise-client-urls", "http://127.0.0.1:2379".into()),
        ("listen-peer-urls", "http://127.0.0.1:2380".into()),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380".into()),
        ("initial-cluster", "default=http://127.0.0.1:2380".into()),
    ])
}

/// What both API servers are told.
fn common_args(dir: &Path, address: Ipv4Addr) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    flags(&[
        ("bind-address", "0.0.0.0".into()),
        ("advertise-address", address.to_string()),
        ("secure-port", "6443".into()),
        ("service-cluster-ip-range", SERVICE_CIDR.into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("client-ca-file", pki("ca.crt")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("kubelet-certificate-authority", pki("ca.crt")),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("audit-log-path", dir.join("logs/audit.log").display().to_string()),
    ])
}

fn embedded_args(dir: &Path, data: &Path, address: Ipv4Addr) -> Vec<String> {
    let own = flags(&[
        ("data-log", data.join("objects.log").display().to_string()),
        ("cluster-cidr", POD_CIDR.into()),
        ("node-cidr-mask-size", "24".into()),
        ("root-ca-file", dir.join("pki/ca.crt").display().to_string()),
        ("unsupported-hint", "use a real control plane (--control-plane DIR) for it".into()),
    ]);
    [common_args(dir, address), own].concat()
}

fn apiserver_args(dir: &Path, address: Ipv4Addr) -> Vec<String> {
    let real = flags(&[
        ("etcd-servers", "http://127.0.0.1:2379".into()),
        ("allow-privileged", "true".into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("audit-policy-file", dir.join("audit-policy.yaml").display().to_string()),
        ("audit-log-mode", "blocking".into()),
    ]);
    [common_args(dir, address), real].concat()
}

fn controller_manager_args(dir: &Path) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    let kubeconfig = dir.join("controller-manager.kubeconfig").display().to_string();
    flags(&[
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".into()),
        ("leader-elect", "false".into()),
        ("allocate-node-cidrs", "true".into()),
        ("cluster-cidr", POD_CIDR.into()),
        ("service-cluster-ip-range", SERVICE_CIDR.into()),
        ("node-cidr-mask-size", "24".into()),
        ("root-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        ("use-service-account-credentials", "true".into()),
        ("controllers", "*,-cloud-node-lifecycle-controller".into()),
        // It starts beside the API server, whose roles are not there at first.
        ("authentication-tolerate-lookup-failure", "true".into()),
        // Each controller's start asks for a token; the default of 20 requests a second makes that take 5 s.
        ("kube-api-qps", "1000".into()),
        ("kube-api-burst", "1000".into()),
    ])
}

fn scheduler_args(dir: &Path) -> Vec<String> {
    let kubeconfig = dir.join("scheduler.kubeconfig").display().to_string();
    flags(&[
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".into()),
        ("leader-elect", "false".into()),
    ])
}
