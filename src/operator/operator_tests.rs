//! Tests of [`super`]: what an operator sends when its lease runs out among its writes.
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};

use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::k8s::lease::tests::Standing;

/// A server that has others' word for everything, after a second, and at whose last place for a write the lease is over.
#[derive(Clone)]
struct Slow {
    met: Arc<AtomicUsize>,
    clock: Arc<Standing>,
}

impl tower_service::Service<Request<Body>> for Slow {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _poller: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        if self.met.fetch_add(1, Ordering::Relaxed) + 1 == WRITES_MAX {
            self.clock.set(lease::DURATION.as_secs());
        }
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409});
            let answer = Response::builder().status(409).header("content-type", "application/json");
            Ok(answer.body(Full::from(status.to_string())).unwrap())
        })
    }
}

fn index(services: usize) -> Index {
    let mut index = Index::default();
    let read = |value: Value| serde_json::from_value(value).unwrap();
    let pool = json!({"metadata": {"name": "p"}, "spec": {"blocks": [{"cidr": "198.18.0.0/24"}]}});
    index.take(Event::Pool(watcher::Event::Apply(serde_json::from_value(pool).unwrap())));
    for number in 0..services {
        let service = json!({"metadata": {"name": format!("s{number}"), "namespace": "default", "resourceVersion": "1"},
            "spec": {"type": "LoadBalancer"}});
        index.take(Event::Service(watcher::Event::Apply(read(service))));
    }
    index
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_not_begun_when_the_lease_ends_is_not_sent() {
    let (clock, met) = (Arc::new(Standing::default()), Arc::new(AtomicUsize::new(0)));
    let client = Client::new(Slow { met: Arc::clone(&met), clock: Arc::clone(&clock) }, "default");
    let operator = Operator::new(client.clone(), "a".into(), clock.clone());
    operator.fence.set(Some(lease::DURATION));
    let mut index = index(WRITES_MAX + 20);
    let (writes, _) = writes::safe(&index, Timestamp::UNIX_EPOCH, false);
    assert!(writes.len() > WRITES_MAX, "{}", writes.len());
    let notes = Notes::start(client, "test", "a".into(), clock);
    let all = operator.write(&mut index, &mut Doubt::default(), &notes, writes).await.unwrap();
    assert_eq!((all, met.load(Ordering::Relaxed)), (false, WRITES_MAX));
}
