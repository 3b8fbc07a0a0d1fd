//! How the runtime names an interface of a pod, and what it is called on the node.

use serde::{Deserialize, Serialize};

/// Identity of an interface of a pod sandbox, as the runtime gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// Container id.
    pub container_id: String,
    /// Interface name inside the pod.
    pub ifname: String,
}

impl Attachment {
    /// Name of the veth on the node's side: the same for the same attachment, and short enough for the kernel (15).
    #[must_use]
    pub fn device(&self) -> String {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.container_id.bytes().chain([0]).chain(self.ifname.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("lxc{:012x}", hash & 0xffff_ffff_ffff)
    }
}
