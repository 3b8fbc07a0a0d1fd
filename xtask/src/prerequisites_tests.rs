//! Tests of [`super`].
use super::*;

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn effective_uid_is_the_second_number() {
    assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
    assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
    assert_eq!(effective_uid("Name:\tx\n"), None);
}

#[test]
fn no_control_plane_is_needed_unless_one_is_named() {
    assert_eq!(missing_control_plane(&strings(&["--keep"])), Vec::<String>::new());
    assert_eq!(missing_control_plane(&strings(&["--control-plane=/nonexistent"])).len(), 1);
}

#[test]
fn absent_programs_are_named_with_their_directory() {
    let lines = missing_control_plane(&strings(&["--control-plane", "/nonexistent"]));
    assert_eq!(lines.len(), 1);
    for word in ["etcd", "kube-scheduler", "/nonexistent"] {
        assert!(lines[0].contains(word), "{word} is missing in {lines:?}");
    }
}

#[test]
fn options_are_read_in_both_forms_and_not_from_a_command_behind_the_dashes() {
    let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(value_of(&args("--keep --provider kind"), "--provider"), Some("kind"));
    assert_eq!(value_of(&args("--provider=auto x"), "--provider"), Some("auto"));
    assert_eq!(value_of(&args("lan -- x --provider kind"), "--provider"), None);
    assert_eq!(value_of(&args("--provider"), "--provider"), None);
}
