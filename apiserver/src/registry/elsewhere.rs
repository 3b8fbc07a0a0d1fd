//! What kube-apiserver v1.34 serves and this server does not: asked for it, the answer is a 501 that says so, not the 404
//! of something that no server has.
//!
//! The list is the difference between the discovery documents of both; it shrinks when a kind moves to `builtin.txt`.
//! Definitions are looked up first, so a custom resource of the same name wins.

use super::group_version;
use crate::failure::Failure;

/// Group, versions, resources.
const RESOURCES: [(&str, &[&str], &[&str]); 6] = [
    ("", &["v1"], &["componentstatuses"]),
    ("apiregistration.k8s.io", &["v1"], &["apiservices"]),
    ("networking.k8s.io", &["v1"], &["ipaddresses", "servicecidrs"]),
    ("storage.k8s.io", &["v1"], &["volumeattributesclasses"]),
    ("resource.k8s.io", &["v1"], &["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"]),
    ("flowcontrol.apiserver.k8s.io", &["v1"], &["flowschemas", "prioritylevelconfigurations"]),
];

/// Paths that are no resources; each also stands for what is below it.
const PATHS: [&str; 4] = ["/.well-known/openid-configuration", "/debug", "/metrics", "/openid/v1/jwks"];

/// The refusal of a resource that is not served here, if a real server has it.
pub fn resource(group: &str, version: &str, plural: &str) -> Option<Failure> {
    let known = RESOURCES.iter().filter(|(known, versions, _)| *known == group && versions.contains(&version));
    let found = known.flat_map(|(.., plurals)| *plurals).any(|known| *known == plural);
    found.then(|| Failure::unsupported(&format!("the resource {plural} of {}", group_version(group, version))))
}

/// The refusal of the discovery of a group (`version` empty) or of one of its versions, of which nothing is served here.
pub fn group(group: &str, version: &str) -> Option<Failure> {
    let mut known = RESOURCES.iter().filter(|(known, ..)| *known == group && !group.is_empty());
    let found = known.any(|(_, versions, _)| version.is_empty() || versions.contains(&version));
    let name = if version.is_empty() { group.to_owned() } else { group_version(group, version) };
    found.then(|| Failure::unsupported(&format!("the API group {name}")))
}

/// The refusal of a path that is no resource, if a real server has it.
pub fn path(path: &str) -> Option<Failure> {
    let below = |known: &str| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    PATHS.into_iter().any(below).then(|| Failure::unsupported(&format!("the path {path}")))
}

#[cfg(test)]
#[path = "elsewhere_tests.rs"]
mod tests;
