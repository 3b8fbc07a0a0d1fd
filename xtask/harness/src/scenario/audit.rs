//! The API server's audit log, read as it grows.

use std::io::{BufRead, BufReader, Seek, SeekFrom};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;

/// How far the log was read, in bytes.
#[derive(Debug, Default)]
pub(super) struct Audit(u64);

impl Audit {
    /// Reads from now on; [`Audit::default`] reads from the cluster's beginning.
    ///
    /// # Errors
    /// If the log is not there.
    pub(super) fn from_now_on(cluster: &dyn Cluster) -> Result<Self> {
        let Some(path) = cluster.audit_log() else { return Ok(Self::default()) };
        let length = std::fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.len();
        Ok(Self(length))
    }

    /// Events that came since the last call; none if the provider has no log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) fn fresh(&mut self, cluster: &dyn Cluster) -> Result<Vec<Value>> {
        let Some(path) = cluster.audit_log() else { return Ok(Vec::new()) };
        let mut file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        file.seek(SeekFrom::Start(self.0))?;
        let mut found = Vec::new();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let length = reader.read_line(&mut line)?;
            // The last line may be half written.
            if length == 0 || !line.ends_with('\n') {
                return Ok(found);
            }
            self.0 += length as u64;
            found.push(serde_json::from_str(&line).with_context(|| format!("in {}: {line}", path.display()))?);
        }
    }
}
