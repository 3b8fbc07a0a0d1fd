//! Tests of [`super`].
use super::*;

#[test]
fn an_object_and_the_pods_of_its_template_are_labelled() {
    let set = json!({"metadata": {"name": "web"}, "spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
    let expected = json!({"metadata": {"name": "web", "labels": {"l": "true"}},
                          "spec": {"template": {"metadata": {"labels": {"app": "web", "l": "true"}}}}});
    assert_eq!(labelled(&set, "l"), expected);
    let pool = json!({"metadata": {"name": "pool"}, "spec": {"blocks": []}});
    assert_eq!(labelled(&pool, "l")["metadata"]["labels"], json!({"l": "true"}));
    assert!(labelled(&pool, "l")["spec"].get("template").is_none());
}
