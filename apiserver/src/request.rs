//! Reading a request: path, query, and the form of answer that the client accepts.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::failure::{Failure, FieldError, Outcome};

/// What a path names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Namespace, empty if none is in the path.
    pub namespace: String,
    /// Name, empty for a collection.
    pub name: String,
    /// Subresource, empty if none.
    pub subresource: String,
    /// What follows the subresource (`proxy/PATH`).
    pub rest: String,
    /// Whether the path has the old `/watch/` part.
    pub watch: bool,
}

impl Target {
    /// Reads `/api/v1/…` and `/apis/GROUP/VERSION/…`; nothing if it is another path or names no resource.
    pub fn parse(path: &str) -> Option<Self> {
        // What is escaped may be a slash, which parts as any other.
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        // An empty part names nothing; only the end may be one.
        let inner = path.trim_start_matches('/').trim_end_matches('/');
        if inner.split('/').any(str::is_empty) {
            return Some(Self { version: "v1".into(), ..Self::default() });
        }
        let parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
        let mut parts = parts.into_iter().peekable();
        let mut target = Self::default();
        match parts.next()?.as_str() {
            "api" => {}
            "apis" => target.group = parts.next()?,
            _ => return None,
        }
        target.version = parts.next()?;
        if parts.peek().is_some_and(|part| part == "watch") {
            parts.next();
            target.watch = true;
        }
        let rest: Vec<String> = parts.collect();
        let mut rest = &rest[..];
        // `namespaces/x/status` and `namespaces/x/finalize` are about the namespace itself.
        if let [first, namespace, third, ..] = rest
            && first == "namespaces"
            && !(target.group.is_empty() && (third == "status" || third == "finalize"))
        {
            target.namespace = namespace.clone();
            rest = &rest[2..];
        }
        let mut rest = rest.iter();
        target.resource = rest.next()?.clone();
        target.name = rest.next().cloned().unwrap_or_default();
        target.subresource = rest.next().cloned().unwrap_or_default();
        target.rest = rest.cloned().collect::<Vec<_>>().join("/");
        Some(target)
    }
}

/// The query string.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes it.
    pub fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; empty if absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the parameter is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A boolean as Kubernetes reads it: anything but `false` and `0` is true.
    pub fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name).to_ascii_lowercase().as_str(), "false" | "0")
    }

    /// A whole number, or the words of Go's parser.
    pub fn number(&self, name: &str) -> Outcome<Option<i64>> {
        if !self.has(name) {
            return Ok(None);
        }
        let text = self.get(name);
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Failure::bad_request(format!("strconv.ParseInt: parsing \"{text}\": {why}"))
        })
    }
}

/// How strictly a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Unknown and duplicate fields are refused.
    Strict,
    /// They are dropped with a warning.
    Warn,
    /// They are dropped.
    Ignore,
}

/// Options of a write.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Nothing is stored.
    pub dry_run: bool,
    /// What to do about unknown fields.
    pub validation: Validation,
    /// Who owns what the write sets.
    pub manager: String,
    /// Take over from other appliers.
    pub force: bool,
}

impl WriteOptions {
    /// Reads them for `kind` (`CreateOptions`, …).
    pub fn parse(query: &Query, kind: &str, user_agent: &str) -> Outcome<Self> {
        Self::parse_with(query, kind, user_agent, None)
    }

    /// Reads them; `before` is what else is wrong with the request, and told first.
    pub fn parse_with(query: &Query, kind: &str, user_agent: &str, before: Option<FieldError>) -> Outcome<Self> {
        let mut errors: Vec<FieldError> = before.into_iter().collect();
        let explicit = query.get("fieldManager");
        errors.extend(manager_errors(explicit));
        let dry = query.all("dryRun");
        if dry.iter().any(|value| *value != "All") {
            let value = serde_json::json!(dry);
            errors.push(FieldError::not_supported("dryRun", &value, &["All"]));
        }
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", &other.into(), &supported));
                Validation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Failure::invalid("meta.k8s.io", kind, "", &errors));
        }
        let agent = user_agent.split('/').next().unwrap_or_default();
        let manager = match (explicit, agent) {
            ("", "") => "unknown",
            ("", agent) => agent,
            (explicit, _) => explicit,
        };
        Ok(Self {
            dry_run: !dry.is_empty(),
            validation,
            manager: manager.chars().take(128).collect(),
            force: query.flag("force"),
        })
    }
}

/// What is wrong with the name of a manager.
fn manager_errors(name: &str) -> Vec<FieldError> {
    let long = (name.chars().count() > 128).then(|| FieldError::too_long("fieldManager", 128));
    let odd = name.char_indices().find(|(_, character)| character.is_control()).map(|(at, odd)| {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
        FieldError::invalid("fieldManager", &name.into(), &detail)
    });
    long.into_iter().chain(odd).collect()
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Object,
    /// `as=Table`, in this version of meta.k8s.io.
    Table(&'static str),
    /// `as=PartialObjectMetadata`.
    Partial(&'static str),
    /// `as=PartialObjectMetadataList`.
    PartialList(&'static str),
    /// `as=APIGroupDiscoveryList`.
    Discovery,
}

/// Form and encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which view.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// What a watch can be had as besides.
const STREAMS: &str = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
const REPRESENTATIONS: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Picks the first acceptable clause; `forms` says which views this path offers.
pub fn negotiate(headers: &HeaderMap, forms: impl Fn(Form) -> bool) -> Outcome<Accepted> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header.trim().is_empty() {
        return Ok(Accepted { form: Form::Object, yaml: false });
    }
    let mut known_type = false;
    let mut clauses: Vec<(&str, f64)> = header.split(',').map(|clause| (clause, quality(clause))).collect();
    clauses.retain(|(_, quality)| *quality > 0.0);
    clauses.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    for (clause, _) in clauses {
        let mut parts = clause.split(';').map(str::trim);
        let yaml = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        known_type = true;
        let parameter = |name: &str| {
            clause
                .split(';')
                .skip(1)
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let version = match (parameter("g"), parameter("v")) {
            ("meta.k8s.io", "v1") => Some("v1"),
            ("meta.k8s.io", "v1beta1") => Some("v1beta1"),
            _ => None,
        };
        let form = match (parameter("as"), version) {
            ("", _) => Form::Object,
            ("Table", Some(version)) => Form::Table(version),
            ("PartialObjectMetadata", Some(version)) => Form::Partial(version),
            ("PartialObjectMetadataList", Some(version)) => Form::PartialList(version),
            ("APIGroupDiscoveryList", None) if parameter("g") == "apidiscovery.k8s.io" && parameter("v") == "v2" => {
                Form::Discovery
            }
            _ => continue,
        };
        if forms(form) {
            return Ok(Accepted { form, yaml });
        }
    }
    Err(unacceptable(known_type, false))
}

/// The 406 of an answer that nobody wants as it can be given: in another form, or in another encoding.
pub fn unacceptable(known_type: bool, watching: bool) -> Failure {
    let streams = if watching { STREAMS } else { "" };
    if known_type {
        let types = if watching { STREAMS.trim_start_matches(", ") } else { REPRESENTATIONS };
        return Failure::not_acceptable(format!("only the following media types are accepted: {types}"), false);
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {REPRESENTATIONS}{streams}");
    Failure::not_acceptable(message, true)
}

/// How much a clause is wanted: its `q`, or 1.
fn quality(clause: &str) -> f64 {
    let given = clause.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q="));
    given.map_or(1.0, |text| text.parse().unwrap_or(1.0))
}

/// Whether errors are to be written in YAML.
pub fn wants_yaml(headers: &HeaderMap) -> bool {
    negotiate(headers, |_| true).is_ok_and(|accepted| accepted.yaml)
}
