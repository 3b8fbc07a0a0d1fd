//! Rules in CEL (`x-kubernetes-validations`): compiled once with their definition, asked for each write.
//!
//! Limits of cost are not kept: what a rule costs is not counted.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::{Value, json};

use super::validate::correlated;
use crate::failure::FieldError;

/// The longest message that an expression may make.
const MESSAGE_MAX: usize = 5 * 1024;
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The rules of a schema, at the places where they stand.
#[derive(Debug, Default)]
pub struct Rules {
    schema: Value,
    checks: Vec<Check>,
    fields: Vec<(String, Rules)>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    all_of: Vec<Rules>,
}

#[derive(Debug)]
struct Check {
    rule: Value,
    program: Result<Program, String>,
    message: Option<Program>,
    transition: bool,
}

/// What an update found that it may pass over, because it was so before.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Broken rules.
    pub errors: Vec<FieldError>,
    /// Rules that were broken before.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Compiles all rules of a schema; nothing if it has none.
    pub fn compile(schema: &Value) -> Option<Self> {
        let rules = schema["x-kubernetes-validations"].as_array();
        let checks: Vec<Check> = rules.into_iter().flatten().map(Check::compile).collect();
        let below =
            |word: &str| schema.get(word).filter(|below| below.is_object()).and_then(Self::compile).map(Box::new);
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields: Vec<_> = properties.filter_map(|(name, own)| Some((name.clone(), Self::compile(own)?))).collect();
        let all_of = schema["allOf"].as_array().into_iter().flatten().filter_map(Self::compile).collect();
        let mut node = Self {
            checks,
            fields,
            items: below("items"),
            additional: below("additionalProperties"),
            all_of,
            schema: Value::Null,
        };
        let empty = node.checks.is_empty()
            && node.fields.is_empty()
            && node.items.is_none()
            && node.additional.is_none()
            && node.all_of.is_empty();
        if empty {
            return None;
        }
        node.schema = schema.clone();
        Some(node)
    }

    /// Asks every rule about an object, and about its change.
    pub fn verdict(&self, object: &Value, old: Option<&Value>) -> Verdict {
        let mut verdict = Verdict::default();
        self.walk(object, old, "", &mut verdict);
        verdict
    }

    fn walk(&self, value: &Value, old: Option<&Value>, path: &str, verdict: &mut Verdict) {
        if value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for check in &self.checks {
            check.ask(value, old, &self.schema, path, verdict);
        }
        for part in &self.all_of {
            part.walk(value, old, path, verdict);
        }
        match value {
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, value) in list.iter().enumerate() {
                    let before = old.and_then(|old| correlated(value, old, &self.schema));
                    items.walk(value, before, &format!("{path}[{index}]"), verdict);
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let before = old.and_then(|old| old.get(name));
                    if let Some((_, rules)) = self.fields.iter().find(|(field, _)| field == name) {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        rules.walk(value, before, &path, verdict);
                    } else if let Some(rules) = &self.additional {
                        rules.walk(value, before, &format!("{path}[{name}]"), verdict);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Check {
    fn compile(rule: &Value) -> Self {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        let program = Program::compile(text("rule")).map_err(|errors| errors.to_string());
        let message = match text("messageExpression") {
            "" => None,
            expression => Program::compile(expression).ok(),
        };
        let transition = program.as_ref().is_ok_and(|program| program.references().has_variable("oldSelf"));
        Self { rule: rule.clone(), program, message, transition }
    }

    fn text(&self, name: &str) -> &str {
        self.rule[name].as_str().unwrap_or_default().trim()
    }

    /// The rule as errors name it: by its message, or else by itself.
    fn name(&self) -> &str {
        match self.text("message") {
            "" => self.text("rule"),
            message => message,
        }
    }

    fn ask(&self, value: &Value, old: Option<&Value>, schema: &Value, path: &str, verdict: &mut Verdict) {
        let optional = self.rule["optionalOldSelf"] == true;
        if self.transition && old.is_none() && !optional {
            return;
        }
        let shown = json!(schema["type"].as_str().unwrap_or_default());
        let at = |path: &str| if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() };
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => {
                let detail = format!("rule compile error: {error}");
                verdict.errors.push(FieldError::invalid(at(path), &shown, &detail));
                return;
            }
        };
        CONTEXT.with(|base| {
            let mut context = base.new_inner_scope();
            context.add_variable_from_value("self", to_cel(value, schema));
            if self.transition {
                let old = old.map(|old| to_cel(old, schema));
                let old = match (optional, old) {
                    (true, Some(old)) => Some(Cel::Opaque(Arc::new(OptionalValue::of(old)))),
                    (true, None) => Some(Cel::Opaque(Arc::new(OptionalValue::none()))),
                    (false, old) => old,
                };
                old.into_iter().for_each(|old| context.add_variable_from_value("oldSelf", old));
            }
            match program.execute(&context) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let error = self.broken(&at(&self.place(path)), &shown, &context);
                    if !self.transition && old == Some(value) {
                        verdict.warnings.push(error.text());
                    } else {
                        verdict.errors.push(error);
                    }
                }
                Err(error) => {
                    let detail = self.failed(&error);
                    verdict.errors.push(FieldError::invalid(at(path), &shown, &detail));
                }
            }
        });
    }

    /// Where the error is shown: at the rule, or at its `fieldPath`.
    fn place(&self, path: &str) -> String {
        let below = self.text("fieldPath").replace("['", ".").replace("']", "");
        match (path, below.trim_start_matches('.')) {
            (path, "") => path.to_owned(),
            ("", below) => below.to_owned(),
            (path, below) => format!("{path}.{below}"),
        }
    }

    fn broken(&self, field: &str, shown: &Value, context: &Context<'_>) -> FieldError {
        let made = self.message.as_ref().and_then(|program| match program.execute(context) {
            Ok(Cel::String(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let made = made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_MAX);
        let detail = made.unwrap_or_else(|| match self.text("message") {
            "" => format!("failed rule: {}", self.name()),
            message => message.to_owned(),
        });
        match self.text("reason") {
            "FieldValueForbidden" => FieldError::forbidden(field, &detail),
            "FieldValueRequired" => FieldError::required(field, &detail),
            "FieldValueDuplicate" => FieldError::duplicate(field, shown),
            _ => FieldError::invalid(field, shown, &detail),
        }
    }

    fn failed(&self, error: &ExecutionError) -> String {
        let why = match error {
            ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
            ExecutionError::IndexOutOfBounds(index) => format!("index out of bounds: {}", plain(index)),
            ExecutionError::DivisionByZero(_) => "division by zero".into(),
            ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
            ExecutionError::Overflow(..) => "integer overflow".into(),
            ExecutionError::NoSuchOverload
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::ValuesNotComparable(..) => {
                let name = self.name();
                return format!(
                    "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                );
            }
            ExecutionError::FunctionError { message, .. } => message.clone(),
            other => other.to_string(),
        };
        format!("{why} evaluating rule: {}", self.name())
    }
}

fn plain(value: &Cel) -> String {
    match value {
        Cel::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

thread_local! {
    static CONTEXT: Context<'static> = context();
    static TIMES: [Option<Program>; 2] =
        ["timestamp(text)", "duration(text)"].map(|source| Program::compile(source).ok());
}

/// Functions and names that rules may use; a type is its name.
fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function("type", |value: Cel| type_name(&value).to_owned());
    for name in ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"] {
        context.add_variable_from_value(name, name.to_owned());
    }
    context
}

fn type_name(value: &Cel) -> &'static str {
    match value {
        Cel::Bool(_) => "bool",
        Cel::Bytes(_) => "bytes",
        Cel::Float(_) => "double",
        Cel::Int(_) => "int",
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Null => "null_type",
        Cel::String(_) => "string",
        Cel::UInt(_) => "uint",
        Cel::Duration(_) => "google.protobuf.Duration",
        Cel::Timestamp(_) => "google.protobuf.Timestamp",
        _ => "dyn",
    }
}

/// A name of a field as rules write it.
pub fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

fn to_cel(value: &Value, schema: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if schema["type"] != "number" => Cel::Int(whole),
            _ => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => text_to_cel(text, schema),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(|item| to_cel(item, &schema["items"])).collect())),
        Value::Object(map) => {
            let mut out: HashMap<String, Cel> = HashMap::new();
            for (name, value) in map {
                match schema["properties"].get(name) {
                    // A reserved word may stand after a dot.
                    Some(own) if RESERVED.contains(&name.as_str()) => {
                        out.insert(name.clone(), to_cel(value, own));
                        out.insert(escaped(name), to_cel(value, own))
                    }
                    Some(own) => out.insert(escaped(name), to_cel(value, own)),
                    None => out.insert(name.clone(), to_cel(value, &schema["additionalProperties"])),
                };
            }
            out.into()
        }
    }
}

fn text_to_cel(text: &str, schema: &Value) -> Cel {
    let parse = |which: usize| {
        TIMES.with(|programs| {
            CONTEXT.with(|base| {
                let mut context = base.new_inner_scope();
                context.add_variable_from_value("text", text.to_owned());
                programs[which].as_ref()?.execute(&context).ok()
            })
        })
    };
    let special = match schema["format"].as_str().unwrap_or_default() {
        "date-time" | "datetime" => parse(0),
        "duration" => parse(1),
        "byte" => {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            bytes.map(|bytes| Cel::Bytes(Arc::new(bytes)))
        }
        _ => None,
    };
    special.unwrap_or_else(|| text.to_owned().into())
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
