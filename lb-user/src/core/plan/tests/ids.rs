//! Who keeps what from one image to the next.

use std::sync::Arc;

use lb_common::abi::{BackendId, Forward, ServiceId, Tick};

use super::{after, backend, desired, hop, ids_of, ip, key, lender, next, service};
use crate::core::image::{MapImage, MapOp};
use crate::core::plan::{self, Desired, Moment, diff};

#[test]
fn ids_are_the_lowest_that_are_free() {
    let image = after(&[desired(&[
        service(0, &[backend(1, 1)]),
        service(1, &[backend(1, 1)]),
    ])]);
    assert_eq!(image.services[&key(0)].id, ServiceId(0));
    assert_eq!(image.services[&key(1)].id, ServiceId(1));
    assert_eq!(ids_of(&image, 1), [BackendId(1)]);
}

#[test]
fn others_keep_their_ids_when_one_goes() {
    let both = service(0, &[backend(1, 1), backend(2, 1)]);
    let one = service(0, &[backend(2, 1)]);
    let image = after(&[desired(&[both]), desired(&[one])]);
    assert_eq!(ids_of(&image, 0), [BackendId(1)]);
}

#[test]
fn freed_id_is_given_out_again_only_a_step_later_and_with_another_epoch() {
    let only = |last| desired(&[service(0, &[backend(last, 1)])]);
    let first = after(&[only(1)]);
    let second = after(&[only(1), only(2)]);
    let third = after(&[only(1), only(2), only(3)]);
    assert_eq!(ids_of(&second, 0), [BackendId(1)]);
    assert_eq!(ids_of(&third, 0), [BackendId(0)]);
    assert_ne!(
        first.backends[&BackendId(0)].epoch,
        third.backends[&BackendId(0)].epoch
    );
}

#[test]
fn backend_that_returns_is_another_than_it_was() {
    let with = desired(&[service(0, &[backend(1, 1)])]);
    let without = desired(&[service(0, &[])]);
    let before = after(std::slice::from_ref(&with));
    let returned = after(&[with.clone(), without, with]);
    assert_ne!(before.backends, returned.backends);
}

/// The images after the wishes, each at its second.
fn at_seconds(steps: &[(u64, &Desired)]) -> MapImage {
    steps
        .iter()
        .fold(MapImage::empty(), |image, (second, desired)| {
            let now = Tick::from_nanos(second * 1_000_000_000);
            plan::next(&image, desired, Moment::at(now))
        })
}

/// What is wanted while both are there, while one of them fell, and when it is gone for good.
fn fall() -> [Desired; 3] {
    let both = desired(&[service(0, &[backend(1, 1), backend(2, 1)])]);
    let gone = desired(&[service(0, &[backend(2, 1)])]);
    let mut fell = gone.clone();
    fell.services[0].fallen.push((ip(1), 1883));
    [both, fell, gone]
}

#[test]
fn backend_that_fell_is_who_it_was_if_it_returns_within_a_minute() {
    let [both, fell, gone] = fall();
    let before = at_seconds(&[(100, &both)]);
    let down = at_seconds(&[(100, &both), (110, &fell), (150, &fell)]);
    assert_eq!(ids_of(&down, 0), [BackendId(1)]);
    let soon = at_seconds(&[(100, &both), (110, &fell), (150, &fell), (165, &both)]);
    assert_eq!(soon.backends, before.backends);
    assert_eq!(soon.fallen.len(), 0);
    let late = at_seconds(&[(100, &both), (110, &fell), (150, &fell), (180, &both)]);
    assert_ne!(late.backends, before.backends);
    let other = at_seconds(&[(100, &both), (110, &fell), (115, &gone), (120, &both)]);
    assert_ne!(other.backends, before.backends);
}

#[test]
fn id_of_a_backend_that_fell_is_given_to_nobody_until_it_is_late() {
    let [both, fell, _] = fall();
    let mut more = fell.clone();
    more.services[0].backends.push(backend(3, 1));
    let soon = at_seconds(&[(100, &both), (110, &fell), (160, &more)]);
    assert_eq!(ids_of(&soon, 0), [BackendId(1), BackendId(2)]);
    let late = at_seconds(&[(100, &both), (110, &fell), (180, &more)]);
    assert_eq!(ids_of(&late, 0), [BackendId(0), BackendId(1)]);
    assert_eq!(late.fallen.len(), 0);
}

#[test]
fn what_finds_no_free_id_comes_with_the_next_step() {
    let all = |first: u8| {
        let backends: Vec<_> = (first..first + 6).map(|last| backend(last, 1)).collect();
        desired(&[service(0, &backends)])
    };
    let half = next(&after(&[all(1)]), &all(100));
    assert!(half.backends.is_empty());
    let whole = next(&half, &all(100));
    assert_eq!(whole.backends.len(), 6);
    assert_eq!(next(&whole, &all(100)), whole);
}

#[test]
fn table_is_kept_when_its_members_are_the_same() {
    let first = desired(&[service(0, &[backend(1, 1), backend(2, 3)])]);
    let mut second = first.clone();
    second.services[0].backends[0].next_hop = hop(1);
    second.services[0].backends.reverse();
    second.services[0].forward = Forward::Nat;
    second.services.push(service(1, &[backend(3, 1)]));
    let (before, now) = (after(std::slice::from_ref(&first)), after(&[first, second]));
    let (before, now) = (&before.services[&key(0)], &now.services[&key(0)]);
    assert_eq!(before.generation, now.generation);
    assert_eq!(before.table, now.table);
    let image = after(&[desired(&[service(0, &[backend(1, 1)])])]);
    let same = next(&image, &desired(&[service(0, &[backend(1, 1)])]));
    assert!(Arc::ptr_eq(
        &image.services[&key(0)].table,
        &same.services[&key(0)].table
    ));
}

#[test]
fn changed_weight_writes_the_other_half() {
    let weighted = |weight| desired(&[service(0, &[backend(1, weight), backend(2, 1)])]);
    let images = [after(&[weighted(1)]), after(&[weighted(1), weighted(3)])];
    let generations = images
        .clone()
        .map(|image| image.services[&key(0)].generation);
    assert_eq!(generations, [0, 1]);
    let ops = diff(&images[0], &images[1]);
    assert!(matches!(
        ops[..],
        [
            MapOp::SetBackend(..),
            MapOp::WriteTable { generation: 1, .. },
            MapOp::SetService(..),
            MapOp::AwaitGracePeriod,
        ]
    ));
}

#[test]
fn dead_backend_leaves_the_maps_and_returns_to_its_slots() {
    let all = desired(&[service(0, &[1, 2, 3].map(|last| backend(last, 1)))]);
    let mut one_down = all.clone();
    one_down.services[0].backends.remove(0);
    one_down.services[0].lenders.push(lender(1));
    let before = after(std::slice::from_ref(&all));
    let down = next(&before, &one_down);
    assert_eq!(ids_of(&down, 0), [BackendId(1), BackendId(2)]);
    let slots = |image: &MapImage| image.services[&key(0)].table.slots.clone();
    let stays = |(old, new): (BackendId, BackendId)| old == BackendId(0) || old == new;
    assert!(slots(&before).into_iter().zip(slots(&down)).all(stays));
    let returned = next(&down, &all);
    assert_eq!(slots(&returned), slots(&before));
}

#[test]
fn lender_that_is_taken_off_the_config_changes_the_table() {
    let mut with = desired(&[service(0, &[backend(2, 1), backend(3, 1)])]);
    let without = with.clone();
    with.services[0].lenders.push(lender(1));
    let image = after(&[with]);
    let table = |image: &MapImage| image.services[&key(0)].table.slots.clone();
    assert!(table(&next(&image, &without)) == table(&after(&[without])));
}

#[test]
fn next_hop_changes_one_backend_and_nothing_else() {
    let mut wanted = desired(&[service(0, &[backend(1, 1), backend(2, 1)])]);
    let before = after(std::slice::from_ref(&wanted));
    wanted.services[0].backends[1].next_hop = hop(7);
    let ops = diff(&before, &next(&before, &wanted));
    assert!(matches!(ops[..], [MapOp::SetBackend(BackendId(1), _)]));
}

#[test]
fn draining_backend_stays_but_owns_no_slot() {
    let image = after(&[desired(&[service(0, &[backend(1, 0), backend(2, 1)])])]);
    assert_eq!(image.backends.len(), 2);
    let installed = &image.services[&key(0)];
    assert_eq!(installed.shares(), [(BackendId(1), 1.0)].into());
    assert_eq!(installed.table.ring, [BackendId(1)]);
}

#[test]
fn service_without_takers_has_an_empty_table_and_writes_none() {
    let image = after(&[desired(&[service(0, &[backend(1, 0)])])]);
    let ops = diff(&after(&[]), &image);
    assert!(!ops.iter().any(|op| matches!(op, MapOp::WriteTable { .. })));
    let sets_empty = |op: &MapOp| {
        matches!(op, MapOp::SetService(_, service)
        if !service.is_marker() && !service.has_backends())
    };
    assert!(ops.iter().any(sets_empty));
}
