//! A patched object as text, as the real server shows it when it does not fit: what the patch has touched comes by
//! name, and the rest in the order of the Go types.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::body::order::fields_of;

/// The text of `object`, of the Go type `of`, after `patch`, which is a list of operations or a merge patch.
pub(super) fn spelled(object: &Value, patch: &Value, of: &str) -> String {
    let mut touched = BTreeSet::from([String::new()]);
    match patch {
        Value::Array(operations) => operations.iter().for_each(|operation| {
            for name in ["path", "from"] {
                touch_parents(operation[name].as_str().unwrap_or_default(), &mut touched);
            }
        }),
        patch => touch_objects(patch, "", &mut touched),
    }
    text(object, "", of, &touched)
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
            let known = fields_of(of);
            let place = |name: &str| known.iter().position(|(field, _)| *field == name);
            let mut names: Vec<&String> = map.keys().collect();
            if !touched.contains(path) {
                names.sort_by_key(|name| place(name));
            }
            let pairs = names.into_iter().map(|name| {
                let below = format!("{path}/{}", pointer(name));
                // The values of a map have the type that it says of itself.
                let of = place(name).map_or(if known.is_empty() { of } else { "" }, |index| known[index].1);
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
        let object = json!({"metadata": {"uid": "u", "name": "n", "labels": {"b": "1", "a": "2"}}, "data": {"x": 5}});
        let patch = json!({"data": {"x": 5}});
        let expected = r#"{"data":{"x":5},"metadata":{"name":"n","uid":"u","labels":{"a":"2","b":"1"}}}"#;
        assert_eq!(spelled(&object, &patch, "core.v1.ConfigMap"), expected);
        let patch = json!([{"op": "add", "path": "/metadata/labels/c", "value": 1}]);
        let expected = r#"{"data":{"x":5},"metadata":{"labels":{"a":"2","b":"1"},"name":"n","uid":"u"}}"#;
        assert_eq!(spelled(&object, &patch, "core.v1.ConfigMap"), expected);
    }

    #[test]
    fn what_is_untouched_has_the_order_of_its_type() {
        let port = json!({"protocol": "TCP", "port": 1, "name": "a"});
        let object = json!({"spec": {"type": "ClusterIP", "ports": [port], "clusterIP": "None"}, "kind": "X"});
        let expected = r#"{"kind":"X","spec":{"ports":[{"name":"a","protocol":"TCP","port":1}],"clusterIP":"None","type":"ClusterIP"}}"#;
        assert_eq!(spelled(&object, &json!({"kind": "X"}), "core.v1.Service"), expected);
    }
}
