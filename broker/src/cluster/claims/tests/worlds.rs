//! What must hold in all worlds.

use super::*;

#[test]
fn newest_connection_has_the_session_and_all_that_it_held() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, false);
        world.act_as_clients();
        world.run(10_000);
        let holders = world.holders();
        assert_eq!(holders.len(), 1, "seed {seed}");
        let session = holders[0];
        let newest = world.newest.as_ref().unwrap();
        assert_eq!(session.live, Some(newest.time), "seed {seed}");
        let all: BTreeSet<_> = (1..=world.published).collect();
        assert_eq!(session.holds, all, "seed {seed}");
        assert!(world.nodes.iter().all(|node| !node.claims.is_open(ID)));
    }
}

#[test]
fn nothing_is_lost_or_waited_for_when_nodes_lose_each_other() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, true);
        for _ in 0..4 {
            world.act_as_clients();
            let count = world.nodes.len() as u64;
            let one = usize::try_from(world.dice.roll(count)).unwrap();
            let other = usize::try_from(world.dice.roll(count)).unwrap();
            for is_there in [false, true] {
                let time = world.dice.roll(500);
                world.run(time);
                if one != other {
                    world.set_there(one, other, is_there);
                }
            }
        }
        world.run(10_000);
        assert!(world.nodes.iter().all(|node| !node.claims.is_open(ID)));
        let deferred = world.nodes.iter().map(|node| node.claims.deferred.len());
        assert_eq!(deferred.sum::<usize>(), 0, "seed {seed}");
        // Those that were lost have claimed each other's when they met.
        let holders = world.holders();
        assert_eq!(holders.len(), 1, "seed {seed}");
        let all: BTreeSet<_> = (1..=world.published).collect();
        assert_eq!(holders[0].holds, all, "seed {seed}");
    }
}

#[test]
fn node_that_says_nothing_is_not_waited_for_longer_than_one_has_patience() {
    let now = Instant::now();
    let mut claims = Claims::new("a".into(), PATIENCE);
    let fellow = Fellow {
        end: ShardId(1),
        life: 1,
    };
    claims.handle_fellows(vec![fellow], now);
    let terms = Terms {
        user: None,
        clean_start: false,
        is_entitled: true,
        has_session: false,
        is_bereft: false,
    };
    claims.claim(ID, 7, terms, "who", now);
    assert!(matches!(claims.poll_action(), Some(Action::Ask { .. })));
    claims.handle_timeout(now + PATIENCE / 2);
    assert_eq!(claims.poll_action(), None);
    claims.handle_part(ID, 7, now + PATIENCE / 2);
    claims.handle_timeout(now + PATIENCE);
    assert_eq!(claims.poll_action(), None);
    claims.handle_timeout(now + 2 * PATIENCE);
    assert_eq!(claims.poll_action(), Some(Action::Grant("who")));
    // What it says then is late.
    let newer = Answer::Newer(Stamp {
        time: 9,
        node: "b".into(),
    });
    claims.handle_answer(fellow, ID, 7, newer, now);
    assert_eq!(claims.poll_action(), None);
}

#[test]
fn denied_client_is_refused_and_the_next_one_asks_for_itself() {
    let now = Instant::now();
    let mut claims = Claims::new("a".into(), PATIENCE);
    let fellow = Fellow {
        end: ShardId(1),
        life: 1,
    };
    claims.handle_fellows(vec![fellow], now);
    let terms = |user: &str| Terms {
        user: Some(user.into()),
        clean_start: false,
        is_entitled: true,
        has_session: false,
        is_bereft: false,
    };
    claims.claim(ID, 7, terms("u"), "first", now);
    claims.claim(ID, 8, terms("v"), "second", now);
    for asked in [7, 8] {
        let Some(Action::Ask { time, terms, .. }) = claims.poll_action() else {
            panic!("nobody is asked");
        };
        // On the terms of the first one.
        assert_eq!((time, terms.user.as_deref()), (asked, Some("u")));
    }
    claims.handle_answer(fellow, ID, 8, Answer::Denied, now);
    let refused = Action::Refuse("first", Refusal::Denied);
    assert_eq!(claims.poll_action(), Some(refused));
    let Some(Action::Ask { time, terms, .. }) = claims.poll_action() else {
        panic!("nobody is asked");
    };
    assert_eq!((time, terms.user.as_deref()), (8, Some("v")));
    claims.handle_answer(fellow, ID, 8, Answer::Nothing, now);
    assert_eq!(claims.poll_action(), Some(Action::Grant("second")));
    claims.finish(ID, 8, now);
    assert!(!claims.is_open(ID));
}

#[test]
fn when_a_node_is_lost_the_others_are_asked_once_more_for_their_copies() {
    let now = Instant::now();
    let mut claims = Claims::new("a".into(), PATIENCE);
    let [owner, other] = [1, 2].map(|end| Fellow {
        end: ShardId(end),
        life: 1,
    });
    claims.handle_fellows(vec![owner, other], now);
    let terms = Terms {
        user: None,
        clean_start: false,
        is_entitled: true,
        has_session: false,
        is_bereft: false,
    };
    let asked = |claims: &mut Claims<&str>| match claims.poll_action() {
        Some(Action::Ask { terms, fellows, .. }) => (terms.is_bereft, fellows),
        action => panic!("nobody is asked: {action:?}"),
    };
    claims.claim(ID, 7, terms.clone(), "who", now);
    assert_eq!(asked(&mut claims), (false, vec![owner, other]));
    claims.handle_answer(other, ID, 7, Answer::Nothing, now);
    claims.handle_fellows(vec![other], now);
    assert_eq!(asked(&mut claims), (true, vec![other]));
    assert_eq!(claims.poll_action(), None);
    claims.handle_answer(other, ID, 7, Answer::Nothing, now);
    assert_eq!(claims.poll_action(), Some(Action::Grant("who")));
    claims.finish(ID, 7, now);
    // The other one may hear of the loss later, but not for ever.
    for (time, wait, is_bereft) in [(8, PATIENCE / 2, true), (9, PATIENCE, false)] {
        claims.claim(ID, time, terms.clone(), "who", now + wait);
        assert_eq!(asked(&mut claims), (is_bereft, vec![other]));
        claims.handle_answer(other, ID, time, Answer::Nothing, now + wait);
        assert_eq!(claims.poll_action(), Some(Action::Grant("who")));
        claims.finish(ID, time, now + wait);
    }
}
