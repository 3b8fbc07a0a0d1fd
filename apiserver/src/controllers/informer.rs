//! Keeps one kind of the cache fresh: a list, then a watch from its revision, again from the start when told 410.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use http_body_util::BodyStream;
use serde_json::Value;
use tokio::time::sleep;

use super::cache::Cache;
use super::client::{Client, Refused};
use super::kind::Kind;
use super::object::{list, revision};

/// The wait after a refused list or watch; doubles up to the largest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(30);

/// How much of an object is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All of it.
    Whole,
    /// Only its metadata.
    Metadata,
}

impl Detail {
    pub(super) fn accept(self, watching: bool) -> &'static str {
        match (self, watching) {
            (Self::Whole, _) => "application/json",
            (Self::Metadata, false) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            (Self::Metadata, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }
}

/// Why a watch ended.
enum End {
    /// It may go on from here.
    At(u64),
    /// What came next is no longer known.
    Lost,
}

/// Lists and watches for ever.
pub(crate) async fn follow(client: Client, cache: Arc<Cache>, kind: Kind, detail: Detail) {
    let mut wait = FIRST_WAIT;
    loop {
        match relist(&client, &cache, &kind, detail).await {
            Ok(mut cursor) => {
                wait = FIRST_WAIT;
                while let Ok(End::At(reached)) = watch(&client, &cache, &kind, detail, cursor).await {
                    cursor = reached;
                }
            }
            Err(refused) => {
                tracing::debug!(kind = %kind.plural, %refused, "list refused");
                sleep(wait).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
        }
    }
}

async fn relist(client: &Client, cache: &Cache, kind: &Kind, detail: Detail) -> Result<u64, Refused> {
    let mut answer = client.document(&kind.path("", "", ""), detail.accept(false)).await?;
    let at = revision(&answer).parse().unwrap_or(0);
    let items = match answer["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let (version, name) = (kind.api_version(), kind.name.as_ref());
    let complete = |mut item: Value| {
        // A list does not repeat what its items are.
        item["apiVersion"] = version.as_str().into();
        item["kind"] = name.into();
        item
    };
    cache.replaced(kind, items.into_iter().map(complete).collect(), at);
    Ok(at)
}

async fn watch(client: &Client, cache: &Cache, kind: &Kind, detail: Detail, from: u64) -> Result<End, Refused> {
    let path = format!("{}?watch=true&allowWatchBookmarks=true&resourceVersion={from}", kind.path("", "", ""));
    let response = client.open(Method::GET, &path, None, detail.accept(true)).await;
    if !response.status().is_success() {
        let (code, reason) = (response.status().as_u16(), String::new());
        sleep(FIRST_WAIT).await;
        return Err(Refused { code, reason, message: format!("watch of {} refused", kind.plural) });
    }
    let mut frames = BodyStream::new(response.into_body());
    let mut cursor = from;
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = frames.next().await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Ok(mut event) = serde_json::from_slice::<Value>(&line) else { return Ok(End::Lost) };
            let object = event["object"].take();
            cursor = revision(&object).parse().unwrap_or(cursor);
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => cache.seen(kind, typed(object, kind)),
                Some("DELETED") => cache.seen_deleted(kind, &object),
                Some("BOOKMARK") => {}
                _ => return Ok(End::Lost),
            }
        }
    }
    Ok(End::At(cursor))
}

/// An object of which only metadata came is still of its kind.
fn typed(mut object: Value, kind: &Kind) -> Value {
    if object["kind"] == "PartialObjectMetadata" {
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.name.as_ref().into();
    }
    object
}

/// What a discovery document says is listed, watched and deleted.
pub(crate) fn discovered(document: &Value) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for group in list(document, "/items") {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        // The first version is the preferred one.
        let Some(version) = list(group, "/versions").first() else { continue };
        for resource in list(version, "/resources") {
            let can = |verb: &str| list(resource, "/verbs").iter().any(|other| other == verb);
            if can("list") && can("watch") && can("delete") {
                let owned = |value: &Value| std::borrow::Cow::Owned(value.as_str().unwrap_or_default().to_owned());
                kinds.push(Kind {
                    group: std::borrow::Cow::Owned(name.to_owned()),
                    version: owned(&version["version"]),
                    plural: owned(&resource["resource"]),
                    name: owned(&resource["responseKind"]["kind"]),
                    namespaced: resource["scope"] == "Namespaced",
                });
            }
        }
    }
    kinds
}
