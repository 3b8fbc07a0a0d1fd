//! Flags, by the names that kube-apiserver (and, for the controllers, kube-controller-manager) has for the same.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apiserver::controllers::{ControllerOptions, ControllerSelection};
use apiserver::{
    AuthOptions, DEFAULT_ISSUER, Durability, KubeletOptions, Options, PublicKey, SigningKey, TlsKubeletDialer, Tokens,
};
use clap::{ArgAction, Parser, ValueEnum};

use crate::certs::{Certificates, reachable};

/// When a write counts as written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Durable {
    /// Survives kill -9 of the process.
    Process,
    /// Survives a power cut.
    Disk,
}

/// A Kubernetes-compatible API server in one process, for tests.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Flags {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    /// Port to listen on; 0 takes a free one, which is told in the first line of the log.
    #[arg(long, default_value_t = 6443)]
    pub(crate) secure_port: u16,
    /// Address at which clients and pods find this server.
    #[arg(long)]
    pub(crate) advertise_address: Option<Ipv4Addr>,
    /// Authority of client certificates: the common name is the user, each organization a group.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Directory for certificates and keys that are not given: an authority, a serving certificate, the keys of service
    /// accounts, and an administrator's kubeconfig. They are made if they are not there, and used again if they are.
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Serving certificate (PEM, with its chain).
    #[arg(long, value_name = "FILE", required_unless_present = "cert_dir", requires = "tls_private_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// Issuer of service-account tokens.
    #[arg(long, default_value = DEFAULT_ISSUER)]
    service_account_issuer: String,
    /// Public keys that verify tokens; may be given several times.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "cert_dir",
        requires = "service_account_signing_key_file"
    )]
    service_account_key_file: Vec<PathBuf>,
    /// Private key that signs tokens.
    #[arg(long, value_name = "FILE", requires = "service_account_key_file")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Whether the tokens of pods live for a year, so that clients which never read them again go on.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// Audiences of tokens for this server; the issuer if not given.
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Range of cluster IPs.
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cluster_ip_range: ipnet::Ipv4Net,
    /// Range of node ports.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: RangeInclusive<u16>,
    /// Admission plug-ins beyond the default ones: NodeRestriction.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Default admission plug-ins to leave out: ServiceAccount.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Audit log (JSON lines, level Metadata); `-` is standard output.
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Client certificate that kubelets are shown, for logs, exec and port-forward; these are refused without.
    #[arg(long, value_name = "FILE", requires_all = ["kubelet_client_key", "kubelet_certificate_authority"])]
    kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// Authority of kubelets' serving certificates.
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Types of node addresses at which kubelets are asked, the preferred one first.
    #[arg(long, value_delimiter = ',', default_value = "InternalIP,ExternalIP,Hostname")]
    kubelet_preferred_address_types: Vec<String>,
    /// Log of all writes, from which the server starts again; in memory only without.
    #[arg(long, value_name = "FILE")]
    data_log: Option<PathBuf>,
    /// Decides uids, generated names, addresses and ports; another one at each start if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// When a write counts as written.
    #[arg(long, value_enum, default_value = "process")]
    durability: Durable,
    /// Controllers to run: `*` is all, `*,-NAME` all but one, nothing is none; the names are kube-controller-manager's, and
    /// `kube-scheduler`.
    #[arg(long, default_value = "*", value_name = "NAMES", allow_hyphen_values = true)]
    pub(crate) controllers: ControllerSelection,
    /// Range from which nodes get their pod ranges; none are given without.
    #[arg(long)]
    cluster_cidr: Option<ipnet::Ipv4Net>,
    /// Length of a node's pod range.
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
    /// Authority that the config map kube-root-ca.crt holds in each namespace; there is none without.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// What a refusal of something that is not supported here goes on to say.
    #[arg(long, value_name = "TEXT")]
    unsupported_hint: Option<String>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or("a range looks like 30000-32767")?;
    let port = |text: &str| text.parse::<u16>().map_err(|error| format!("{text}: {error}"));
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(format!("{text} is empty")) } else { Ok(range) }
}

impl Flags {
    /// Takes the files that are not given from `--cert-dir`.
    ///
    /// # Errors
    /// They cannot be made.
    pub(crate) fn complete(&mut self) -> Result<Option<Certificates>> {
        let Some(dir) = &self.cert_dir else { return Ok(None) };
        let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST), reachable(self.bind_address)];
        addresses.extend(self.advertise_address.map(IpAddr::from));
        addresses.sort_unstable();
        addresses.dedup();
        let made = Certificates::in_dir(dir, &addresses)?;
        self.client_ca_file.get_or_insert(made.authority());
        self.root_ca_file.get_or_insert(made.authority());
        if self.tls_cert_file.is_none() {
            let (certificate, key) = made.serving();
            (self.tls_cert_file, self.tls_private_key_file) = (Some(certificate), Some(key));
        }
        if self.service_account_signing_key_file.is_none() {
            let (public, private) = made.accounts();
            (self.service_account_key_file, self.service_account_signing_key_file) = (vec![public], Some(private));
        }
        Ok(Some(made))
    }

    /// What the server is made with.
    ///
    /// # Errors
    /// A key or the audit log cannot be used.
    pub(crate) fn options(&self) -> Result<Options> {
        let host = self.advertise_address.map_or(self.bind_address, IpAddr::from);
        let mut options = Options::default()
            .seed(self.seed.unwrap_or_else(|| fastrand::u64(..)))
            .durability(match self.durability {
                Durable::Process => Durability::Process,
                Durable::Disk => Durability::Disk,
            })
            .service_cluster_ip_range(self.service_cluster_ip_range)
            .service_node_port_range(self.service_node_port_range.clone())
            .advertise_address(format!("{host}:{}", self.secure_port))
            .auth(self.auth()?);
        if let Some(log) = &self.data_log {
            options = options.data_log(log);
        }
        if let Some(hint) = &self.unsupported_hint {
            options = options.unsupported_hint(hint);
        }
        options = match &self.audit_log_path {
            None => options,
            Some(path) if path.as_os_str() == "-" => options.audit_log(std::io::stdout()),
            Some(path) => {
                let file = File::options().create(true).append(true).open(path);
                options.audit_log(file.with_context(|| format!("opening the audit log {}", path.display()))?)
            }
        };
        Ok(match self.kubelets()? {
            Some(kubelets) => options.kubelets(kubelets),
            None => options,
        })
    }

    /// What the controllers are told about the cluster.
    ///
    /// # Errors
    /// The authority cannot be read.
    pub(crate) fn controller_options(&self) -> Result<ControllerOptions> {
        let mut options = ControllerOptions::default()
            .controllers(self.controllers.clone())
            .node_cidr_mask_size(self.node_cidr_mask_size);
        options.cluster_cidr = self.cluster_cidr;
        options.advertise_address = self.advertise_address.map(|address| SocketAddr::from((address, self.secure_port)));
        if let Some(path) = &self.root_ca_file {
            options = options.root_ca(String::from_utf8(read(path)?).context("--root-ca-file is no text")?);
        }
        Ok(options)
    }

    fn kubelets(&self) -> Result<Option<KubeletOptions>> {
        let files = (&self.kubelet_client_certificate, &self.kubelet_client_key, &self.kubelet_certificate_authority);
        let (Some(certificate), Some(key), Some(authority)) = files else { return Ok(None) };
        let kubelets = TlsKubeletDialer::new(certificate, key, authority).context("credentials for kubelets")?;
        let types = self.kubelet_preferred_address_types.clone();
        Ok(Some(KubeletOptions::new(Arc::new(kubelets)).preferred_address_types(types)))
    }

    fn auth(&self) -> Result<AuthOptions> {
        let mut verifying = Vec::new();
        for path in &self.service_account_key_file {
            let keys = PublicKey::all_from_pem(&read(path)?);
            verifying.extend(keys.with_context(|| format!("--service-account-key-file {}", path.display()))?);
        }
        let path = self.service_account_signing_key_file.as_ref().context("--service-account-signing-key-file")?;
        let signing = SigningKey::from_pem(&read(path)?, &verifying)
            .with_context(|| format!("--service-account-signing-key-file {}", path.display()))?;
        let mut tokens = Tokens::new(&self.service_account_issuer, signing, verifying);
        tokens.extend = self.service_account_extend_token_expiration;
        if !self.api_audiences.is_empty() {
            tokens.audiences.clone_from(&self.api_audiences);
        }
        Ok(AuthOptions::default()
            .tokens(tokens)
            .service_accounts(!plugin(&self.disable_admission_plugins, "disable", "ServiceAccount")?)
            .node_restriction(plugin(&self.enable_admission_plugins, "enable", "NodeRestriction")?))
    }
}

/// Whether the only plug-in that can be switched is in the list.
fn plugin(list: &[String], action: &str, known: &str) -> Result<bool> {
    match list.iter().find(|name| *name != known) {
        Some(other) => bail!("--{action}-admission-plugins: {other} cannot be {action}d here, only {known}"),
        None => Ok(!list.is_empty()),
    }
}
