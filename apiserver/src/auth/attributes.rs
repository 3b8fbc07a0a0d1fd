//! What a request wants to do, in the terms in which permissions are given.

use http::Method;

use crate::failure::{Failure, qualified};
use crate::request::{Query, Target};
use crate::selector::FieldSelector;

/// What a request wants to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a lower-case method for a
    /// path that is no resource.
    pub verb: String,
    /// Path, for one that is no resource; otherwise empty.
    pub path: String,
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace. A namespace object is in itself, as Kubernetes has it.
    pub namespace: String,
    /// Name; empty if the request is about a collection.
    pub name: String,
    /// Field selector of a list, watch or deletecollection.
    pub fields: FieldSelector,
}

impl Attributes {
    /// Reads a request.
    pub fn of(method: &Method, path: &str, query: &Query) -> Self {
        let Some(target) = Target::parse(path) else {
            return Self { verb: method.as_str().to_lowercase(), path: path.to_owned(), ..Self::default() };
        };
        let itself = target.group.is_empty() && target.resource == "namespaces";
        let mut attributes = Self {
            verb: verb(method, &target, query).to_owned(),
            namespace: if itself { target.name.clone() } else { target.namespace },
            group: target.group,
            version: target.version,
            resource: target.resource,
            subresource: target.subresource,
            name: target.name,
            ..Self::default()
        };
        if matches!(attributes.verb.as_str(), "list" | "watch" | "deletecollection") {
            // A selector that cannot be read is refused later, when it is used.
            attributes.fields = FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default();
            if attributes.name.is_empty()
                && let Some(name) = attributes.fields.exact("metadata.name").filter(|name| is_segment(name))
            {
                attributes.name = name.to_owned();
            }
        }
        attributes
    }

    /// `pods` or `pods/status`.
    pub fn full_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// Whether nothing is changed.
    pub fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// 403 in the words of the real server.
    pub fn forbidden(&self, user: &str, reason: &str) -> Failure {
        let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if !self.path.is_empty() {
            let message = format!("forbidden: User {user:?} cannot {} path {:?}{tail}", self.verb, self.path);
            return Failure::forbidden_path(message);
        }
        let scope = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let why = format!(
            "User {user:?} cannot {} resource {:?} in API group {:?} {scope}{tail}",
            self.verb,
            self.full_resource(),
            self.group
        );
        Failure::forbidden(&self.group, &self.resource, &self.name, &why)
    }

    /// `deployments.apps "web"`: for messages.
    pub fn subject(&self) -> String {
        format!("{} {:?}", qualified(&self.resource, &self.group), self.name)
    }
}

fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let collection = target.name.is_empty();
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ if target.watch => "watch",
        "GET" | "HEAD" if !collection => "get",
        "GET" | "HEAD" if query.flag("watch") => "watch",
        "GET" | "HEAD" => "list",
        _ => "",
    }
}

/// Whether a text can be a part of a path.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && !matches!(text, "." | "..") && !text.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str, query: &str) -> Attributes {
        Attributes::of(&method.parse().unwrap(), path, &Query::parse(Some(query)))
    }

    #[test]
    fn verbs_follow_method_name_and_query() {
        let cases = [
            ("GET", "/api/v1/namespaces/a/pods", "", "list", ""),
            ("GET", "/api/v1/namespaces/a/pods", "watch=true", "watch", ""),
            ("GET", "/api/v1/namespaces/a/pods", "watch=0&fieldSelector=metadata.name%3Dp", "list", "p"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "", "watch", ""),
            ("HEAD", "/api/v1/namespaces/a/pods/p", "", "get", "p"),
            ("DELETE", "/api/v1/namespaces/a/pods", "", "deletecollection", ""),
            ("DELETE", "/api/v1/namespaces/a/pods/p", "", "delete", "p"),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status", "", "patch", "p"),
            ("POST", "/api/v1/namespaces/a/pods", "", "create", ""),
        ];
        for (method, path, query, verb, name) in cases {
            let got = of(method, path, query);
            assert_eq!((got.verb.as_str(), got.name.as_str(), got.namespace.as_str()), (verb, name, "a"), "{path}");
        }
    }

    #[test]
    fn a_namespace_is_in_itself() {
        let got = of("GET", "/api/v1/namespaces/a", "");
        assert_eq!((got.resource.as_str(), got.name.as_str(), got.namespace.as_str()), ("namespaces", "a", "a"));
        let finalize = of("PUT", "/api/v1/namespaces/a/finalize", "");
        assert_eq!((finalize.full_resource().as_str(), finalize.namespace.as_str()), ("namespaces/finalize", "a"));
    }

    #[test]
    fn paths_that_are_no_resources() {
        for path in ["/version", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/metrics"] {
            let got = of("GET", path, "");
            assert_eq!((got.verb.as_str(), got.path.as_str(), got.resource.as_str()), ("get", path, ""), "{path}");
        }
    }
}
