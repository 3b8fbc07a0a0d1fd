//! How a server is made.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::audit::Sink;
use crate::auth::AuthOptions;
use crate::clock::Clock;
use crate::proxy::KubeletOptions;
use crate::store::{Durability, Retention};

/// How a server is made; by default in memory alone, and the same each time:
/// `Options::default().seed(7).clock(clock)`.
#[non_exhaustive]
pub struct Options {
    /// Where the log is; in memory only without.
    pub data_log: Option<PathBuf>,
    /// When a write counts as written.
    pub durability: Durability,
    /// How much history is kept.
    pub retention: Retention,
    /// Decides uids, generated names, addresses and ports. The same for every server if nothing is said, so that a test that
    /// fails does so again; a log that is opened again makes others.
    pub seed: u64,
    /// Now; the runtime's clock from the system's time on, if nothing is said.
    pub clock: Option<Arc<dyn Clock>>,
    /// Range of cluster IPs.
    pub service_cluster_ip_range: Ipv4Net,
    /// Range of node ports.
    pub service_node_port_range: RangeInclusive<u16>,
    /// Shown to clients that ask where the server is (`HOST:PORT`).
    pub advertise_address: String,
    /// How requests are authenticated and admitted.
    pub auth: AuthOptions,
    /// Where the audit log is written; there is none without.
    pub audit_log: Option<Sink>,
    /// How kubelets are reached, for logs, exec, attach and port-forward; these are refused without.
    pub kubelets: Option<KubeletOptions>,
    /// What a 501 says after it has told what is not supported.
    pub unsupported_hint: String,
}

/// True for everybody.
const HINT: &str = "use a real kube-apiserver for it";

impl Default for Options {
    fn default() -> Self {
        Self {
            data_log: None,
            durability: Durability::default(),
            retention: Retention::default(),
            seed: 0,
            clock: None,
            service_cluster_ip_range: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16),
            service_node_port_range: 30000..=32767,
            advertise_address: "127.0.0.1:6443".into(),
            auth: AuthOptions::default(),
            audit_log: None,
            kubelets: None,
            unsupported_hint: HINT.into(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("data_log", &self.data_log)
            .field("seed", &self.seed)
            .field("advertise_address", &self.advertise_address)
            .finish_non_exhaustive()
    }
}

/// One by one, for `Options` cannot be written as a whole outside of this crate: it grows.
impl Options {
    /// Keeps everything in a log, from which a server starts again.
    #[must_use]
    pub fn data_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_log = Some(path.into());
        self
    }

    /// When a write counts as written.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How much history is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Decides uids, generated names, addresses and ports.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What the server takes for now.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Range of cluster IPs.
    #[must_use]
    pub fn service_cluster_ip_range(mut self, range: Ipv4Net) -> Self {
        self.service_cluster_ip_range = range;
        self
    }

    /// Range of node ports.
    #[must_use]
    pub fn service_node_port_range(mut self, range: RangeInclusive<u16>) -> Self {
        self.service_node_port_range = range;
        self
    }

    /// Shown to clients that ask where the server is (`HOST:PORT`).
    #[must_use]
    pub fn advertise_address(mut self, address: impl Into<String>) -> Self {
        self.advertise_address = address.into();
        self
    }

    /// How requests are authenticated and admitted.
    #[must_use]
    pub fn auth(mut self, auth: AuthOptions) -> Self {
        self.auth = auth;
        self
    }

    /// Where the audit log is written, a line for each request.
    #[must_use]
    pub fn audit_log(mut self, sink: impl std::io::Write + Send + 'static) -> Self {
        self.audit_log = Some(Box::new(sink));
        self
    }

    /// How kubelets are reached.
    #[must_use]
    pub fn kubelets(mut self, kubelets: KubeletOptions) -> Self {
        self.kubelets = Some(kubelets);
        self
    }

    /// What a 501 says after it has told what is not supported: where your users find a server that has it.
    #[must_use]
    pub fn unsupported_hint(mut self, hint: impl Into<String>) -> Self {
        self.unsupported_hint = hint.into();
        self
    }
}
