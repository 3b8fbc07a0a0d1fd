//! LoadBalancer IPAM: which Service gets which address of which pool.
//!
//! [`plan`] looks at the whole world and is a pure function of it: there is no store but the cluster, and a world that is
//! as planned plans nothing new.

mod address;
mod plan;
mod pool;
mod selector;

pub use address::{Family, Range, RangeError};
pub use plan::{Duplicate, Plan, PoolResult, Refusal, ServiceInput, ServiceResult, World, plan};
pub use pool::{Block, Pool, PoolError, PoolSpec};
pub use selector::{Operator, Requirement, Selector, SelectorError};
