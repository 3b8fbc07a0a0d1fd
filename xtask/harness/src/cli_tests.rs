//! Tests of [`super`].
use super::*;

#[test]
fn compare_takes_each_provider_and_the_named_control_plane_beside_our_own() {
    let names = |providers: &[Provider], control_plane: Option<&str>| -> Vec<String> {
        compared(providers, control_plane.map(Path::new)).into_iter().map(|(name, ..)| name).collect()
    };
    assert_eq!(names(&[], None), ["netns"]);
    assert_eq!(names(&[], Some("/k8s")), ["netns", "netns with the control plane of /k8s"]);
    assert_eq!(names(&[Provider::Netns, Provider::Kind], None), ["netns", "kind"]);
    let all = compared(&[Provider::Netns, Provider::Kind], Some(Path::new("/k8s")));
    let planes: Vec<_> = all.into_iter().map(|(_, _, plane)| plane.is_some()).collect();
    assert_eq!(planes, [false, true, false], "kind brings its own");
}
