//! The append-only log: one record a write, each with its length and checksums.
//!
//! A process that dies between two bytes leaves a torn last record, which is cut off when the log is opened again:
//! nobody was told that it was written. Anything else that is wrong is damage, and is refused. The length has a checksum
//! of its own: a length that was damaged would otherwise make a torn record of all that follows.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Key;

const MAGIC: &[u8; 8] = b"kapilog2";
/// Bytes before the payload: its length, the checksum of the length, its own checksum, all little-endian `u32`.
const HEADER: usize = 12;

/// When a write counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Handed to the kernel: survives `kill -9` of the process, not a power cut.
    #[default]
    Process,
    /// Synced to the disk.
    Disk,
}

/// Something cannot be written, or the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("{action} the log {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not one of ours.
    #[error("{} is not an API server log; move it away or name another data directory", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// Another process writes to it.
    #[error("the log {} is in use by another server; stop that one or name another data directory", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// An object is larger than etcd takes.
    #[error("an object of {length} bytes is too large")]
    TooLarge {
        /// Of its text.
        length: usize,
    },
    /// A record in the middle does not match its checksum.
    #[error("the log {} is damaged at byte {offset}: {what}; acknowledged writes are missing, so it is not opened", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the record begins.
        offset: usize,
        /// What is wrong.
        what: String,
    },
}

/// A write as it is replayed.
pub(super) struct Record {
    pub(super) revision: u64,
    pub(super) key: Key,
    pub(super) object: Option<Value>,
}

pub(super) struct Log {
    file: File,
    path: PathBuf,
    durability: Durability,
    /// Length up to the last whole record: a failed append is cut off again.
    length: u64,
    /// A failed append could not be cut off: what came behind it could not be read again.
    broken: bool,
}

impl Log {
    pub(super) fn open(path: &Path, durability: Durability, mut replay: impl FnMut(Record)) -> Result<Self, LogError> {
        let io = |action| move |source| LogError::Io { action, path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("locking")(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("reading"))?;
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.seek(SeekFrom::Start(0)).map_err(io("seeking in"))?;
            file.write_all(MAGIC).map_err(io("starting"))?;
            if durability == Durability::Disk {
                file.sync_all().and_then(|()| sync_directory(path)).map_err(io("syncing"))?;
            }
            bytes = MAGIC.to_vec();
        } else if !bytes.starts_with(MAGIC) {
            return Err(LogError::Foreign { path: path.to_owned() });
        }
        let whole = read_records(path, &bytes, &mut replay)?;
        file.set_len(whole as u64).map_err(io("cutting the torn end of"))?;
        file.seek(SeekFrom::Start(whole as u64)).map_err(io("seeking in"))?;
        Ok(Self { file, path: path.to_owned(), durability, length: whole as u64, broken: false })
    }

    /// Appends one write; on return it survives what the durability promises.
    pub(super) fn append(&mut self, revision: u64, key: &Key, object: Option<&str>) -> Result<(), LogError> {
        if self.broken {
            let source = io::Error::other("an earlier write failed and could not be taken back");
            return Err(LogError::Io { action: "appending to", path: self.path.clone(), source });
        }
        let payload = payload(revision, key, object);
        let length = (payload.len() as u32).to_le_bytes();
        let mut record = Vec::with_capacity(HEADER + payload.len());
        record.extend_from_slice(&length);
        record.extend_from_slice(&crc32fast::hash(&length).to_le_bytes());
        record.extend_from_slice(&crc32fast::hash(payload.as_bytes()).to_le_bytes());
        record.extend_from_slice(payload.as_bytes());
        let written = self.file.write_all(&record).and_then(|()| match self.durability {
            Durability::Process => Ok(()),
            Durability::Disk => self.file.sync_data(),
        });
        if let Err(source) = written {
            // Half a record must not stay in the middle of the log.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            self.broken = cut.is_err();
            let action = if cut.is_ok() { "appending to" } else { "appending to (and cutting back)" };
            return Err(LogError::Io { action, path: self.path.clone(), source });
        }
        self.length += record.len() as u64;
        Ok(())
    }
}

/// A new file is safe when its directory's entry is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The JSON of a record; `object` is JSON already.
fn payload(revision: u64, key: &Key, object: Option<&str>) -> String {
    let head = json!({"rv": revision, "r": &*key.resource, "ns": key.namespace, "n": key.name}).to_string();
    let open = head.strip_suffix('}').unwrap_or(&head);
    format!("{open},\"o\":{}}}", object.unwrap_or("null"))
}

/// Replays whole records and returns where the last of them ends.
fn read_records(path: &Path, bytes: &[u8], replay: &mut impl FnMut(Record)) -> Result<usize, LogError> {
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let damaged = |what: String| LogError::Damaged { path: path.to_owned(), offset: at, what };
        let Some(header) = bytes.get(at..at + HEADER) else { return Ok(at) };
        let (length, sum) = (le_u32(&header[..4]) as usize, le_u32(&header[8..]));
        if crc32fast::hash(&header[..4]) != le_u32(&header[4..8]) {
            // A file system may have written the new length of the file, but none of the record, when the power went.
            let empty = bytes[at..].iter().all(|byte| *byte == 0);
            return if empty { Ok(at) } else { Err(damaged("the checksum of a length differs".into())) };
        }
        let end = at + HEADER + length;
        let Some(payload) = bytes.get(at + HEADER..end) else { return Ok(at) };
        if crc32fast::hash(payload) != sum {
            // The last record may be torn in its middle, if the file system wrote its end first: what is missing is zeros,
            // which JSON has none of.
            let torn = end == bytes.len() && payload.contains(&0);
            return if torn { Ok(at) } else { Err(damaged("its checksum differs".into())) };
        }
        let value = serde_json::from_slice(payload).map_err(|error| damaged(error.to_string()))?;
        replay(record(value).ok_or_else(|| damaged("a record without revision or key".into()))?);
        at = end;
    }
    Ok(at)
}

fn le_u32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}

fn record(mut value: Value) -> Option<Record> {
    let revision = value.get("rv")?.as_u64()?;
    let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let key = Key { resource: Arc::from(text("r")?), namespace: text("ns")?, name: text("n")? };
    let object = value.get_mut("o").map(Value::take).filter(|object| !object.is_null());
    Some(Record { revision, key, object })
}
