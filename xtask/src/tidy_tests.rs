//! Tests of [`super`]: each check meets a planted fault.
use super::*;

#[test]
fn permissive_expressions_pass_and_others_do_not() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "ISC AND (Apache-2.0 OR ISC)",
        "Apache-2.0 OR GPL-2.0-only",
    ] {
        assert!(licence_allowed(allowed), "{allowed}");
    }
    for refused in ["", "GPL-3.0-or-later", "MIT AND GPL-2.0-only", "LGPL-2.1 AND (MIT OR GPL-2.0-only)"] {
        assert!(!licence_allowed(refused), "{refused}");
    }
}

#[test]
fn a_licence_finding_names_the_package() {
    let metadata = serde_json::json!({"packages": [
        {"name": "good", "license": "MIT"}, {"name": "bad", "license": "GPL-3.0-only"}, {"name": "none", "license": null}]});
    let findings = licence_findings(&metadata);
    assert_eq!(findings.len(), 2);
    assert!(findings[0].starts_with("bad:") && findings[1].starts_with("none:"), "{findings:?}");
}

#[test]
fn arrows_point_inward() {
    let finding = |file: &str, line: &str| arrow_finding(Path::new(file), line);
    assert!(finding("src/api/pool.rs", "use crate::k8s::client;").is_some());
    assert!(finding("src/node/ipam.rs", "let x = crate::agent::run();").is_some());
    assert!(finding("src/agent/mod.rs", "use crate::{node, datapath};").is_none());
    assert!(finding("src/agent/mod.rs", "use crate::node::ipam;").is_none());
    assert!(finding("src/api/pool.rs", "// see crate::k8s").is_none());
    assert!(finding("core/src/lib.rs", "use crate::ipam;").is_none());
}

#[test]
fn headers_lengths_and_white_space_are_seen() {
    let long = "//! x\n".repeat(LINES_MAX + 1);
    assert_eq!(file_findings(Path::new("a.rs"), &long).len(), 1);
    assert_eq!(file_findings(Path::new("a.rs"), "fn main() {} \n").len(), 2);
    assert!(file_findings(Path::new("a.rs"), "//! x\n").is_empty());
}

#[test]
fn a_dependency_that_no_source_names_is_found() {
    let metadata = serde_json::json!({"packages": [
        {"source": null, "manifest_path": "/r/Cargo.toml", "dependencies": [{"name": "tower-http"}, {"name": "yaml_serde", "rename": "serde_yaml"}, {"name": "tower"}]},
        {"source": null, "manifest_path": "/r/sub/Cargo.toml", "dependencies": [{"name": "tower"}]},
        {"source": "registry", "manifest_path": "/c/Cargo.toml", "dependencies": [{"name": "whatever"}]},
    ]});
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let files = [
        file("/r/src/main.rs", "use tower_http::Service; // not tower itself\nfn read() { serde_yaml::from_str() }"),
        file("/r/sub/src/lib.rs", "use tower::Layer;"),
    ];
    assert_eq!(dependency_findings(&metadata, &files), ["/r/Cargo.toml: no source file names the dependency tower"]);
}
