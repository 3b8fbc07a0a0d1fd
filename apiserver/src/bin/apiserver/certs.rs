//! `--cert-dir`: certificates and keys for whoever has none, made once, and a kubeconfig of an administrator.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// What lies in the directory.
const AUTHORITY: &str = "ca.crt";
const SERVING: (&str, &str) = ("apiserver.crt", "apiserver.key");
const ADMINISTRATOR: (&str, &str) = ("admin.crt", "admin.key");
const ACCOUNTS: (&str, &str) = ("sa.pub", "sa.key");
const KUBECONFIG: &str = "admin.kubeconfig";

/// A directory of certificates and keys.
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Those of a directory, which are made if it has none; the server's is for these addresses and for `localhost`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(crate) fn in_dir(dir: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let own = Self { dir: dir.to_owned() };
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        // It is written last, so what a dead process left half made is made again.
        if !own.authority().is_file() {
            own.make(addresses)?;
        }
        Ok(own)
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.join(AUTHORITY)
    }

    /// The server's certificate and key.
    pub(crate) fn serving(&self) -> (PathBuf, PathBuf) {
        (self.dir.join(SERVING.0), self.dir.join(SERVING.1))
    }

    /// What verifies tokens of service accounts, and what signs them.
    pub(crate) fn accounts(&self) -> (PathBuf, PathBuf) {
        (self.dir.join(ACCOUNTS.0), self.dir.join(ACCOUNTS.1))
    }

    fn make(&self, addresses: &[IpAddr]) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "apiserver");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Its key is used here and then forgotten.
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.issue(&authority, params, "kube-apiserver", ExtendedKeyUsagePurpose::ServerAuth, SERVING)?;

        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        self.issue(&authority, params, "kubernetes-admin", ExtendedKeyUsagePurpose::ClientAuth, ADMINISTRATOR)?;

        let accounts = KeyPair::generate()?;
        self.write(ACCOUNTS.0, &accounts.public_key_pem())?;
        self.write(ACCOUNTS.1, &accounts.serialize_pem())?;
        self.write(AUTHORITY, &authority.pem())
    }

    fn issue(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        mut params: CertificateParams,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        (certificate, key): (&str, &str),
    ) -> Result<()> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let pair = KeyPair::generate()?;
        self.write(certificate, &params.signed_by(&pair, authority)?.pem())?;
        self.write(key, &pair.serialize_pem())
    }

    /// Writes a kubeconfig for a server at this address, and tells where it is.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn kubeconfig(&self, address: SocketAddr) -> Result<PathBuf> {
        let data = |name: &str| {
            let path = self.dir.join(name);
            let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            anyhow::Ok(STANDARD.encode(bytes))
        };
        let cluster = json!({"server": format!("https://{address}"), "certificate-authority-data": data(AUTHORITY)?});
        let user =
            json!({"client-certificate-data": data(ADMINISTRATOR.0)?, "client-key-data": data(ADMINISTRATOR.1)?});
        let name = "apiserver";
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}], "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        });
        self.write(KUBECONFIG, &format!("{config:#}\n"))?;
        Ok(self.dir.join(KUBECONFIG))
    }

    /// Writes a file that only its owner can read.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))
    }
}

/// Where clients on this machine find a server that listens here.
pub(crate) fn reachable(bind: IpAddr) -> IpAddr {
    if bind.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bind }
}
