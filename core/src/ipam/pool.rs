//! A pool: ranges of addresses, who may have them, and which are left out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::address::{Family, Range, RangeError, number};
use super::selector::Selector;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSpec {
    /// `blocks`.
    pub blocks: Vec<Block>,
    /// `cidrs`, the former name of `blocks`.
    pub cidrs: Vec<Block>,
    /// `allowFirstLastIPs`, if set.
    pub allow_first_last: Option<bool>,
    /// `serviceSelector`.
    pub selector: Selector,
    /// `disabled`.
    pub disabled: bool,
    /// Seconds since the epoch; the older of two overlapping pools wins.
    pub created: i64,
}

/// A pool as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Ranges, `blocks` first.
    pub ranges: Vec<Range>,
    /// Addresses that are left out: first and last of prefixes.
    reserved: BTreeSet<(Family, u128)>,
    /// Who may have addresses.
    pub selector: Selector,
    /// No new addresses are given out.
    pub disabled: bool,
    /// Seconds since the epoch.
    pub created: i64,
    /// Blocks that are no ranges.
    pub errors: Vec<RangeError>,
}

impl Pool {
    /// Understands a pool. Blocks that are no ranges are left out and listed.
    #[must_use]
    pub fn new(spec: &PoolSpec) -> Self {
        // Releases that wrote `cidrs` never gave out the first and last address; an explicit value wins (decision 2).
        let allow = spec.allow_first_last.unwrap_or(spec.cidrs.is_empty());
        let (mut ranges, mut reserved, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
        for block in spec.blocks.iter().chain(&spec.cidrs) {
            let is_cidr = block.cidr.as_ref().is_some_and(|cidr| !cidr.is_empty());
            match range(block) {
                Ok(range) => {
                    // A prefix of one or two addresses has none to spare.
                    if is_cidr && !allow && range.last - range.first > 1 {
                        reserved.extend([(range.family, range.first), (range.family, range.last)]);
                    }
                    ranges.push(range);
                }
                Err(error) => errors.push(error),
            }
        }
        Self {
            ranges,
            reserved,
            selector: spec.selector.clone(),
            disabled: spec.disabled,
            created: spec.created,
            errors,
        }
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
    pub fn pick(&self, family: Family, start: u128, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let ranges: Vec<&Range> = self.ranges.iter().filter(|range| range.family == family).collect();
        let count = ranges.iter().fold(0_u128, |sum, range| sum.saturating_add(range.count()));
        if count == 0 {
            return None;
        }
        // Of this many addresses in a row at least one is free, if any is.
        let tries = count.min((taken.len() + self.reserved.len() + 1) as u128);
        (0..tries).find_map(|step| {
            let address = nth(&ranges, (start % count + step) % count)?;
            (!taken.contains(&address) && self.offers(address)).then_some(address)
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
