//! Tests of [`super`].
use super::*;

#[test]
fn versions_are_compared_as_numbers() {
    assert_eq!(version_pair("6.18.44-generic"), Some((6, 18)));
    assert_eq!(kernel("6.6.0\n").weight, Weight::Fine);
    assert_eq!(kernel("6.1.0-9-amd64").weight, Weight::Missing);
    assert_eq!(engine_version("20.10.24 1.41 linux").weight, Weight::Fine);
    assert_eq!(engine_version("19.03.1 1.40 linux").weight, Weight::Missing);
    assert_eq!(kind_version("kind v0.33.0 go1.25 linux/amd64").weight, Weight::Fine);
    assert_eq!(kind_version("kind v0.9.0 go1.15 linux/amd64").weight, Weight::Missing);
    assert_eq!(kind_version("").weight, Weight::Warning);
}

#[test]
fn an_engine_elsewhere_or_without_root_is_refused() {
    assert_eq!(local("6.18.1", "[name=seccomp]", "6.18.1").weight, Weight::Fine);
    assert!(local("5.15.0-linuxkit", "[]", "6.18.1").text.contains("another machine"));
    assert!(local("6.18.1", "[name=rootless]", "6.18.1").text.contains("rootless"));
}

#[test]
fn old_cgroups_are_judged_by_the_version_of_kubernetes() {
    assert_eq!(kubelet_on_v1(Some("v1.34.4")).weight, Weight::Fine);
    assert!(kubelet_on_v1(Some("v1.35.0")).text.contains("failCgroupV1: false"));
    assert_eq!(kubelet_on_v1(Some("v1.35.0")).weight, Weight::Warning);
    assert_eq!(kubelet_on_v1(None).weight, Weight::Warning);
}

#[test]
fn limits_name_the_command_that_raises_them() {
    assert_eq!(inotify("max_user_instances", "8192\n", 512).weight, Weight::Fine);
    let low = inotify("max_user_instances", "128\n", 512);
    assert_eq!(low.weight, Weight::Warning);
    assert!(low.text.contains("sysctl fs.inotify.max_user_instances=512"), "{}", low.text);
    assert_eq!(inotify("max_user_watches", "", 1).weight, Weight::Warning);
}

#[test]
fn room_on_the_disk() {
    assert_eq!(disk_room("/d", 1 << 30).weight, Weight::Missing);
    assert_eq!(disk_room("/d", 3 << 30).weight, Weight::Warning);
    assert_eq!(disk_room("/d", 60 << 30).weight, Weight::Fine);
}

#[test]
fn bpffs_is_a_file_system_of_the_kernel() {
    assert_eq!(bpffs("nodev\tbpf\n\text4\n").weight, Weight::Fine);
    assert_eq!(bpffs("nodev\ttmpfs\n").weight, Weight::Missing);
}

#[test]
fn a_finding_is_one_line_with_its_weight() {
    let line = missing("engine", "gone").to_string();
    assert!(line.starts_with("MISSING") && line.contains("engine") && !line.contains('\n'), "{line}");
}
