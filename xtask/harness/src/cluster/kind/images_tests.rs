//! Tests of [`super`].
use super::*;

#[test]
fn an_image_is_there_only_under_all_its_names_with_its_digest() {
    let listing = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                   docker.io/a/b:1 application/x sha256:aa 9 MiB linux/amd64 io.cri-containerd.image=managed\n\
                   r.example/c:2   application/x sha256:bb 9 MiB linux/amd64 -\n";
    let image = |names: &[&str], digest: &str| Archived {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        digest: digest.into(),
    };
    assert!(present(listing, &image(&["docker.io/a/b:1"], "sha256:aa")));
    assert!(!present(listing, &image(&["docker.io/a/b:1"], "sha256:bb")), "another digest");
    assert!(!present(listing, &image(&["docker.io/a/b:1", "x.example/c:2"], "sha256:aa")), "a name is missing");
}
