//! Logs of containers, as the API server asks for them.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::server::{find, query};
use super::{Kubelet, container_pid};

/// `GET /containerLogs/NAMESPACE/POD/CONTAINER`.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let options = query(raw);
    let option = |name: &str| options.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let is = |name: &str| option(name).is_some_and(|value| value == "true");
    let mut files: Vec<u32> = std::fs::read_dir(id.log_dir(&container))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_string_lossy().parse().ok())
        .collect();
    files.sort_unstable();
    let newest = if is("previous") { files.iter().rev().nth(1) } else { files.last() };
    let Some(number) = newest else {
        let message = format!("container {container:?} in pod {pod:?} has no such log");
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let path = id.log_dir(&container).join(format!("{number}.log"));
    let stamps = is("timestamps");
    let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
    let lines: Vec<String> = text.lines().map(|line| plain(line, stamps)).collect();
    let tail = option("tailLines").and_then(|value| value.parse::<usize>().ok()).unwrap_or(lines.len());
    let mut first = lines[lines.len().saturating_sub(tail)..].join("\n");
    if !first.is_empty() {
        first.push('\n');
    }
    if !is("follow") {
        return first.into_response();
    }
    let offset = text.len();
    let stream = futures::stream::unfold((Some(first), offset), move |(pending, offset)| {
        let (path, id, container) = (path.clone(), id.clone(), container.clone());
        async move {
            if let Some(text) = pending {
                return Some((Ok::<_, std::io::Error>(text), (None, offset)));
            }
            loop {
                let text = tokio::fs::read(&path).await.unwrap_or_default();
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                if whole > offset {
                    let fresh = String::from_utf8_lossy(&text[offset..whole]);
                    let out: String = fresh.lines().map(|line| plain(line, stamps) + "\n").collect();
                    return Some((Ok(out), (None, whole)));
                }
                if container_pid(&id, &container).is_err() {
                    return None;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    axum::body::Body::from_stream(stream).into_response()
}

/// A line of the CRI format without its prefix, or with the time stamp alone.
fn plain(line: &str, stamps: bool) -> String {
    let mut fields = line.splitn(4, ' ');
    let (stamp, text) = (fields.next().unwrap_or_default(), fields.nth(2).unwrap_or_default());
    if stamps { format!("{stamp} {text}") } else { text.to_owned() }
}
