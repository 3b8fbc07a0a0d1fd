//! The server: options, routing, and the `tower` service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, RETRY_AFTER, USER_AGENT, VARY, WARNING,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use serde_json::{Value, json};

use crate::audit::{Audit, Said, Sink};
use crate::auth::access::Access;
use crate::auth::attributes::Attributes;
use crate::auth::keys::KeyError;
use crate::auth::token::Tokens;
use crate::auth::{Settings, User, gate, review, token_request};
use crate::body::order;
use crate::clock::{Chance, Clock, RuntimeClock};
use crate::failure::{Failure, Outcome};
use crate::kinds::service::Allocations;
use crate::proxy::{self, Way};
use crate::registry::{Registry, discovery, elsewhere, openapi};
use crate::request::{Accepted, Form, Query, Target, negotiate, unacceptable, wants_yaml};
use crate::schema::builtin;
use crate::state::State;
use crate::store::{Durability, Event, LogError, Retention, Store, TooOld};
use crate::verbs::{Call, Written, create, delete, evict, locked, patch, read, scale, update};
use crate::view::{Include, render};
use crate::watch::Watch;

/// Largest request body, as the real server has it.
const BODY_MAX: usize = 3 << 20;

/// Body of an answer; a watch's goes on.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a server is made.
pub struct Options {
    /// Where the log is; in memory only without.
    pub log: Option<std::path::PathBuf>,
    /// When a write counts as written.
    pub durability: Durability,
    /// How much history is kept.
    pub retention: Retention,
    /// Decides uids, generated names, addresses and ports.
    pub seed: u64,
    /// Now; the runtime's clock from the system's time on, if nothing is said.
    pub clock: Option<Arc<dyn Clock>>,
    /// Range of cluster IPs.
    pub service_range: ipnet::Ipv4Net,
    /// Range of node ports.
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// Shown to clients that ask where the server is.
    pub address: String,
    /// How requests are authenticated and admitted.
    pub access: Settings,
    /// Where the audit log is written; there is none without.
    pub audit: Option<Sink>,
    /// How kubelets are reached, for logs, exec, attach and port-forward; these are refused without.
    pub kubelets: Option<Way>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: None,
            durability: Durability::default(),
            retention: Retention::default(),
            seed: fastrand::u64(..),
            clock: None,
            service_range: ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16),
            node_ports: 30000..=32767,
            address: "127.0.0.1:6443".into(),
            access: Settings::default(),
            audit: None,
            kubelets: None,
        }
    }
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The table of built-in resources is wrong.
    #[error("{0}")]
    Registry(String),
    /// No key can be made.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// What every cluster has could not be made.
    #[error("bootstrap: {0}")]
    Bootstrap(String),
}

/// A Kubernetes-compatible API server; a `tower` service that is cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) state: Arc<Mutex<State>>,
    address: Arc<str>,
    audit: Option<Arc<Audit>>,
    pub(crate) kubelets: Option<Way>,
}

impl ApiServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The log cannot be opened, or is damaged.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let store = match &options.log {
            Some(path) => Store::open(path, options.retention, options.durability)?,
            None => Store::in_memory(options.retention),
        };
        let registry = Registry::builtin(|name| builtin::types().get(name).cloned()).map_err(StartError::Registry)?;
        let clock = options.clock.unwrap_or_else(|| Arc::new(RuntimeClock::starting_at(jiff::Timestamp::now())));
        let allocations = Allocations::new(options.service_range, options.node_ports);
        let audit = options.audit.map(|sink| Arc::new(Audit::new(sink, Arc::clone(&clock))));
        let access = Access::new(options.access)?;
        let chance = Chance::seeded(options.seed);
        let mut state = State { store, registry, chance, allocations, clock, access };
        state.restore();
        state.bootstrap().map_err(|failure| StartError::Bootstrap(failure.message))?;
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            address: Arc::from(options.address),
            audit,
            kubelets: options.kubelets,
        })
    }

    /// Forgets history before a revision, as compaction does: older watches and exact lists are told 410.
    pub fn compact(&self, revision: u64) {
        locked(&self.state).store.compact(revision);
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        locked(&self.state).store.revision()
    }

    /// Follows the newest revision.
    pub fn head(&self) -> tokio::sync::watch::Receiver<u64> {
        locked(&self.state).store.head()
    }

    /// All cluster roles, and the newest revision among them.
    pub(crate) fn cluster_roles(&self) -> (u64, Vec<Arc<Value>>) {
        let state = locked(&self.state);
        let storage = Arc::from(format!("{}/clusterroles", crate::auth::rbac::GROUP));
        let roles: Vec<Arc<Value>> = state.store.list(&storage, "").map(|(_, role)| role).collect();
        let revision = |role: &Arc<Value>| role["metadata"]["resourceVersion"].as_str()?.parse().ok();
        (roles.iter().filter_map(revision).max().unwrap_or(0), roles)
    }

    /// What the server takes for now.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&locked(&self.state).clock)
    }

    /// What tokens are signed with.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&locked(&self.state).access.tokens)
    }

    /// What was written to a resource (`/services`, `apps/deployments`) after a revision, oldest first.
    ///
    /// # Errors
    /// If that much of history is gone.
    pub fn history(&self, resource: &str, after: u64) -> Result<Vec<Event>, TooOld> {
        locked(&self.state).store.events_after(&Arc::from(resource), after, usize::MAX)
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let wanted = Attributes::of(&parts.method, parts.uri.path(), &Query::parse(parts.uri.query()));
        let (entered, trail) = {
            let mut state = locked(&self.state);
            let mut trail = self.audit.as_ref().map(|audit| audit.begin(&state.chance.uid(), &parts, &wanted));
            (gate::enter(&mut state, &parts, &wanted, &mut trail), trail)
        };
        let (yaml, head) = (wants_yaml(&parts.headers), parts.method == Method::HEAD);
        let for_people = wanted.verb != "watch" && for_people(&parts);
        let mut answer = match entered {
            Ok(user) => self.answer(user, parts, body).await,
            Err(failure) => failed(&failure),
        };
        if yaml {
            answer = in_yaml(answer);
        }
        if for_people && answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
            answer = spread(answer).await;
        }
        if head {
            *answer.body_mut() = Full::default().boxed_unsync();
        }
        match trail {
            Some(trail) => trail.end(answer),
            None => answer,
        }
    }

    async fn answer<B>(&self, user: Arc<User>, mut parts: http::request::Parts, body: B) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                return failed(&Failure::too_large(format!("the request body is larger than {BODY_MAX} bytes")));
            }
        };
        if let Some(answer) = proxy::serve(self, &mut parts, &body).await {
            return answer.unwrap_or_else(|failure| failed(&failure));
        }
        let query = Query::parse(parts.uri.query());
        let path = parts.uri.path();
        if let Some(answer) = self.document(&parts.method, path, &query, &parts.headers) {
            return answer.unwrap_or_else(|failure| failed(&failure));
        }
        match self.resource(&parts.method, path, query, &parts.headers, body, user) {
            Ok(answer) => answer,
            Err(Refusal::NoPath) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Err(Refusal::Failed(failure)) => failed(&failure),
        }
    }

    /// Discovery, version and health.
    fn document(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Option<Outcome<Response<Body>>> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let known = match parts[..] {
            [] => return Some(Ok(json_answer(200, &self.paths()))),
            ["healthz" | "livez" | "readyz", ref check @ ..] if !path.ends_with('/') => {
                return Some(Ok(health(parts[0], check, query)));
            }
            ["openapi", "v3"] if path.ends_with('/') => return Some(Ok(nothing())),
            ["openapi", "v3", ..] if !path.ends_with('/') => {
                return Some(Ok(self.openapi(&parts[2..], query, headers)));
            }
            ["openapi", "v2"] if *method == Method::GET => {
                let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
                let (media, text) = openapi::v2(accept.unwrap_or_default());
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

    fn resource(
        &self,
        method: &Method,
        path: &str,
        query: Query,
        headers: &HeaderMap,
        body: Bytes,
        user: Arc<User>,
    ) -> Result<Response<Body>, Refusal> {
        let target = Target::parse(path).ok_or(Refusal::NoPath)?;
        let resource = {
            let state = locked(&self.state);
            let found = state.registry.find(&target.group, &target.version, &target.resource);
            match found {
                Some(resource) => Arc::clone(resource),
                None if let Some(failure) = elsewhere::resource(&target.group, &target.version, &target.resource) => {
                    return Err(failure.into());
                }
                None if !served_group(&state.registry, &target.group) => return Err(Refusal::NoPath),
                None if custom_group(&state.registry, &target.group) => return Err(Refusal::NoPath),
                None => return Err(Failure::no_such_resource().into()),
            }
        };
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let media_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let user_agent = header(USER_AGENT).to_owned();
        let call = Call { target, query, resource, media_type, body, user_agent, user };
        check_scope(method, &call)?;
        let sub = &call.target.subresource;
        let known = call.resource.custom.is_some() || sub.is_empty() || call.resource.subresource(sub).is_some();
        let warning = crate::kinds::standing_warning(&call.resource).filter(|_| known).map(str::to_owned);
        let mut answer = self.serve(method, call, headers).unwrap_or_else(|failure| failed(&failure));
        if let Some(warning) = warning {
            warn(&mut answer, &warning);
        }
        Ok(answer)
    }

    fn serve(&self, method: &Method, call: Call, headers: &HeaderMap) -> Outcome<Response<Body>> {
        let collection = call.target.name.is_empty();
        let watching = *method == Method::GET
            && (call.target.watch || (collection && call.query.has("watch") && call.query.flag("watch")));
        if call.target.watch && *method != Method::GET || watching && !call.resource.allows("watch") {
            return Err(Failure::method_not_allowed());
        }
        let wanted = negotiate(headers, |form| match form {
            Form::Object | Form::Partial(_) | Form::PartialList(_) => true,
            // What can only be created is an act, and has no table.
            Form::Table(_) => {
                call.resource.verbs[..] != ["create"] && !ACTS.contains(&call.target.subresource.as_str())
            }
            Form::Discovery => false,
        });
        let wanted =
            wanted.map_err(
                |failure| {
                    if watching { unacceptable(!failure.message.starts_with("406"), true) } else { failure }
                },
            )?;
        if watching && wanted.yaml {
            return Err(unacceptable(true, true));
        }
        if let Form::Table(_) = wanted.form {
            Include::check(call.query.get("includeObject"))?;
        }
        let include = Include::parse(call.query.get("includeObject"));
        if watching {
            let watch = Watch::open(&self.state, Arc::new(call), wanted.form)?;
            return Ok(stream(watch));
        }
        if *method == Method::GET && !collection && call.query.flag("export") {
            let message = "the export parameter, deprecated since v1.14, is no longer supported";
            return Err(Failure::bad_request(message));
        }
        let mut state = locked(&self.state);
        if *method == Method::GET
            && wanted == (Accepted { form: Form::Object, yaml: false })
            && let Some(answer) = as_kept(&state, &call)?
        {
            return Ok(answer);
        }
        let now = state.clock.now();
        let written = verb(&mut state, method, &call)?;
        drop(state);
        let shown = if call.target.subresource == "scale" { scale::kind() } else { &call.resource };
        check_form(wanted.form, &written.object, &call)?;
        let body = render(written.object, wanted.form, include, shown, now);
        let mut answer = encode(written.code, &body, wanted);
        for warning in &written.warnings {
            warn(&mut answer, warning);
        }
        Ok(answer)
    }
}

/// A list is no single object, nor the other way round, however much of it a client wants to see.
fn check_form(form: Form, object: &Value, call: &Call) -> Outcome<()> {
    let list = object["items"].is_array() && object["kind"] == call.resource.list_kind.as_str();
    let kind = if list { &call.resource.list_kind } else { &call.resource.kind };
    let go_type = match (&call.resource.custom, list) {
        (Some(_), true) => "unstructured.UnstructuredList".to_owned(),
        (Some(_), false) => "unstructured.Unstructured".to_owned(),
        (None, _) => {
            let package = call.resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
            format!("{package}.{kind}")
        }
    };
    let message = match form {
        Form::PartialList(_) if !list => {
            format!("you requested PartialObjectMetadataList, but the requested object is not a list (*{go_type})")
        }
        Form::Partial(_) if list => {
            format!("you requested PartialObjectMetadata, but the requested object is a list (*{go_type})")
        }
        _ => return Ok(()),
    };
    Err(Failure::not_acceptable(message, false))
}

/// The answer to a plain read of what is shown as it is kept.
fn as_kept(state: &State, call: &Call) -> Outcome<Option<Response<Body>>> {
    let (target, resource) = (&call.target, &call.resource);
    let Some(form) = crate::verbs::text::Form::of(resource).filter(|_| target.subresource.is_empty()) else {
        return Ok(None);
    };
    if target.name.is_empty() {
        if !resource.allows("list") {
            return Ok(None);
        }
        let list = form.list(resource, &read::page(state, call)?);
        return Ok(list.map(|list| {
            let mut answer = Response::new(list.boxed_unsync());
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }));
    }
    if !resource.allows("get") || !call.query.get("resourceVersion").is_empty() {
        return Ok(None);
    }
    let stored = state.store.stored(&State::key(resource, call.namespace(), &target.name));
    let text = stored.and_then(|stored| form.object(stored));
    Ok(text.map(|text| answer(200, "application/json", Bytes::from(format!("{text}\n")))))
}

/// Subresources that are acts.
const ACTS: [&str; 3] = ["token", "eviction", "binding"];

fn warn(answer: &mut Response<Body>, warning: &str) {
    let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        answer.headers_mut().append(WARNING, value);
    }
}

fn verb(state: &mut State, method: &Method, call: &Call) -> Outcome<Written> {
    let collection = call.target.name.is_empty();
    let found = |object| Ok(Written { code: 200, object, warnings: Vec::new() });
    let name = match (method.as_str(), collection) {
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", true) => "create",
        ("POST", false) if !call.target.subresource.is_empty() => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => return Err(Failure::method_not_allowed()),
    };
    match call.target.subresource.as_str() {
        "" if !call.resource.allows(name) => return Err(Failure::method_not_allowed()),
        "" => {}
        sub => match call.resource.subresource(sub) {
            None if call.resource.custom.is_some() => {
                return Err(Failure::not_found(&call.resource.group, &call.resource.plural, &call.target.name));
            }
            None => return Err(Failure::no_such_resource()),
            Some(found) if !found.verbs.contains(&name) && call.resource.custom.is_some() => {
                return Err(Failure::verb_not_allowed(name, &call.resource.group, &call.resource.plural));
            }
            Some(found) if !found.verbs.contains(&name) => return Err(Failure::method_not_allowed()),
            Some(_) if matches!(sub, "status" | "ephemeralcontainers" | "resize") => {}
            Some(_) if sub == "finalize" => return update::finalize(state, call),
            Some(_) if sub == "binding" => return create::bind(state, call),
            Some(_) if sub == "token" => return token_request::create(state, call),
            Some(_) if sub == "eviction" => return evict::evict(state, call),
            Some(_) if sub == "scale" => match name {
                "get" => return found(scale::get(state, call)?),
                "update" => return scale::update(state, call),
                _ => return scale::patch(state, call),
            },
            Some(_) => {
                state.read(&call.resource, call.namespace(), &call.target.name)?;
                return Err(Failure::unsupported(&format!("{name} of {}/{sub}", call.resource.plural)));
            }
        },
    }
    if matches!(call.resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io") {
        return review::create(state, call);
    }
    if call.resource.plural == "bindings" {
        return Err(Failure::unsupported(&format!("{name} of {}", call.resource.plural)));
    }
    match name {
        "list" => found(read::list(state, call)?),
        "get" => found(read::get(state, call)?),
        "create" => create::create(state, call),
        "update" => update::update(state, call),
        "patch" => patch::patch(state, call),
        "delete" => delete::delete(state, call),
        _ => found(delete::delete_collection(state, call)?),
    }
}

enum Refusal {
    NoPath,
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn served_group(registry: &Registry, group: &str) -> bool {
    registry.all().iter().any(|resource| resource.group == group)
}

fn custom_group(registry: &Registry, group: &str) -> bool {
    registry.all().iter().any(|resource| resource.group == group && resource.custom.is_some())
}

/// A namespaced object has its namespace in the path, another has none.
fn check_scope(method: &Method, call: &Call) -> Result<(), Refusal> {
    let (resource, target) = (&call.resource, &call.target);
    if resource.custom.is_some() {
        // Nothing is behind other paths of custom resources.
        let whole = target.name.is_empty() && *method == Method::GET;
        let fits = target.namespace.is_empty() != resource.namespaced || (resource.namespaced && whole);
        return if fits { Ok(()) } else { Err(Refusal::NoPath) };
    }
    if !resource.namespaced && !target.namespace.is_empty() {
        return Err(Failure::no_such_resource().into());
    }
    if resource.namespaced && target.namespace.is_empty() {
        if !target.name.is_empty() {
            return Err(Failure::no_such_resource().into());
        }
        if *method != Method::GET {
            return Err(Failure::method_not_allowed().into());
        }
    }
    Ok(())
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

fn answer(code: u16, kind: &'static str, body: Bytes) -> Response<Body> {
    let full = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(full);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn json_answer(code: u16, body: &Value) -> Response<Body> {
    let mut text = order::text(body);
    text.push('\n');
    answer(code, "application/json", Bytes::from(text))
}

fn encode(code: u16, body: &Value, accepted: Accepted) -> Response<Body> {
    if accepted.yaml {
        return answer(code, "application/yaml", Bytes::from(crate::yaml::print(body)));
    }
    json_answer(code, body)
}

/// Whether an object may be answered as JSON.
fn plain_json(headers: &HeaderMap) -> bool {
    negotiate(headers, |form| form == Form::Object).is_ok_and(|accepted| !accepted.yaml)
}

/// Whether JSON is to be spread over lines: if the query says so, or else for programs that people use by hand.
fn for_people(parts: &http::request::Parts) -> bool {
    const PROGRAMS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];
    if parts.uri.path().starts_with("/openapi/") {
        return false;
    }
    match Query::parse(parts.uri.query()).get("pretty") {
        "" => {
            let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            parts.uri.path() == "/version" || PROGRAMS.iter().any(|program| agent.starts_with(program))
        }
        asked => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

async fn spread(answer: Response<Body>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|never| match never {});
    let spread = order::indented(&String::from_utf8_lossy(&text));
    Response::from_parts(head, Full::new(Bytes::from(spread)).map_err(|never| match never {}).boxed_unsync())
}

/// A 404 that says no more.
fn nothing() -> Response<Body> {
    let mut nothing = Response::new(Full::default().boxed_unsync());
    *nothing.status_mut() = StatusCode::NOT_FOUND;
    nothing
}

fn text(code: StatusCode, body: &'static str) -> Response<Body> {
    answer(code.as_u16(), "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn failed(failure: &Failure) -> Response<Body> {
    let status = failure.status();
    let mut answer = json_answer(failure.code, &status);
    answer.extensions_mut().insert(Said(status));
    failure.warnings.iter().for_each(|warning| warn(&mut answer, warning));
    if let Some(seconds) = failure.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// An error for a client that reads YAML.
fn in_yaml(mut answer: Response<Body>) -> Response<Body> {
    if let Some(Said(status)) = answer.extensions().get::<Said>() {
        let text = crate::yaml::print(status);
        *answer.body_mut() = Full::new(Bytes::from(text)).boxed_unsync();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    }
    answer
}

fn stream(watch: Watch) -> Response<Body> {
    let frames = watch.lines().map(|line| Ok(http_body::Frame::data(line)));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

impl<B> tower_service::Service<Request<B>> for ApiServer
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
