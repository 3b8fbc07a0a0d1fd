//! GET of one object and of a collection: revisions, selectors, pages.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Call, Selection, in_version, parse_revision};
use crate::failure::{Failure, FieldError, Outcome};
use crate::registry::Resource;
use crate::request::Query;
use crate::state::State;
use crate::store::{Key, Listed, Stored};

/// One object.
pub fn get(state: &State, call: &Call) -> Outcome<Value> {
    let asked = call.query.get("resourceVersion");
    if !asked.is_empty() {
        let revision = parse_revision(asked)
            .map_err(|error| Failure::plain(format!("resourceVersion: Invalid value: \"{asked}\": {error}")))?;
        if revision > state.store.revision() {
            return Err(Failure::too_large_revision(revision, state.store.revision()));
        }
    }
    let object = state.read(&call.resource, call.namespace(), &call.target.name)?;
    Ok(in_version(&object, &call.resource))
}

/// Options of a list or watch that do not go together.
fn option_errors(query: &Query, watch: bool) -> Vec<FieldError> {
    let (text, how) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let (field, given) = ("resourceVersionMatch", query.has("sendInitialEvents"));
    let mut errors = Vec::new();
    let mut forbid = |field: &str, detail: &str| errors.push(FieldError::forbidden(field, detail));
    if watch {
        if given && how != "NotOlderThan" {
            forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !how.is_empty() && !given {
            forbid(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !how.is_empty() && how != "NotOlderThan" {
            errors.push(FieldError::not_supported(field, &json!(how), &["NotOlderThan"]));
        }
        if !query.get("continue").is_empty() {
            errors.push(FieldError::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        return errors;
    }
    if !how.is_empty() {
        if text.is_empty() {
            forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !query.get("continue").is_empty() {
            forbid(field, "resourceVersionMatch is forbidden when continue is provided");
        }
        if how != "Exact" && how != "NotOlderThan" {
            errors.push(FieldError::not_supported(field, &json!(how), &["Exact", "NotOlderThan", ""]));
        } else if how == "Exact" && text == "0" {
            forbid(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if given {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// The options of a list or watch as far as they can be judged before anything is looked up, in the order in which the real server
/// reads them: numbers, selectors, what does not go together, and what the kind can be selected by. What it selects, and
/// how many.
pub fn list_options(call: &Call, watch: bool) -> Outcome<(Selection, Option<i64>)> {
    call.query.number("timeoutSeconds")?;
    let limit = call.query.number("limit")?;
    Selection::read(&call.query)?;
    let errors = option_errors(&call.query, watch);
    if !errors.is_empty() {
        return Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    Ok((Selection::parse(&call.query, &call.resource)?, limit))
}

/// The revision that a list or watch asks for, checked as the real server does; nothing if none is given.
pub fn asked_revision(query: &Query, watch: bool) -> Outcome<Option<u64>> {
    let text = query.get("resourceVersion");
    let errors = option_errors(query, watch);
    if !errors.is_empty() {
        return Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    if text.is_empty() {
        return Ok(None);
    }
    let revision = parse_revision(text).map_err(|error| {
        let message = format!("resourceVersion: Invalid value: \"{text}\": {error}");
        if watch {
            Failure::plain(message)
        } else {
            Failure::bad_request(format!("invalid resource version: {message}"))
        }
    })?;
    Ok(Some(revision))
}

/// Where a page goes on.
struct Continue {
    revision: i64,
    start: String,
}

fn read_token(token: &str) -> Outcome<Continue> {
    let invalid =
        |why: String| Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let lenient = GeneralPurpose::new(&URL_SAFE, config.with_decode_allow_trailing_bits(true));
    let bytes = lenient.decode(token).map_err(|_| invalid("illegal base64 data at input byte 0".into()))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
        let first = bytes.first().copied().unwrap_or_default();
        let shown = if first.is_ascii_graphic() { char::from(first).to_string() } else { format!("\\u{first:04x}") };
        invalid(format!("invalid character '{shown}' looking for beginning of value"))
    })?;
    let (version, asked) = (value["v"].as_str().unwrap_or_default(), value["start"].as_str().unwrap_or_default());
    let revision = value["rv"].as_i64().unwrap_or(0);
    if version != "meta.k8s.io/v1" {
        return Err(invalid(format!("server does not recognize this encoded version {version}")));
    }
    if revision == 0 {
        return Err(invalid(format!("incorrect encoded start resourceVersion (version {version})")));
    }
    if asked.is_empty() {
        return Err(invalid(format!("encoded start key empty (version {version})")));
    }
    let start = asked.trim_start_matches('/').to_owned();
    // Nothing outside of the collection may be reached.
    if start.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(invalid(asked.to_owned()));
    }
    Ok(Continue { revision, start })
}

fn write_token(revision: i64, last: &Key, namespace: &str) -> String {
    let start = match (last.namespace.as_str(), namespace) {
        ("", _) => format!("/{}\0", last.name),
        (own, "") => format!("/{own}/{}\0", last.name),
        _ => format!("/{}\0", last.name),
    };
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

/// Whether a key comes after the place, below the collection that is listed, at which the page before ended. Pages of a
/// large list ask this of every object, so no text is made for it.
fn is_after(key: &Key, namespace: &str, start: &str) -> bool {
    let (within, slash) = match key.namespace.is_empty() || !namespace.is_empty() {
        true => ("", ""),
        false => (key.namespace.as_str(), "/"),
    };
    let position = [within, slash, &key.name, "\0"].into_iter().flat_map(str::bytes);
    position.gt(start.bytes())
}

/// What a list answers, with its objects as they are kept.
pub struct Page {
    /// The objects, in order.
    pub items: Vec<Arc<Stored>>,
    /// The revision of the list.
    pub revision: u64,
    /// Where the next page begins, if there is one.
    pub more: Option<String>,
    /// How many objects come after this page, if that is known.
    pub remaining: Option<usize>,
}

/// A collection, or a page of it.
pub fn list(state: &State, call: &Call) -> Outcome<Value> {
    let Page { items, revision, more, remaining } = page(state, call)?;
    let items = items.iter().map(|stored| in_version(&state.store.tree(stored), &call.resource)).collect();
    Ok(list_body(&call.resource, items, revision, more, remaining))
}

/// The objects of a collection, or of a page of it.
pub fn page(state: &State, call: &Call) -> Outcome<Page> {
    let namespace = call.namespace();
    let (selection, limit) = list_options(call, false)?;
    let token = match call.query.get("continue") {
        "" => None,
        text => Some(read_token(text)?),
    };
    if token.is_some() && !matches!(call.query.get("resourceVersion"), "" | "0") {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    let asked = asked_revision(&call.query, false)?;
    // What is answered from memory, whatever its age, comes whole.
    let limit = limit.filter(|limit| *limit > 0 && asked != Some(0));
    let exact = match (&token, asked) {
        (Some(token), _) if token.revision > 0 => Some(token.revision as u64),
        (None, Some(revision)) if call.query.get("resourceVersionMatch") == "Exact" => Some(revision),
        // With a limit and no match, an old revision is meant exactly.
        (None, Some(revision))
            if limit.is_some() && revision > 0 && call.query.get("resourceVersionMatch").is_empty() =>
        {
            Some(revision)
        }
        _ => None,
    };
    let current = state.store.revision();
    let newest = asked.max(exact).unwrap_or(0);
    if newest > current {
        return Err(Failure::too_large_revision(newest, current));
    }
    let at = exact.unwrap_or(current);
    let objects = state.store.list_at(&call.resource.storage, namespace, at).map_err(|_| expired(token.as_ref()))?;
    let after = |key: &Key| token.as_ref().is_none_or(|token| is_after(key, namespace, &token.start));
    let rest: Vec<Listed> = objects.into_iter().filter(|(key, _)| after(key)).collect();
    let selected = |stored: &Stored| selection.is_empty() || selection.matches(&state.store.tree(stored));
    // A page ends with the object that fills it; whether what follows is selected is not known yet.
    let chosen = rest.iter().enumerate().filter(|(_, (_, stored))| selected(stored)).map(|(at, _)| at);
    let chosen: Vec<usize> = chosen.take(limit.map_or(usize::MAX, |limit| limit as usize)).collect();
    let full = limit.is_some_and(|limit| chosen.len() as i64 == limit);
    let left = if full { chosen.last().map_or(0, |last| rest.len() - last - 1) } else { 0 };
    let more = chosen.last().filter(|_| left > 0).map(|at| &rest[*at]);
    let more = more.map(|(key, _)| write_token(at as i64, key, namespace));
    let remaining = (left > 0 && selection.is_empty()).then_some(left);
    let items = chosen.iter().map(|at| Arc::clone(&rest[*at].1)).collect();
    Ok(Page { items, revision: at, more, remaining })
}

fn expired(token: Option<&Continue>) -> Failure {
    let Some(token) = token else {
        return Failure::expired("The resourceVersion for the provided list is too old.");
    };
    let inconsistent = json!({"v": "meta.k8s.io/v1", "rv": -1, "start": format!("/{}", token.start)}).to_string();
    let mut failure = Failure::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    failure.continue_token = Some(URL_SAFE_NO_PAD.encode(inconsistent));
    failure
}

/// The metadata of a list.
pub fn list_metadata(resource: &Resource, revision: u64, more: Option<String>, remaining: Option<usize>) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    match more {
        Some(token) => metadata["continue"] = json!(token),
        // Lists of custom resources always print it.
        None if resource.custom.is_some() => metadata["continue"] = json!(""),
        None => {}
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

/// The body of a list.
pub fn list_body(
    resource: &Resource,
    mut items: Vec<Value>,
    revision: u64,
    more: Option<String>,
    remaining: Option<usize>,
) -> Value {
    let metadata = list_metadata(resource, revision, more, remaining);
    if resource.custom.is_none() {
        // The list says what its items are; built-in ones do not repeat it.
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("kind");
            item.remove("apiVersion");
        }
    }
    json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items})
}
