//! Who gets which id.
//!
//! The lowest that is free, and free means that the previous image does not use it.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, ServiceId, ServiceKey};

use crate::config::model::Limits;
use crate::core::image::MapImage;
use crate::core::plan::Desired;

/// The id of every desired service that there is an id for.
pub(super) fn services(previous: &MapImage, desired: &Desired) -> BTreeMap<ServiceKey, ServiceId> {
    let used: BTreeSet<ServiceId> = previous
        .services
        .values()
        .map(|service| service.id)
        .collect();
    let limit = u16::try_from(desired.limits.services).unwrap_or(u16::MAX);
    let mut free = (0..limit).map(ServiceId).filter(|id| !used.contains(id));
    let mut ids = BTreeMap::new();
    for service in &desired.services {
        let id = match previous.services.get(&service.key) {
            Some(present) => Some(present.id),
            None => free.next(),
        };
        ids.extend(id.map(|id| (service.key, id)));
    }
    ids
}

/// The ids that `previous` does not use, from the lowest.
pub(super) fn free_backends(
    previous: &MapImage,
    limits: Limits,
) -> impl Iterator<Item = BackendId> {
    let limit = u16::try_from(limits.backends)
        .unwrap_or(u16::MAX)
        .min(BackendId::LIMIT);
    (0..limit)
        .map(BackendId)
        .filter(|id| !previous.backends.contains_key(id))
}

/// The epoch of a new user of `id`.
pub(super) fn next_epoch(epochs: &mut BTreeMap<BackendId, u16>, id: BackendId) -> u16 {
    let epoch = epochs.entry(id).or_default();
    *epoch = epoch.wrapping_add(1);
    *epoch
}
