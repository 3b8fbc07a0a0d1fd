//! A patched object as text, as the real server shows it when it does not fit: what the patch has touched comes by
//! name, and the rest of the metadata in the order of the Go types.

use std::collections::BTreeSet;

use serde_json::Value;

const METADATA: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];
const MANAGED: &[&str] = &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];
const OWNER: &[&str] = &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];

/// The text of `object` after `patch`, which is a list of operations or a merge patch.
pub(super) fn spelled(object: &Value, patch: &Value) -> String {
    let mut touched = BTreeSet::from([String::new()]);
    match patch {
        Value::Array(operations) => operations.iter().for_each(|operation| {
            for name in ["path", "from"] {
                touch_parents(operation[name].as_str().unwrap_or_default(), &mut touched);
            }
        }),
        patch => touch_objects(patch, "", &mut touched),
    }
    text(object, "", &touched)
}

fn touch_parents(path: &str, touched: &mut BTreeSet<String>) {
    touched.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
}

fn touch_objects(patch: &Value, path: &str, touched: &mut BTreeSet<String>) {
    for (name, value) in patch.as_object().into_iter().flatten() {
        if value.is_object() {
            let below = format!("{path}/{}", pointer(name));
            touch_objects(value, &below, touched);
            touched.insert(below);
        }
    }
}

fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn text(value: &Value, path: &str, touched: &BTreeSet<String>) -> String {
    match value {
        Value::Object(map) => {
            let order: &[&str] = match path {
                path if touched.contains(path) => &[],
                "/metadata" => METADATA,
                path if path.starts_with("/metadata/managedFields/") && path.matches('/').count() == 3 => MANAGED,
                path if path.starts_with("/metadata/ownerReferences/") && path.matches('/').count() == 3 => OWNER,
                _ => &[],
            };
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_by_key(|name| order.iter().position(|known| known == name));
            let pairs = names.into_iter().map(|name| {
                let below = format!("{path}/{}", pointer(name));
                format!("{}:{}", Value::from(name.as_str()), text(&map[name], &below, touched))
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Array(list) => {
            let items = list.iter().enumerate().map(|(index, item)| text(item, &format!("{path}/{index}"), touched));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn untouched_metadata_has_the_order_of_its_type() {
        let object = json!({"metadata": {"uid": "u", "name": "n", "labels": {"b": "1", "a": "2"}}, "data": {"x": 5}});
        let patch = json!({"data": {"x": 5}});
        let expected = r#"{"data":{"x":5},"metadata":{"name":"n","uid":"u","labels":{"a":"2","b":"1"}}}"#;
        assert_eq!(spelled(&object, &patch), expected);
        let patch = json!([{"op": "add", "path": "/metadata/labels/c", "value": 1}]);
        let expected = r#"{"data":{"x":5},"metadata":{"labels":{"a":"2","b":"1"},"name":"n","uid":"u"}}"#;
        assert_eq!(spelled(&object, &patch), expected);
    }
}
