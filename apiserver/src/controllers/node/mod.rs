//! What a cluster does with its nodes: pod ranges, health, taints, evictions, and the pods of nodes that are gone.

mod eviction;
mod health;
mod judgement;
mod lost_pods;
mod ranges;

use super::context::Context;

pub(super) fn start(context: &mut Context) {
    ranges::start(context);
    health::start(context);
    eviction::start(context);
    lost_pods::start(context);
}
