//! Following Services and EndpointSlices into the kernel's maps. Every event is carried out at once: there is no
//! batching window, only events that are already waiting are taken together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use portolan_core::datapath::Planner;
use portolan_core::service::{Endpoint, Port, Protocol, Service, ServiceName, Slice, service_ports};
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::AUDIT_PERIOD;
use crate::api::strings::{LABEL_HEADLESS, LABEL_SERVICE_NAME, LABEL_SERVICE_PROXY_NAME};
use crate::datapath::ServiceMaps;
use crate::k8s::backoff::WatchBackoff;
use crate::telemetry::health::Health;

/// A write to the maps that failed is tried again after this time, or with the next event.
const RETRY: Duration = Duration::from_secs(1);

/// The world as the API server tells it.
#[derive(Default)]
struct Index {
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<(String, String), Slice>,
    fresh_services: BTreeMap<ServiceName, Service>,
    fresh_slices: BTreeMap<(String, String), Slice>,
    services_synced: bool,
    slices_synced: bool,
}

#[expect(clippy::large_enum_variant, reason = "an event lives for one call; boxing would cost an allocation each")]
enum Event {
    Service(watcher::Event<ApiService>),
    Slice(watcher::Event<EndpointSlice>),
}

/// What the loop runs on.
pub struct Services<M> {
    /// The API server.
    pub client: Client,
    /// Where frontends and backends are written.
    pub maps: Arc<Mutex<M>>,
    /// Where the loop says how it goes.
    pub health: Health,
    /// Whether Services are carried at all; otherwise nothing is written.
    pub enabled: bool,
}

/// Follows until a watch ends for good. `synced` is told when the maps are true for the first time.
///
/// # Errors
/// If a watch ends for good, or the maps cannot be read.
pub async fn run<M: ServiceMaps>(this: Services<M>, synced: oneshot::Sender<()>) -> Result<()> {
    let mut synced = Some(synced);
    // kube-proxy's selection: not headless ones, not another proxy's.
    let ours = watcher::Config::default().labels(&format!("!{LABEL_HEADLESS},!{LABEL_SERVICE_PROXY_NAME}"));
    let services =
        watcher::watcher(Api::<ApiService>::all(this.client.clone()), ours.clone()).backoff(WatchBackoff::default());
    let slices =
        watcher::watcher(Api::<EndpointSlice>::all(this.client.clone()), ours).backoff(WatchBackoff::default());
    let mut events = futures::stream::select(
        services.map(|event| event.map(Event::Service)),
        slices.map(|event| event.map(Event::Slice)),
    )
    .boxed();
    let mut index = Index::default();
    let mut planner = Planner::adopt(this.maps.lock().await.tables()?);
    let mut audit = tokio::time::interval(AUDIT_PERIOD);
    let mut retry: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
            _ = audit.tick() => {
                if index.synced() {
                    this.health.note("service-audit", this.repair(&mut planner).await);
                }
            }
            event = events.next() => match event {
                None => bail!("the watches of services ended"),
                Some(Err(error)) => {
                    this.health.note::<()>("services", Err(error).context("watching services"));
                    continue;
                }
                Some(Ok(event)) => {
                    index.take(event);
                    while let Some(Some(Ok(event))) = futures::FutureExt::now_or_never(events.next()) {
                        index.take(event);
                    }
                }
            },
        }
        // Nothing is written, and above all nothing deleted, before both lists are complete.
        if !index.synced() {
            continue;
        }
        let done = this.publish(&index, &mut planner).await;
        retry = done.is_err().then(|| Instant::now() + RETRY);
        if done.is_err() {
            // What was written is not known: look.
            planner = Planner::adopt(this.maps.lock().await.tables()?);
        }
        if this.health.note("services", done).is_some()
            && let Some(synced) = synced.take()
        {
            // The receiver is gone only if the agent is ending.
            let _ = synced.send(());
        }
    }
}

impl<M: ServiceMaps> Services<M> {
    async fn publish(&self, index: &Index, planner: &mut Planner) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let desired = service_ports(&index.services, index.slices.values());
        let ops = planner.plan(&desired);
        if ops.is_empty() {
            return Ok(());
        }
        tracing::debug!(ops = ops.len(), "writing services");
        self.maps.lock().await.apply(&ops)
    }

    /// Compares the kernel with what was written; a difference is somebody else's doing.
    async fn repair(&self, planner: &mut Planner) -> Result<()> {
        let mut maps = self.maps.lock().await;
        let repaired = maps.repair_others()?;
        if !repaired.is_empty() {
            tracing::warn!(maps = ?repaired, "maps were changed by somebody else; wrote them again");
        }
        let kernel = maps.tables()?;
        if kernel != *planner.tables() {
            tracing::warn!("the service maps were changed by somebody else; writing them again");
            *planner = Planner::adopt(kernel);
        }
        Ok(())
    }
}

impl Index {
    fn synced(&self) -> bool {
        self.services_synced && self.slices_synced
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Service(event) => match event {
                watcher::Event::Init => self.fresh_services.clear(),
                watcher::Event::InitApply(service) => self.fresh_services.extend(reduce_service(&service)),
                watcher::Event::InitDone => {
                    self.services = std::mem::take(&mut self.fresh_services);
                    self.services_synced = true;
                }
                watcher::Event::Apply(service) => {
                    self.services.remove(&service_name(&service));
                    self.services.extend(reduce_service(&service));
                }
                watcher::Event::Delete(service) => {
                    self.services.remove(&service_name(&service));
                }
            },
            Event::Slice(event) => match event {
                watcher::Event::Init => self.fresh_slices.clear(),
                watcher::Event::InitApply(slice) => self.fresh_slices.extend(reduce_slice(&slice)),
                watcher::Event::InitDone => {
                    self.slices = std::mem::take(&mut self.fresh_slices);
                    self.slices_synced = true;
                }
                watcher::Event::Apply(slice) => {
                    self.slices.remove(&slice_name(&slice));
                    self.slices.extend(reduce_slice(&slice));
                }
                watcher::Event::Delete(slice) => {
                    self.slices.remove(&slice_name(&slice));
                }
            },
        }
    }
}

fn service_name(service: &ApiService) -> ServiceName {
    ServiceName { namespace: service.namespace().unwrap_or_default(), name: service.name_any() }
}

fn slice_name(slice: &EndpointSlice) -> (String, String) {
    (slice.namespace().unwrap_or_default(), slice.name_any())
}

/// The Service as `core` wants it; `None` if it has no frontends (headless, ExternalName).
fn reduce_service(service: &ApiService) -> Option<(ServiceName, Service)> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") || spec.cluster_ip.as_deref() == Some("None") {
        return None;
    }
    let parse = |list: &Option<Vec<String>>| -> Vec<std::net::IpAddr> {
        list.iter().flatten().filter_map(|address| address.parse().ok()).collect()
    };
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ingress_ips = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect();
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::from_api(port.protocol.as_deref().unwrap_or("TCP"))?,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        })
    });
    let reduced = Service {
        cluster_ips: parse(&spec.cluster_ips),
        external_ips: parse(&spec.external_ips),
        // An address stays in the status of a Service that is no LoadBalancer any more until its controller removes it.
        ingress_ips: if spec.type_.as_deref() == Some("LoadBalancer") { ingress_ips } else { Vec::new() },
        ports: ports.collect(),
    };
    Some((service_name(service), reduced))
}

fn reduce_slice(slice: &EndpointSlice) -> Option<((String, String), Slice)> {
    let service = slice.labels().get(LABEL_SERVICE_NAME)?;
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        let protocol = Protocol::from_api(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some((port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port?).ok()?))
    });
    let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        Some(Endpoint {
            address: endpoint.addresses.first()?.parse().ok()?,
            ready,
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        })
    });
    let name = ServiceName { namespace: slice.namespace().unwrap_or_default(), name: service.clone() };
    Some((slice_name(slice), Slice { service: name, ports: ports.collect(), endpoints: endpoints.collect() }))
}
