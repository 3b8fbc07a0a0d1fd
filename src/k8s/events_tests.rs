//! Tests of [`super`].
use super::*;

fn note(uid: &str, text: &str) -> Note {
    let regarding = ObjectReference { name: Some("web".into()), uid: Some(uid.into()), ..ObjectReference::default() };
    Note { regarding, type_: EventType::Normal, reason: "IPAllocated", text: text.into() }
}

#[test]
fn the_same_said_of_the_same_object_has_one_name() {
    let name = event_name(&note("1", "Assigned 198.18.0.1"));
    assert!(name.starts_with("web."), "{name}");
    assert_eq!(name, event_name(&note("1", "Assigned 198.18.0.1")));
    assert_ne!(name, event_name(&note("1", "Assigned 198.18.0.2")), "another address is news");
    assert_ne!(name, event_name(&note("2", "Assigned 198.18.0.1")), "another object is news");
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let text = "ä".repeat(TEXT_MAX);
    assert_eq!(bounded(&text).len(), TEXT_MAX);
    assert_eq!(bounded(&format!("x{text}")).len(), TEXT_MAX - 1);
}
