//! The tables can be read, and say something known on every line.

use super::*;

#[test]
fn every_line_names_a_known_field_and_rule() {
    let mut types: BTreeMap<Arc<str>, Node> =
        types().iter().map(|(name, node)| (Arc::clone(name), Node::clone(node))).collect();
    for line in lines_of(FIELDS) {
        assert!(read_type(line).is_some(), "{line}");
    }
    for line in lines_of(MERGES).chain(lines_of(GO_TYPES)) {
        assert!(apply_line(&mut types, line).is_some(), "{line}");
    }
    for line in lines_of(WORDS) {
        assert!(describe(&mut types, line).is_some(), "{line}");
    }
}

#[test]
fn every_reference_is_known() {
    fn walk(node: &Node) {
        if let Some(name) = &node.reference {
            assert!(types().contains_key(name), "{name}");
        }
        node.fields.values().chain(node.items.as_deref()).chain(node.additional.as_deref()).for_each(walk);
    }
    types().values().for_each(|node| walk(node));
}

#[test]
fn keys_of_a_service_port() {
    let service = &types()["io.k8s.api.core.v1.Service"];
    let ports = service.at(&["spec", "ports"]).unwrap();
    assert_eq!(*ports.list_type(), ListType::Map(vec!["port".into(), "protocol".into()]));
    assert_eq!(ports.patch_key.as_deref(), Some("port"));
}
