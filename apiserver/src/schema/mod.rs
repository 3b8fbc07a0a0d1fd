//! What an object may hold: one model for built-in kinds and for the structural schemas of custom resources.
//!
//! A node says the JSON type, the fields, and how lists and maps are merged by strategic merge patch and by
//! server-side apply. Everything that walks an object against its kind (decoding, defaulting, pruning, field sets,
//! merging) walks these nodes.

pub mod builtin;
mod cel_tokens;
pub mod cel_types;
pub mod decode;
pub mod embedded;
pub mod formats;
pub mod rules;
pub mod shape;
pub mod times;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// JSON type of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Anything, kept as it is.
    #[default]
    Any,
    /// An object: named fields, or a map if there are `additional` values.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A boolean.
    Boolean,
    /// A number or a string.
    IntOrString,
}

/// How two appliers share a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// It belongs to one of them.
    #[default]
    Atomic,
    /// Scalars, each owned by itself.
    Set,
    /// Objects, each identified by these fields.
    Map(Vec<String>),
}

/// One node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Name of a built-in type whose node this is; resolved when it is needed, so types may be recursive.
    pub reference: Option<Arc<str>>,
    /// Name of the Go struct, for decoding errors; empty in custom resources.
    pub struct_name: String,
    /// JSON type.
    pub type_: Type,
    /// Named fields.
    pub fields: BTreeMap<String, Node>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Value of a map.
    pub additional: Option<Box<Node>>,
    /// Element of a list.
    pub items: Option<Box<Node>>,
    /// How appliers share a list.
    pub list: ListType,
    /// Whether a map or object belongs to one applier as a whole.
    pub atomic: bool,
    /// It does not, whatever its type says.
    pub granular: bool,
    /// Merge key of strategic merge patch; empty for a list of scalars that is merged, none for one that is replaced.
    pub patch_key: Option<String>,
    /// Strategic merge with `$retainKeys`.
    pub retain_keys: bool,
    /// Value of an absent field.
    pub default: Option<Value>,
    /// Value that the real server's Go types hold and print though nobody set it (`status: {}`); never owned by anyone.
    pub zero: Option<Value>,
    /// A zero value (`false`, `0`, `""`) counts as absent.
    pub omit_zero: bool,
    /// A time with six digits after the point.
    pub micro: bool,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// Unknown fields stay.
    pub preserve_unknown: bool,
    /// The object is a whole Kubernetes object.
    pub embedded: bool,
    /// The words that it may be, as clients are told; empty if that is open.
    pub choices: Vec<Value>,
    /// What clients are told of each of them; tables do not repeat it.
    pub choices_about: String,
    /// `format` of the schema.
    pub format: String,
    /// Description, as `explain` and tables show it.
    pub description: String,
}

impl Node {
    /// The node itself, or the built-in type that it names.
    pub fn resolve(&self) -> &Node {
        match &self.reference {
            Some(name) => builtin::types().get(name).map_or(self, AsRef::as_ref),
            None => self,
        }
    }

    /// The node of a field of an object or value of a map.
    pub fn child(&self, name: &str) -> Option<&Node> {
        let node = self.resolve();
        node.fields.get(name).or(node.additional.as_deref())
    }

    /// The node at a path of field names.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.child(name))
    }

    /// Whether objects here have named fields, all known.
    pub fn is_struct(&self) -> bool {
        self.type_ == Type::Object && !self.fields.is_empty()
    }

    /// Whether a value is an amount such as `500m`.
    pub fn is_quantity(&self) -> bool {
        self.reference.as_ref().is_some_and(|name| name.ends_with(".resource.Quantity"))
    }

    /// How appliers share the list here.
    pub fn list_type(&self) -> &ListType {
        &self.list
    }

    /// Whether appliers share the object here as a whole.
    pub fn is_atomic(&self) -> bool {
        self.atomic || (!self.granular && self.resolve().atomic)
    }
}
