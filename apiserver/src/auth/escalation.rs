//! Nobody gives what they do not have: a role may only be written with rules, and a binding only to a role whose rules,
//! that the writer has already, or by those who may `escalate` or `bind`.

use serde_json::Value;

use super::attributes::Attributes;
use super::rbac::{GROUP, Rule, rules_of};
use super::user::{MASTERS, User};
use crate::failure::{Failure, Outcome};
use crate::registry::Resource;
use crate::state::State;
use crate::verbs::meta;

/// Checks the write of a role or binding; other kinds pass.
///
/// # Errors
/// 403 with the rules that the writer lacks.
pub fn check(
    state: &mut State,
    resource: &Resource,
    user: &User,
    object: &Value,
    before: Option<&Value>,
) -> Outcome<()> {
    if resource.group != GROUP || user.is_in(MASTERS) {
        return Ok(());
    }
    let namespace = meta(object, "namespace");
    let name = meta(object, "name");
    let ask = |verb: &str, resource: &str, name: &str| Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let wanted = match resource.plural.as_str() {
        "roles" | "clusterroles" => {
            let unchanged = before.is_some_and(|before| {
                before["rules"] == object["rules"] && before["aggregationRule"] == object["aggregationRule"]
            });
            if unchanged || state.decide(user, &ask("escalate", &resource.plural, name)).allowed {
                return Ok(());
            }
            if object["aggregationRule"].is_object() && !is_everything(state, user) {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                return Err(refuse(resource, name, user, &[], Some(why)));
            }
            rules_of(object)
        }
        _ => {
            let same = before.is_some_and(|before| {
                before["roleRef"] == object["roleRef"] && before["subjects"] == object["subjects"]
            });
            let role = &object["roleRef"];
            let (kind, role) = (role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default());
            let plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            if same || state.decide(user, &ask("bind", plural, role)).allowed {
                return Ok(());
            }
            let policy = state.policy();
            match policy.rules(kind, namespace, role) {
                Some(rules) => rules.to_vec(),
                // The real server names the binding here, if it is a cluster role that is missing.
                None if kind == "ClusterRole" => return Err(Failure::not_found(GROUP, &resource.plural, role)),
                None => return Err(Failure::not_found(GROUP, "role", role)),
            }
        }
    };
    let policy = state.policy();
    let own: Vec<&Rule> = policy.rules_for(user, namespace).collect();
    let missing: Vec<Rule> =
        wanted.iter().flat_map(Rule::apart).filter(|piece| !own.iter().any(|rule| rule.covers(piece))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(refuse(resource, name, user, &compact(missing), None))
}

fn is_everything(state: &mut State, user: &User) -> bool {
    let all = |verb: &str| vec![verb.to_owned()];
    let resources = Rule { verbs: all("*"), groups: all("*"), resources: all("*"), ..Rule::default() };
    let paths = Rule { verbs: all("*"), urls: all("*"), ..Rule::default() };
    let policy = state.policy();
    [resources, paths].iter().all(|wanted| policy.rules_for(user, "").any(|rule| rule.covers(wanted)))
}

/// Pieces that differ only in their verb become one rule again, but for paths.
fn compact(pieces: Vec<Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for piece in pieces {
        let same = |rule: &&mut Rule| {
            rule.groups == piece.groups
                && rule.resources == piece.resources
                && rule.names == piece.names
                && piece.urls.is_empty()
        };
        match rules.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(piece.verbs),
            None => rules.push(piece),
        }
    }
    rules
}

fn refuse(resource: &Resource, name: &str, user: &User, missing: &[Rule], why: Option<&str>) -> Failure {
    let mut text = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held",
        user.name,
        quoted(&user.groups)
    );
    match why {
        Some(why) => text = why.to_owned(),
        None => {
            let mut lines: Vec<String> = missing.iter().map(show).collect();
            lines.sort();
            text.push_str(":\n");
            text.push_str(&lines.join("\n"));
        }
    }
    Failure::forbidden(&resource.group, &resource.plural, name, &text)
}

fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn show(rule: &Rule) -> String {
    let list = |list: &[String]| {
        let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
        format!("[{}]", words.join(", "))
    };
    let mut parts = Vec::new();
    for (name, words) in [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.urls),
        ("Verbs", &rule.verbs),
    ] {
        if !words.is_empty() {
            parts.push(format!("{name}:{}", list(words)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
