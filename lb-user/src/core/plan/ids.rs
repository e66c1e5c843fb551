//! Who gets which id.
//!
//! The lowest that is free, and free means that the previous image does not use it, nor keeps it for
//! who may return.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, Ip, ServiceId, ServiceKey, Tick};

use crate::config::model::Limits;
use crate::core::image::{Fallen, MapImage};
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

/// Who has an id, by service, address and port.
pub(super) type Holders = BTreeMap<(ServiceId, Ip, u16), Holder>;

/// Whoever has an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) id: BackendId,
    pub(super) epoch: u16,
    /// Until when it is kept, if its user fell.
    pub(super) until: Option<Tick>,
    /// Whether no session of it was left.
    pub(super) is_emptied: bool,
}

/// All that have an id in `previous`, those whose id is kept included.
pub(super) fn holders(previous: &MapImage, now: Tick) -> Holders {
    let serving = previous.backends.iter().map(|(&id, backend)| {
        let place = (backend.service, backend.address, backend.port);
        let holder = Holder {
            id,
            epoch: backend.epoch,
            until: None,
            is_emptied: backend.emptied,
        };
        (place, holder)
    });
    let fallen = kept(previous, now).map(|(id, fallen)| {
        let place = (fallen.service, fallen.address, fallen.port);
        let holder = Holder {
            id,
            epoch: fallen.epoch,
            until: Some(fallen.until),
            is_emptied: false,
        };
        (place, holder)
    });
    fallen.chain(serving).collect()
}

fn kept(image: &MapImage, now: Tick) -> impl Iterator<Item = (BackendId, &Fallen)> {
    let fallen = image.fallen.iter();
    fallen
        .filter(move |(_, fallen)| now <= fallen.until)
        .map(|(&id, fallen)| (id, fallen))
}

/// The ids that `previous` does not use, from the lowest.
pub(super) fn free_backends(
    previous: &MapImage,
    now: Tick,
    limits: Limits,
) -> impl Iterator<Item = BackendId> {
    let kept: BTreeSet<BackendId> = kept(previous, now).map(|(id, _)| id).collect();
    let limit = u16::try_from(limits.backends)
        .unwrap_or(u16::MAX)
        .min(BackendId::LIMIT);
    (0..limit)
        .map(BackendId)
        .filter(move |id| !previous.backends.contains_key(id) && !kept.contains(id))
}

/// The epoch of a new user of `id`.
pub(super) fn next_epoch(epochs: &mut BTreeMap<BackendId, u16>, id: BackendId) -> u16 {
    let epoch = epochs.entry(id).or_default();
    *epoch = epoch.wrapping_add(1);
    *epoch
}
