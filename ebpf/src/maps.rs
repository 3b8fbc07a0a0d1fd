//! The maps, and the per-CPU scratch space that keeps big structs off the 512-byte stack.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use portolan_ebpf::{
    AddrKey, BackendVal, DeviceVal, EVENTS_MAX, EndpointVal, Event, FlowKey, FlowVal, FragKey, FragVal, FrontendKey,
    FrontendVal, HOOKS_MAX, Hook, NodeConfig, ServiceVal, SlotKey, SockRevKey, SockRevVal, metric_index,
};

#[map(name = "frontends")]
pub static FRONTENDS: HashMap<FrontendKey, FrontendVal> = HashMap::with_max_entries(65536, 0);
#[map(name = "services")]
pub static SERVICES: HashMap<u32, ServiceVal> = HashMap::with_max_entries(65536, 0);
#[map(name = "slots")]
pub static SLOTS: HashMap<SlotKey, u32> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map(name = "backends")]
pub static BACKENDS: HashMap<u32, BackendVal> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map(name = "endpoints")]
pub static ENDPOINTS: HashMap<AddrKey, EndpointVal> = HashMap::with_max_entries(4096, 0);
#[map(name = "node_addrs")]
pub static NODE_ADDRS: HashMap<AddrKey, u32> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);
#[map(name = "devices")]
pub static DEVICES: HashMap<u32, DeviceVal> = HashMap::with_max_entries(256, 0);
#[map(name = "config")]
pub static CONFIG: Array<NodeConfig> = Array::with_max_entries(1, 0);
#[map(name = "flows")]
pub static FLOWS: LruHashMap<FlowKey, FlowVal> = LruHashMap::with_max_entries(131_072, 0);
#[map(name = "sock_rev")]
pub static SOCK_REV: LruHashMap<SockRevKey, SockRevVal> = LruHashMap::with_max_entries(65536, 0);
#[map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragKey, FragVal> = LruHashMap::with_max_entries(8192, 0);
#[map(name = "metrics")]
pub static METRICS: PerCpuArray<u64> = PerCpuArray::with_max_entries(HOOKS_MAX * EVENTS_MAX, 0);
#[map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Entries are allocated when they are written: these maps are large and mostly empty.
const BPF_F_NO_PREALLOC: u32 = 1;

/// What the engine knows of the packet at hand. tc programs run with softirqs disabled and do not nest on a CPU, so one
/// per CPU is enough; the cgroup programs, which may be preempted, do not use it.
#[repr(C)]
pub struct Scratch {
    /// The tuple as received, direction "forward".
    pub pkt: FlowKey,
    /// What the packet is rewritten to (equal to the tuple until decided).
    pub wire: FlowVal,
    /// Key under construction.
    pub key: FlowKey,
    /// Value under construction.
    pub val: FlowVal,
    /// Offset of the layer 4 header.
    pub l4: u32,
    /// TCP flags byte.
    pub tcp_flags: u32,
    /// 1 if the packet is a fragment other than the first: no layer 4 header.
    pub later_fragment: u32,
    /// Total length of the IP packet, host byte order.
    pub ip_len: u32,
    /// Space for checksums.
    pub buf: [u32; 12],
}

/// This CPU's scratch space.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: one program at a time on this CPU, see `Scratch`.
    SCRATCH.get_ptr_mut(0).map(|s| unsafe { &mut *s })
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(hook: Hook, event: Event) {
    if let Some(counter) = METRICS.get_ptr_mut(metric_index(hook, event)) {
        // SAFETY: a per-CPU value; the cgroup programs may lose a count when preempted, never more.
        unsafe { *counter += 1 };
    }
}

/// The node's configuration.
#[inline(always)]
pub fn config() -> Option<&'static NodeConfig> {
    CONFIG.get(0)
}
