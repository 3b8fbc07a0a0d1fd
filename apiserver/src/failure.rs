//! What a request is refused with: `Status` bodies and the field errors of a 422, in the words of the real server.

use serde_json::{Map, Value, json};

/// A refused request; becomes a `Status` object of kind Failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason; empty for errors that the real server does not classify.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the Status.
    pub details: Option<Map<String, Value>>,
    /// `metadata.continue`: lets a client of an expired list go on.
    pub continue_token: Option<String>,
    /// Texts of `Warning` headers that come with it.
    pub warnings: Box<[String]>,
}

/// Result of anything that may refuse a request.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>, details: Option<Value>) -> Self {
        let details = details.and_then(|value| if let Value::Object(map) = value { Some(map) } else { None });
        Self { code, reason, message: message.into(), details, continue_token: None, warnings: Box::default() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    /// 500 without a reason: an error that passed through unclassified.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(500, "", message, None)
    }

    /// 500.
    pub fn internal(message: &str) -> Self {
        let causes = json!({"causes": [{"message": message}]});
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"), Some(causes))
    }

    /// 501: outside of what this server does. The way out is added when it is answered, for it is not the same for everybody.
    pub fn unsupported(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not supported by this embedded API server"), None)
    }

    /// The same with the way out, if it is something that is not supported.
    pub fn with_hint(&self, hint: &str) -> std::borrow::Cow<'_, Self> {
        if self.code != 501 || hint.is_empty() {
            return std::borrow::Cow::Borrowed(self);
        }
        std::borrow::Cow::Owned(Self { message: format!("{}; {hint}", self.message), ..self.clone() })
    }

    /// 404 of an object; `resource` is qualified: `deployments.apps`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(resource, group));
        Self::new(404, "NotFound", message, Some(object_details(name, group, resource)))
    }

    /// 404 of a path in a known group.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
    }

    /// 405 of a verb that a resource has not.
    pub fn verb_not_allowed(verb: &str, group: &str, resource: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", qualified(resource, group));
        Self::new(405, "MethodNotAllowed", message, Some(object_details("", group, resource)))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// 409 on create.
    pub fn already_exists(group: &str, resource: &str, name: &str, terminating: bool) -> Self {
        let prefix = if terminating { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} \"{name}\" already exists", qualified(resource, group));
        Self::new(409, "AlreadyExists", message, Some(object_details(name, group, resource)))
    }

    /// 409 of a name that was to be made, and could not.
    pub fn no_name(group: &str, resource: &str, name: &str) -> Self {
        let mut failure = Self::already_exists(group, resource, name, false);
        failure.message += ", the server was not able to generate a unique name for the object";
        if let Some(details) = &mut failure.details {
            details.insert("retryAfterSeconds".into(), json!(1));
        }
        failure
    }

    /// 409 with a cause; `resource` may be a kind, as in delete preconditions.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(resource, group));
        Self::new(409, "Conflict", message, Some(object_details(name, group, resource)))
    }

    /// 409 of a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 409 of server-side apply.
    pub fn apply_conflict(message: String, causes: Vec<Value>) -> Self {
        Self::new(409, "Conflict", message, Some(json!({"causes": causes})))
    }

    /// 403.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = qualified(resource, group);
        let message = match name {
            "" => format!("{subject} is forbidden: {why}"),
            name => format!("{subject} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message, Some(object_details(name, group, resource)))
    }

    /// 403 of a path that is no resource.
    pub fn forbidden_path(message: String) -> Self {
        Self::new(403, "Forbidden", message, Some(json!({})))
    }

    /// 429 of an eviction that a budget forbids.
    pub fn disruption(message: &str, why: &str, retry_after: Option<u64>) -> Self {
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        if let Some(seconds) = retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        Self::new(429, "TooManyRequests", message, Some(details))
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", None)
    }

    /// 422 for an object of `kind`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(FieldError::text) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(kind, group));
        let mut details = Map::new();
        insert_some(&mut details, "name", name);
        insert_some(&mut details, "group", group);
        insert_some(&mut details, "kind", kind);
        details.insert("causes".into(), errors.iter().map(FieldError::cause).collect());
        Self::new(422, "Invalid", message, Some(Value::Object(details)))
    }

    /// 422 for the options in a query or a delete body.
    pub fn invalid_options(kind: &str, error: FieldError) -> Self {
        Self::invalid("meta.k8s.io", kind, "", &[error])
    }

    /// 422 of a patch that does not fit.
    pub fn rejected_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message, Some(json!({})))
    }

    /// 406 with or without the classification that the real server gives it.
    pub fn not_acceptable(message: impl Into<String>, details: bool) -> Self {
        Self::new(406, "NotAcceptable", message, details.then(|| json!({})))
    }

    /// 415.
    pub fn unsupported_media(message: impl Into<String>, details: bool) -> Self {
        Self::new(415, "UnsupportedMediaType", message, details.then(|| json!({})))
    }

    /// 410 on a list; `continue_` lets the client go on inconsistently.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, None)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message, None)
    }

    /// 504: the revision that was asked for is in the future.
    pub fn too_large_revision(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        Self::new(504, "Timeout", message, Some(json!({"causes": [cause], "retryAfterSeconds": 1})))
    }

    /// 503: the log cannot be written.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message, None)
    }

    /// Adds a cause, as admission does.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = json!({"reason": reason, "message": message, "field": field});
        self.details.get_or_insert_default().insert("causes".into(), json!([cause]));
        self
    }

    /// The same after a body was read that there is something to warn about.
    pub fn after(mut self, warnings: &[String]) -> Self {
        self.warnings = warnings.iter().cloned().chain(self.warnings).collect();
        self
    }

    /// `retryAfterSeconds`, also sent as a header.
    pub fn retry_after(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    /// The body.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        status
    }
}

/// `deployments.apps`, or the bare word for the core group.
pub fn qualified(word: &str, group: &str) -> String {
    if group.is_empty() { word.to_owned() } else { format!("{word}.{group}") }
}

fn insert_some(map: &mut Map<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        map.insert(name.into(), json!(value));
    }
}

fn object_details(name: &str, group: &str, resource: &str) -> Value {
    let mut details = Map::new();
    insert_some(&mut details, "name", name);
    insert_some(&mut details, "group", group);
    insert_some(&mut details, "kind", resource);
    Value::Object(details)
}

/// One reason why an object is invalid.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// `FieldValueInvalid` and its like.
    pub reason: &'static str,
    /// `Invalid value: …`.
    pub message: String,
    /// `spec.ports[0].name`.
    pub field: String,
}

impl FieldError {
    /// A field that must be there.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// A value that is wrong.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {detail}", shown(value)),
            field: field.into(),
        }
    }

    /// A value of the wrong JSON type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {}: {detail}", shown(value)),
            field: field.into(),
        }
    }

    /// A value that is none of the known ones.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", shown(value)),
            field: field.into(),
        }
    }

    /// A name of something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueNotFound", message: format!("Not found: {}", shown(value)), field: field.into() }
    }

    /// A field that must not be set, or not like this.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }

    /// A text that is too long; the text is not repeated.
    pub fn too_long(field: impl Into<String>, most: usize) -> Self {
        let message = format!("Too long: may not be more than {most} bytes");
        Self { reason: "FieldValueTooLong", message, field: field.into() }
    }

    /// A list with too many elements.
    pub fn too_many(field: impl Into<String>, count: usize, most: usize) -> Self {
        let items = if most == 1 { "item" } else { "items" };
        let message = format!("Too many: {count}: must have at most {most} {items}");
        Self { reason: "FieldValueTooMany", message, field: field.into() }
    }

    /// One error for each complaint about the same value.
    pub fn each(field: &str, value: &Value, complaints: Vec<String>) -> Vec<Self> {
        complaints.iter().map(|complaint| Self::invalid(field, value, complaint)).collect()
    }

    /// The field and what is wrong with it.
    pub fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }

    fn cause(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// A value as Go prints it in an error: JSON with `<`, `>` and `&` escaped, but for plain strings and numbers.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => go_quoted(text),
        Value::Array(_) | Value::Object(_) => {
            value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// A text in Go's quotes.
pub fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A number as Go's `%v` prints it.
pub fn go_float(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{number}")
}
