//! Roles: a scenario names nodes by what they are (`${worker1}`), since providers and clusters name them differently.

use anyhow::{Context, Result, bail};

use crate::cluster::{NodeInfo, Role};

/// Names of the roles, for error messages.
const KNOWN: &str = "${control-plane}, ${worker1}, ${worker2}, …, each also with `.address`";

/// One `${…}` of a scenario file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reference {
    role: Role,
    /// From 0, among the nodes of that role.
    index: usize,
    /// The node's address is meant, not its name.
    address: bool,
}

impl Reference {
    fn parse(text: &str) -> Result<Self> {
        let (name, address) = match text.split_once('.') {
            None => (text, false),
            Some((name, "address")) => (name, true),
            Some((_, field)) => bail!("${{{text}}}: a node has no field {field:?}; there are {KNOWN}"),
        };
        let (role, index) = match name.strip_prefix("worker").map(str::parse::<usize>) {
            Some(Ok(number)) if number > 0 => (Role::Worker, number - 1),
            _ if name == "control-plane" => (Role::ControlPlane, 0),
            _ => bail!("there is no role ${{{text}}}; there are {KNOWN}"),
        };
        Ok(Self { role, index, address })
    }

    fn of(self, nodes: &[NodeInfo]) -> Option<String> {
        let node = nodes.iter().filter(|node| node.role == self.role).nth(self.index)?;
        Some(if self.address { node.address.to_string() } else { node.name.clone() })
    }
}

/// The text with every role replaced by the node that has it.
///
/// # Errors
/// With the line of a role that does not exist, or that no node has.
pub(super) fn resolve(text: &str, nodes: &[NodeInfo]) -> Result<String> {
    replace(text, |reference, written| {
        reference.of(nodes).with_context(|| format!("no node of this cluster is ${{{written}}}"))
    })
}

/// Number of workers that the text names.
///
/// # Errors
/// With the line of a role that does not exist.
pub(super) fn workers(text: &str) -> Result<usize> {
    let mut most = 0;
    replace(text, |reference, _| {
        if reference.role == Role::Worker {
            most = most.max(reference.index + 1);
        }
        Ok(String::new())
    })?;
    Ok(most)
}

fn replace(text: &str, mut with: impl FnMut(Reference, &str) -> Result<String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let line = text[..text.len() - rest.len() + at].matches('\n').count() + 1;
        let place = || format!("line {line}");
        let inner = &rest[at + 2..];
        let end = inner.find('}').context("${ without }").with_context(place)?;
        let written = &inner[..end];
        let value = Reference::parse(written).and_then(|reference| with(reference, written)).with_context(place)?;
        out.push_str(&rest[..at]);
        out.push_str(&value);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
#[path = "role_tests.rs"]
mod tests;
