//! The pods of this node: allocation on disk, programs on their veths, entries in the map.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use portolan_ebpf::EndpointVal;

use crate::cni::client::Allocated;
use crate::datapath::Datapath;
use crate::node::endpoint::{Attachment, Device, Endpoint, Store};
use crate::node::ipam::Ipam;
use crate::sys::netlink::Netlink;

/// Pods and their addresses.
pub(super) struct Endpoints {
    store: Store,
    ipam: Ipam,
    all: BTreeMap<Attachment, Endpoint>,
    mtu: u32,
}

impl Endpoints {
    /// Reads what a former agent left.
    pub(super) fn open(dir: &Path, cidr: Ipv4Net, mtu: u32) -> Result<Self> {
        let store = Store::open(dir)?;
        let mut ipam = Ipam::new(cidr);
        let mut all = BTreeMap::new();
        for endpoint in store.load()? {
            if !ipam.reserve(endpoint.address, &endpoint.attachment) {
                tracing::warn!(address = %endpoint.address, pod = endpoint.pod, "address is outside of {cidr} or taken");
            }
            all.insert(endpoint.attachment.clone(), endpoint);
        }
        Ok(Self { store, ipam, all, mtu })
    }

    /// Puts the datapath of all pods back, and drops those whose device is gone (the plugin removed it while no agent
    /// ran). Pods without a device are in the middle of an ADD that will be tried again.
    pub(super) fn restore(&mut self, datapath: &mut Datapath) -> Result<()> {
        let links = Netlink::open()?.links().context("listing links")?;
        let gone: Vec<Attachment> = self
            .all
            .values()
            .filter(|endpoint| {
                let device = endpoint.attachment.device();
                !links.iter().any(|link| link.name == device)
            })
            .map(|endpoint| endpoint.attachment.clone())
            .collect();
        for attachment in gone {
            tracing::info!(container = attachment.container_id, "its device is gone; releasing its address");
            self.release(datapath, &attachment)?;
        }
        let keep: Vec<Ipv4Addr> = self.all.values().map(|endpoint| endpoint.address).collect();
        datapath.retain_endpoints(&keep)?;
        for endpoint in self.all.values() {
            if let Some(device) = &endpoint.device {
                connect(datapath, endpoint, device)?;
            }
        }
        Ok(())
    }

    /// An address for a pod; the same again for the same attachment.
    pub(super) fn allocate(&mut self, attachment: Attachment, namespace: String, pod: String) -> Result<Allocated> {
        let address = self.ipam.allocate(&attachment)?;
        let device = self.all.get(&attachment).and_then(|known| known.device.clone());
        let endpoint = Endpoint { attachment: attachment.clone(), namespace, pod, address, device };
        self.store.save(&endpoint)?;
        self.all.insert(attachment, endpoint);
        Ok(Allocated { address, mtu: self.mtu })
    }

    /// The pod's veth is there: attach to it.
    pub(super) fn attach(&mut self, datapath: &mut Datapath, attachment: &Attachment, device: Device) -> Result<()> {
        let Some(endpoint) = self.all.get_mut(attachment) else {
            bail!("container {} has no address; ADD it first", attachment.container_id);
        };
        endpoint.device = Some(device.clone());
        self.store.save(endpoint)?;
        connect(datapath, endpoint, &device)
    }

    /// The pod is gone; one that is not known is no error.
    pub(super) fn release(&mut self, datapath: &mut Datapath, attachment: &Attachment) -> Result<()> {
        datapath.detach_endpoint(&attachment.device())?;
        if let Some(endpoint) = self.all.get(attachment) {
            datapath.delete_endpoint(endpoint.address)?;
        }
        self.store.remove(attachment)?;
        self.all.remove(attachment);
        self.ipam.release(attachment);
        Ok(())
    }

    /// Removes the veth of every pod that is not among the valid ones and gives its address back.
    pub(super) fn retain(&mut self, datapath: &mut Datapath, valid: &[Attachment]) -> Result<()> {
        let gone: Vec<Attachment> = self.all.keys().filter(|held| !valid.contains(held)).cloned().collect();
        for attachment in gone {
            let device = attachment.device();
            tracing::info!(container = attachment.container_id, device, "not valid any more; removing it");
            Netlink::open()?.delete_link(&device).with_context(|| format!("removing {device}"))?;
            self.release(datapath, &attachment)?;
        }
        Ok(())
    }

    /// Addresses in use, addresses there are, and their network.
    pub(super) fn usage(&self) -> (usize, u32, Ipv4Net) {
        (self.ipam.used(), self.ipam.capacity(), self.ipam.cidr())
    }

    /// Names of the pods' devices.
    pub(super) fn devices(&self) -> Vec<String> {
        self.all.values().filter(|endpoint| endpoint.device.is_some()).map(|e| e.attachment.device()).collect()
    }
}

fn connect(datapath: &mut Datapath, endpoint: &Endpoint, device: &Device) -> Result<()> {
    let name = endpoint.attachment.device();
    let of_pod = || format!("connecting pod {}/{}", endpoint.namespace, endpoint.pod);
    datapath.attach_endpoint(&name).with_context(of_pod)?;
    let value = EndpointVal { ifindex: device.ifindex, pod_mac: device.pod_mac, host_mac: device.host_mac };
    datapath.put_endpoint(endpoint.address, value).with_context(of_pod)
}
