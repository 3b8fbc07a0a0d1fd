//! A set of field paths, as a tree whose edges are path elements in the form of `FieldsV1`.
//!
//! `f:NAME` is a field or map key, `k:{…}` an element of a keyed list, `v:…` an element of a set of scalars.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of paths; the node itself may be a member (`.`), and so may what is below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// Whether the path to this node is in the set.
    pub member: bool,
    /// What is below, by path element.
    pub children: BTreeMap<String, Set>,
}

impl Set {
    /// Reads `fieldsV1`.
    pub fn from_json(value: &Value) -> Self {
        let mut set = Self::default();
        for (element, below) in value.as_object().into_iter().flatten() {
            if element == "." {
                set.member = true;
                continue;
            }
            let mut child = Self::from_json(below);
            // An empty object is a leaf, and a leaf is a member.
            child.member |= child.children.is_empty();
            set.children.insert(element.clone(), child);
        }
        set
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_json());
        }
        Value::Object(map)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            None => self.member = true,
            Some((first, rest)) => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether the path is a member.
    pub fn has(&self, path: &[String]) -> bool {
        self.below(path).is_some_and(|set| set.member)
    }

    /// The part of the set below a path.
    pub fn below(&self, path: &[String]) -> Option<&Set> {
        path.iter().try_fold(self, |set, element| set.children.get(element))
    }

    /// Members of either.
    pub fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        out.add(other);
        out
    }

    /// Adds all members of another set.
    pub fn add(&mut self, other: &Set) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().add(child);
        }
    }

    /// Members of both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set { member: self.member && other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                out.keep(element, child.intersection(theirs));
            }
        }
        out
    }

    /// Members that the other has not; what is below a member of the other stays.
    pub fn difference(&self, other: &Set) -> Set {
        let mut out = Set { member: self.member && !other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            let rest = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            out.keep(element, rest);
        }
        out
    }

    /// Removes a path and everything below it.
    pub fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.children.remove(*first);
        } else if let Some(child) = self.children.get_mut(*first) {
            child.cut(rest);
            if child.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    fn keep(&mut self, element: &str, child: Set) {
        if !child.is_empty() {
            self.children.insert(element.to_owned(), child);
        }
    }

    /// All members; of each node those right below it first, as the real server tells them.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut out = if self.member { vec![Vec::new()] } else { Vec::new() };
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
        for (element, _) in self.children.iter().filter(|(_, child)| child.member) {
            out.push(path.iter().chain([element]).cloned().collect());
        }
        for (element, child) in &self.children {
            path.push(element.clone());
            child.collect(path, out);
            path.pop();
        }
    }
}

/// The path as people read it: `.spec.ports[port=80,protocol="TCP"].name`.
pub fn show(path: &[String]) -> String {
    let mut out = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => out.push_str(&format!(".{name}")),
            Some(("k", keys)) => out.push_str(&format!("[{}]", show_keys(keys))),
            Some(("v", value)) => out.push_str(&format!("[={value}]")),
            _ => out.push_str(element),
        }
    }
    out
}

fn show_keys(keys: &str) -> String {
    let keys: Value = serde_json::from_str(keys).unwrap_or_default();
    let pairs = keys.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}
