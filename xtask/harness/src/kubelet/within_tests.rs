//! Tests of [`super`].
use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// `base/root`, in which links of all kinds lead to `base/outside`.
fn place(name: &str) -> PathBuf {
    let base = std::env::temp_dir().join(format!("within-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(base.join("root/inside")).unwrap();
    fs::create_dir_all(base.join("outside")).unwrap();
    symlink(base.join("outside"), base.join("root/absolute")).unwrap();
    symlink("../outside", base.join("root/relative")).unwrap();
    symlink("inside", base.join("root/good")).unwrap();
    base
}

fn target(fd: &OwnedFd) -> PathBuf {
    fs::read_link(name(fd)).unwrap()
}

#[test]
fn links_stay_within_the_root() {
    let base = place("in");
    let root = Root::open(&base.join("root"), Links::InRoot).unwrap();
    for path in ["/relative/a/b", "relative/f"] {
        // `..` at the root is the root: the link leads to /outside of the root, which is not there.
        root.make(Path::new(path), Kind::Directory).unwrap_err();
    }
    assert_eq!(target(&root.make(Path::new("/good/x/y"), Kind::File).unwrap()), base.join("root/inside/x/y"));
    assert!(base.join("root/inside/x/y").is_file());
    fs::create_dir_all(base.join("root").join(base.strip_prefix("/").unwrap()).join("outside")).unwrap();
    let inner = root.make(Path::new("/absolute/z"), Kind::Directory).unwrap();
    assert!(target(&inner).starts_with(base.join("root")), "{:?}", target(&inner));
    assert!(is_directory(&inner).unwrap());
    assert_eq!(fs::read_dir(base.join("outside")).unwrap().count(), 0);
    fs::remove_dir_all(base).unwrap();
}

#[test]
fn beneath_refuses_links_that_lead_out() {
    let base = place("beneath");
    let root = Root::open(&base.join("root"), Links::Beneath).unwrap();
    for path in ["absolute", "relative", "absolute/x", "relative/x"] {
        let error = root.make(Path::new(path), Kind::Directory).unwrap_err().to_string();
        assert!(error.contains("leads out"), "{path}: {error}");
    }
    assert!(root.make(Path::new("a/../../outside"), Kind::Directory).is_err());
    assert_eq!(target(&root.make(Path::new("good"), Kind::Directory).unwrap()), base.join("root/inside"));
    assert_eq!(fs::read_dir(base.join("outside")).unwrap().count(), 0);
    fs::remove_dir_all(base).unwrap();
}
