//! Tests of [`super`].
use super::*;

#[test]
fn version_2_is_found_beside_version_1() {
    assert_eq!(v2_path("1:cpu:/docker/a/init.scope\n0::/docker/a/init.scope\n"), Some("docker/a/init.scope"));
    assert_eq!(v2_path("0::/\n"), Some(""));
    assert_eq!(v2_path("1:cpu:/docker/a\n"), None);
}

#[test]
fn the_nodes_number_of_a_process() {
    assert_eq!(second_namespace("Name:\tx\nNSpid:\t10240\t516\t1\n"), Some(516));
    assert_eq!(second_namespace("Name:\tx\nNSpid:\t10240\n"), None);
}

#[test]
fn a_process_is_known_until_it_ends() {
    let places = Places::default();
    let mut looked = 0;
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let found = |pid, started| Ok(Found { pid, cgroup: PathBuf::new(), started });
    let started = start_time(pid).unwrap();
    for _ in 0..2 {
        places
            .remember("x".into(), || {
                looked += 1;
                found(pid, started)
            })
            .unwrap();
    }
    assert_eq!(looked, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    places
        .remember("x".into(), || {
            looked += 1;
            found(1, 0)
        })
        .unwrap();
    assert_eq!(looked, 2);
}
