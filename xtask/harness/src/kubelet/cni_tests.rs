//! Tests of [`super`], with a plugin that is a shell script.
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Notes its calls in `calls`; fails DEL as long as `down` is there.
const PLUGIN: &str = r#"#!/bin/sh
conf=$(cat)
dir=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID $conf" >> "$dir/calls"
if [ "$CNI_COMMAND" = DEL ] && [ -e "$dir/down" ]; then
    echo '{"code": 11, "msg": "try again later", "details": "the agent is down"}'
    exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then
    if [ -e "$dir/down" ]; then echo '{"code": 11, "msg": "try again later"}'; exit 1; fi
    echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.7/32"}]}'
fi
"#;

fn place(name: &str) -> (PathBuf, Cni, PodId) {
    let dir = std::env::temp_dir().join(format!("cni-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let cni = Cni { bin: dir.join("bin"), conf: dir.join("conf"), records: dir.join("records") };
    for path in [&cni.bin, &cni.conf] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(cni.bin.join("fake"), PLUGIN).unwrap();
    std::fs::set_permissions(cni.bin.join("fake"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let conf = r#"{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "fake"}]}"#;
    std::fs::write(cni.conf.join("10-net.conflist"), conf).unwrap();
    let id = PodId { namespace: "default".into(), name: "p".into(), uid: "u-1".into() };
    (dir, cni, id)
}

fn calls(dir: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("bin/calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn del_is_repeated_until_the_plugin_says_yes_and_needs_no_configuration() {
    let (dir, cni, id) = place("del");
    assert_eq!(cni.add(&id).await.unwrap(), Ipv4Addr::new(10, 244, 1, 7));
    std::fs::remove_dir_all(&cni.conf).unwrap();
    std::fs::write(dir.join("bin/down"), "").unwrap();
    let error = format!("{:#}", cni.del(&id).await.unwrap_err());
    assert!(error.contains("try again later"), "{error}");
    assert!(cni.record(&id).exists(), "a failed DEL must not lose what the next one needs");
    std::fs::remove_file(dir.join("bin/down")).unwrap();
    cni.del(&id).await.unwrap();
    let seen = calls(&dir);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[2].starts_with("DEL u-1"), "{seen:?}");
    assert!(seen[2].contains("10.244.1.7"), "DEL gets ADD's result: {seen:?}");
    cni.del(&id).await.unwrap();
    assert_eq!(calls(&dir).len(), 3, "what has been deleted is not deleted again");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_failed_add_is_deleted_and_one_never_tried_is_not() {
    let (dir, cni, id) = place("add");
    cni.del(&id).await.unwrap();
    assert!(calls(&dir).is_empty());
    std::fs::write(dir.join("bin/down"), "").unwrap();
    cni.add(&id).await.unwrap_err();
    std::fs::remove_file(dir.join("bin/down")).unwrap();
    cni.del(&id).await.unwrap();
    assert_eq!(calls(&dir).len(), 2);
    std::fs::remove_dir_all(dir).unwrap();
}
