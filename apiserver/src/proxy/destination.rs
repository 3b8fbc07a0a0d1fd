//! Which kubelet is asked, and for what: from the pod, its node and the options in the query.

use std::sync::Arc;

use serde_json::Value;

use super::Errand;
use crate::failure::{Failure, FieldError, Outcome};
use crate::request::{Query, Target};
use crate::state::State;
use crate::store::Key;

/// Where kubelets listen if their node does not say.
const PORT: u16 = 10250;

/// A request of a kubelet.
#[derive(Debug)]
pub(super) struct Destination {
    /// Address of the node.
    pub(super) host: String,
    /// Port of its kubelet.
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

/// Finds it; nothing for the log of a pod that is on no node.
pub(super) fn find(
    state: &State,
    errand: Errand,
    target: &Target,
    query: &Query,
    uri: &http::Uri,
    preferred: &[String],
) -> Outcome<Option<Destination>> {
    if errand == Errand::Node {
        let Some(node) = read(state, "/nodes", "", &target.name) else {
            return Err(Failure::not_found("", "nodes", &target.name));
        };
        let (host, port) = address(&node, preferred)?;
        return Ok(Some(Destination { host, port, path: beyond_proxy(uri) }));
    }
    let log_query = if errand == Errand::Log { log_options(query, &target.name)? } else { String::new() };
    let Some(pod) = read(state, "/pods", &target.namespace, &target.name) else {
        return Err(Failure::not_found("", "pods", &target.name));
    };
    let container = match errand {
        Errand::PortForward => String::new(),
        _ => container(&pod, query.get("container"))?,
    };
    let node_name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node_name.is_empty() {
        return match errand {
            Errand::Log => Ok(None),
            _ => Err(Failure::bad_request(format!("pod {} does not have a host assigned", target.name))),
        };
    }
    let Some(node) = read(state, "/nodes", "", node_name) else {
        // The real server names the node as if it were a pod.
        return Err(Failure::not_found("", "pods", node_name));
    };
    let (host, port) = address(&node, preferred)?;
    let (namespace, name) = (escape(&target.namespace), escape(&target.name));
    let path = match errand {
        Errand::Log => format!("/containerLogs/{namespace}/{name}/{}{log_query}", escape(&container)),
        Errand::PortForward => format!("/portForward/{namespace}/{name}{}", ports(query)),
        _ => {
            let word = if errand == Errand::Exec { "exec" } else { "attach" };
            format!("/{word}/{namespace}/{name}/{}{}", escape(&container), streams(query))
        }
    };
    Ok(Some(Destination { host, port, path }))
}

fn read(state: &State, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
    let key = Key { resource: resource.into(), namespace: namespace.to_owned(), name: name.to_owned() };
    state.store.get(&key)
}

fn escape(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The container that is meant; the only one if none is named.
fn container(pod: &Value, asked: &str) -> Outcome<String> {
    let names = |list: &str| -> Vec<&str> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (plain, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
    match (asked, &plain[..]) {
        ("", [only]) if init.is_empty() && ephemeral.is_empty() => Ok((*only).to_owned()),
        ("", _) => {
            let mut message =
                format!("a container name must be specified for pod {pod}, choose one of: [{}]", plain.join(" "));
            for (what, names) in [("init", init), ("ephemeral", ephemeral)] {
                if !names.is_empty() {
                    message += &format!(" or one of the {what} containers: [{}]", names.join(" "));
                }
            }
            Err(Failure::bad_request(message))
        }
        (name, _) if plain.contains(&name) || init.contains(&name) || ephemeral.contains(&name) => Ok(name.to_owned()),
        (name, _) => Err(Failure::bad_request(format!("container {name} is not valid for pod {pod}"))),
    }
}

/// The kubelet's address: the first of the preferred types that the node has.
fn address(node: &Value, preferred: &[String]) -> Outcome<(String, u16)> {
    let known = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = preferred.iter().find_map(|wanted| known.iter().find(|address| address["type"] == wanted.as_str()));
    let Some(host) = found.and_then(|address| address["address"].as_str()) else {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Failure::plain(format!("node {name} has no address of the types {}", preferred.join(", "))));
    };
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(PORT);
    Ok((host.to_owned(), port))
}

/// Options of a log, checked and in the form that kubelets read.
fn log_options(query: &Query, pod: &str) -> Outcome<String> {
    let mut errors = Vec::new();
    let mut out = form_urlencoded::Serializer::new(String::new());
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            out.append_pair(name, "true");
        }
    }
    for (name, least) in [("limitBytes", 1), ("sinceSeconds", 1), ("tailLines", 0)] {
        let Some(number) = query.number(name)? else { continue };
        if number < least {
            let detail = match least {
                0 => "must be greater than or equal to 0",
                _ => "must be greater than 0",
            };
            errors.push(FieldError::invalid(name, &number.into(), detail));
        }
        out.append_pair(name, &number.to_string());
    }
    for name in ["sinceTime", "stream"] {
        if !query.get(name).is_empty() {
            out.append_pair(name, query.get(name));
        }
    }
    if !errors.is_empty() {
        return Err(Failure::invalid("", "PodLogOptions", pod, &errors));
    }
    Ok(after_question_mark(out.finish()))
}

fn after_question_mark(query: String) -> String {
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Options of exec and attach by the names that kubelets have for them.
fn streams(query: &Query) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (name, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(name) {
            out.append_pair(theirs, "1");
        }
    }
    for word in query.all("command") {
        out.append_pair("command", word);
    }
    after_question_mark(out.finish())
}

/// Ports as kube-apiserver passes them on: all in one parameter (seen with v1.34.4).
fn ports(query: &Query) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    let ports = query.all("ports");
    if !ports.is_empty() {
        out.append_pair("port", &ports.join(","));
    }
    after_question_mark(out.finish())
}

/// What follows `/proxy`, as it was sent.
fn beyond_proxy(uri: &http::Uri) -> String {
    let (_, rest) = uri.path().split_once("/proxy").unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { rest };
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
