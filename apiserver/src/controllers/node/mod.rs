//! What a cluster does with its nodes: pod ranges, health, taints, evictions, and the pods of nodes that are gone.

mod ranges;

use super::Context;

pub(super) fn start(context: &mut Context) {
    ranges::start(context);
}
