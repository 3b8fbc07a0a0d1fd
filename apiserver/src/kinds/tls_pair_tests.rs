//! Tests of [`super`].
use rcgen::{KeyPair, generate_simple_self_signed};

use super::*;

#[test]
fn a_pair_that_goes_together_is_not_warned_of() {
    let made = generate_simple_self_signed(["a.io".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let other = KeyPair::generate().unwrap().serialize_pem();
    let ask = |certificate: &str, key: &str| complaint(certificate.as_bytes(), key.as_bytes());
    assert_eq!(ask(&certificate, &key), None);
    assert_eq!(ask(&certificate, &other).as_deref(), Some(MISMATCH));
    assert_eq!(ask("x", "y").as_deref(), Some("tls: failed to find any PEM data in certificate input"));
    assert_eq!(ask(&certificate, "y").as_deref(), Some("tls: failed to find any PEM data in key input"));
    let switched = ask(&key, &certificate).unwrap();
    assert!(switched.ends_with("PEM inputs may have been switched"), "{switched}");
    let twice = ask(&certificate, &certificate).unwrap();
    assert!(twice.starts_with("tls: found a certificate rather than a key"), "{twice}");
}
