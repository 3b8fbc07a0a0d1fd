//! Tests of [`super`].
use std::io::Read;

use super::*;

/// Writes an archive with one image of one file and returns its entries by path.
fn written(text: &str) -> (Vec<Archived>, BTreeMap<String, Vec<u8>>) {
    let dir = std::env::temp_dir().join(format!("portolan-archive-{}-{}", std::process::id(), sha256(text.as_bytes())));
    std::fs::create_dir_all(&dir).unwrap();
    let program = dir.join("p");
    std::fs::write(&program, text).unwrap();
    let image = Content {
        names: vec!["a/b:1".into(), "r.example:5000/c".into()],
        entrypoint: vec!["/bin/p".into()],
        env: [("K".to_owned(), "v".to_owned())].into(),
        files: vec![("bin/p".into(), program, 0o755)],
    };
    let path = dir.join("images.tar");
    let images = write(vec![image], &path).unwrap();
    let mut entries = BTreeMap::new();
    for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        entries.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    (images, entries)
}

#[test]
fn every_blob_is_what_its_name_says_and_all_are_reached_from_the_index() {
    let (images, entries) = written("x");
    for (name, bytes) in &entries {
        if let Some(digest) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(digest, sha256(bytes), "{name}");
        }
    }
    let json = |name: &str| -> Value { serde_json::from_slice(&entries[name]).unwrap() };
    let blob =
        |value: &Value| format!("blobs/sha256/{}", value["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    let index = json("index.json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "one entry a name");
    assert_eq!(index["manifests"][1]["annotations"]["io.containerd.image.name"], "r.example:5000/c:latest");
    assert_eq!(index["manifests"][0]["digest"], json!(images[0].digest));
    let manifest = json(&blob(&index["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/p"]));
    assert_eq!(config["config"]["Env"], json!(["K=v"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let layer = &entries[&blob(&manifest["layers"][0])];
    assert_eq!(manifest["layers"][0]["size"], layer.len());
    let mut inside = BTreeMap::new();
    for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        inside.insert(entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
    }
    assert_eq!(inside.get("bin/p"), Some(&0o755));
    assert!(inside.contains_key("proc/") || inside.contains_key("proc"), "{inside:?}");
    let docker = json("manifest.json");
    assert_eq!(docker[0]["Layers"][0], json!(blob(&manifest["layers"][0])));
    assert_eq!(docker[0]["RepoTags"][0], "docker.io/a/b:1");
}

#[test]
fn the_digest_follows_the_content_and_nothing_else() {
    assert_eq!(written("same").0[0].digest, written("same").0[0].digest);
    assert_ne!(written("one").0[0].digest, written("other").0[0].digest);
}
