//! Changes to access lists, by difference.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{Access, ServiceId};

use crate::config::model::{AccessList, Prefix};
use crate::core::image::{MapImage, MapOp, ServiceImage};

/// What is new or says something else, the longest prefixes first.
pub(super) fn said(old: &MapImage, new: &MapImage) -> impl Iterator<Item = MapOp> {
    let old = lists(old);
    new.services.values().filter_map(move |service| {
        let before = old.get(&service.id).copied();
        let mut entries = difference(&service.access, before);
        entries.reverse();
        (!entries.is_empty()).then_some(MapOp::SetAccess(service.id, entries))
    })
}

/// What goes, the shortest prefixes first.
pub(super) fn taken_back(old: &MapImage, new: &MapImage) -> impl Iterator<Item = MapOp> {
    let new = lists(new);
    old.services.values().filter_map(move |service| {
        let prefixes = missing(&service.access, new.get(&service.id).copied());
        (!prefixes.is_empty()).then_some(MapOp::RemoveAccess(service.id, prefixes))
    })
}

/// The steps that remove all that any of `attempts` may have left and `target` has not.
pub fn stale<'a>(
    attempts: impl Iterator<Item = &'a ServiceImage>,
    target: &MapImage,
) -> Vec<MapOp> {
    let target = lists(target);
    let mut left: BTreeMap<ServiceId, BTreeSet<Prefix>> = BTreeMap::new();
    for service in attempts {
        let prefixes = missing(&service.access, target.get(&service.id).copied());
        left.entry(service.id).or_default().extend(prefixes);
    }
    left.into_iter()
        .filter(|(_, prefixes)| !prefixes.is_empty())
        .map(|(id, prefixes)| MapOp::RemoveAccess(id, Vec::from_iter(prefixes)))
        .collect()
}

fn lists(image: &MapImage) -> BTreeMap<ServiceId, &AccessList> {
    let services = image.services.values();
    services
        .map(|service| (service.id, &*service.access))
        .collect()
}

/// What `list` says and `before` does not.
fn difference(list: &AccessList, before: Option<&AccessList>) -> Vec<(Prefix, Access)> {
    if before.is_some_and(|before| std::ptr::eq(before, list)) {
        return Vec::new();
    }
    let is_there = |prefix: &Prefix, access: &Access| {
        before.is_some_and(|before| before.entries().get(prefix) == Some(access))
    };
    let entries = list.entries().iter();
    entries
        .filter(|(prefix, access)| !is_there(prefix, access))
        .map(|(prefix, access)| (*prefix, *access))
        .collect()
}

/// The prefixes of `list` of which `after` says nothing.
fn missing(list: &AccessList, after: Option<&AccessList>) -> Vec<Prefix> {
    if after.is_some_and(|after| std::ptr::eq(after, list)) {
        return Vec::new();
    }
    let is_kept = |prefix: &Prefix| after.is_some_and(|after| after.entries().contains_key(prefix));
    let prefixes = list.entries().keys();
    prefixes
        .filter(|prefix| !is_kept(prefix))
        .copied()
        .collect()
}
