//! The cluster's certificates, made anew for every cluster.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate authority that writes what it issues into a directory.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority and the service-account key pair in `dir`.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "portolan-e2e-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pki = Self { dir: dir.to_path_buf(), issuer };
        std::fs::write(pki.ca(), pki.issuer.pem()).context("writing ca.crt")?;
        let accounts = KeyPair::generate()?;
        pki.secret("sa.key", &accounts.serialize_pem())?;
        std::fs::write(dir.join("sa.pub"), accounts.public_key_pem()).context("writing sa.pub")?;
        Ok(pki)
    }

    /// Path of the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Issues `NAME.crt` and `NAME.key`, valid for servers and clients.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn issue(
        &self,
        name: &str,
        common_name: &str,
        organization: Option<&str>,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.subject_alt_names = addresses.iter().map(|address| SanType::IpAddress(*address)).collect();
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.secret(&format!("{name}.key"), &key.serialize_pem())?;
        let path = self.dir.join(format!("{name}.crt"));
        std::fs::write(&path, certificate.pem()).with_context(|| format!("writing {}", path.display()))
    }

    fn secret(&self, name: &str, text: &str) -> Result<()> {
        use std::io::Write;
        let path = self.dir.join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes a kubeconfig with embedded credentials of an issued certificate.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn kubeconfig(&self, path: &Path, server: &str, certificate: &str) -> Result<()> {
        use base64::Engine;
        let data = |name: &str| -> Result<String> {
            let path = self.dir.join(name);
            let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok(base64::engine::general_purpose::STANDARD.encode(text))
        };
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")?}}],
            "users": [{"name": certificate, "user": {
                "client-certificate-data": data(&format!("{certificate}.crt"))?,
                "client-key-data": data(&format!("{certificate}.key"))?,
            }}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": certificate}}],
        });
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("creating {}", path.display()))?;
        file.write_all(serde_yaml::to_string(&document)?.as_bytes())
            .with_context(|| format!("writing {}", path.display()))
    }
}
