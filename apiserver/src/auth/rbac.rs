//! Role-based access control: roles and bindings as they are stored, compiled for questions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::attributes::Attributes;
use super::user::{SERVICE_ACCOUNTS, User};
use crate::selector::LabelSelector;
use crate::store::Store;

/// Prefix of the storage keys of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub groups: Vec<String>,
    /// Plurals, `PLURAL/SUB`, `*/SUB` or `*`.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub names: Vec<String>,
    /// Paths that are no resources, the last may end in `*`.
    pub urls: Vec<String>,
}

impl Rule {
    /// Reads a rule of a role object.
    pub fn read(rule: &Value) -> Self {
        let list = |name: &str| {
            let words = rule[name].as_array().into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// Whether the rule allows what is wanted.
    pub fn allows(&self, wanted: &Attributes) -> bool {
        if !has(&self.verbs, &wanted.verb) {
            return false;
        }
        if !wanted.path.is_empty() {
            return self.urls.iter().any(|url| url_covers(url, &wanted.path));
        }
        let names = self.names.is_empty() || self.names.contains(&wanted.name);
        names && has(&self.groups, &wanted.group) && self.has_resource(wanted)
    }

    fn has_resource(&self, wanted: &Attributes) -> bool {
        self.resources.iter().any(|own| match own.split_once('/') {
            _ if own == "*" => true,
            None => *own == wanted.resource && wanted.subresource.is_empty(),
            Some((resource, sub)) => {
                !wanted.subresource.is_empty()
                    && sub == wanted.subresource
                    && (resource == "*" || resource == wanted.resource)
            }
        })
    }

    /// Whether everything that `other`, a rule of one verb, group, resource and name at most, allows is allowed.
    pub fn covers(&self, other: &Self) -> bool {
        let all = |own: &[String], others: &[String]| others.iter().all(|word| has(own, word));
        if !all(&self.verbs, &other.verbs) {
            return false;
        }
        if !other.urls.is_empty() {
            return other.urls.iter().all(|url| self.urls.iter().any(|own| url_covers(own, url)));
        }
        let resources = other.resources.iter().all(|resource| {
            let sub = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has(&self.resources, resource) || sub.is_some_and(|sub| self.resources.contains(&sub))
        });
        let names = match (self.names.is_empty(), other.names.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => other.names.iter().all(|name| self.names.contains(name)),
        };
        all(&self.groups, &other.groups) && resources && names
    }

    /// The rule in rules of one verb, group, resource and name at most.
    pub fn apart(&self) -> Vec<Self> {
        let one = |word: &String| vec![word.clone()];
        let mut rules = Vec::new();
        for verb in &self.verbs {
            for group in &self.groups {
                for resource in &self.resources {
                    let rule =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    match self.names.is_empty() {
                        true => rules.push(rule),
                        false => rules.extend(self.names.iter().map(|name| Self { names: one(name), ..rule.clone() })),
                    }
                }
            }
            let urls = self.urls.iter().map(|url| Self { verbs: one(verb), urls: one(url), ..Self::default() });
            rules.extend(urls);
        }
        rules
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == "*" || own == word)
}

fn url_covers(own: &str, url: &str) -> bool {
    own == "*" || own == url || own.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
}

/// Whom a binding names.
#[derive(Clone, Debug)]
struct Subject {
    kind: String,
    namespace: String,
    name: String,
}

impl Subject {
    fn read(subject: &Value) -> Self {
        let text = |name: &str| subject[name].as_str().unwrap_or_default().to_owned();
        Self { kind: text("kind"), namespace: text("namespace"), name: text("name") }
    }

    fn is(&self, user: &User, namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
                let rest = user.name.strip_prefix("system:serviceaccount:");
                !namespace.is_empty() && rest.and_then(|rest| rest.split_once(':')) == Some((namespace, &self.name))
            }
            _ => false,
        }
    }

    fn describe(&self, namespace: &str) -> String {
        let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
        match self.kind.as_str() {
            "ServiceAccount" => format!("{} {:?}", self.kind, format!("{}/{namespace}", self.name)),
            _ => format!("{} {:?}", self.kind, self.name),
        }
    }
}

struct Binding {
    name: String,
    /// Empty for a cluster role binding.
    namespace: String,
    subjects: Vec<Subject>,
    role_kind: String,
    role: String,
}

impl Binding {
    fn read(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: text(&object["metadata"]["name"]),
            namespace: text(&object["metadata"]["namespace"]),
            subjects: object["subjects"].as_array().into_iter().flatten().map(Subject::read).collect(),
            role_kind: text(&object["roleRef"]["kind"]),
            role: text(&object["roleRef"]["name"]),
        }
    }

    fn reason(&self, subject: &Subject) -> String {
        let (kind, name) = match self.namespace.as_str() {
            "" => ("ClusterRoleBinding", self.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        format!(
            "RBAC: allowed by {kind} {name:?} of {} {:?} to {}",
            self.role_kind,
            self.role,
            subject.describe(&self.namespace)
        )
    }
}

/// The rules of a role, and those of the roles that it collects.
struct Role {
    rules: Vec<Rule>,
}

/// All roles and bindings at one moment.
#[derive(Default)]
pub struct Policy {
    cluster_roles: BTreeMap<String, Role>,
    roles: BTreeMap<(String, String), Role>,
    cluster_bindings: Vec<Binding>,
    bindings: BTreeMap<String, Vec<Binding>>,
}

/// What a policy says to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, and by which binding.
    Allowed(String),
    /// No rule says yes; the text, if any, names roles that bindings name in vain.
    Silent(String),
}

impl Policy {
    /// Reads all roles and bindings of a store.
    pub fn read(store: &Store) -> Self {
        let list = |plural: &str| {
            let resource: Arc<str> = Arc::from(format!("{GROUP}/{plural}"));
            store.list(&resource, "").map(|(_, object)| object).collect::<Vec<_>>()
        };
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let namespace = |object: &Value| object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let clustered = list("clusterroles");
        let mut policy = Self::default();
        for role in &clustered {
            policy.cluster_roles.insert(name(role), Role { rules: rules_of(role) });
        }
        for role in list("roles") {
            policy.roles.insert((namespace(&role), name(&role)), Role { rules: rules_of(&role) });
        }
        policy.cluster_bindings = list("clusterrolebindings").iter().map(|binding| Binding::read(binding)).collect();
        for binding in list("rolebindings") {
            policy.bindings.entry(namespace(&binding)).or_default().push(Binding::read(&binding));
        }
        policy
    }

    /// The rules of a role, if it is there.
    pub fn rules(&self, kind: &str, namespace: &str, name: &str) -> Option<&[Rule]> {
        let role = match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())),
        };
        role.map(|role| role.rules.as_slice())
    }

    /// Bindings that count in a namespace (empty: cluster-wide), with the subject that makes them the user's.
    fn granted<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = (&'a Binding, &'a Subject)> {
        let local = self.bindings.get(namespace).into_iter().flatten();
        self.cluster_bindings.iter().chain(local).filter_map(move |binding| {
            let subject = binding.subjects.iter().find(|subject| subject.is(user, &binding.namespace))?;
            Some((binding, subject))
        })
    }

    /// Whether the user may.
    pub fn ask(&self, user: &User, wanted: &Attributes) -> Answer {
        for (binding, subject) in self.granted(user, &wanted.namespace) {
            match self.rules(&binding.role_kind, &binding.namespace, &binding.role) {
                Some(rules) if rules.iter().any(|rule| rule.allows(wanted)) => {
                    return Answer::Allowed(binding.reason(subject));
                }
                _ => {}
            }
        }
        let missing = self.missing_for(user, &wanted.namespace);
        Answer::Silent(if missing.is_empty() { String::new() } else { format!("RBAC: {}", in_one(&missing)) })
    }

    /// Roles that bindings name for the user, and that are not there.
    pub fn missing_for(&self, user: &User, namespace: &str) -> Vec<String> {
        let lost = self
            .granted(user, namespace)
            .filter(|(binding, _)| self.rules(&binding.role_kind, &binding.namespace, &binding.role).is_none());
        let named = lost.map(|(binding, _)| {
            let kind = if binding.role_kind == "ClusterRole" { "clusterrole" } else { "role" };
            format!("{kind}.{GROUP} {:?} not found", binding.role)
        });
        let mut missing: Vec<String> = Vec::new();
        for text in named {
            if !missing.contains(&text) {
                missing.push(text);
            }
        }
        missing
    }

    /// All rules that hold for the user in a namespace.
    pub fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.granted(user, namespace).flat_map(|(binding, _)| {
            self.rules(&binding.role_kind, &binding.namespace, &binding.role).unwrap_or_default()
        })
    }
}

/// Several problems in one text, as Go shows them.
pub fn in_one(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        _ => format!("[{}]", problems.join(", ")),
    }
}

/// The rules that stand in a role.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(Rule::read).collect()
}

/// Whether the role with these labels is one that an aggregating role collects.
pub fn collects(aggregating: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let selectors = aggregating["aggregationRule"]["clusterRoleSelectors"].as_array();
    selectors.into_iter().flatten().any(|selector| LabelSelector::of(selector).matches(labels))
}

/// Groups of a service account named like `system:serviceaccount:NAMESPACE:NAME`.
pub fn account_groups(user: &str) -> Option<[String; 2]> {
    let (namespace, _) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some([SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")])
}
