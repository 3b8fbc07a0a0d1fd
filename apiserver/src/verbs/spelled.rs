//! A patched object as text, as the real server shows it when it does not fit: what the patch has touched comes by
//! name, and the rest in the order of the Go types.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::body::order;

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
    text(object, "", order::type_of(object), &touched)
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

fn text(value: &Value, path: &str, of: &str, touched: &BTreeSet<String>) -> String {
    match value {
        Value::Object(map) => {
            let fields = order::fields_of(of);
            let place = |name: &str| fields.iter().position(|(field, _)| *field == name);
            let mut names: Vec<&String> = map.keys().collect();
            if !touched.contains(path) {
                names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
            }
            let pairs = names.into_iter().map(|name| {
                let below = format!("{path}/{}", pointer(name));
                let of = place(name).map_or("", |at| fields[at].1);
                format!("{}:{}", Value::from(name.as_str()), text(&map[name], &below, of, touched))
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Array(list) => {
            let items =
                list.iter().enumerate().map(|(index, item)| text(item, &format!("{path}/{index}"), of, touched));
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
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": 5},
            "metadata": {"uid": "u", "name": "n", "labels": {"b": "1", "a": "2"}}});
        let patch = json!({"data": {"x": 5}});
        let begin = r#"{"apiVersion":"v1","data":{"x":5},"kind":"ConfigMap","metadata":"#;
        let expected = format!(r#"{begin}{{"name":"n","uid":"u","labels":{{"a":"2","b":"1"}}}}}}"#);
        assert_eq!(spelled(&object, &patch), expected);
        let patch = json!([{"op": "add", "path": "/metadata/labels/c", "value": 1}]);
        let expected = format!(r#"{begin}{{"labels":{{"a":"2","b":"1"}},"name":"n","uid":"u"}}}}"#);
        assert_eq!(spelled(&object, &patch), expected);
    }
}
