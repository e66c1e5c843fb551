//! What members agree on, and what is remembered of them.

use super::*;

#[test]
fn host_of_a_member_that_has_stopped_is_no_strangers() {
    let mut one = One::new();
    assert!(!one.core.is_host_of_member(HOST));
    one.meet(None);
    one.hear(&Message::Farewell(Parting::Stops));
    assert!(one.core.peers.is_empty() && one.core.is_host_of_member(HOST));
    one.wait(Duration::from_hours(1));
    assert!(!one.core.is_host_of_member(HOST));
}

#[test]
fn newcomer_gets_no_place_where_another_ones_messages_wait_if_there_is_one_without() {
    let mut one = One::new();
    for number in 0..PEERS {
        one.peer = format!("{number:02}");
        one.meet(None);
        if number == 0 {
            one.hear(&Message::Item(1, message()));
        }
        one.core.handle_closed(LinkId(one.link), None, one.now);
        one.wait(LEASE + Duration::from_millis(1));
    }
    let slot = |one: &One, node: &str| one.core.peers[node].slot;
    let (first, second) = (slot(&one, "00"), slot(&one, "01"));
    one.peer = "new".to_owned();
    one.meet(None);
    assert_eq!(slot(&one, "new"), second);
    assert_eq!(slot(&one, "00"), first);
}

/// What a peer that began with nothing has is not all that there is.
#[test]
fn node_that_was_told_by_one_that_began_with_nothing_waits_for_who_is_there_besides() {
    let mut one = One::new();
    one.core.want_retained();
    let meet = |one: &mut One, node: &str, wants_retained| {
        one.peer = node.to_owned();
        one.be_called(2000);
        one.hear(&Message::Resume(Resume {
            stream: 1,
            heard: None,
            is_choked: false,
            wants_retained,
            time: 0,
        }));
        let says =
            |message: &Message| matches!(message, Message::Resume(resume) if resume.wants_retained);
        one.said(Duration::ZERO).iter().any(says)
    };
    let tell = |one: &mut One| {
        one.hear(&Message::Item(
            1,
            Item::Retained {
                messages: Bytes::from_static(b"r"),
                is_last: true,
            },
        ));
        one.wait(Duration::ZERO);
    };
    assert!(meet(&mut one, "two", true) && meet(&mut one, "three", false));
    one.link = 1;
    tell(&mut one);
    assert!(!one.core.is_settled());
    one.link = 2;
    tell(&mut one);
    assert!(one.core.is_settled());
    one.link = 2;
    assert!(!meet(&mut one, "four", true));
    // Who meets none but such has what there is, for now.
    let mut other = One::new();
    other.core.want_retained();
    assert!(meet(&mut other, "two", true));
    tell(&mut other);
    assert!(other.core.is_settled() && meet(&mut other, "three", false));
}

#[test]
fn node_has_looked_round_when_nobody_is_left_to_call_or_for_long_enough() {
    let mut alone = One::new();
    assert!(!alone.core.has_looked());
    alone.wait(Duration::ZERO);
    assert!(alone.core.has_looked());
    for is_in_vain in [true, false] {
        let mut one = One::new();
        one.core.join("a:1", one.now);
        one.wait(Duration::ZERO);
        assert!(!one.core.has_looked());
        // Who calls may not be who is called.
        one.meet(None);
        one.wait(Duration::ZERO);
        assert!(one.is_alive() && !one.core.has_looked());
        if is_in_vain {
            let trouble = "nobody answers";
            one.core.handle_call_failed("a:1", trouble, one.now);
            one.wait(Duration::ZERO);
        } else {
            one.wait(2 * LEASE);
        }
        assert!(one.core.has_looked());
        // However it goes on.
        one.core.join("b:1", one.now);
        one.wait(Duration::ZERO);
        assert!(one.core.has_looked());
    }
}

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
            time: 0,
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
        time: 0,
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
