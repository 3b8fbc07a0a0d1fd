//! Sweeping the flow table: entries of flows that have ended or fallen silent go, so that the LRU need not evict live
//! ones.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use portolan_ebpf::{FlowKey, FlowVal, flow_timeout_s};

use crate::sys::abi::Abi;

/// Removes entries that have timed out at `now_ns` (CLOCK_MONOTONIC); returns how many went and how many stay.
///
/// # Errors
/// If the map is not there.
pub fn sweep(pins: &Path, now_ns: u64) -> Result<(usize, usize)> {
    let path = pins.join("maps/flows");
    let data = MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))?;
    let mut map: HashMap<MapData, Abi<FlowKey>, Abi<FlowVal>> = HashMap::try_from(Map::LruHashMap(data))?;
    let (mut dead, mut alive) = (Vec::new(), 0);
    for entry in map.iter() {
        let (key, value) = entry.context("reading map flows")?;
        let silent = Duration::from_nanos(now_ns.saturating_sub(value.0.last_seen_ns));
        if silent > Duration::from_secs(flow_timeout_s(key.0.proto, &value.0)) {
            dead.push(key);
        } else {
            alive += 1;
        }
    }
    let count = dead.len();
    for key in dead {
        super::convert::gone_is_fine(map.remove(&key)).context("removing a flow")?;
    }
    Ok((count, alive))
}
