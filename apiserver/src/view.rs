//! Views of objects: Table and PartialObjectMetadata.

use serde_json::{Value, json};

use crate::failure::{Failure, FieldError, Outcome};
use crate::registry::Resource;
use crate::request::Form;
use crate::table::{Columns, cells};

/// What `includeObject` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Metadata.
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter.
    pub fn parse(text: &str) -> Self {
        match text {
            "Object" => Self::Object,
            "None" => Self::None,
            _ => Self::Metadata,
        }
    }

    /// Refuses what the parameter may not be.
    pub fn check(text: &str) -> Outcome<()> {
        if ["", "Metadata", "Object", "None"].contains(&text) {
            return Ok(());
        }
        let detail = "must be 'Metadata', 'Object', 'None', or empty";
        let error = FieldError::invalid("includeObject", &json!(text), detail);
        Err(Failure::bad_request(format!("Unable to convert to Table as requested: {}", error.text())))
    }
}

fn partial(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object["metadata"]})
}

/// The body in the form that was negotiated; errors are shown as they are.
pub fn render(body: Value, form: Form, include: Include, resource: &Resource, now: jiff::Timestamp) -> Value {
    if body["kind"] == "Status" && resource.kind != "Status" {
        return body;
    }
    let list = body["kind"] == resource.list_kind.as_str() && body["items"].is_array();
    let mut body = body;
    // Only the plain list of custom resources prints an empty token.
    if form != Form::Object && body["metadata"]["continue"] == "" {
        body["metadata"].as_object_mut().map(|metadata| metadata.remove("continue"));
    }
    match form {
        Form::Partial(version) if !list => partial(&body, version),
        Form::PartialList(version) | Form::Partial(version) if list => {
            let items: Vec<Value> =
                body["items"].as_array().into_iter().flatten().map(|item| partial(item, version)).collect();
            // The real server's empty list is null here.
            let items = if items.is_empty() { Value::Null } else { json!(items) };
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": body["metadata"], "items": items})
        }
        Form::Table(version) => {
            let columns = Columns::of(resource);
            let (items, metadata) = match list {
                true => (body["items"].as_array().cloned().unwrap_or_default(), body["metadata"].clone()),
                false => {
                    let metadata = json!({"resourceVersion": body["metadata"]["resourceVersion"]});
                    (vec![body], metadata)
                }
            };
            let rows: Vec<Value> =
                items.iter().map(|item| row(item, include, version, resource, &columns, now)).collect();
            // Where the real server has no printer of its own, no rows are null.
            let none = rows.is_empty() && resource.custom.is_none() && columns.names.iter().any(|n| n == "Created At");
            table(version, metadata, columns.definitions(), if none { Value::Null } else { json!(rows) })
        }
        _ => body,
    }
}

fn table(version: &str, metadata: Value, columns: Value, rows: Value) -> Value {
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows})
}

fn row(
    item: &Value,
    include: Include,
    version: &str,
    resource: &Resource,
    columns: &Columns,
    now: jiff::Timestamp,
) -> Value {
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => {
            let mut view = partial(item, version);
            // The real server keeps the count of templates beside metadata, and prints rows before it is put in.
            if resource.kind == "DaemonSet"
                && let Some(annotations) = view["metadata"]["annotations"].as_object_mut()
            {
                annotations.remove("deprecated.daemonset.template.generation");
                if annotations.is_empty()
                    && let Some(metadata) = view["metadata"].as_object_mut()
                {
                    metadata.remove("annotations");
                }
            }
            view
        }
        Include::Object => {
            let mut item = item.clone();
            item["kind"] = json!(resource.kind);
            item["apiVersion"] = json!(resource.api_version());
            item
        }
    };
    json!({"cells": cells(item, resource, columns, now), "object": object})
}

/// The object of a watch event; in a table only the first event has column definitions.
pub fn render_event(
    object: Value,
    form: Form,
    include: Include,
    resource: &Resource,
    now: jiff::Timestamp,
    first: bool,
) -> Value {
    let mut view = render(object, form, include, resource, now);
    if !first && view["kind"] == "Table" {
        view["columnDefinitions"] = Value::Null;
    }
    view
}

/// A bookmark: only a revision, and what it marks.
pub fn bookmark(
    resource: &Resource,
    form: Form,
    include: Include,
    revision: u64,
    ends_initial: bool,
    first: bool,
    now: jiff::Timestamp,
) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if ends_initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let bare = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
    match form {
        Form::Partial(version) | Form::PartialList(version) => partial(&bare, version),
        Form::Table(version) => {
            let columns = Columns::of(resource);
            let empty = cells(&bare, resource, &columns, now);
            let object = if include == Include::None { Value::Null } else { partial(&bare, version) };
            let definitions = if first { columns.definitions() } else { Value::Null };
            let rows = json!([{"cells": empty, "object": object}]);
            table(version, json!({"resourceVersion": revision.to_string()}), definitions, rows)
        }
        _ => {
            let mut bookmark = bare;
            if resource.custom.is_none() {
                crate::schema::shape::fill_zero(&mut bookmark, &resource.schema);
            }
            bookmark
        }
    }
}
