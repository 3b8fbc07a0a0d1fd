//! Tests of [`super`]: what the cache knows when a write is answered.
use super::*;
use crate::Options;
use crate::controllers::kind::CONFIG_MAPS;

#[tokio::test]
async fn what_goes_with_its_last_finalizer_is_known_to_be_gone() {
    let cache = Arc::new(Cache::default());
    cache.hold(&CONFIG_MAPS);
    let server = ApiServer::start(Options::default()).unwrap();
    let client = Client::new(server, Arc::clone(&cache), "test", User::new("admin", &["system:masters"]));
    let map = json!({"metadata": {"name": "m", "namespace": "default", "finalizers": ["ex.io/stay"]}});
    let made = client.create(&CONFIG_MAPS, &map).await.unwrap();
    client.delete(&CONFIG_MAPS, &made, &DeleteOptions::default()).await.unwrap();
    let ending = cache.get(&CONFIG_MAPS, "default", "m").unwrap();
    assert!(is_terminating(&ending));
    let free = json!({"metadata": {"finalizers": null}});
    client.patch(&CONFIG_MAPS, &ending, "", PatchType::Merge, &free).await.unwrap();
    assert_eq!(cache.get(&CONFIG_MAPS, "default", "m"), None, "no watch has told it yet");
}
