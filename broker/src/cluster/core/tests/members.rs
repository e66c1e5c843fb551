//! What members agree on, and what is remembered of them.

use super::*;

#[test]
fn of_two_leases_the_longer_one_counts() {
    for (theirs, longer) in [(500, LEASE), (8000, 4 * LEASE)] {
        let mut one = One::new();
        one.be_called(theirs);
        one.hear(&Message::Resume(Resume {
            stream: 1,
            heard: None,
            is_choked: false,
            wants_retained: false,
        }));
        one.take_copy();
        one.said(Duration::ZERO);
        // It hears as often as that asks for, and no more often.
        let beat = longer / BEATS;
        let taken = Message::Taken(0);
        assert!(!one.said(beat / 2).contains(&taken));
        assert!(one.said(beat / 2).contains(&taken));
        one.wait(longer / 2 - beat);
        assert!(one.is_met());
        one.wait(Duration::from_millis(1));
        assert!(!one.is_met() && one.is_alive());
        one.wait(longer / 2 - Duration::from_millis(1));
        assert!(one.is_alive());
        one.wait(Duration::from_millis(1));
        assert!(!one.is_alive());
    }
    // Whatever a peer asks for, there is an end.
    let mut one = One::new();
    one.be_called(0);
    assert_eq!(one.core.longest_lease(), LEASE);
    one.be_called(u32::MAX);
    assert_eq!(one.core.longest_lease(), crate::cluster::LEASE.1);
}

#[test]
fn peer_that_waits_for_what_becomes_of_another_one_is_not_stuck() {
    let mut one = One::new();
    one.be_called(8000);
    let spread = one.core.loss_spread();
    one.hear(&Message::Resume(Resume {
        stream: 1,
        heard: None,
        is_choked: false,
        wants_retained: false,
    }));
    one.take_copy();
    let slot = one.core.peers["two"].slot;
    let messages = Bytes::from_static(b"m");
    one.core.handle_frame(slot, None, messages, one.now);
    let begun = one.now;
    while one.now < begun + spread + LEASE {
        one.wait(LEASE / BEATS);
        one.hear(&Message::Taken(1));
    }
    assert!(one.is_alive());
}
