//! What several nodes have retained comes to be the same.

use super::*;
use crate::cluster::telling::Turn;

/// Those of two stores that have nothing in common.
pub(super) fn all_buckets() -> Buckets {
    let mut sums = Sums::default();
    for number in 0..10 * BUCKETS {
        sums.add(&number.to_string(), 1);
    }
    sums.differing(&Sums::default())
}

/// What is to become of a topic, and when.
type Change = (String, &'static str, u64);

fn apply(retained: &mut Retained, (topic, payload, at): &Change) {
    assert!(retained.store(&message(topic, payload), *at, Instant::now()));
}

fn contents(retained: &Retained) -> Vec<(String, String, u64)> {
    let kept = retained.page("#", None, Instant::now()).messages;
    let text = |kept: &Kept| String::from_utf8(kept.message.payload.to_vec()).unwrap();
    kept.iter()
        .map(|kept| (kept.message.topic.to_string(), text(kept), kept.at))
        .collect()
}

/// As two nodes do it; tells how many messages were told.
fn tell(from: &Retained, to: &mut Retained) -> usize {
    let now = Instant::now();
    let buckets = from.sums().differing(to.sums());
    let (mut after, mut count) = (None, 0);
    loop {
        let page = from.copy(buckets, 1, after.as_deref(), now);
        for (message, at) in &page.messages {
            assert!(to.store_told(message, *at, now));
        }
        count += page.messages.len();
        after = page.next;
        if after.is_none() {
            return count;
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let payload = prop_oneof![Just(""), Just("x"), Just("y")];
    vec(("[ab$/]{1,3}", payload, 1..6_u64), 0..20)
}

proptest! {
    #[test]
    fn order_in_which_changes_come_makes_no_difference(
        (ours, theirs) in changes().prop_flat_map(|ours| (Just(ours.clone()), Just(ours).prop_shuffle())),
    ) {
        let (mut one, mut two) = (Retained::new(Bounds::NONE), Retained::new(Bounds::NONE));
        ours.iter().for_each(|change| apply(&mut one, change));
        theirs.iter().for_each(|change| apply(&mut two, change));
        // Some come twice.
        ours.iter().take(3).for_each(|change| apply(&mut two, change));
        prop_assert_eq!(contents(&one), contents(&two));
        prop_assert_eq!(one.sums(), two.sums());
    }

    #[test]
    fn nodes_that_tell_each_other_have_the_same(ours in changes(), theirs in changes()) {
        let (mut one, mut two) = (Retained::new(Bounds::NONE), Retained::new(Bounds::NONE));
        ours.iter().for_each(|change| apply(&mut one, change));
        theirs.iter().for_each(|change| apply(&mut two, change));
        tell(&one, &mut two);
        tell(&two, &mut one);
        prop_assert_eq!(contents(&one), contents(&two));
        prop_assert_eq!(tell(&one, &mut two), 0);
        let mut sums = Sums::default();
        for (message, at) in one.copy(all_buckets(), usize::MAX, None, Instant::now()).messages {
            sums.add(&message.topic, value_of(&message, at));
        }
        prop_assert_eq!(one.sums(), &sums);
    }
}

#[test]
fn what_was_deleted_is_not_brought_back_by_who_has_not_heard_of_it() {
    let (mut one, mut two) = (Retained::new(Bounds::NONE), Retained::new(Bounds::NONE));
    for retained in [&mut one, &mut two] {
        apply(retained, &("t".to_owned(), "x", 1));
        apply(retained, &("kept".to_owned(), "x", 1));
    }
    apply(&mut one, &("t".to_owned(), "", 2));
    assert!(!one.is_unknown("t") && one.is_unknown("other"));
    // Both ways, whoever begins.
    assert_eq!(tell(&two, &mut one), 1);
    assert_eq!(tell(&one, &mut two), 1);
    assert_eq!(contents(&one), [("kept".to_owned(), "x".to_owned(), 1)]);
    assert_eq!(contents(&two), contents(&one));
    // What is published later counts.
    apply(&mut two, &("t".to_owned(), "y", 3));
    assert_eq!(tell(&two, &mut one), 1);
    assert_eq!(contents(&one), contents(&two));
    assert_eq!(one.latest(), 3);
}

#[test]
fn message_for_which_there_is_no_room_can_come_later_and_the_one_before_it_cannot() {
    let mut retained = bounded(2000);
    let now = Instant::now();
    let long = message("t", &"x".repeat(1900));
    assert!(retained.store(&message("t", "before"), 5, now));
    assert!(!retained.store(&long, 7, now));
    assert!(retained.store(&message("t", "before"), 5, now));
    assert_eq!(retained.len(), 0);
    // That is known, and need not be noted anew.
    assert!(retained.is_refused(&long, 7) && !retained.is_refused(&long, 8));
    assert!(!retained.store(&long, 7, now) && retained.is_refused(&long, 7));
    retained.set_bounds(Bounds::NONE);
    assert!(retained.store(&long, 7, now));
    assert_eq!(retained.len(), 1);
}

#[test]
fn without_a_clock_the_last_one_counts_and_nothing_is_remembered() {
    let now = Instant::now();
    let mut retained = Retained::new(Bounds::NONE);
    assert!(retained.keep(&message("t", "x")) && retained.keep(&message("t", "a")));
    assert_eq!(contents(&retained), [("t".to_owned(), "a".to_owned(), 0)]);
    assert!(retained.keep(&message("t", "")));
    assert!(retained.is_unknown("t"));
    assert_eq!(retained.sums(), &Sums::default());
    // A node that was in a cluster once goes on by itself.
    assert!(retained.store(&message("t", "x"), 9, now) && retained.keep(&message("t", "a")));
    assert_eq!(contents(&retained), [("t".to_owned(), "a".to_owned(), 0)]);
}

#[test]
fn message_that_was_replaced_by_one_that_has_expired_does_not_come_back() {
    let now = Instant::now();
    let (mut one, mut two) = (Retained::new(Bounds::NONE), Retained::new(Bounds::NONE));
    for retained in [&mut one, &mut two] {
        apply(retained, &("t".to_owned(), "x", 1));
    }
    let mut fleeting = Message::clone(&message("t", "y"));
    fleeting.expires = Some(now);
    let fleeting = Arc::new(fleeting);
    assert!(one.store(&fleeting, 2, now));
    one.handle_timeout(now);
    assert!(one.len() == 0 && !one.is_unknown("t"));
    assert_eq!(tell(&two, &mut one), 1);
    assert_eq!(one.len(), 0);
    assert_eq!(tell(&one, &mut two), 1);
    assert_eq!(two.len(), 0);
    // Somebody's clock is late.
    assert!(one.store(&fleeting, 2, now));
    assert_eq!(one.len(), 0);
    apply(&mut one, &("t".to_owned(), "z", 3));
    assert_eq!(one.len(), 1);
}

#[test]
fn what_was_deleted_on_purpose_is_known_as_such_by_all() {
    let now = Instant::now();
    let (mut one, mut two) = (Retained::new(Bounds::NONE), Retained::new(Bounds::NONE));
    apply(&mut one, &("meant".to_owned(), "x", 1));
    apply(&mut one, &("meant".to_owned(), "", 2));
    apply(&mut one, &("nothing".to_owned(), "", 3));
    // Somebody deletes it again.
    apply(&mut one, &("meant".to_owned(), "", 4));
    for (message, at) in &one
        .copy(all_buckets(), usize::MAX, Some("\0"), now)
        .messages
    {
        assert!(two.store_told(message, *at, now));
    }
    let (meant, passing) = (Cause::Meant, Cause::Passing);
    for retained in [&one, &two] {
        let cause = |topic| retained.deleted.get(topic).unwrap().cause;
        assert_eq!((cause("meant"), cause("nothing")), (meant, passing));
        assert_eq!(retained.deletions(), (2, 0));
    }
}

#[test]
fn who_begins_with_nothing_is_told_what_was_deleted_though_nothing_differs() {
    let mut one = Retained::new(Bounds::NONE);
    apply(&mut one, &("t".to_owned(), "x", 1));
    apply(&mut one, &("t".to_owned(), "", 2));
    let two = Retained::new(Bounds::NONE);
    let buckets = one.differing(Turn::Question, two.sums());
    assert!(buckets.have("t") && buckets == Buckets::ALL);
    // It has answered, and there is nothing that it has not.
    assert!(one.differing(Turn::Answer, two.sums()).is_empty());
    assert!(two.differing(Turn::Question, one.sums()).is_empty());
    let now = Instant::now();
    let mut two = two;
    let mut after = None;
    loop {
        let page = one.copy(buckets, usize::MAX, after.as_deref(), now);
        for (message, at) in &page.messages {
            assert!(two.store_told(message, *at, now));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // Who was away has it still.
    apply(&mut two, &("t".to_owned(), "x", 1));
    assert_eq!(two.len(), 0);
}
