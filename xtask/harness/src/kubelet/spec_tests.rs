//! Tests of [`super`].
use super::*;

#[test]
fn references_expand_as_kubernetes_does_it() {
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    for (text, expected) in [("$(A)b", "1b"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("$A $", "$A $"), ("$(A", "$(A")] {
        assert_eq!(expand(text, &env), expected, "{text}");
    }
}

#[test]
fn a_containers_command_replaces_the_entrypoint_and_args_follow() {
    let image = Image { names: vec![], entrypoint: vec!["/a".into()], env: BTreeMap::new(), rootfs: "".into() };
    let container = Container { args: Some(vec!["x".into()]), ..Container::default() };
    assert_eq!(argv(&container, &image, &BTreeMap::new()), ["/a", "x"]);
    let container = Container { command: Some(vec!["/b".into()]), ..container };
    assert_eq!(argv(&container, &image, &BTreeMap::new()), ["/b", "x"]);
}
