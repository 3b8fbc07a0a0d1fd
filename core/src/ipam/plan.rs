//! The plan over the whole world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address::Family;
use super::pool::Pool;
use crate::service::ServiceName;

/// A Service that is ours to serve (type LoadBalancer, no foreign class).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInput {
    /// Labels, with the synthetic keys for namespace and name.
    pub labels: BTreeMap<String, String>,
    /// Addresses it has in its status.
    pub ingress: Vec<IpAddr>,
    /// Families that it asks for; they count only where no address is asked for.
    pub families: BTreeSet<Family>,
    /// Addresses that it asks for by number.
    pub requested: Vec<IpAddr>,
    /// What it asks for that is no address.
    pub unreadable: Vec<String>,
    /// Seconds since the epoch: the older Service chooses first.
    pub created: i64,
    /// When the addresses were written, in seconds since the epoch: of two holders of one address the older one keeps it.
    pub held_since: i64,
    /// The addresses in its status are from us.
    pub known: bool,
    /// Our condition stands in its status.
    pub marked: bool,
}

/// Everything that a plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Services that are ours to serve.
    pub services: BTreeMap<ServiceName, ServiceInput>,
}

impl World {
    /// The oldest pool that an address of this Service comes from.
    #[must_use]
    pub fn pool_of(&self, name: &ServiceName, address: IpAddr) -> Option<&str> {
        let mut pools = selecting(self, self.services.get(name)?).into_iter();
        pools.find(|(_, pool)| pool.covers(address)).map(|(name, _)| name.as_str())
    }
}

/// Why a Service does not have all that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No enabled pool selects it.
    NoPool,
    /// All enabled pools that select it are full.
    OutOfIps,
    /// No enabled pool has the address.
    NoPoolWith(IpAddr),
    /// The pool with the address does not select the Service.
    NotSelected(IpAddr),
    /// Another Service has the address, or it is left out.
    Taken(IpAddr),
    /// Nothing of what it asks for is an address.
    NotAnAddress(String),
}

/// An address in the status of two Services: a planted fault, or the stray write of a leader that was frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The address.
    pub address: IpAddr,
    /// Who keeps it.
    pub holder: ServiceName,
}

/// What a Service should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceResult {
    /// Addresses, kept ones first.
    pub ingress: Vec<IpAddr>,
    /// What it asks for and does not get; empty if it is satisfied.
    pub refusals: Vec<Refusal>,
    /// Addresses that it loses because an older holder has them.
    pub duplicates: Vec<Duplicate>,
}

/// State of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolResult {
    /// The overlap that makes it lose, in words.
    pub conflict: Option<String>,
    /// Addresses that may be given out.
    pub total: u128,
    /// Addresses given out.
    pub used: u128,
}

/// What the world should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Services to look at. One that no pool selects and that was never served by us keeps what another controller may
    /// have given it: it is not in here.
    pub services: BTreeMap<ServiceName, ServiceResult>,
    /// All pools.
    pub pools: BTreeMap<String, PoolResult>,
}

/// Who has an address.
type Taken<'a> = BTreeMap<IpAddr, &'a ServiceName>;

/// Plans the whole world. Existing addresses are settled before any new one is given out, so that a restart moves nobody.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let conflicts = conflicts(&world.pools);
    let mut taken = Taken::new();
    let mut results: BTreeMap<&ServiceName, ServiceResult> = BTreeMap::new();
    let mut ordered: Vec<(&ServiceName, &ServiceInput)> = world.services.iter().collect();
    ordered.sort_by_key(|(name, service)| (service.held_since, service.created, *name));
    for (name, service) in &ordered {
        results.insert(name, keep(world, name, service, &mut taken));
    }
    // Who asks for one address comes before those to whom all are equal.
    ordered.sort_by_key(|(name, service)| (service.requested.is_empty(), service.created, *name));
    for (name, service) in ordered {
        let selecting = selecting(world, service);
        let touched = service.known || service.marked;
        let foreign = selecting.is_empty() && !service.known && !service.ingress.is_empty();
        // Without a single pool nobody has asked for this to be done here, as peers have it.
        if foreign || (world.pools.is_empty() && !touched) {
            results.remove(name);
            continue;
        }
        let enabled = |name: &String, pool: &Pool| !pool.disabled && !conflicts.contains_key(name);
        let Some(result) = results.get_mut(name) else { continue };
        if service.requested.is_empty() && service.unreadable.is_empty() {
            let pools: Vec<&Pool> =
                selecting.iter().filter(|(name, pool)| enabled(name, pool)).map(|(_, pool)| *pool).collect();
            fill(name, service, &pools, result, &mut taken);
        } else {
            let pools: Vec<&Pool> =
                world.pools.iter().filter(|(name, pool)| enabled(name, pool)).map(|(_, pool)| pool).collect();
            grant(name, service, &pools, result, &mut taken);
        }
    }
    let pools = world
        .pools
        .iter()
        .map(|(name, pool)| {
            let used = taken.keys().filter(|address| pool.offers(**address)).count() as u128;
            (name.clone(), PoolResult { conflict: conflicts.get(name).cloned(), total: pool.total(), used })
        })
        .collect();
    Plan { services: results.into_iter().map(|(name, result)| (name.clone(), result)).collect(), pools }
}

/// The addresses that a Service may keep. A pool that was disabled or lost a conflict since gives out no new ones, but
/// takes none back; nor does one that reserves its first and last address since, or that cannot be understood.
fn keep<'a>(world: &World, name: &'a ServiceName, service: &ServiceInput, taken: &mut Taken<'a>) -> ServiceResult {
    let mut families = BTreeSet::new();
    let mut result = ServiceResult::default();
    for address in &service.ingress {
        let family = Family::of(*address);
        let wanted = if service.requested.is_empty() {
            service.families.contains(&family) && !families.contains(&family)
        } else {
            service.requested.contains(address)
        };
        let covered = world.pools.values().any(|pool| {
            (pool.covers(*address) && pool.selects(&service.labels))
                || (service.known && pool.unclear_for(&service.labels, *address))
        });
        if !wanted || !covered {
            continue;
        }
        match taken.get(address) {
            Some(holder) if *holder == name => {}
            Some(holder) => result.duplicates.push(Duplicate { address: *address, holder: (*holder).clone() }),
            None => {
                taken.insert(*address, name);
                families.insert(family);
                result.ingress.push(*address);
            }
        }
    }
    result
}

/// Pools that select the Service, oldest first.
fn selecting<'a>(world: &'a World, service: &ServiceInput) -> Vec<(&'a String, &'a Pool)> {
    let mut pools: Vec<_> = world.pools.iter().filter(|(_, pool)| pool.selects(&service.labels)).collect();
    pools.sort_by_key(|(name, pool)| (pool.created, *name));
    pools
}

/// Gives the Service an address of each family that it misses.
fn fill<'a>(
    name: &'a ServiceName,
    service: &ServiceInput,
    pools: &[&Pool],
    result: &mut ServiceResult,
    taken: &mut Taken<'a>,
) {
    for family in &service.families {
        if result.ingress.iter().any(|address| Family::of(*address) == *family) {
            continue;
        }
        let start = u128::from(hash(name));
        if let Some(address) = pools.iter().find_map(|pool| pool.pick(*family, start, taken)) {
            taken.insert(address, name);
            result.ingress.push(address);
            continue;
        }
        let of_family = |pool: &&Pool| pool.ranges.iter().any(|range| range.family == *family);
        let refusal = if pools.iter().any(of_family) { Refusal::OutOfIps } else { Refusal::NoPool };
        // Both families may fail for one reason; it is told once.
        if !result.refusals.contains(&refusal) {
            result.refusals.push(refusal);
        }
    }
}

/// Gives the Service the addresses that it asks for by number. What it gets it keeps, even if others are refused.
fn grant<'a>(
    name: &'a ServiceName,
    service: &ServiceInput,
    enabled: &[&Pool],
    result: &mut ServiceResult,
    taken: &mut Taken<'a>,
) {
    if service.requested.is_empty() {
        // An address that nobody asked for would be no answer to a typing error.
        result.refusals.extend(service.unreadable.iter().cloned().map(Refusal::NotAnAddress));
        return;
    }
    for address in &service.requested {
        if taken.get(address).is_some_and(|holder| *holder == name) {
            continue;
        }
        let with: Vec<&&Pool> = enabled.iter().filter(|pool| pool.covers(*address)).collect();
        let selecting = with.iter().find(|pool| pool.selects(&service.labels));
        match selecting {
            None if with.is_empty() => result.refusals.push(Refusal::NoPoolWith(*address)),
            None => result.refusals.push(Refusal::NotSelected(*address)),
            Some(pool) if taken.contains_key(address) || !pool.offers(*address) => {
                result.refusals.push(Refusal::Taken(*address));
            }
            Some(_) => {
                taken.insert(*address, name);
                result.ingress.push(*address);
            }
        }
    }
}

/// Where a Service begins to look (FNV-1a): the same for the same name, so that a Service that is made again gets its
/// address back while it is free.
fn hash(name: &ServiceName) -> u64 {
    let bytes = name.namespace.bytes().chain([b'/']).chain(name.name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Pools that overlap themselves or an older pool that is in order, with the reason. Recomputed from scratch, so that
/// nothing depends on the order of events.
fn conflicts(pools: &BTreeMap<String, Pool>) -> BTreeMap<String, String> {
    let mut by_age: Vec<(&String, &Pool)> = pools.iter().collect();
    by_age.sort_by_key(|(name, pool)| (pool.created, *name));
    let mut winners: Vec<(&String, &Pool)> = Vec::new();
    let mut losers = BTreeMap::new();
    for (name, pool) in by_age {
        let with_itself = pool.ranges.iter().enumerate().find_map(|(at, range)| {
            let other = pool.ranges[at + 1..].iter().find(|other| range.overlaps(other))?;
            Some((range, other, name))
        });
        let with_winner = || {
            winners.iter().find_map(|(winner, other)| {
                pool.ranges.iter().find_map(|range| {
                    let overlapped = other.ranges.iter().find(|candidate| range.overlaps(candidate))?;
                    Some((range, overlapped, *winner))
                })
            })
        };
        match with_itself.or_else(with_winner) {
            Some((range, other, owner)) => {
                let reason =
                    format!("Pool conflicts since range '{range}' overlaps range '{other}' from IP Pool '{owner}'");
                losers.insert(name.clone(), reason);
            }
            None => winners.push((name, pool)),
        }
    }
    losers
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
