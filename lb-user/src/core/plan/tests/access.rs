//! Changes of access lists, entry by entry, on a model of the trie.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{Access, Features};
use proptest::prelude::*;

use super::{desired, next, service};
use crate::config::model::{AccessList, Prefix};
use crate::core::image::{MapImage, MapOp};
use crate::core::plan::{Desired, diff};

/// What a trie with these entries says of a client.
fn verdict(entries: &BTreeMap<Prefix, Access>, denies_by_default: bool, client: IpAddr) -> Access {
    let lengths = (0..=32).rev();
    let said = lengths
        .filter_map(|length| entries.get(&Prefix::around(client, length)?))
        .next();
    let default = if denies_by_default {
        Access::Deny
    } else {
        Access::Allow
    };
    said.copied().unwrap_or(default)
}

fn judge(list: &AccessList, client: IpAddr) -> Access {
    verdict(list.entries(), list.denies_by_default(), client)
}

fn wish(list: &AccessList) -> Desired {
    let mut wanted = service(0, &[]);
    wanted.features = Features {
        access_list: !list.entries().is_empty(),
        default_deny: list.denies_by_default(),
        ..Features::default()
    };
    wanted.access = Arc::new(list.clone());
    desired(&[wanted])
}

/// Lists over 16 clients, 10.0.0.0 to 10.0.0.15, with everything that can nest in them.
fn list() -> impl Strategy<Value = AccessList> {
    let prefix = (0_u8..16, 27_u8..=32);
    let entry = (prefix, any::<bool>());
    (prop::collection::vec(entry, 0..8), any::<bool>()).prop_map(|(entries, denies)| {
        let entries = entries.into_iter().map(|((last, length), allow)| {
            let prefix = Prefix::around(client(last), length).unwrap();
            (prefix, if allow { Access::Allow } else { Access::Deny })
        });
        AccessList::new(entries.collect(), denies)
    })
}

fn client(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// The trie and the flags of one service.
struct Maps {
    entries: BTreeMap<Prefix, Access>,
    /// The default, and what packets under way may still take for it.
    denies_by_default: Vec<bool>,
}

impl Maps {
    /// Takes a step apart into single updates, and calls `check` after each.
    fn apply(&mut self, op: &MapOp, mut check: impl FnMut(&Self)) {
        match op {
            MapOp::SetAccess(_, entries) => {
                for (prefix, access) in entries {
                    self.entries.insert(*prefix, *access);
                    check(self);
                }
            }
            MapOp::RemoveAccess(_, prefixes) => {
                for prefix in prefixes {
                    self.entries
                        .remove(prefix)
                        .expect("only what is there goes");
                    check(self);
                }
            }
            MapOp::SetService(_, entry) if !entry.is_marker() => {
                self.denies_by_default.push(entry.denies_by_default());
                check(self);
            }
            MapOp::AwaitGracePeriod => {
                let last = self.denies_by_default.pop();
                self.denies_by_default = last.into_iter().collect();
            }
            MapOp::Set(_)
            | MapOp::SetBackend(..)
            | MapOp::WriteTable { .. }
            | MapOp::SetService(..)
            | MapOp::RemoveService(_)
            | MapOp::RemoveBackend(_) => {}
        }
    }
}

/// The maps that hold a list, and their image.
fn holding(list: &AccessList) -> (Maps, MapImage) {
    let image = next(&MapImage::empty(), &wish(list));
    let mut maps = Maps {
        entries: BTreeMap::new(),
        denies_by_default: Vec::new(),
    };
    for op in diff(&MapImage::empty(), &image) {
        maps.apply(&op, |_| {});
    }
    (maps, image)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_client_is_judged_by_the_old_list_or_the_new_one(old in list(), new in list()) {
        let (mut maps, before) = holding(&old);
        let after = next(&before, &wish(&new));
        // Whether a client was already judged by the new list: nobody goes back.
        let mut moved = [false; 16];
        for op in diff(&before, &after) {
            maps.apply(&op, |maps| {
                for last in 0..16_u8 {
                    let client = client(last);
                    let (old, new) = (judge(&old, client), judge(&new, client));
                    for denies in &maps.denies_by_default {
                        let judged = verdict(&maps.entries, *denies, client);
                        assert!(judged == old || judged == new, "{client} was {judged:?}");
                    }
                    let denies = maps.denies_by_default.last().unwrap();
                    let judged = verdict(&maps.entries, *denies, client);
                    let moved = &mut moved[usize::from(last)];
                    assert!(!*moved || judged == new, "{client} went back");
                    *moved |= old != new && judged == new;
                }
            });
        }
        prop_assert_eq!(&maps.entries, new.entries());
        prop_assert_eq!(maps.denies_by_default, [new.denies_by_default()]);
    }

    #[test]
    fn an_equal_list_needs_no_step(list in list()) {
        let (_, image) = holding(&list);
        let again = next(&image, &wish(&list));
        prop_assert_eq!(diff(&image, &again), []);
        let service = image.services.values().next().unwrap();
        let kept = again.services.values().next().unwrap();
        prop_assert!(Arc::ptr_eq(&service.access, &kept.access));
    }

    #[test]
    fn a_service_that_goes_takes_its_list_with_it(list in list()) {
        let (mut maps, image) = holding(&list);
        let steps = diff(&image, &next(&image, &desired(&[])));
        let grace = steps.iter().position(|op| *op == MapOp::AwaitGracePeriod);
        for (at, op) in steps.iter().enumerate() {
            if matches!(op, MapOp::RemoveAccess(..)) {
                prop_assert!(Some(at) > grace, "packets may still ask");
            }
            maps.apply(op, |_| {});
        }
        prop_assert!(maps.entries.is_empty());
    }
}
