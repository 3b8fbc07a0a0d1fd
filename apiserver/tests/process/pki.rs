//! Authorities and what they issue, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// When a certificate is valid, in years of our time: far enough from any day on which this may run.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Valid {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A serving certificate for loopback.
    pub(crate) fn server(&self) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        self.issue(params, &[ExtendedKeyUsagePurpose::ServerAuth], Valid::Now)
    }

    /// A good client certificate.
    pub(crate) fn client(&self, name: &str, group: &str) -> Issued {
        self.client_with(name, group, &[ExtendedKeyUsagePurpose::ClientAuth], Valid::Now)
    }

    pub(crate) fn client_with(
        &self,
        name: &str,
        group: &str,
        uses: &[ExtendedKeyUsagePurpose],
        valid: Valid,
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.issue(params, uses, valid)
    }

    fn issue(&self, mut params: CertificateParams, uses: &[ExtendedKeyUsagePurpose], valid: Valid) -> Issued {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses.to_vec();
        let (from, until) = match valid {
            Valid::Now => (1975, 4096),
            Valid::Past => (1975, 2001),
            Valid::Future => (4000, 4096),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }
}
