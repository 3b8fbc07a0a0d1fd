//! Keys of service-account tokens: ES256 and RS256, as PEM files hold them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

fn error(text: impl std::fmt::Display) -> KeyError {
    KeyError(text.to_string())
}

enum Signer {
    Elliptic(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Signs tokens.
pub struct SigningKey {
    signer: Signer,
    /// Identity of the key, in the header of each token; that of its public half.
    id: String,
}

/// Verifies tokens.
pub struct PublicKey {
    id: String,
    algorithm: &'static str,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl SigningKey {
    /// A new elliptic key, and its public half.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<(Self, PublicKey), KeyError> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(error)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        let pair = pair.map_err(error)?;
        let point = pair.public_key().as_ref().to_vec();
        let id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &point));
        let public = PublicKey { id: id.clone(), algorithm: "ES256", key: elliptic(point) };
        Ok((Self { signer: Signer::Elliptic(pair), id }, public))
    }

    /// Reads a private key (PKCS#8 or PKCS#1; RSA or P-256) that belongs to `public`.
    ///
    /// # Errors
    /// The text holds no such key.
    pub fn from_pem(pem: &[u8], public: &[PublicKey]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(error)?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
            _ => None,
        };
        let (signer, half) = match (rsa, &der) {
            (Some(pair), _) => {
                let half = pair.public_key().as_ref().to_vec();
                (Signer::Rsa(pair), half)
            }
            (None, PrivateKeyDer::Pkcs8(key)) => {
                let document = key.secret_pkcs8_der();
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new())
                    .map_err(|why| error(format!("neither an RSA nor a P-256 key: {why}")))?;
                let half = pair.public_key().as_ref().to_vec();
                (Signer::Elliptic(pair), half)
            }
            _ => return Err(error("neither PKCS#8 nor PKCS#1; convert it with `openssl pkcs8 -topk8 -nocrypt`")),
        };
        let own = public.iter().find(|public| public.key.as_ref() == half.as_slice());
        let id = own.ok_or_else(|| error("its public half is none of the keys that verify tokens"))?.id.clone();
        Ok(Self { signer, id })
    }

    /// `alg` and `kid` of tokens.
    pub fn header(&self) -> (&'static str, &str) {
        let algorithm = match self.signer {
            Signer::Elliptic(_) => "ES256",
            Signer::Rsa(_) => "RS256",
        };
        (algorithm, &self.id)
    }

    /// Signs bytes.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Elliptic(pair) => {
                pair.sign(&random, bytes).map(|signature| signature.as_ref().to_vec()).map_err(error)
            }
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).map_err(error)?;
                Ok(signature)
            }
        }
    }
}

impl PublicKey {
    /// Reads all public keys of a PEM file.
    ///
    /// # Errors
    /// There is none, or one of a kind that tokens are not signed with.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(error)?;
            let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(error)?;
            let id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &der));
            let raw = info.subject_public_key.data.to_vec();
            let (algorithm, key) = match info.algorithm.algorithm.to_id_string().as_str() {
                "1.2.840.113549.1.1.1" => ("RS256", rsa(raw)),
                "1.2.840.10045.2.1" => ("ES256", elliptic(raw)),
                other => return Err(error(format!("a public key of the unknown kind {other}"))),
            };
            keys.push(Self { id, algorithm, key });
        }
        if keys.is_empty() {
            return Err(error("it holds no public key (PEM, `BEGIN PUBLIC KEY`)"));
        }
        Ok(keys)
    }

    /// Whether the key has signed these bytes, as a token with this header.
    pub fn verifies(&self, algorithm: &str, id: &str, bytes: &[u8], signature: &[u8]) -> bool {
        algorithm == self.algorithm && (id.is_empty() || id == self.id) && self.key.verify(bytes, signature).is_ok()
    }
}

fn elliptic(point: Vec<u8>) -> UnparsedPublicKey<Vec<u8>> {
    let algorithm: &'static dyn VerificationAlgorithm = &ECDSA_P256_SHA256_FIXED;
    UnparsedPublicKey::new(algorithm, point)
}

fn rsa(key: Vec<u8>) -> UnparsedPublicKey<Vec<u8>> {
    let algorithm: &'static dyn VerificationAlgorithm = &RSA_PKCS1_2048_8192_SHA256;
    UnparsedPublicKey::new(algorithm, key)
}
