//! Tests of [`super`].
use super::*;

#[test]
fn references_are_compared_in_their_full_form() {
    assert_eq!(normalize("nettool"), "docker.io/library/nettool:latest");
    assert_eq!(normalize("portolan/portolan:dev"), "docker.io/portolan/portolan:dev");
    assert_eq!(normalize("harbor.dayuan1997.com/devops/nettool:0.9"), "harbor.dayuan1997.com/devops/nettool:0.9");
    assert_eq!(normalize("localhost:5000/a"), "localhost:5000/a:latest");
}

#[test]
fn unknown_keys_are_errors() {
    let text = "names = []\nentrypoint = []\nfiles = []\nentripoint = []\n";
    let error = toml::from_str::<Source>(text).unwrap_err().to_string();
    assert!(error.contains("entripoint"), "{error}");
}
