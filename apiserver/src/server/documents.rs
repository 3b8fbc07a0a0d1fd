//! What is no resource: discovery, versions, health and the documents of OpenAPI.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answers::{answer, encode, json_answer, nothing, plain_json, text};
use super::resources::{custom_group, served_group};
use super::{ApiServer, Body};
use crate::body::order;
use crate::failure::{Failure, Outcome};
use crate::registry::{discovery, elsewhere, openapi};
use crate::request::{Form, Query, negotiate, unacceptable};
use crate::verbs::locked;

impl ApiServer {
    /// Discovery, version and health.
    pub(super) fn document(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Option<Outcome<Response<Body>>> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let known = match parts[..] {
            [] => {
                let text = Bytes::from(order::indented(&self.paths().to_string()));
                return Some(Ok(answer(200, "application/json", text)));
            }
            ["healthz" | "livez" | "readyz", ref check @ ..] if !path.ends_with('/') => {
                return Some(Ok(health(parts[0], check, query)));
            }
            ["openapi", "v3"] if path.ends_with('/') => return Some(Ok(nothing())),
            ["openapi", "v3", ..] if !path.ends_with('/') => {
                return Some(Ok(self.openapi(&parts[2..], query, headers)));
            }
            ["openapi", "v2"] if *method == Method::GET => {
                let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
                let (media, text) = openapi::v2(&locked(&self.state).registry, accept.unwrap_or_default());
                return Some(Ok(answer(200, media, text)));
            }
            ["version"] if *method == Method::GET && plain_json(headers) => {
                let told = Bytes::from(order::typed(&version(), "version.Info") + "\n");
                return Some(Ok(answer(200, "application/json", told)));
            }
            ["api", version] if version != "v1" => return Some(Err(Failure::no_such_resource())),
            ["version"] | ["api"] | ["apis"] | ["api", "v1"] | ["apis", _] | ["apis", _, _] => true,
            _ => false,
        };
        if !known {
            return elsewhere::path(path).map(Err);
        }
        // Groups come and go while the server runs, and whoever answers for them asks for no method.
        let whole = matches!(parts[..], ["apis"] | ["apis", _]);
        if *method != Method::GET && !whole {
            return Some(Err(Failure::method_not_allowed()));
        }
        Some(self.discover(&parts, headers))
    }

    /// Where something is to be found, as `/` tells it.
    fn paths(&self) -> Value {
        let state = locked(&self.state);
        let mut paths = vec!["/api".to_owned(), "/apis".into(), "/healthz".into(), "/livez".into(), "/readyz".into()];
        paths.extend(["/openapi/v2".into(), "/openapi/v3".into(), "/version".into()]);
        for resource in state.registry.all() {
            match resource.group.as_str() {
                "" => paths.push(format!("/api/{}", resource.version)),
                group => paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{}", resource.version)]),
            }
        }
        paths.sort();
        paths.dedup();
        json!({"paths": paths})
    }

    /// `/openapi/v3` and the documents below it. A client that names the hash may keep the answer for ever.
    fn openapi(&self, parts: &[&str], query: &Query, headers: &HeaderMap) -> Response<Body> {
        let state = locked(&self.state);
        let found = match parts {
            [] => {
                let text = Bytes::from(openapi::index(&state.registry).to_string());
                return answer(200, "text/plain; charset=utf-8", text);
            }
            ["version" | "api" | "apis"] | ["apis", _] => openapi::root(&state.registry, &parts.join("/")),
            ["api", version] => openapi::document(&state.registry, "", version),
            ["apis", group, version] => openapi::document(&state.registry, group, version),
            _ => None,
        };
        let Some(document) = found else { return nothing() };
        let etag = format!("\"{}\"", document.hash);
        let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
        let asked = query.get("hash");
        let mut made = match asked {
            "" if known => answer(304, "application/json", Bytes::new()),
            hash if hash.is_empty() || hash == &*document.hash => answer(200, "application/json", document.text),
            _ => answer(301, "application/json", Bytes::new()),
        };
        let year = jiff::SignedDuration::from_hours(365 * 24);
        let expires = state.clock.now().checked_add(year).unwrap_or(jiff::Timestamp::MAX);
        let mut set = |name, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                made.headers_mut().insert(name, value);
            }
        };
        set(ETAG, etag);
        set(VARY, "Accept".into());
        if asked == &*document.hash {
            set(CACHE_CONTROL, "public, immutable".into());
            set(EXPIRES, expires.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string());
        } else {
            set(CACHE_CONTROL, "no-cache, private".into());
            if !asked.is_empty() {
                set(LOCATION, format!("/openapi/v3/{}?hash={}", parts.join("/"), document.hash));
            }
        }
        made
    }

    fn discover(&self, parts: &[&str], headers: &HeaderMap) -> Outcome<Response<Body>> {
        let aggregated = matches!(parts, ["api"] | ["apis"]);
        let accepted = negotiate(headers, |form| match form {
            Form::Object => true,
            Form::Discovery => aggregated,
            _ => false,
        });
        let accepted = accepted.map_err(|failure| match parts {
            ["apis"] | ["apis", _] => unacceptable(true, false),
            _ => failure,
        })?;
        if matches!(parts, ["version"]) && accepted.yaml {
            let message = "406: Not Acceptable\n\nAvailable representations: application/json";
            return Err(Failure::not_acceptable(message, true));
        }
        let state = locked(&self.state);
        let registry = &state.registry;
        let found = match parts {
            ["version"] => Some(version()),
            ["api"] | ["apis"] if accepted.form == Form::Discovery => {
                let body = discovery::aggregated(registry, parts[0] == "api");
                let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                let mut answer = json_answer(200, &body);
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
                return Ok(answer);
            }
            ["api"] => Some(discovery::core_versions(&self.address)),
            ["apis"] => Some(discovery::groups(registry)),
            ["api", version] => discovery::resources(registry, "", version),
            ["apis", group] => discovery::group(registry, group),
            ["apis", group, version] => match discovery::resources(registry, group, version) {
                None if served_group(registry, group) && !custom_group(registry, group) => {
                    return Err(Failure::no_such_resource());
                }
                other => other,
            },
            _ => None,
        };
        match (found, parts) {
            (Some(body), _) => return Ok(encode(200, &body, accepted)),
            (None, ["apis", group, version @ ..]) => {
                elsewhere::group(group, version.first().unwrap_or(&"")).map_or(Ok(()), Err)?;
            }
            _ => {}
        }
        Ok(text(StatusCode::NOT_FOUND, "404 page not found\n"))
    }
}

/// What is looked at to tell whether the server is well.
const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

const READY_CHECKS: [&str; 2] = ["informer-sync", "shutdown"];

/// `/healthz`, `/livez`, `/readyz`, and one check of them.
fn health(name: &str, check: &[&str], query: &Query) -> Response<Body> {
    let known = |check: &&str| CHECKS.contains(check) || (name == "readyz" && READY_CHECKS.contains(check));
    match check {
        [] if query.has("verbose") => {
            let excluded = query.all("exclude");
            let line = |check: &&str| {
                let state = if excluded.contains(check) { "excluded: ok" } else { "ok" };
                format!("[+]{check} {state}\n")
            };
            let all = CHECKS.iter().chain(READY_CHECKS.iter().filter(|_| name == "readyz"));
            let lines: String = all.map(line).collect();
            answer(200, "text/plain; charset=utf-8", Bytes::from(format!("{lines}{name} check passed\n")))
        }
        [] => text(StatusCode::OK, "ok"),
        [one] if known(one) => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn version() -> Value {
    json!({"major": "1", "minor": "34", "emulationMajor": "1", "emulationMinor": "34", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33", "gitVersion": "v1.34.4", "gitCommit": "unknown", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64"})
}
