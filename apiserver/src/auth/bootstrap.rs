//! The roles, bindings and priority classes that every cluster begins with.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::rbac::GROUP;
use crate::fields::managed::{Manager, Write, update};
use crate::registry::{Registry, Resource};
use crate::store::Key;

const ROLES: &str = include_str!("roles.txt");

/// An object without uid and time.
struct Made {
    key: Key,
    object: Value,
}

/// All of them, made at `now`; all but uid and revision is there.
pub fn objects(registry: &Registry, now: &str) -> Vec<(Key, Value)> {
    static MADE: OnceLock<Vec<Made>> = OnceLock::new();
    let all = MADE.get_or_init(|| {
        let classes =
            classes().into_iter().filter_map(|class| finish(registry, "scheduling.k8s.io", "priorityclasses", class));
        let roles = parse(ROLES).into_iter().filter_map(|object| {
            let plural = format!("{}s", object["kind"].as_str()?.to_lowercase());
            finish(registry, GROUP, &plural, object)
        });
        classes.chain(roles).collect()
    });
    let dated = |made: &Made| {
        let mut object = made.object.clone();
        object["metadata"]["managedFields"][0]["time"] = json!(now);
        (made.key.clone(), object)
    };
    all.iter().map(dated).collect()
}

fn finish(registry: &Registry, group: &str, plural: &str, mut object: Value) -> Option<Made> {
    let resource = registry.find(group, "v1", plural)?;
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    let key = Key { resource: Arc::clone(&resource.storage), namespace: text("namespace"), name: text("name") };
    book(resource, &mut object, String::new());
    Some(Made { key, object })
}

/// Books the server as the owner of everything that an object has.
pub fn book(resource: &Resource, object: &mut Value, now: String) {
    let (api_version, name) = (resource.api_version(), "kube-apiserver".into());
    let manager = Manager { name, apply: false, api_version, subresource: String::new() };
    let write = Write { manager, node: &resource.schema, reset: &[], versions: None, now };
    update(&json!({"metadata": {}}), object, &write, true);
}

/// The priority classes of what a cluster cannot do without.
fn classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
            "metadata": {"name": name, "generation": 1}, "value": value, "description": description,
            "preemptionPolicy": "PreemptLowerPriority"})
    };
    let node = "Used for system critical pods that must not be moved from their current node.";
    let cluster =
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.";
    [class("system-node-critical", 2_000_001_000, node), class("system-cluster-critical", 2_000_000_000, cluster)]
}

/// Reads the table; its format is described in its head. A line that cannot be read is left out, which a test notices.
fn parse(text: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match line.strip_prefix("  ") {
            None => objects.extend(header(&words)),
            Some(_) => {
                let Some(object) = objects.last_mut() else { continue };
                detail(object, &words);
            }
        }
    }
    objects
}

fn header(words: &[&str]) -> Option<Value> {
    let [kind, path, rest @ ..] = words else { return None };
    let mut metadata = json!({"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}});
    match path.split_once('/') {
        Some((namespace, name)) => {
            metadata["name"] = json!(name);
            metadata["namespace"] = json!(namespace);
        }
        None => metadata["name"] = json!(path),
    }
    let mut object = json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata});
    if let ["->", kind, name] = rest {
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
        return Some(object);
    }
    for (label, value) in rest.iter().filter_map(|word| word.split_once('=')) {
        object["metadata"]["labels"][label] = json!(value);
    }
    object["rules"] = Value::Null;
    Some(object)
}

fn detail(object: &mut Value, words: &[&str]) {
    let list = |word: &str| -> Vec<String> {
        word.split(',').map(|word| if word == "-" { String::new() } else { word.to_owned() }).collect()
    };
    if object["roleRef"].is_object() {
        let [kind, path] = words else { return };
        let subject = match path.split_once('/').filter(|_| *kind == "ServiceAccount") {
            Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
            None => json!({"kind": kind, "apiGroup": GROUP, "name": path}),
        };
        match object["subjects"].as_array_mut() {
            Some(subjects) => subjects.push(subject),
            None => object["subjects"] = json!([subject]),
        }
        return;
    }
    if let ["from", label] = words
        && let Some((label, value)) = label.split_once('=')
    {
        let labels = Map::from_iter([(label.to_owned(), json!(value))]);
        object["aggregationRule"]["clusterRoleSelectors"] = json!([{"matchLabels": labels}]);
        return;
    }
    let mut rule = json!({});
    match words {
        [verbs, urls] => {
            rule["verbs"] = json!(list(verbs));
            rule["nonResourceURLs"] = json!(list(urls));
        }
        [verbs, groups, resources, names @ ..] => {
            rule["verbs"] = json!(list(verbs));
            rule["apiGroups"] = json!(list(groups));
            rule["resources"] = json!(list(resources));
            if let Some(names) = names.first() {
                rule["resourceNames"] = json!(list(names));
            }
        }
        _ => return,
    }
    match object["rules"].as_array_mut() {
        Some(rules) => rules.push(rule),
        None => object["rules"] = json!([rule]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;

    fn all() -> Vec<(Key, Value)> {
        let registry = Registry::builtin(|name| builtin::types().get(name).cloned()).unwrap();
        objects(&registry, "2020-01-01T00:00:00Z")
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        let made = all();
        let heads = ROLES.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
        assert_eq!(made.len(), heads.count() + classes().len());
        let details: usize = made
            .iter()
            .map(|(_, object)| {
                let length = |value: &Value| value.as_array().map_or(0, Vec::len);
                let from = length(&object["aggregationRule"]["clusterRoleSelectors"]);
                length(&object["rules"]) + length(&object["subjects"]) + from
            })
            .sum();
        assert_eq!(details, ROLES.lines().filter(|line| line.starts_with("  ")).count());
    }

    #[test]
    fn an_object_is_as_the_real_server_makes_it() {
        let made = all();
        let (_, user) = made.iter().find(|(key, _)| key.name == "system:basic-user").unwrap();
        assert_eq!(user["rules"][1]["resources"], json!(["selfsubjectreviews"]));
        let owned = &user["metadata"]["managedFields"][0];
        assert_eq!(owned["manager"], "kube-apiserver");
        let labels = json!({".": {}, "f:kubernetes.io/bootstrapping": {}});
        assert_eq!(owned["fieldsV1"]["f:metadata"]["f:labels"], labels);
        assert_eq!(owned["fieldsV1"]["f:rules"], json!({}));
    }
}
