//! The ABI that the kernel programs and the agent share: map names, keys, values, hooks and events.
//!
//! Every struct is `repr(C)`, without implicit padding, with its size asserted, because hash maps compare raw bytes.
//! Addresses and ports are in network byte order everywhere. The address family is part of every key; an IPv4 address
//! is stored in its IPv4-mapped form (RFC 4291 section 2.5.5.2), so that IPv6 needs no second set of maps.
#![no_std]

/// Raised with every change of a map's shape. It is part of the pin directory's name, so that an agent never takes a
/// map of another shape for its own.
pub const ABI_VERSION: u32 = 1;

/// Address family of a key or value: IPv4.
pub const FAMILY_V4: u8 = 4;
/// Address family of a key or value: IPv6.
pub const FAMILY_V6: u8 = 6;

/// IP protocol numbers (IANA) that the datapath understands.
pub mod proto {
    /// ICMP for IPv4; echo requests are tracked with their id in place of a port.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// An address, 16 bytes in network byte order; IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Addr {
    /// Four 32-bit words, each in network byte order.
    pub words: [u32; 4],
}

impl Addr {
    /// The unspecified address. As the address of a frontend it means "any of this node's own addresses" (NodePort).
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// The IPv4-mapped form of an address in network byte order.
    #[inline(always)]
    pub const fn from_v4_be(addr: u32) -> Self {
        Self { words: [0, 0, 0xffff_u32.to_be(), addr] }
    }

    /// The IPv4 address in network byte order; meaningful only where the family is [`FAMILY_V4`].
    #[inline(always)]
    pub const fn v4_be(&self) -> u32 {
        self.words[3]
    }
}

/// Map `frontends`: what a client dials.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrontendKey {
    /// The virtual address; [`Addr::UNSPECIFIED`] for a NodePort.
    pub addr: Addr,
    /// Port; 0 (with `proto` 0) is the entry that says "this address is a VIP", so that unknown ports are refused here
    /// and do not bounce between a router and the node (cilium/cilium #13329).
    pub port: u16,
    /// IP protocol, see [`proto`].
    pub proto: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
}

/// Value of map `frontends`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrontendVal {
    /// Key of map `services`; 0 for a wildcard entry.
    pub svc_id: u32,
    /// `FRONTEND_*` bits.
    pub flags: u32,
}

/// The frontend is a ClusterIP: it is not served to clients outside the cluster.
pub const FRONTEND_CLUSTER_IP: u32 = 1 << 0;
/// The frontend is a NodePort.
pub const FRONTEND_NODE_PORT: u32 = 1 << 1;
/// The frontend is a load balancer ingress address (EXTERNAL-IP).
pub const FRONTEND_LOAD_BALANCER: u32 = 1 << 2;
/// The frontend is one of `spec.externalIPs`.
pub const FRONTEND_EXTERNAL_IP: u32 = 1 << 3;
/// Port-0 entry that marks an address as a VIP.
pub const FRONTEND_WILDCARD: u32 = 1 << 4;

/// Value of map `services` (key: `u32` service id): which generation of backend slots is live. Replacing this one value
/// switches all frontends of the service port at once.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceVal {
    /// Live generation, part of [`SlotKey`].
    pub generation: u32,
    /// Number of slots in that generation; 0 means "no backend": reject.
    pub count: u32,
}

/// Map `slots`: one selectable backend of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotKey {
    /// Service id.
    pub svc_id: u32,
    /// Generation, see [`ServiceVal::generation`].
    pub generation: u32,
    /// Slot, `0..count`.
    pub slot: u32,
}

/// Map `backends` (key: `u32` backend id): where traffic goes. Value of map `slots` is the `u32` backend id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendVal {
    /// Address of the endpoint.
    pub addr: Addr,
    /// Port of the endpoint, network byte order.
    pub port: u16,
    /// IP protocol.
    pub proto: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
}

/// An address with its family, key of the maps `endpoints` and `node_addrs`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddrKey {
    /// Address.
    pub addr: Addr,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Map `endpoints`: a pod on this node, by its address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointVal {
    /// Interface index of the pod's veth on the node's side.
    pub ifindex: u32,
    /// MAC address of the pod's `eth0`.
    pub pod_mac: [u8; 6],
    /// MAC address of the node's side, which the pod uses as its gateway.
    pub host_mac: [u8; 6],
}

/// Map `node_addrs`: the address belongs to a node of the cluster. Value is a `u32` of `NODE_ADDR_*` bits.
/// The address is one of this node's own.
pub const NODE_ADDR_LOCAL: u32 = 1 << 0;
/// The address belongs to another node: traffic of pods to it is not masqueraded.
pub const NODE_ADDR_REMOTE: u32 = 1 << 1;

/// Map `devices` (key: `u32` interface index): a native device that carries traffic out of the node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceVal {
    /// Source address for masquerade and SNAT of traffic that leaves by this device.
    pub addr: Addr,
    /// MAC address of the device.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

/// Map `config`, an array of one: what the programs need to know of this node. Written before any program is attached.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// `SO_NETNS_COOKIE` of the node's network namespace: many nodes share one kernel, so "host" is never the initial one.
    pub host_netns_cookie: u64,
    /// Native-routing CIDR: traffic of pods to it keeps its source address. Network byte order.
    pub native_v4_addr: u32,
    /// Its mask, network byte order.
    pub native_v4_mask: u32,
    /// Lowest source port that SNAT draws from, host byte order. It lies above the node port range (cilium/cilium #16827).
    pub snat_port_min: u16,
    /// Highest source port that SNAT draws from, host byte order, inclusive.
    pub snat_port_max: u16,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// Lowest node port, host byte order.
    pub node_port_min: u16,
    /// Highest node port, host byte order, inclusive.
    pub node_port_max: u16,
    /// Interface index of `lo`.
    pub lo_ifindex: u32,
    /// This node's own IPv4 address towards other nodes, network byte order: the source of SNAT towards backends.
    pub node_v4: u32,
    /// Zero.
    pub pad: u32,
}

/// Socket LB is on (the cgroup programs return at once otherwise).
pub const CONFIG_SOCKET_LB: u32 = 1 << 0;
/// Masquerade traffic of pods that leaves the cluster.
pub const CONFIG_MASQUERADE: u32 = 1 << 1;

/// Map `flows`: a flow in one of its directions. The tuple of the *original* direction ([`DIR_FORWARD`]) is what the
/// client sent; of the *reply* direction ([`DIR_REPLY`]), what the answer looks like when it reaches this node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, or the id of an ICMP echo request.
    pub sport: u16,
    /// Destination port, or the id of an ICMP echo reply.
    pub dport: u16,
    /// IP protocol.
    pub proto: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
    /// [`DIR_FORWARD`] or [`DIR_REPLY`].
    pub dir: u8,
    /// Zero.
    pub pad: u8,
}

/// Direction of a [`FlowKey`]: as the client sent it.
pub const DIR_FORWARD: u8 = 0;
/// Direction of a [`FlowKey`]: as the backend answers it.
pub const DIR_REPLY: u8 = 1;

/// Value of map `flows`: what a packet with that key is rewritten to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowVal {
    /// New source address.
    pub src: Addr,
    /// New destination address.
    pub dst: Addr,
    /// New source port.
    pub sport: u16,
    /// New destination port.
    pub dport: u16,
    /// `FLOW_*` bits.
    pub flags: u32,
    /// Service id that selected the backend, 0 if the flow is not one of a Service.
    pub svc_id: u32,
    /// Backend id, 0 if the flow is not one of a Service.
    pub backend_id: u32,
    /// `bpf_ktime_get_coarse_ns` of the last packet, updated at most once a second.
    pub last_seen_ns: u64,
}

/// The originator sent FIN or RST.
pub const FLOW_FIN_FORWARD: u32 = 1 << 0;
/// The responder sent FIN or RST.
pub const FLOW_FIN_REPLY: u32 = 1 << 1;
/// The responder has answered.
pub const FLOW_SEEN_REPLY: u32 = 1 << 2;
/// RST seen from either side.
pub const FLOW_RST: u32 = 1 << 3;

impl FlowVal {
    /// Both sides have closed, or one has reset.
    #[inline(always)]
    pub const fn closed(&self) -> bool {
        const BOTH: u32 = FLOW_FIN_FORWARD | FLOW_FIN_REPLY;
        self.flags & FLOW_RST != 0 || self.flags & BOTH == BOTH
    }
}

/// How long the entry of a flow may be silent, in seconds (the field's values, cilium's `bpf-ct-timeout-*`): a TCP
/// connection that has closed.
pub const TIMEOUT_CLOSED_S: u64 = 10;
/// A TCP connection, open or closed on one side only: the other may still send for long.
pub const TIMEOUT_TCP_S: u64 = 8000;
/// Anything that has no connections.
pub const TIMEOUT_OTHER_S: u64 = 60;

/// How long an entry with this key and value may be silent, in seconds.
#[inline(always)]
pub const fn flow_timeout_s(protocol: u8, value: &FlowVal) -> u64 {
    match protocol {
        proto::TCP if value.closed() => TIMEOUT_CLOSED_S,
        proto::TCP => TIMEOUT_TCP_S,
        _ => TIMEOUT_OTHER_S,
    }
}

/// Map `sock_rev`: where a socket believes it is connected to, by where socket LB sent it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SockRevKey {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Address of the backend.
    pub addr: Addr,
    /// Port of the backend, network byte order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// Value of map `sock_rev`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SockRevVal {
    /// Address that the application dialled.
    pub addr: Addr,
    /// Port that the application dialled, network byte order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Service id.
    pub svc_id: u32,
}

/// Map `fragments`: ports (or echo id) of a fragmented datagram, learned from its first fragment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragKey {
    /// Source address as received.
    pub src: Addr,
    /// Destination address as received.
    pub dst: Addr,
    /// IP identification, network byte order.
    pub id: u16,
    /// IP protocol.
    pub proto: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
}

/// Value of map `fragments`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragVal {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// Where a program is attached; first index of map `metrics`.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// tc ingress of a pod's veth on the node's side: what the pod sends.
    FromPod = 0,
    /// tc egress of a pod's veth on the node's side: what the node itself sends to the pod.
    ToPod = 1,
    /// tc ingress of a native device: what arrives at the node.
    FromNetdev = 2,
    /// tc egress of a native device: what the node itself sends.
    ToNetdev = 3,
    /// tc egress of `lo`: what the node sends to its own addresses.
    ToLo = 4,
    /// cgroup connect4.
    Connect4 = 5,
    /// cgroup sendmsg4.
    Sendmsg4 = 6,
    /// cgroup recvmsg4.
    Recvmsg4 = 7,
    /// cgroup getpeername4.
    Getpeername4 = 8,
    /// cgroup connect6, for IPv4-mapped addresses.
    Connect6 = 9,
    /// cgroup recvmsg6, for IPv4-mapped addresses.
    Recvmsg6 = 10,
    /// cgroup getpeername6, for IPv4-mapped addresses.
    Getpeername6 = 11,
}

/// What happened; second index of map `metrics`.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The program ran.
    Seen = 0,
    /// A flow to a Service began and has its backend; with socket LB, a connection or a datagram.
    ServiceNew = 1,
    /// A packet of a known flow was rewritten towards its backend.
    Forward = 2,
    /// A reply was rewritten back.
    Reply = 3,
    /// A flow that needs no rewriting began.
    Direct = 4,
    /// A flow began whose source is translated to an address of this node (masquerade or SNAT).
    Snat = 5,
    /// The source port was changed because the original one was taken towards that backend.
    PortMoved = 6,
    /// Redirected into a pod on this node.
    RedirectPod = 7,
    /// Redirected out of a device with BPF doing the routing.
    RedirectDevice = 8,
    /// Handed to the node's stack.
    ToStack = 9,
    /// A refusal (TCP reset, ICMP port unreachable, or ECONNREFUSED from socket LB) was sent: the Service has no backend.
    RejectNoBackend = 10,
    /// A refusal was sent: the address is a VIP but has no such port.
    RejectNoPort = 11,
    /// Dropped: a ClusterIP was dialled from outside the cluster.
    DropClusterIpFromOutside = 12,
    /// Dropped: no free source port towards that backend.
    DropNoPort = 13,
    /// Dropped: a later fragment of what may have to be translated arrived before its first.
    DropFragment = 14,
    /// Dropped: the packet is malformed.
    DropInvalid = 15,
    /// Dropped: a map refused an entry.
    DropMapFull = 16,
    /// Dropped: a slot or backend of the service was missing.
    DropNoSlot = 17,
    /// Dropped: a helper failed while the packet was being rewritten.
    DropRewrite = 18,
    /// An ICMP error about a known flow was translated.
    IcmpError = 19,
    /// The source port of a flow that had ended was given to a new one.
    PortReclaimed = 20,
}

/// Number of hooks a `metrics` array has room for.
pub const HOOKS_MAX: u32 = 16;
/// Number of events a hook has room for in `metrics`.
pub const EVENTS_MAX: u32 = 32;

/// Names of the hooks by number, for people and JSON.
pub const HOOK_NAMES: [&str; 12] = [
    "from-pod",
    "to-pod",
    "from-netdev",
    "to-netdev",
    "to-lo",
    "connect4",
    "sendmsg4",
    "recvmsg4",
    "getpeername4",
    "connect6",
    "recvmsg6",
    "getpeername6",
];

/// Names of the events by number, for people and JSON.
pub const EVENT_NAMES: [&str; 21] = [
    "seen",
    "service-new",
    "forward",
    "reply",
    "direct",
    "snat",
    "port-moved",
    "redirect-pod",
    "redirect-device",
    "to-stack",
    "reject-no-backend",
    "reject-no-port",
    "drop-clusterip-from-outside",
    "drop-no-port",
    "drop-fragment",
    "drop-invalid",
    "drop-map-full",
    "drop-no-slot",
    "drop-rewrite",
    "icmp-error",
    "port-reclaimed",
];

/// Index of a counter in map `metrics` (per-CPU array of `u64`).
#[inline(always)]
pub const fn metric_index(hook: Hook, event: Event) -> u32 {
    hook as u32 * EVENTS_MAX + event as u32
}

/// Bits of `skb->mark` that the datapath uses.
pub const MARK_MASK: u32 = 0x0000_0f00;
/// Value under [`MARK_MASK`]: this packet has been through the datapath on this node; hooks further on let it pass.
pub const MARK_DONE: u32 = 0x0000_0d00;

const _: () = {
    assert!(size_of::<Addr>() == 16);
    assert!(size_of::<FrontendKey>() == 20);
    assert!(size_of::<FrontendVal>() == 8);
    assert!(size_of::<ServiceVal>() == 8);
    assert!(size_of::<SlotKey>() == 12);
    assert!(size_of::<BackendVal>() == 20);
    assert!(size_of::<AddrKey>() == 20);
    assert!(size_of::<EndpointVal>() == 16);
    assert!(size_of::<DeviceVal>() == 24);
    assert!(size_of::<NodeConfig>() == 40);
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<FlowVal>() == 56);
    assert!(size_of::<SockRevKey>() == 32);
    assert!(size_of::<SockRevVal>() == 24);
    assert!(size_of::<FragKey>() == 36);
    assert!(size_of::<FragVal>() == 4);
};
