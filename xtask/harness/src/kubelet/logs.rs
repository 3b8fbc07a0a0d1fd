//! Logs of containers: written in the format of the CRI, rotated by size, and read as the API server asks for them.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::extract::{Path as Segments, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::server::{find, query};
use super::{Kubelet, container_pid};

/// Size at which a log is rotated, and how many files of one container run there are with the one that is written.
const SIZE_MAX: u64 = 10 << 20;
const FILES_MAX: usize = 5;
/// Longest text of one entry; longer lines become several, as container runtimes do it.
const ENTRY_MAX: usize = 16 * 1024;
/// How often a followed log is looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// The log of one run of a container.
pub(super) struct Log {
    path: PathBuf,
    file: std::fs::File,
    size: u64,
    limit: u64,
}

impl Log {
    /// Opens or begins a log.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, limit: SIZE_MAX })
    }

    fn write(&mut self, entry: &[u8]) -> Result<()> {
        self.file.write_all(entry).with_context(|| format!("writing {}", self.path.display()))?;
        self.size += entry.len() as u64;
        if self.size >= self.limit {
            self.rotate()?;
        }
        Ok(())
    }

    /// `N.log.3` to `N.log.4`, …, `N.log` to `N.log.1`; the oldest goes.
    fn rotate(&mut self) -> Result<()> {
        for at in (1..FILES_MAX - 1).rev() {
            let from = old(&self.path, at);
            if from.exists() {
                std::fs::rename(&from, old(&self.path, at + 1)).context("rotating a log")?;
            }
        }
        std::fs::rename(&self.path, old(&self.path, 1)).context("rotating a log")?;
        let (path, limit) = (std::mem::take(&mut self.path), self.limit);
        *self = Self::open(path)?;
        self.limit = limit;
        Ok(())
    }
}

/// The file that was rotated away `at` times.
fn old(path: &Path, at: usize) -> PathBuf {
    path.with_extension(format!("log.{at}"))
}

/// Copies a stream into the log until it ends.
pub(super) async fn copy(stream: &'static str, from: impl AsyncRead + Unpin, to: Arc<Mutex<Log>>) {
    let mut lines = BufReader::with_capacity(ENTRY_MAX, from);
    let mut line = Vec::new();
    loop {
        let (taken, whole) = match lines.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => {
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let room = ENTRY_MAX - line.len();
                let length = end.unwrap_or(buffer.len()).min(room);
                line.extend_from_slice(&buffer[..length]);
                let whole = end == Some(length);
                (length + usize::from(whole), whole)
            }
        };
        lines.consume(taken);
        if (whole || line.len() == ENTRY_MAX) && append(stream, whole, &mut line, &to).is_err() {
            return;
        }
    }
    if !line.is_empty() {
        // The stream has ended, and there is nobody left who could be told.
        let _ = append(stream, true, &mut line, &to);
    }
}

/// Writes one entry and empties `line`.
fn append(stream: &str, whole: bool, line: &mut Vec<u8>, to: &Mutex<Log>) -> Result<()> {
    let mark = if whole { 'F' } else { 'P' };
    let mut entry = format!("{:.9} {stream} {mark} ", Timestamp::now()).into_bytes();
    entry.append(line);
    entry.push(b'\n');
    let written = to.lock().unwrap_or_else(PoisonError::into_inner).write(&entry);
    written.inspect_err(|error| eprintln!("a container's log: {error:#}"))
}

/// The last of what a container run has written, at most `max` bytes.
pub(super) fn last_words(path: &Path, max: usize) -> String {
    let text: String = entries(path).iter().map(|entry| plain(entry, false)).collect();
    let mut from = text.len().saturating_sub(max);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

/// What of a log is asked for.
#[derive(Debug, Default)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

impl Options {
    /// # Errors
    /// With the option that cannot be read.
    fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let wrong = || format!("{key}={value}");
            match key.as_str() {
                "follow" => options.follow = value == "true",
                "previous" => options.previous = value == "true",
                "timestamps" => options.timestamps = value == "true",
                "tailLines" => options.tail = Some(value.parse().with_context(wrong)?),
                "limitBytes" => options.limit = Some(value.parse().with_context(wrong)?),
                "sinceTime" => options.since = Some(value.parse().with_context(wrong)?),
                "sinceSeconds" => {
                    let seconds = SignedDuration::from_secs(value.parse().with_context(wrong)?);
                    options.since = Some(now.checked_sub(seconds).with_context(wrong)?);
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// The entries that are asked for, of those there are.
    fn choose<'a>(&self, entries: &'a [String]) -> impl Iterator<Item = &'a String> {
        // A tail counts lines, and a line ends with a whole entry.
        let mut first = entries.len();
        let mut lines = 0;
        while first > 0 {
            let ends_line = mark(&entries[first - 1]) != "P";
            if ends_line && self.tail == Some(lines) {
                break;
            }
            lines += usize::from(ends_line);
            first -= 1;
        }
        let since = self.since;
        entries[first..].iter().filter(move |entry| {
            since.is_none_or(|since| stamp(entry).parse::<Timestamp>().is_ok_and(|at| at >= since))
        })
    }

    /// Cuts `text` to what may still be sent; `true` if nothing may follow.
    fn cut(&mut self, text: &mut Vec<u8>) -> bool {
        let Some(left) = &mut self.limit else { return false };
        text.truncate(*left);
        *left -= text.len();
        *left == 0
    }
}

/// `GET /containerLogs/NAMESPACE/POD/CONTAINER`.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Segments((namespace, pod, container)): Segments<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let bad = |message: String| (StatusCode::BAD_REQUEST, message).into_response();
    let mut options = match Options::parse(&query(raw), Timestamp::now()) {
        Ok(options) => options,
        Err(error) => return bad(format!("{error:#}")),
    };
    let dir = id.log_dir(&container);
    let runs = runs(&dir);
    let newest = if options.previous { runs.iter().rev().nth(1) } else { runs.last() };
    let Some(number) = newest else {
        let which = if options.previous { "previous terminated " } else { "" };
        return bad(format!("{which}container {container:?} in pod {pod:?} not found: it has written no log"));
    };
    let path = dir.join(format!("{number}.log"));
    // Opened before the rest is read: a file that is rotated away in between is then left out there.
    let mut tail = match Tail::open(&path) {
        Ok(tail) => tail,
        Err(error) => return bad(format!("{error:#}")),
    };
    let mut all = rotated(&path, tail.number());
    all.extend(tail.fresh());
    let mut first: Vec<u8> =
        options.choose(&all).flat_map(|entry| plain(entry, options.timestamps).into_bytes()).collect();
    if options.cut(&mut first) || !options.follow || options.previous {
        return first.into_response();
    }
    let start = (Some(first), tail, options);
    let stream = futures::stream::unfold(start, move |(pending, mut tail, mut options)| {
        let (id, container) = (id.clone(), container.clone());
        async move {
            if let Some(text) = pending {
                return Some((Ok::<_, std::io::Error>(text), (None, tail, options)));
            }
            if options.limit == Some(0) {
                return None;
            }
            loop {
                // Asked first: what it wrote before it ended is read after that.
                let runs = container_pid(&id, &container).is_ok();
                let fresh = tail.fresh();
                if !fresh.is_empty() {
                    let mut text =
                        fresh.iter().flat_map(|entry| plain(entry, options.timestamps).into_bytes()).collect();
                    options.cut(&mut text);
                    return Some((Ok(text), (None, tail, options)));
                }
                if !runs {
                    return None;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    });
    axum::body::Body::from_stream(stream).into_response()
}

/// Numbers of the runs of a container that have a log.
fn runs(dir: &Path) -> Vec<u32> {
    let names =
        std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut runs: Vec<u32> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    runs.sort_unstable();
    runs
}

/// A log that grows and is rotated while it is read.
struct Tail {
    path: PathBuf,
    file: std::fs::File,
    rest: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, rest: Vec::new() })
    }

    /// Whole entries since the last call.
    fn fresh(&mut self) -> Vec<String> {
        // A file that has been rotated away gets no more entries: it is read to its end before the next one.
        let next = self.rotated();
        let mut entries = self.read();
        if let Some(file) = next {
            self.file = file;
            entries.extend(self.read());
        }
        entries
    }

    /// Number of the file that is read.
    fn number(&self) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().ok().map(|data| data.ino())
    }

    fn rotated(&self) -> Option<std::fs::File> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::open(&self.path).ok()?;
        let (now, mine) = (file.metadata().ok()?, self.file.metadata().ok()?);
        (now.ino() != mine.ino()).then_some(file)
    }

    fn read(&mut self) -> Vec<String> {
        if let Err(error) = self.file.read_to_end(&mut self.rest) {
            eprintln!("reading {}: {error}", self.path.display());
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text: Vec<u8> = self.rest.drain(..whole).collect();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

/// Entries of a run in the files that were rotated away.
fn rotated(path: &Path, except: Option<u64>) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let number = |file: &PathBuf| std::fs::metadata(file).ok().map(|data| data.ino());
    let files = (1..FILES_MAX).rev().map(|at| old(path, at));
    files.filter(|file| except.is_none() || number(file) != except).flat_map(|file| lines(&file)).collect()
}

/// All entries of a run that there still are.
fn entries(path: &Path) -> Vec<String> {
    let mut all = rotated(path, None);
    all.extend(lines(path));
    all
}

fn lines(path: &Path) -> Vec<String> {
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut text));
        if let Err(error) = read {
            eprintln!("reading {}: {error}", path.display());
        }
    }
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

fn stamp(entry: &str) -> &str {
    entry.split(' ').next().unwrap_or_default()
}

fn mark(entry: &str) -> &str {
    entry.split(' ').nth(2).unwrap_or_default()
}

/// The text of an entry, with its time stamp if it is asked for, and the end of the line if the line ends with it.
fn plain(entry: &str, stamps: bool) -> String {
    let text = entry.splitn(4, ' ').nth(3).unwrap_or_default();
    let end = if mark(entry) == "P" { "" } else { "\n" };
    if stamps { format!("{} {text}{end}", stamp(entry)) } else { format!("{text}{end}") }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
