//! Tests of [`super`].
use super::*;

const VECTORS: &str = include_str!("protobuf_vectors.jsonl");

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn references() -> impl Iterator<Item = &'static str> {
    table().messages.values().flat_map(|message| message.values()).filter_map(|field| match field.type_ {
        Type::Message(name) => Some(name),
        _ => None,
    })
}

#[test]
fn every_line_of_the_table_is_understood() {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let head = line.split(' ').next().unwrap();
        let name = head.split('@').next().unwrap();
        assert_eq!(table().messages[name].len(), line.split(' ').count() - 1, "{line}");
    }
    for name in references() {
        assert!(table().messages.contains_key(name), "{name}");
    }
}

/// Go's encoder filled every field of every message once; its JSON is what must come out.
#[test]
fn all_kinds_are_read_as_go_wrote_them() {
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let bytes = STANDARD.decode(vector["protobuf"].as_str().unwrap()).unwrap();
        let (mut want, mut got) = (vector["json"].clone(), decode(&bytes).unwrap());
        without_nulls(&mut want);
        without_nulls(&mut got);
        assert_eq!(got, want, "{} {}", want["apiVersion"], want["kind"]);
    }
    assert!(VECTORS.lines().count() > 60);
}

#[test]
fn damaged_bodies_are_refused_in_words() {
    assert!(decode(b"{}").unwrap_err().contains("expected prefix"));
    let line: Value = serde_json::from_str(VECTORS.lines().next().unwrap()).unwrap();
    let bytes = STANDARD.decode(line["protobuf"].as_str().unwrap()).unwrap();
    assert_eq!(decode(&bytes[..bytes.len() - 3]).unwrap_err(), "unexpected end of the message");
    // TypeMeta of a kind that nobody knows.
    let unknown = b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Thing";
    assert!(decode(unknown).unwrap_err().contains("kind \"Thing\" of version \"v1\""));
    // A text where a map of texts belongs: metadata.labels is field 11 of field 1.
    let nested = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x04\x0a\x02\x58\x01";
    let error = decode(nested).unwrap_err();
    assert_eq!(error, "metadata.labels: a number stands where bytes belong");
}

#[test]
fn delete_options_come_with_any_version() {
    let body = b"k8s\0\x0a\x17\x0a\x06apps/v\x12\x0dDeleteOptions\x12\x02\x08\x05";
    assert_eq!(decode(body).unwrap()["gracePeriodSeconds"], 5);
}
