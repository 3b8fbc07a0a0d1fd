//! The plan over the whole world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address::Family;
use super::pool::Pool;
use crate::service::ServiceName;

/// A Service that is ours to serve (type LoadBalancer, no foreign class).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInput {
    /// Labels, with the synthetic keys for namespace and name.
    pub labels: BTreeMap<String, String>,
    /// Addresses it has in its status.
    pub ingress: Vec<IpAddr>,
    /// Families that it asks for.
    pub families: BTreeSet<Family>,
    /// Seconds since the epoch: of two holders of one address the older keeps it.
    pub created: i64,
    /// The addresses in its status are from us.
    pub known: bool,
}

/// Everything that a plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Services that are ours to serve.
    pub services: BTreeMap<ServiceName, ServiceInput>,
}

/// How a Service's request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has what it asks for.
    Satisfied,
    /// No enabled pool selects it.
    NoPool,
    /// All enabled pools that select it are full.
    OutOfIps,
}

/// What a Service should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceResult {
    /// Addresses, kept ones first.
    pub ingress: Vec<IpAddr>,
    /// How it went.
    pub outcome: Outcome,
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

/// Plans the whole world. Existing addresses are settled before any new one is given out, so that a restart moves nobody.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let conflicts = conflicts(&world.pools);
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let mut kept: BTreeMap<&ServiceName, Vec<IpAddr>> = BTreeMap::new();
    let mut by_age: Vec<(&ServiceName, &ServiceInput)> = world.services.iter().collect();
    by_age.sort_by_key(|(name, service)| (service.created, *name));
    for (name, service) in &by_age {
        kept.insert(name, keep(world, service, &mut taken));
    }
    let mut services = BTreeMap::new();
    for (name, service) in by_age {
        let mut ingress = kept.remove(name).unwrap_or_default();
        let selecting = selecting(world, service);
        if selecting.is_empty() && !service.known && !service.ingress.is_empty() {
            continue;
        }
        let enabled: Vec<&Pool> = selecting
            .iter()
            .filter(|(name, pool)| !pool.disabled && !conflicts.contains_key(*name))
            .map(|(_, pool)| *pool)
            .collect();
        let outcome = fill(name, service, &enabled, &mut ingress, &mut taken);
        services.insert(name.clone(), ServiceResult { ingress, outcome });
    }
    let pools = world
        .pools
        .iter()
        .map(|(name, pool)| {
            let used = taken.iter().filter(|address| pool.offers(**address)).count() as u128;
            (name.clone(), PoolResult { conflict: conflicts.get(name).cloned(), total: pool.total(), used })
        })
        .collect();
    Plan { services, pools }
}

/// The addresses that a Service may keep. A pool that was disabled or lost a conflict since gives out no new ones, but
/// takes none back; nor does one that reserves its first and last address since.
fn keep(world: &World, service: &ServiceInput, taken: &mut BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let mut families = BTreeSet::new();
    let mut kept = Vec::new();
    for address in &service.ingress {
        let family = Family::of(*address);
        let covered = selecting(world, service).iter().any(|(_, pool)| pool.covers(*address));
        if covered && service.families.contains(&family) && !families.contains(&family) && taken.insert(*address) {
            families.insert(family);
            kept.push(*address);
        }
    }
    kept
}

/// Pools that select the Service, oldest first.
fn selecting<'a>(world: &'a World, service: &ServiceInput) -> Vec<(&'a String, &'a Pool)> {
    let mut pools: Vec<_> = world.pools.iter().filter(|(_, pool)| pool.selector.matches(&service.labels)).collect();
    pools.sort_by_key(|(name, pool)| (pool.created, *name));
    pools
}

/// Gives the Service an address of each family that it misses.
fn fill(
    name: &ServiceName,
    service: &ServiceInput,
    pools: &[&Pool],
    ingress: &mut Vec<IpAddr>,
    taken: &mut BTreeSet<IpAddr>,
) -> Outcome {
    let mut outcome = Outcome::Satisfied;
    for family in &service.families {
        if ingress.iter().any(|address| Family::of(*address) == *family) {
            continue;
        }
        let start = u128::from(hash(name));
        match pools.iter().find_map(|pool| pool.pick(*family, start, taken)) {
            Some(address) => {
                taken.insert(address);
                ingress.push(address);
            }
            None => {
                let of_family = |pool: &&Pool| pool.ranges.iter().any(|range| range.family == *family);
                outcome = if pools.iter().any(of_family) { Outcome::OutOfIps } else { Outcome::NoPool };
            }
        }
    }
    outcome
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
