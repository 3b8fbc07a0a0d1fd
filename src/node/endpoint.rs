//! Pods of this node, on disk: written before the address is answered, read when an agent starts. The directory lies on
//! a file system that ends with the node's boot, as its pods do.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use crate::api::attachment::Attachment;

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity.
    pub attachment: Attachment,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Address.
    pub address: Ipv4Addr,
    /// What the plugin made; `None` until it has reported.
    pub device: Option<Device>,
}

/// The pod's veth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Index of the node's side.
    pub ifindex: u32,
    /// MAC address of the pod's side.
    pub pod_mac: [u8; 6],
    /// MAC address of the node's side.
    pub host_mac: [u8; 6],
}

fn file_name(attachment: &Attachment) -> String {
    format!("{}.json", attachment.device())
}

/// The directory of endpoint files.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// Reads all endpoints.
    ///
    /// # Errors
    /// With the file that is not readable: guessing could give its address to another pod.
    pub fn load(&self) -> Result<Vec<Endpoint>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir).with_context(|| format!("reading {}", self.dir.display()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            all.push(serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))?);
        }
        Ok(all)
    }

    /// Writes an endpoint so that it is there whole or not at all.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn save(&self, endpoint: &Endpoint) -> Result<()> {
        let path = self.dir.join(file_name(&endpoint.attachment));
        let temporary = path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(endpoint)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// Removes an endpoint; one that is not there is no error.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn remove(&self, attachment: &Attachment) -> Result<()> {
        let path = self.dir.join(file_name(attachment));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
