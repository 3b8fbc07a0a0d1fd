//! Tests of [`super`].
use super::*;

fn env(own: &[(&str, &str)]) -> Environment {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Environment {
        image: map(&[("I", "image"), ("S", "image")]),
        services: map(&[("S", "svc"), ("A", "svc")]),
        own: map(own),
    }
}

#[test]
fn references_expand_as_kubernetes_does_it() {
    let env = env(&[("A", "1")]);
    for (text, expected) in [
        ("$(A)b", "1b"),
        ("$$(A)", "$(A)"),
        ("$(NO)", "$(NO)"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$(S)", "svc"),
        ("$(I)", "$(I)"),
    ] {
        assert_eq!(expand(text, |name| env.meaning(name)), expected, "{text}");
    }
}

#[test]
fn the_pods_variables_go_before_services_and_those_before_the_image() {
    let merged = env(&[("A", "1")]).merged();
    assert_eq!((merged["A"].as_str(), merged["S"].as_str(), merged["I"].as_str()), ("1", "svc", "image"));
}

#[test]
fn a_containers_command_replaces_the_entrypoint_and_args_follow() {
    let image = Image { names: vec![], entrypoint: vec!["/a".into()], env: BTreeMap::new(), rootfs: "".into() };
    let container = Container { args: Some(vec!["x".into()]), ..Container::default() };
    assert_eq!(argv(&container, &image, &env(&[])), ["/a", "x"]);
    let container = Container { command: Some(vec!["/b".into()]), ..container };
    assert_eq!(argv(&container, &image, &env(&[])), ["/b", "x"]);
}

#[test]
fn a_sub_path_expression_needs_its_variables() {
    let env = env(&[("POD", "p")]);
    assert_eq!(sub_path(None, Some("logs/$(POD)"), &env).unwrap().unwrap(), "logs/p");
    assert!(sub_path(None, Some("logs/$(NO)"), &env).unwrap_err().to_string().contains("NO"));
    assert_eq!(sub_path(Some("a"), None, &env).unwrap().unwrap(), "a");
    assert_eq!(sub_path(Some(""), None, &env).unwrap(), None);
}
