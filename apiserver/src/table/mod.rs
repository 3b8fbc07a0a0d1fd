//! Tables, as `kubectl get` shows them: columns are data, cells are made here.

mod cells;
mod json_path;
mod other_cells;

pub use cells::cells;
pub(crate) use json_path::first;

use serde_json::{Value, json};

use crate::registry::Resource;

const BUILTIN: &str = include_str!("columns.txt");
const CUSTOM: &str = "Custom resource definition column (in JSONPath format): ";

/// The columns of a resource.
pub struct Columns {
    /// Names, in order.
    pub names: Vec<String>,
    definitions: Vec<Value>,
}

impl Columns {
    /// What the table or the definition says; Name comes first, and Age last if nothing places it.
    pub fn of(resource: &Resource) -> Self {
        let mut columns = Self { names: Vec::new(), definitions: Vec::new() };
        // The name of a Scale is that of something else.
        let format = if resource.kind == "Scale" { "" } else { "name" };
        columns.push("Name", "string", format, &described(resource, "metadata.name"), 0);
        match &resource.custom {
            Some(custom) => match &custom.columns {
                Some(list) => list.as_array().into_iter().flatten().for_each(|column| columns.push_custom(column)),
                None => columns.push("Age", "date", "", &described(resource, "metadata.creationTimestamp"), 0),
            },
            None => columns.push_builtin(resource),
        }
        columns
    }

    /// `columnDefinitions`.
    pub fn definitions(&self) -> Value {
        json!(self.definitions)
    }

    fn push(&mut self, name: &str, kind: &str, format: &str, description: &str, priority: i64) {
        self.names.push(name.to_owned());
        self.definitions.push(
            json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority}),
        );
    }

    fn push_custom(&mut self, column: &Value) {
        let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
        let description = match text("description") {
            empty if empty.is_empty() => format!("{CUSTOM}{}", text("jsonPath")),
            given => given,
        };
        self.push(
            &text("name"),
            &text("type"),
            &text("format"),
            &description,
            column["priority"].as_i64().unwrap_or(0),
        );
    }

    fn push_builtin(&mut self, resource: &Resource) {
        let id = resource.id();
        let id = if resource.plural == "events" { "/events" } else { &id };
        for line in BUILTIN.lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [of, name, priority, kind, description] = parts[..] else { continue };
            if of == id {
                let description = match description.strip_prefix('@') {
                    Some(path) => described(resource, path),
                    None => description.replace("\\n", "\n"),
                };
                let (kind, format) = kind.split_once('/').unwrap_or((kind, ""));
                self.push(name, kind, format, &description, priority.parse().unwrap_or(0));
            }
        }
        if id == "/events" {
            self.push("Name", "string", "name", &described(resource, "metadata.name"), 1);
            self.names.swap_remove(0);
            self.definitions.remove(0);
            self.names = self.definitions.iter().map(|d| d["name"].as_str().unwrap_or_default().to_owned()).collect();
        } else if resource.kind != "PodTemplate" && !self.names.iter().any(|name| name == "Age" || name == "Created At")
        {
            self.push("Age", "string", "", &described(resource, "metadata.creationTimestamp"), 0);
        }
    }
}

fn described(resource: &Resource, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let Some(node) = resource.schema.at(&parts) else { return String::new() };
    let text = if node.description.is_empty() { &node.resolve().description } else { &node.description };
    text.clone()
}
