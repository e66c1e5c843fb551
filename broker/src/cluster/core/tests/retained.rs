//! What nodes tell each other of retained messages.

use super::*;

#[test]
fn node_asks_for_what_others_have_retained_whenever_it_joins() {
    let mut one = One::new();
    one.core.want_retained();
    let asks = |one: &mut One| {
        let slot = one.core.peers["two"].slot;
        one.core.handle_sums(slot, &Sums::default());
        let said = one.said(Duration::ZERO).into_iter();
        said.filter(|message| matches!(message, Message::Item(_, Item::Sums(Turn::Question, _))))
            .count()
    };
    one.wait(Duration::ZERO);
    assert!(one.core.is_settled());
    one.wait(Duration::from_hours(1));
    one.meet(None);
    one.take_copy();
    assert_eq!((asks(&mut one), asks(&mut one)), (1, 0));
    let page = |is_last| Item::Retained {
        messages: Bytes::from_static(b"r"),
        is_last,
    };
    one.hear(&Message::Item(1, page(false)));
    // The copy is broken off, and begins anew.
    one.hear(&Message::Farewell(Parting::Leaves));
    one.meet_with(2, None);
    one.take_copy();
    assert_eq!(asks(&mut one), 1);
    one.hear(&Message::Item(1, page(false)));
    one.hear(&Message::Item(2, page(true)));
    one.hear(&Message::Farewell(Parting::Leaves));
    // They may have come to differ since.
    one.meet_with(3, None);
    one.take_copy();
    assert_eq!(asks(&mut one), 1);
}

#[test]
fn who_asks_is_told_what_differs_and_hears_the_end_of_it() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    let (mut theirs, none) = (Sums::default(), Sums::default());
    theirs.add("t", 1);
    let sums = Item::Sums(Turn::Question, theirs.clone());
    one.hear(&Message::Item(1, sums));
    let slot = one.core.peers["two"].slot;
    let (turn, sums) = (Turn::Question, theirs.clone());
    let actions = one.wait(Duration::ZERO);
    assert!(actions.contains(&Action::CompareRetained { slot, turn, sums }));
    let buckets = none.differing(&theirs);
    one.core.handle_compared(slot, turn, buckets);
    let read = |after: Option<&str>| Action::ReadRetained {
        slot,
        buckets,
        after: after.map(Into::into),
    };
    let actions = one.wait(Duration::ZERO);
    assert!(actions.contains(&read(None)));
    // A page on which there is nothing is none, but for the last one.
    one.core
        .handle_retained(slot, Bytes::new(), Some("s".into()));
    assert!(one.wait(Duration::ZERO).contains(&read(Some("s"))));
    one.core.handle_retained(slot, Bytes::new(), None);
    let told = |said: Vec<Message>| {
        let is_page =
            |message: &Message| matches!(message, Message::Item(_, Item::Retained { .. }));
        said.into_iter().filter(is_page).count()
    };
    assert_eq!(told(one.said(Duration::ZERO)), 1);
    // Of one with the same nothing is read, and it hears that.
    one.core
        .handle_compared(slot, Turn::Question, Buckets::default());
    let actions = one.wait(Duration::ZERO);
    let reads = |action: &Action| matches!(action, Action::ReadRetained { .. });
    assert!(!actions.iter().any(reads));
    let is_end = |action: &Action| {
        let Action::Send(_link, bytes) = action else {
            return false;
        };
        let Ok(Message::Item(_, Item::Retained { messages, is_last })) =
            Message::decode(bytes.clone())
        else {
            return false;
        };
        is_last && messages.is_empty()
    };
    assert_eq!(actions.iter().filter(|action| is_end(action)).count(), 1);
    // An answer in which nothing differs needs none.
    one.core
        .handle_compared(slot, Turn::Answer, Buckets::default());
    let actions = one.wait(Duration::ZERO);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::ReadRetained { .. }))
    );
}

#[test]
fn others_are_asked_for_news_when_all_of_them_are_told_and_seldom() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    let two = one.core.peers["two"].slot;
    one.peer = "three".to_owned();
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["three"].slot;
    // They have met.
    one.said(Duration::ZERO);
    one.core.handle_sums(two, &Sums::default());
    one.core.handle_sums(slot, &Sums::default());
    one.said(Duration::ZERO);
    let tell = |one: &mut One, number, is_last| {
        one.hear(&Message::Item(
            number,
            Item::Retained {
                messages: Bytes::from_static(b"r"),
                is_last,
            },
        ));
        one.core.handle_news(slot);
    };
    let is_two_asked = |one: &mut One, time| {
        let actions = one.wait(time);
        assert!(!actions.contains(&Action::SumRetained { slot }));
        let asks = actions.contains(&Action::SumRetained { slot: two });
        one.core.handle_sums(two, &Sums::default());
        asks
    };
    tell(&mut one, 1, false);
    assert!(!is_two_asked(&mut one, Duration::ZERO));
    tell(&mut one, 2, true);
    assert!(is_two_asked(&mut one, Duration::ZERO));
    assert!(!is_two_asked(&mut one, Duration::ZERO));
    tell(&mut one, 3, true);
    assert!(!is_two_asked(&mut one, LEASE / 4));
    tell(&mut one, 4, true);
    let mut asked = 0;
    for _ in 0..6 {
        // They are not silent.
        for node in ["two", "three"] {
            one.core.peers.get_mut(node).unwrap().heard = one.now;
        }
        asked += usize::from(is_two_asked(&mut one, LEASE / 4));
    }
    assert_eq!(asked, 1);
}

#[test]
fn sums_follow_what_is_told_and_only_one_of_two_asks() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["two"].slot;
    one.core.handle_sums(slot, &Sums::default());
    one.said(Duration::ZERO);
    let mut theirs = Sums::default();
    theirs.add("t", 1);
    let buckets = Sums::default().differing(&theirs);
    one.core.handle_compared(slot, Turn::Question, buckets);
    let sum = Action::SumRetained { slot };
    assert!(!one.wait(Duration::ZERO).contains(&sum));
    one.core
        .handle_retained(slot, Bytes::from_static(b"r"), None);
    assert!(one.wait(Duration::ZERO).contains(&sum));
    one.core.handle_sums(slot, &Sums::default());
    let is_answer =
        |message: &Message| matches!(message, Message::Item(_, Item::Sums(Turn::Answer, _)));
    assert!(one.said(Duration::ZERO).iter().any(is_answer));
    // The first by name asks, so this one does not.
    one.peer = "a".to_owned();
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["a"].slot;
    let sum = Action::SumRetained { slot };
    assert!(!one.wait(Duration::ZERO).contains(&sum));
}

#[test]
fn node_without_any_is_told_all_by_one_and_compares_with_others_afterwards() {
    let mut one = One::new();
    one.core.want_retained();
    let mut asked = Vec::new();
    for node in ["a", "two"] {
        one.peer = node.to_owned();
        one.meet(None);
        asked.extend(one.wait(Duration::ZERO));
        one.hear(&Message::Taken(1));
    }
    let sum = |one: &One, node: &str| Action::SumRetained {
        slot: one.core.peers[node].slot,
    };
    let (of_a, of_two) = (sum(&one, "a"), sum(&one, "two"));
    assert!(asked.contains(&of_a) && !asked.contains(&of_two));
    let slot = one.core.peers["a"].slot;
    one.core.handle_sums(slot, &Sums::default());
    // It is asked itself, which can wait.
    let sums = Sums::default();
    one.hear(&Message::Item(1, Item::Sums(Turn::Question, sums.clone())));
    let two = one.core.peers["two"].slot;
    let compares = Action::CompareRetained {
        slot: two,
        turn: Turn::Question,
        sums,
    };
    let actions = one.wait(Duration::ZERO);
    assert!(!actions.contains(&compares) && !actions.contains(&of_two));
    one.link -= 1;
    one.hear(&Message::Item(
        1,
        Item::Retained {
            messages: Bytes::from_static(b"r"),
            is_last: true,
        },
    ));
    assert!(one.core.is_settled());
    let actions = one.wait(Duration::ZERO);
    assert!(actions.contains(&compares) && actions.contains(&of_two));
}

#[test]
fn times_of_a_peer_are_seen_before_it_is_there() {
    let mut one = One::new();
    one.core.set_time(7);
    one.be_called(2000);
    let says = |message: &Message| matches!(message, Message::Resume(resume) if resume.time == 7);
    assert!(one.said(Duration::ZERO).iter().any(says));
    one.hear(&Message::Resume(Resume {
        stream: 1,
        heard: None,
        is_choked: false,
        wants_retained: false,
        time: 9,
    }));
    let actions = one.wait(Duration::ZERO);
    assert!(one.is_alive() && actions.contains(&Action::SeeTime(9)));
}
