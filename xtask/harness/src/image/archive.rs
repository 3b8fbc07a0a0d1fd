//! Images as an archive that every engine reads: an OCI image layout (what containerd and `kind load` want) with the
//! `manifest.json` of `docker save` beside it (what older Dockers want). The same files give the same digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Source, normalize};

/// An image of an archive.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Archived {
    /// References that mean it, in their full form.
    pub(crate) names: Vec<String>,
    /// Digest of its manifest, `sha256:…`.
    pub(crate) digest: String,
}

/// What a layer holds and how it starts.
pub(crate) struct Content {
    names: Vec<String>,
    entrypoint: Vec<String>,
    env: BTreeMap<String, String>,
    /// Destination without a leading `/`, file, mode.
    files: Vec<(PathBuf, PathBuf, u32)>,
}

impl Content {
    /// An image of `images/NAME/image.toml`.
    ///
    /// # Errors
    /// With the key or path that cannot be understood.
    pub(super) fn of(dir: &Path, source: Source, bin_dir: &Path) -> Result<Self> {
        let files = source
            .files
            .iter()
            .map(|file| Ok((file.inside()?.to_path_buf(), file.from(dir, bin_dir), file.mode)))
            .collect::<Result<_>>()?;
        Ok(Self { names: source.names, entrypoint: source.entrypoint, env: source.env, files })
    }

    /// The last part of its first name, without the tag.
    pub(crate) fn short_name(&self) -> &str {
        let name = self.names.first().map_or("image", String::as_str);
        let last = name.rsplit('/').next().unwrap_or(name);
        last.split(':').next().unwrap_or(last)
    }

    /// An image without files, for what is mounted into it.
    pub(crate) fn empty(name: String) -> Self {
        Self { names: vec![name], entrypoint: Vec::new(), env: BTreeMap::new(), files: Vec::new() }
    }
}

/// Writes an archive with the images.
///
/// # Errors
/// With the file that cannot be read or written.
pub(crate) fn write(images: Vec<Content>, path: &Path) -> Result<Vec<Archived>> {
    // A blob's size and digest must be known before it stands in an archive, so layers are made beside it first.
    let layers = path.with_extension("layers");
    std::fs::create_dir_all(&layers).with_context(|| format!("creating {}", layers.display()))?;
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut archive = Archive { tar: tar::Builder::new(BufWriter::new(file)), index: Vec::new(), docker: Vec::new() };
    let mut all = Vec::new();
    for (number, image) in images.into_iter().enumerate() {
        let layer = layers.join(number.to_string());
        all.push(archive.image(image, &layer).with_context(|| format!("writing {}", path.display()))?);
    }
    archive.finish().with_context(|| format!("writing {}", path.display()))?;
    std::fs::remove_dir_all(&layers).with_context(|| format!("removing {}", layers.display()))?;
    Ok(all)
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// Manifests of `index.json`.
    index: Vec<Value>,
    /// Entries of `manifest.json`.
    docker: Vec<Value>,
}

impl<W: Write> Archive<W> {
    fn image(&mut self, image: Content, layer: &Path) -> Result<Archived> {
        write_layer(&image.files, layer)?;
        let (diff_id, size) = digest_of(layer)?;
        let blob = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        append(&mut self.tar, &blob(&diff_id), size, 0o644, File::open(layer)?)?;
        let env: Vec<String> = image.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": image.entrypoint, "Env": env},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = self.json_blob(&config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": size}],
        });
        let manifest = self.json_blob(&manifest)?;
        let names: Vec<String> = image.names.iter().map(|name| normalize(name)).collect();
        for name in &names {
            self.index.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
            }));
        }
        self.docker.push(json!({"Config": blob(&config.0), "RepoTags": names, "Layers": [blob(&diff_id)]}));
        Ok(Archived { names, digest: manifest.0 })
    }

    fn json_blob(&mut self, value: &Value) -> Result<(String, u64)> {
        let bytes = serde_json::to_vec(value)?;
        let digest = hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
        append(&mut self.tar, &format!("blobs/sha256/{digest}"), bytes.len() as u64, 0o644, bytes.as_slice())?;
        Ok((format!("sha256:{digest}"), bytes.len() as u64))
    }

    fn finish(mut self) -> Result<()> {
        for (name, value) in [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("index.json", json!({"schemaVersion": 2, "manifests": self.index})),
            ("manifest.json", json!(self.docker)),
        ] {
            let bytes = serde_json::to_vec(&value)?;
            append(&mut self.tar, name, bytes.len() as u64, 0o644, bytes.as_slice())?;
        }
        self.tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// A file system layer: the files, their directories, and the empty ones that every root has.
fn write_layer(files: &[(PathBuf, PathBuf, u32)], path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut dirs: std::collections::BTreeSet<PathBuf> = super::EMPTY_DIRS.iter().map(PathBuf::from).collect();
    for (inside, ..) in files {
        dirs.extend(inside.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_path_buf));
    }
    for dir in dirs {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    for (inside, from, mode) in files {
        let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
        let size = file.metadata()?.len();
        tar.append_data(&mut header(size, *mode), inside, file)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    mode: u32,
    data: impl std::io::Read,
) -> Result<()> {
    tar.append_data(&mut header(size, mode), name, data).with_context(|| format!("adding {name}"))
}

/// Without owner and time, so that the same content has the same digest.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Digest and size of a file.
fn digest_of(path: &Path) -> Result<(String, u64)> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let length = std::io::Read::read(&mut file, &mut buffer)?;
        if length == 0 {
            return Ok((format!("sha256:{}", hex(context.finish().as_ref())), size));
        }
        context.update(&buffer[..length]);
        size += length as u64;
    }
}

/// SHA-256 of some bytes in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The machine's architecture in OCI's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
