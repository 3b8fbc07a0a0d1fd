//! Makes `src/auth/roles.txt` from a real server's roles and bindings:
//!
//! ```text
//! for kind in clusterroles roles clusterrolebindings rolebindings; do
//!     kubectl get --raw /apis/rbac.authorization.k8s.io/v1/$kind
//! done | cargo run -p apiserver --example roles >apiserver/src/auth/roles.txt
//! ```

use serde_json::Value;

const HEADER: &str = "\
# Roles and bindings that Kubernetes v1.34 makes at its start. Made by `examples/roles.rs` from a real server.
# A role: its kind and name (NAMESPACE/NAME), then its labels; below it one rule a line:
#   VERBS GROUPS RESOURCES [NAMES], or VERBS PATHS; lists with commas, the core group is a dash.
#   `from LABEL` collects the rules of the cluster roles with that label.
# A binding: its kind and name, an arrow, the role's kind and name; below it one subject a line.
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{HEADER}");
    for list in serde_json::Deserializer::from_reader(std::io::stdin()).into_iter::<Value>() {
        let list = list?;
        let kind = text(&list["kind"]).trim_end_matches("List").to_owned();
        for item in list["items"].as_array().ok_or("not a list")? {
            if item["metadata"]["labels"]["kubernetes.io/bootstrapping"] != "rbac-defaults" {
                continue;
            }
            let metadata = &item["metadata"];
            let name = match text(&metadata["namespace"]) {
                "" => text(&metadata["name"]).to_owned(),
                namespace => format!("{namespace}/{}", text(&metadata["name"])),
            };
            if item["roleRef"].is_object() {
                let role = &item["roleRef"];
                println!("{kind} {name} -> {} {}", text(&role["kind"]), text(&role["name"]));
            } else {
                let labels = metadata["labels"].as_object().ok_or("no labels")?.iter();
                let labels: Vec<String> = labels
                    .filter(|(label, _)| *label != "kubernetes.io/bootstrapping")
                    .map(|(label, value)| format!(" {label}={}", text(value)))
                    .collect();
                println!("{kind} {name}{}", labels.concat());
            }
            for rule in item["rules"].as_array().into_iter().flatten() {
                println!("  {}", rule_line(rule));
            }
            for selector in item["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
                for (label, value) in selector["matchLabels"].as_object().ok_or("a selector without labels")? {
                    println!("  from {label}={}", text(value));
                }
            }
            for subject in item["subjects"].as_array().into_iter().flatten() {
                let namespace = subject["namespace"].as_str().map(|namespace| format!("{namespace}/"));
                println!("  {} {}{}", text(&subject["kind"]), namespace.unwrap_or_default(), text(&subject["name"]));
            }
        }
    }
    Ok(())
}

fn rule_line(rule: &Value) -> String {
    let list = |name: &str| -> String {
        let words = rule[name].as_array().into_iter().flatten().map(text);
        words.map(|word| if word.is_empty() { "-" } else { word }).collect::<Vec<_>>().join(",")
    };
    if rule["nonResourceURLs"].is_array() {
        return format!("{} {}", list("verbs"), list("nonResourceURLs"));
    }
    let names = list("resourceNames");
    format!("{} {} {} {names}", list("verbs"), list("apiGroups"), list("resources")).trim_end().to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
