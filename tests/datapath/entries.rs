//! Entries of the program's own maps, which no daemon writes.

use anyhow::{Context, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapInfo},
};

/// Changes an entry that the program has made.
///
/// Of all maps of that name, this process has those of its worlds open, and one has the entry.
pub(crate) fn change<K: Pod, V: Pod>(
    name: &str,
    key: &K,
    change: impl FnOnce(&mut V) -> Result<()>,
) -> Result<()> {
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // Other tests close theirs meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) else {
            continue;
        };
        let Ok(info) = MapInfo::from_id(id.trim().parse()?) else {
            continue;
        };
        if info.name_as_str() != Some(name) {
            continue;
        }
        let map = Map::from_map_data(MapData::from_id(info.id())?)?;
        let mut map: HashMap<MapData, K, V> = map.try_into()?;
        let Ok(mut value) = map.get(key, 0) else {
            continue;
        };
        change(&mut value)?;
        map.insert(key, value, 0)?;
        return Ok(());
    }
    bail!("no map {name} of this process has the entry")
}

/// A tick so many ticks before another. The clock began when the machine did.
pub(crate) fn earlier(seen: u32, ticks: u32) -> Result<u32> {
    let earlier = seen.checked_sub(ticks);
    earlier.context("the machine is up for less than a minute: try again")
}
