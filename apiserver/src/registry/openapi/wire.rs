//! A document of OpenAPI v2 as the protobuf message `openapi.v2.Document`, which Go clients ask for.

use serde_json::Value;

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            // Seven bits, and one that says that more follow.
            self.0.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, content: &[u8]) {
        self.number(field << 3 | 2);
        self.number(content.len() as u64);
        self.0.extend_from_slice(content);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, values: &Value) {
        values.as_array().into_iter().flatten().for_each(|value| self.text(field, value));
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.number(field << 3);
            self.number(1);
        }
    }

    fn whole(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_u64().filter(|number| *number > 0) {
            self.number(field << 3);
            self.number(number);
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.number(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u64, content: &Message) {
        self.bytes(field, &content.0);
    }

    /// Any value, as YAML, of which JSON is a form.
    fn any(&mut self, field: u64, value: &Value) {
        let mut any = Message::default();
        any.bytes(2, format!("{value}\n").as_bytes());
        self.message(field, &any);
    }

    /// Named messages.
    fn named(&mut self, field: u64, values: &Value, write: impl Fn(&Value) -> Message) {
        for (name, value) in values.as_object().into_iter().flatten() {
            let mut named = Message::default();
            named.bytes(1, name.as_bytes());
            named.message(2, &write(value));
            self.message(field, &named);
        }
    }

    /// What begins with `x-`.
    fn extensions(&mut self, field: u64, of: &Value) {
        for (name, value) in of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            let mut named = Message::default();
            named.bytes(1, name.as_bytes());
            named.any(2, value);
            self.message(field, &named);
        }
    }
}

/// A document with these `paths` and `definitions`.
pub(super) fn document(of: &Value, version: &str) -> Vec<u8> {
    let mut info = Message::default();
    info.bytes(1, b"Kubernetes");
    info.bytes(2, version.as_bytes());
    let mut paths = Message::default();
    paths.named(2, &of["paths"], item);
    let mut definitions = Message::default();
    definitions.named(1, &of["definitions"], schema);
    let mut document = Message::default();
    document.bytes(1, b"2.0");
    document.message(2, &info);
    document.message(8, &paths);
    document.message(9, &definitions);
    document.0
}

fn schema(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(3, &of["title"]);
    out.text(4, &of["description"]);
    out.double(7, &of["maximum"]);
    out.flag(8, &of["exclusiveMaximum"]);
    out.double(9, &of["minimum"]);
    out.flag(10, &of["exclusiveMinimum"]);
    out.whole(11, &of["maxLength"]);
    out.whole(12, &of["minLength"]);
    out.text(13, &of["pattern"]);
    out.whole(14, &of["maxItems"]);
    out.whole(15, &of["minItems"]);
    out.flag(16, &of["uniqueItems"]);
    out.whole(17, &of["maxProperties"]);
    out.whole(18, &of["minProperties"]);
    out.texts(19, &of["required"]);
    of["enum"].as_array().into_iter().flatten().for_each(|value| out.any(20, value));
    let mut more = Message::default();
    match &of["additionalProperties"] {
        Value::Object(_) => more.message(1, &schema(&of["additionalProperties"])),
        value => more.flag(2, value),
    }
    if !more.0.is_empty() {
        out.message(21, &more);
    }
    if of["type"].is_string() {
        let mut kind = Message::default();
        kind.text(1, &of["type"]);
        out.message(22, &kind);
    }
    if of["items"].is_object() {
        let mut items = Message::default();
        items.message(1, &schema(&of["items"]));
        out.message(23, &items);
    }
    if of["properties"].as_object().is_some_and(|fields| !fields.is_empty()) {
        let mut properties = Message::default();
        properties.named(1, &of["properties"], schema);
        out.message(25, &properties);
    }
    out.extensions(31, of);
    out
}

/// The operations of a path.
fn item(of: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if of[method].is_object() {
            out.message(field, &operation(&of[method]));
        }
    }
    out
}

fn operation(of: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &of["tags"]);
    out.text(3, &of["description"]);
    out.text(5, &of["operationId"]);
    out.texts(6, &of["produces"]);
    out.texts(7, &of["consumes"]);
    for parameter in of["parameters"].as_array().into_iter().flatten() {
        let mut either = Message::default();
        either.message(1, &self::parameter(parameter));
        out.message(8, &either);
    }
    let mut responses = Message::default();
    for (code, response) in of["responses"].as_object().into_iter().flatten() {
        let mut value = Message::default();
        value.message(1, &self::response(response));
        let mut named = Message::default();
        named.bytes(1, code.as_bytes());
        named.message(2, &value);
        responses.message(1, &named);
    }
    out.message(9, &responses);
    out.texts(10, &of["schemes"]);
    out.extensions(13, of);
    out
}

/// A parameter in the body or in the query.
fn parameter(of: &Value) -> Message {
    let mut out = Message::default();
    let mut inner = Message::default();
    if of["in"] == "body" {
        inner.text(2, &of["name"]);
        inner.text(3, &of["in"]);
        inner.flag(4, &of["required"]);
        inner.message(5, &schema(&of["schema"]));
        out.message(1, &inner);
        return out;
    }
    inner.text(2, &of["in"]);
    inner.text(4, &of["name"]);
    inner.text(6, &of["type"]);
    let mut plain = Message::default();
    plain.message(3, &inner);
    out.message(2, &plain);
    out
}

fn response(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &of["description"]);
    if of["schema"].is_object() {
        let mut item = Message::default();
        item.message(1, &schema(&of["schema"]));
        out.message(2, &item);
    }
    out
}
