//! Warnings about a Secret whose certificate and key do not go together, in the words of Go's TLS library.
//!
//! Only what the texts of both say is looked at, and whether their contents belong together where that is easily told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, KeyPair};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

const MISMATCH: &str = "tls: private key does not match public key";

/// What a TLS Secret is warned of.
pub(super) fn warnings(secret: &Value) -> Vec<String> {
    if secret["type"] != "kubernetes.io/tls" {
        return Vec::new();
    }
    let text = |name: &str| STANDARD.decode(secret["data"][name].as_str().unwrap_or_default()).unwrap_or_default();
    complaint(&text("tls.crt"), &text("tls.key")).into_iter().collect()
}

fn complaint(certificate: &[u8], key: &[u8]) -> Option<String> {
    let (certificates, keys) = (blocks(certificate), blocks(key));
    let Some((_, certificate)) = certificates.iter().find(|(kind, _)| kind == "CERTIFICATE") else {
        return Some(match &certificates[..] {
            [] => "tls: failed to find any PEM data in certificate input".into(),
            [(kind, _)] if kind.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".into()
            }
            other => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: {}",
                kinds(other)
            ),
        });
    };
    let private = |kind: &str| kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY");
    let Some((kind, key)) = keys.iter().find(|(kind, _)| private(kind)) else {
        return Some(match &keys[..] {
            [] => "tls: failed to find any PEM data in key input".into(),
            [(kind, _)] if kind == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".into()
            }
            other => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: {}",
                kinds(other)
            ),
        });
    };
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let public = &parsed.public_key().subject_public_key.data;
    let own = public_half(kind, key)?;
    (own[..] != public[..]).then(|| MISMATCH.to_owned())
}

/// The public key that belongs to a private one, of a kind that is known here.
fn public_half(kind: &str, key: &[u8]) -> Option<Vec<u8>> {
    let rsa = match kind {
        "RSA PRIVATE KEY" => signature::RsaKeyPair::from_der(key),
        _ => signature::RsaKeyPair::from_pkcs8(key),
    };
    if let Ok(pair) = rsa {
        return Some(pair.public_key().as_ref().to_vec());
    }
    let random = ring::rand::SystemRandom::new();
    for curve in [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1_SIGNING] {
        if let Ok(pair) = signature::EcdsaKeyPair::from_pkcs8(curve, key, &random) {
            return Some(pair.public_key().as_ref().to_vec());
        }
    }
    let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).ok()?;
    Some(pair.public_key().as_ref().to_vec())
}

fn kinds(blocks: &[(String, Vec<u8>)]) -> String {
    let kinds: Vec<&str> = blocks.iter().map(|(kind, _)| kind.as_str()).collect();
    format!("[{}]", kinds.join(" "))
}

/// The blocks of a PEM text, each with its type; what is none is skipped.
fn blocks(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else { continue };
        let end = format!("-----END {kind}-----");
        let body: String = lines.by_ref().take_while(|line| *line != end).filter(|line| !line.contains(':')).collect();
        blocks.extend(STANDARD.decode(body).ok().map(|bytes| (kind.to_owned(), bytes)));
    }
    blocks
}

#[cfg(test)]
#[path = "tls_pair_tests.rs"]
mod tests;
