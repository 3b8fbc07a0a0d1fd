//! `portolan codegen`: the manifests that follow from the types.

use std::path::Path;

use anyhow::{Context, Result};

use crate::api::manifests;

pub(super) fn run(out: &Path, check: bool) -> Result<i32> {
    let mut stale = Vec::new();
    for (name, text) in manifests::all()? {
        let path = out.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if check {
            stale.push(path);
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    for path in &stale {
        eprintln!("error: {} is not what the types say; run `cargo xtask codegen`", path.display());
    }
    Ok(i32::from(!stale.is_empty()))
}
