//! A pool: ranges of addresses, who may have them, and which are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address::{Family, Range, RangeError, number};
use super::selector::{Selector, SelectorError};
use crate::service::ServiceName;

/// A block as written in a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// `cidr`; if set, `start` and `stop` are ignored.
    pub cidr: Option<String>,
    /// `start`.
    pub start: Option<String>,
    /// `stop`.
    pub stop: Option<String>,
}

/// A pool as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// `blocks`.
    pub blocks: Vec<Block>,
    /// `cidrs`, the former name of `blocks`.
    pub cidrs: Vec<Block>,
    /// `allowFirstLastIPs`, if set.
    pub allow_first_last: Option<bool>,
    /// What stands in `allowFirstLastIPs`, if it is neither Yes nor No.
    pub allow_first_last_unknown: Option<String>,
    /// `serviceSelector`.
    pub selector: Result<Selector, SelectorError>,
    /// `disabled`.
    pub disabled: bool,
    /// Seconds since the epoch; the older of two overlapping pools wins.
    pub created: i64,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            cidrs: Vec::new(),
            allow_first_last: None,
            allow_first_last_unknown: None,
            selector: Ok(Selector::default()),
            disabled: false,
            created: 0,
        }
    }
}

/// What in a pool cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A block is no range.
    #[error("block {at}: {error}")]
    Block {
        /// Number of the block, from 0; those of `cidrs` come after those of `blocks`.
        at: usize,
        /// Why.
        error: RangeError,
    },
    /// The selector.
    #[error(transparent)]
    Selector(SelectorError),
    /// `allowFirstLastIPs`.
    #[error("allowFirstLastIPs: unknown value {0:?}; known are Yes and No")]
    AllowFirstLast(String),
}

/// A pool as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Ranges, `blocks` first.
    pub ranges: Vec<Range>,
    /// Addresses that are left out: first and last of prefixes.
    reserved: BTreeSet<(Family, u128)>,
    /// Who may have addresses. `None` if that cannot be understood: such a pool gives nothing out and takes nothing back.
    pub selector: Option<Selector>,
    /// No new addresses are given out.
    pub disabled: bool,
    /// Seconds since the epoch.
    pub created: i64,
    /// What could not be understood.
    pub errors: Vec<PoolError>,
}

impl Pool {
    /// Understands a pool. Blocks that are no ranges are left out and listed.
    #[must_use]
    pub fn new(spec: &PoolSpec) -> Self {
        // Releases that wrote `cidrs` never gave out the first and last address; an explicit value wins (decision 2).
        let allow = spec.allow_first_last.unwrap_or(spec.cidrs.is_empty());
        let (mut ranges, mut reserved, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
        errors.extend(spec.selector.clone().err().map(PoolError::Selector));
        errors.extend(spec.allow_first_last_unknown.clone().map(PoolError::AllowFirstLast));
        for (at, block) in spec.blocks.iter().chain(&spec.cidrs).enumerate() {
            let is_cidr = block.cidr.as_ref().is_some_and(|cidr| !cidr.is_empty());
            match range(block) {
                Ok(range) => {
                    // A prefix of one or two addresses has none to spare.
                    if is_cidr && !allow && range.last - range.first > 1 {
                        reserved.extend([(range.family, range.first), (range.family, range.last)]);
                    }
                    ranges.push(range);
                }
                Err(error) => errors.push(PoolError::Block { at, error }),
            }
        }
        Self {
            ranges,
            reserved,
            selector: spec.selector.clone().ok(),
            disabled: spec.disabled,
            created: spec.created,
            errors,
        }
    }

    /// Whether these labels are selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether a holder of an address may have it from this pool although what can be understood does not say so: the
    /// selector cannot be understood, or it selects and a block cannot be.
    #[must_use]
    pub fn unclear_for(&self, labels: &BTreeMap<String, String>, address: IpAddr) -> bool {
        match &self.selector {
            None => self.covers(address) || self.has_bad_block(),
            Some(selector) => self.has_bad_block() && selector.matches(labels),
        }
    }

    fn has_bad_block(&self) -> bool {
        self.errors.iter().any(|error| matches!(error, PoolError::Block { .. }))
    }

    /// Whether the address lies in the pool, reserved or not.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether the address lies in the pool and may be given out.
    #[must_use]
    pub fn offers(&self, address: IpAddr) -> bool {
        let left_out = self.reserved.contains(&(Family::of(address), number(address)));
        !left_out && self.covers(address)
    }

    /// Number of addresses that may be given out. Ranges of a pool that overlaps itself count twice; such a pool gives
    /// out nothing.
    #[must_use]
    pub fn total(&self) -> u128 {
        let all = self.ranges.iter().fold(0_u128, |sum, range| sum.saturating_add(range.count()));
        all.saturating_sub(self.reserved.len() as u128)
    }

    /// A free address of the family: from the `start`-th one (modulo their number) onwards, round to the first.
    #[must_use]
    pub fn pick(&self, family: Family, start: u128, taken: &BTreeMap<IpAddr, &ServiceName>) -> Option<IpAddr> {
        let ranges: Vec<&Range> = self.ranges.iter().filter(|range| range.family == family).collect();
        let count = ranges.iter().fold(0_u128, |sum, range| sum.saturating_add(range.count()));
        if count == 0 {
            return None;
        }
        // Of this many addresses in a row at least one is free, if any is.
        let tries = count.min((taken.len() + self.reserved.len() + 1) as u128);
        (0..tries).find_map(|step| {
            let address = nth(&ranges, (start % count + step) % count)?;
            (!taken.contains_key(&address) && self.offers(address)).then_some(address)
        })
    }
}

fn nth(ranges: &[&Range], mut offset: u128) -> Option<IpAddr> {
    for range in ranges {
        if offset < range.count() {
            return range.nth(offset);
        }
        offset -= range.count();
    }
    None
}

fn range(block: &Block) -> Result<Range, RangeError> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (set(&block.cidr), set(&block.start)) {
        (Some(cidr), _) => Range::from_cidr(&cidr),
        (None, Some(start)) => Range::from_bounds(&start, set(&block.stop).as_deref()),
        (None, None) => Err(RangeError::Empty),
    }
}
