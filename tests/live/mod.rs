//! What the live tests of the operator share: a real API server, the real operator, and eyes on what they do.

mod apiserver;
mod monitor;
mod operator;

pub(crate) use apiserver::ApiServer;
pub(crate) use monitor::{Monitor, Seen};
pub(crate) use operator::Operator;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The directory of etcd, kube-apiserver and kubectl; `None`, with the reason on standard error, where they are not.
pub(crate) fn assets() -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
        eprintln!("skipped: KUBEBUILDER_ASSETS does not name a directory with etcd, kube-apiserver and kubectl");
        return None;
    };
    for program in ["etcd", "kube-apiserver", "kubectl"] {
        assert!(dir.join(program).is_file(), "KUBEBUILDER_ASSETS={} has no {program}", dir.display());
    }
    Some(dir)
}

/// Asks until there is an answer, and panics with `what` and the last thing seen after `limit`.
pub(crate) async fn eventually<T, F, A>(what: &str, limit: Duration, mut ask: F) -> T
where
    F: FnMut() -> A,
    A: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        let seen = match ask().await {
            Ok(answer) => return answer,
            Err(seen) => seen,
        };
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}; last seen: {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
