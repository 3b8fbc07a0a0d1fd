//! Deletes what has lost its owners. (thin)

use serde_json::Value;

use super::Context;
use super::client::{Client, Refused};
use super::informer::discovered;
use super::kind::Kind;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn start(_context: &mut Context) {}

/// Every kind that is served now and can be listed, watched and deleted.
pub(super) async fn discover(client: &Client) -> Result<Vec<Kind>, Refused> {
    let mut kinds = Vec::new();
    for path in ["/api", "/apis"] {
        let document: Value = client.document(path, AGGREGATED).await?;
        kinds.extend(discovered(&document));
    }
    Ok(kinds)
}
