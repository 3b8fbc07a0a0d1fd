//! What the loop that follows Services needs of a node's maps; the kernel's are one way to have it.

use anyhow::Result;
use portolan_core::datapath::{Op, Tables};

use super::{Datapath, read};

/// The Service maps of a node.
pub trait ServiceMaps: Send {
    /// What they hold.
    ///
    /// # Errors
    /// If they cannot be read.
    fn tables(&self) -> Result<Tables>;

    /// Carries out writes, in their order.
    ///
    /// # Errors
    /// With the write that failed; those before it are done.
    fn apply(&mut self, ops: &[Op]) -> Result<()>;

    /// Writes again what somebody else has changed in the maps beside them, which have no planner; returns the names of
    /// those.
    ///
    /// # Errors
    /// If they cannot be read or written.
    fn repair_others(&mut self) -> Result<Vec<&'static str>>;
}

impl ServiceMaps for Datapath {
    fn tables(&self) -> Result<Tables> {
        read::tables(self.pins())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<()> {
        Self::apply(self, ops)
    }

    fn repair_others(&mut self) -> Result<Vec<&'static str>> {
        self.repair()
    }
}
