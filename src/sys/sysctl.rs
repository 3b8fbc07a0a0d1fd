//! Network sysctls of the calling thread's namespace.

use std::io;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

/// Writes `value` to `/proc/sys/net/NAME` unless it is there already, and says whether it wrote.
///
/// # Errors
/// With the path, if it cannot be read or written.
pub fn set(name: &str, value: &str) -> io::Result<bool> {
    let path = path(name);
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if std::fs::read_to_string(&path).map_err(explain)?.trim() == value {
        return Ok(false);
    }
    std::fs::write(&path, value).map_err(explain)?;
    Ok(true)
}
