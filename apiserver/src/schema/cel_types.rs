//! What is wrong with a rule before it is ever asked: syntax, names that the schema does not have, operators on types
//! that they are not for. A small part of CEL's type checker; whatever it does not know it lets pass.

use std::collections::BTreeMap;

use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SelectExpr};
use kube_cel::cel::{IdedExpr, Program};
use serde_json::{Value, json};

use super::cel_tokens::Tokens;
use super::rules::escaped;

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A rule.
    Bool,
    /// A message.
    String,
}

#[derive(Clone, Debug, PartialEq)]
enum Type {
    Dyn,
    Null,
    Scalar(&'static str),
    List(Box<Type>),
    Map(Box<Type>),
    Object(Value),
    Optional(Box<Type>),
}

const BOOL: Type = Type::Scalar("bool");
const INT: Type = Type::Scalar("int");
const STRING: Type = Type::Scalar("string");

const TYPE_NAMES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
const NAMESPACES: [&str; 10] =
    ["math", "sets", "optional", "cel", "strings", "base64", "lists", "format", "jsonpatch", "google"];
const FUNCTIONS: &[&str] = &[
    "abs",
    "add",
    "all",
    "asApproximateFloat",
    "asInteger",
    "bytes",
    "ceil",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "floor",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "hasValue",
    "indexOf",
    "int",
    "ip",
    "isCIDR",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInf",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isNaN",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "jsonpatch.escapeKey",
    "last",
    "lastIndexOf",
    "lowerAscii",
    "major",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "patch",
    "prefixLength",
    "quantity",
    "range",
    "replace",
    "reverse",
    "round",
    "semver",
    "sign",
    "size",
    "slice",
    "sort",
    "sortBy",
    "split",
    "sqrt",
    "startsWith",
    "string",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "trim",
    "trunc",
    "type",
    "uint",
    "unwrap",
    "unwrapOpt",
    "upperAscii",
    "url",
    "validate",
    "value",
    "named",
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "isExact",
];

/// Checks an expression about values of `schema`; the error is in the words of the real compiler.
pub fn check(source: &str, schema: &Value, root: bool, optional_old: bool, wanted: Wanted) -> Result<(), String> {
    let program = Program::compile(source).map_err(|errors| {
        let all: Vec<String> = errors
            .errors
            .iter()
            .map(|error| {
                located(
                    source,
                    (error.pos.0 - 1).max(0) as usize,
                    (error.pos.1 - 1).max(0) as usize,
                    &syntax(&error.msg),
                )
            })
            .collect();
        failed(wanted, &all.join("\n"))
    })?;
    let own = match root {
        true => Type::Object(with_metadata(schema)),
        false => of_schema(schema),
    };
    let old = if optional_old { Type::Optional(Box::new(own.clone())) } else { own.clone() };
    let scope = BTreeMap::from([("self".to_owned(), own), ("oldSelf".to_owned(), old)]);
    let mut checker = Checker { tokens: Tokens::of(source), scope };
    let given = checker.infer(program.expression()).map_err(|(at, text)| {
        let (line, column) = position(source, at);
        failed(wanted, &located(source, line, column, &text))
    })?;
    match (wanted, given) {
        (_, Type::Dyn) | (Wanted::Bool, BOOL) | (Wanted::String, STRING) => Ok(()),
        (Wanted::Bool, _) => Err("cel expression must evaluate to a bool".into()),
        (Wanted::String, _) => Err("messageExpression must evaluate to a string".into()),
    }
}

/// Follows a path such as `.spec.a['b']` through a schema to what it names; without brackets for selectable fields.
pub fn cel_path<'a>(path: &str, schema: &'a Value, brackets: bool) -> Result<&'a Value, String> {
    let mut at = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err(if after.is_empty() {
                    "unexpected end of JSON path".into()
                } else {
                    "does not refer to a valid field".into()
                });
            }
            (after[..end].to_owned(), &after[end..])
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".into());
            }
            let quoted = after.strip_prefix('\'').and_then(|after| after.split_once("']"));
            let Some((name, after)) = quoted else {
                return Err(format!("expected single quoted string but got {}", after.trim_end_matches(']')));
            };
            (name.to_owned(), after)
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        let next = match at["properties"].as_object() {
            Some(properties) => properties.get(&name),
            None => at.get("additionalProperties").filter(|below| below.is_object()),
        };
        at = next.ok_or("does not refer to a valid field")?;
        rest = after;
    }
    Ok(at)
}

fn failed(wanted: Wanted, text: &str) -> String {
    match wanted {
        Wanted::Bool => format!("compilation failed: {text}"),
        Wanted::String => format!("messageExpression compilation failed: {text}"),
    }
}

fn syntax(text: &str) -> String {
    if text.starts_with("Syntax error") { text.to_owned() } else { format!("Syntax error: {text}") }
}

fn position(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at.min(source.len())];
    let line = before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count())
}

fn located(source: &str, line: usize, column: usize, text: &str) -> String {
    let snippet = source.split('\n').nth(line).unwrap_or_default();
    format!("ERROR: <input>:{}:{}: {text}\n | {snippet}\n | {}^", line + 1, column + 1, ".".repeat(column))
}

/// The root of an object has its kind and a little metadata, whatever the schema says.
fn with_metadata(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let text = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({"type": "object", "properties": {"name": text, "generateName": text}});
    schema["properties"]["apiVersion"] = text.clone();
    schema["properties"]["kind"] = text;
    schema
}

fn of_schema(schema: &Value) -> Type {
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::Dyn;
    }
    match schema["type"].as_str().unwrap_or_default() {
        "integer" => INT,
        "number" => Type::Scalar("double"),
        "boolean" => BOOL,
        "string" => match schema["format"].as_str().unwrap_or_default() {
            "date" | "date-time" | "datetime" | "duration" | "byte" => Type::Dyn,
            _ => STRING,
        },
        "array" => Type::List(Box::new(of_schema(&schema["items"]))),
        "object" if schema["x-kubernetes-embedded-resource"] == true => Type::Object(with_metadata(schema)),
        "object" if schema["additionalProperties"].is_object() => {
            Type::Map(Box::new(of_schema(&schema["additionalProperties"])))
        }
        // What the schema does not name is not there for rules, even if it is kept.
        "object" => Type::Object(schema.clone()),
        _ => Type::Dyn,
    }
}

fn name(kind: &Type) -> Option<String> {
    Some(match kind {
        Type::Scalar(name) => (*name).to_owned(),
        Type::List(item) => format!("list({})", name(item)?),
        Type::Map(value) => format!("map(string, {})", name(value)?),
        Type::Optional(value) => format!("optional_type({})", name(value)?),
        Type::Dyn | Type::Null | Type::Object(_) => return None,
    })
}

/// Where something is wrong, and what.
type Wrong = (usize, String);

struct Checker {
    tokens: Tokens,
    scope: BTreeMap<String, Type>,
}

impl Checker {
    fn infer(&mut self, expression: &IdedExpr) -> Result<Type, Wrong> {
        match &expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => BOOL,
                LiteralValue::Int(_) => INT,
                LiteralValue::UInt(_) => Type::Scalar("uint"),
                LiteralValue::Double(_) => Type::Scalar("double"),
                LiteralValue::String(_) => STRING,
                LiteralValue::Bytes(_) => Type::Scalar("bytes"),
                LiteralValue::Null => Type::Null,
            }),
            Expr::Ident(name) if name.starts_with('@') => Ok(Type::Dyn),
            Expr::Ident(name) => {
                let at = self.tokens.next_variable(name);
                match self.scope.get(name) {
                    Some(kind) => Ok(kind.clone()),
                    None if TYPE_NAMES.contains(&name.as_str()) => Ok(Type::Dyn),
                    None => Err((at, format!("undeclared reference to '{name}' (in container '')"))),
                }
            }
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                self.tokens.next("[");
                let mut item = None;
                for element in &list.elements {
                    let kind = self.infer(element)?;
                    item = Some(match item {
                        None => kind,
                        Some(before) if before == kind => before,
                        Some(_) => Type::Dyn,
                    });
                }
                Ok(Type::List(Box::new(item.unwrap_or(Type::Dyn))))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.infer(&entry.key)?;
                        self.infer(&entry.value)?;
                    }
                }
                Ok(Type::Map(Box::new(Type::Dyn)))
            }
            Expr::Comprehension(loop_) => {
                let range = self.infer(&loop_.iter_range)?;
                let item = match range {
                    Type::List(item) => *item,
                    Type::Map(_) => STRING,
                    _ => Type::Dyn,
                };
                let hidden = self.scope.insert(loop_.iter_var.clone(), item.clone());
                let second = loop_.iter_var2.clone();
                second.iter().for_each(|name| drop(self.scope.insert(name.clone(), Type::Dyn)));
                self.infer(&loop_.loop_step)?;
                second.iter().for_each(|name| drop(self.scope.remove(name)));
                match hidden {
                    Some(kind) => self.scope.insert(loop_.iter_var.clone(), kind),
                    None => self.scope.remove(&loop_.iter_var),
                };
                Ok(match &loop_.accu_init.expr {
                    Expr::Literal(_) => BOOL,
                    Expr::List(_) => Type::List(Box::new(Type::Dyn)),
                    _ => Type::Dyn,
                })
            }
            Expr::Struct(_) | Expr::Unspecified => Ok(Type::Dyn),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Type, Wrong> {
        let has = select.test.then(|| self.tokens.next_call("has"));
        let operand = self.infer(&select.operand)?;
        let dot = self.tokens.next_field(&select.field);
        let at = has.unwrap_or(dot);
        let kind = self.field(&operand, &select.field, at)?;
        Ok(if select.test { BOOL } else { kind })
    }

    fn field(&self, operand: &Type, field: &str, at: usize) -> Result<Type, Wrong> {
        match operand {
            Type::Object(schema) => {
                let properties = schema["properties"].as_object();
                let found = properties
                    .into_iter()
                    .flatten()
                    .find(|(name, _)| escaped(name) == *field || name.as_str() == field);
                match found {
                    Some((_, own)) => Ok(of_schema(own)),
                    None => Err((at, format!("undefined field '{field}'"))),
                }
            }
            Type::Map(value) => Ok(Type::clone(value)),
            Type::Optional(inner) => Ok(Type::Optional(Box::new(self.field(inner, field, at)?))),
            Type::Scalar(name) => Err((at, format!("type '{name}' does not support field selection"))),
            _ => Ok(Type::Dyn),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Type, Wrong> {
        if let Some(symbol) = call.func_name.strip_prefix('_').and_then(|rest| rest.strip_suffix('_'))
            && let [left, right] = &call.args[..]
            && !symbol.contains('_')
        {
            let left = self.infer(left)?;
            let at = self.tokens.next(symbol);
            let right = self.infer(right)?;
            return binary(symbol, &left, &right).ok_or_else(|| no_overload(at, &call.func_name, &[left, right]));
        }
        match (call.func_name.as_str(), &call.args[..]) {
            ("_?_:_", [condition, yes, no]) => {
                self.infer(condition)?;
                let (yes, no) = (self.infer(yes)?, self.infer(no)?);
                Ok(if yes == no { yes } else { Type::Dyn })
            }
            ("!_" | "-_", [operand]) => {
                let at = self.tokens.next(&call.func_name[..1]);
                let kind = self.infer(operand)?;
                let fits = match (&kind, call.func_name.as_str()) {
                    (Type::Scalar(name), "!_") => *name == "bool",
                    (Type::Scalar(name), _) => matches!(*name, "int" | "double"),
                    _ => true,
                };
                if fits { Ok(kind) } else { Err(no_overload(at, &call.func_name, &[kind])) }
            }
            ("_[_]", [operand, index]) => {
                let kind = self.infer(operand)?;
                let at = self.tokens.next("[");
                let place = self.infer(index)?;
                if matches!(&kind, Type::Object(schema) if schema["properties"].is_object()) {
                    return Err(no_overload(at, "_[_]", &[kind, place]));
                }
                Ok(match kind {
                    Type::List(item) => *item,
                    Type::Map(value) => *value,
                    _ => Type::Dyn,
                })
            }
            ("@in", [item, list]) => {
                self.infer(item)?;
                self.infer(list)?;
                Ok(BOOL)
            }
            (name, _) if name.starts_with(['@', '_']) => {
                for argument in &call.args {
                    self.infer(argument)?;
                }
                Ok(Type::Dyn)
            }
            _ => self.function(call),
        }
    }

    fn function(&mut self, call: &CallExpr) -> Result<Type, Wrong> {
        let namespaced = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(name)) => NAMESPACES.contains(&name.as_str()) && !self.scope.contains_key(name),
            _ => false,
        };
        let target = match &call.target {
            Some(target) if !namespaced => Some(self.infer(target)?),
            _ => None,
        };
        let at = self.tokens.next_call(&call.func_name);
        let arguments = call.args.iter().map(|argument| self.infer(argument)).collect::<Result<Vec<_>, _>>()?;
        if namespaced {
            return Ok(Type::Dyn);
        }
        if !FUNCTIONS.contains(&call.func_name.as_str()) {
            return Err((at, format!("undeclared reference to '{}' (in container '')", call.func_name)));
        }
        let scalar = |kind: &Type, names: &[&str]| match kind {
            Type::Scalar(name) => names.contains(name),
            Type::List(_) | Type::Map(_) => names.contains(&"collection"),
            _ => true,
        };
        let method = |names: &[&str], arguments: &[Type]| {
            target.as_ref().is_none_or(|target| scalar(target, names))
                && arguments.iter().all(|kind| scalar(kind, names))
        };
        let (fits, kind) = match call.func_name.as_str() {
            "size" => (method(&["string", "bytes", "collection"], &arguments), INT),
            "startsWith" | "endsWith" | "matches" => (method(&["string"], &arguments), BOOL),
            "contains" if matches!(target, Some(Type::Scalar(_))) => (method(&["string"], &arguments), BOOL),
            "lowerAscii" | "upperAscii" | "trim" | "charAt" | "join" => (true, STRING),
            "string" => (true, STRING),
            "int" | "indexOf" | "lastIndexOf" => (true, INT),
            "isURL" | "isIP" | "isCIDR" | "isQuantity" | "hasValue" | "isSorted" => (true, BOOL),
            _ => (true, Type::Dyn),
        };
        if fits {
            return Ok(kind);
        }
        let own = target.as_ref().and_then(name).map(|name| format!("{name}.")).unwrap_or_default();
        let (at, text) = no_overload(at, &call.func_name, &arguments);
        Err((at, text.replacen("'(", &format!("'{own}("), 1)))
    }
}

fn no_overload(at: usize, function: &str, arguments: &[Type]) -> Wrong {
    let names: Vec<String> = arguments.iter().map(|kind| name(kind).unwrap_or_else(|| "dyn".into())).collect();
    (at, format!("found no matching overload for '{function}' applied to '({})'", names.join(", ")))
}

/// The type of `left symbol right`; nothing if there is no such operator for these types.
fn binary(symbol: &str, left: &Type, right: &Type) -> Option<Type> {
    let number = |kind: &Type| matches!(kind, Type::Scalar("int" | "uint" | "double"));
    let known = |kind: &Type| name(kind).is_some();
    let same = !known(left) || !known(right) || left == right;
    match symbol {
        "&&" | "||" => [left, right].iter().all(|kind| !known(kind) || **kind == BOOL).then_some(BOOL),
        "==" | "!=" => same.then_some(BOOL),
        "<" | "<=" | ">" | ">=" => {
            let optional = [left, right].iter().any(|kind| matches!(kind, Type::Optional(_) | Type::List(_)));
            ((same || (number(left) && number(right))) && !optional).then_some(BOOL)
        }
        "+" | "-" | "*" | "/" | "%" => {
            let joins = |kind: &Type| matches!(kind, Type::Scalar("string" | "bytes") | Type::List(_));
            let added = symbol == "+" && (joins(left) || joins(right));
            let fits = |kind: &Type| !known(kind) || number(kind) || added;
            (same && fits(left) && fits(right)).then(|| if known(left) { left.clone() } else { right.clone() })
        }
        _ => Some(Type::Dyn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_the_real_compiler() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"},
            "l": {"type": "array", "items": {"type": "string"}}, "o": {"type": "object", "properties": {"x": {"type": "integer"}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}});
        let rule = |source: &str| check(source, &schema, false, false, Wanted::Bool).err().unwrap_or_default();
        let at = |column: usize, text: &str, source: &str| {
            format!(
                "compilation failed: ERROR: <input>:1:{column}: {text}\n | {source}\n | {}^",
                ".".repeat(column - 1)
            )
        };
        for (source, column, text) in [
            ("has(self.zz)", 4, "undefined field 'zz'"),
            ("self.o.zz == 1", 7, "undefined field 'zz'"),
            ("self.l.all(i, i.zz == 1)", 16, "type 'string' does not support field selection"),
            ("foo == 1", 1, "undeclared reference to 'foo' (in container '')"),
            ("foo(self.a)", 4, "undeclared reference to 'foo' (in container '')"),
            ("self.a == 'x'", 8, "found no matching overload for '_==_' applied to '(int, string)'"),
            ("self.a + 's' == 's'", 8, "found no matching overload for '_+_' applied to '(int, string)'"),
            ("size(self.a) > 1", 5, "found no matching overload for 'size' applied to '(int)'"),
            ("self.s.startsWith(1)", 18, "found no matching overload for 'startsWith' applied to 'string.(int)'"),
            ("oldSelf.zz == self.a", 8, "undefined field 'zz'"),
            ("self.a > 1 && self.zz > 2", 19, "undefined field 'zz'"),
            ("!self.a", 1, "found no matching overload for '!_' applied to '(int)'"),
            ("self.l[0] == 1", 11, "found no matching overload for '_==_' applied to '(string, int)'"),
            ("self.m['k'] == 1", 13, "found no matching overload for '_==_' applied to '(string, int)'"),
            ("self.l.exists(x, x == y)", 23, "undeclared reference to 'y' (in container '')"),
        ] {
            assert_eq!(rule(source), at(column, text, source));
        }
        for source in ["self.a", "1 + 1"] {
            assert_eq!(rule(source), "cel expression must evaluate to a bool");
        }
        for source in [
            "self.s.lowerAscii() == 'a'",
            "self.l.all(x, x.size() > 2) && self.o.x > 1.5",
            "self.m.all(k, self.m[k] != '')",
            "has(self.o.x) ? self.o.x > 1 : true",
            "self.l.filter(x, x != '').size() == 1",
            "self == oldSelf",
            "math.greatest(self.a, 2) == 2",
            "duration('1h') > duration('1m')",
        ] {
            assert_eq!(rule(source), "", "{source}");
        }
    }
}
