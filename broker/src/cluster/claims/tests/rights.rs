//! Clients of one id that have different rights to it.

use super::*;

#[test]
fn claims_of_different_rights_do_not_wait_for_each_other_either() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, false);
        world.ranks = Some(BTreeMap::new());
        world.act_as_clients();
        world.run(10_000);
        assert!(world.nodes.iter().all(|node| !node.claims.is_open(ID)));
        let deferred = world.nodes.iter().map(|node| node.claims.deferred.len());
        assert_eq!(deferred.sum::<usize>(), 0, "seed {seed}");
        let holders = world.holders();
        assert_eq!(holders.len(), 1, "seed {seed}");
        let all: BTreeSet<_> = (1..=world.published).collect();
        assert_eq!(holders[0].holds, all, "seed {seed}");
    }
}

fn terms(user: Option<&str>, is_entitled: bool) -> Terms {
    Terms {
        user: user.map(Into::into),
        clean_start: false,
        is_entitled,
        has_session: false,
        is_bereft: false,
    }
}

/// A node's claims, and another node that is there.
fn pair(now: Instant) -> (Claims<&'static str>, Fellow) {
    let mut claims = Claims::new("b".into(), PATIENCE);
    let fellow = Fellow {
        end: ShardId(1),
        life: 1,
    };
    claims.handle_fellows(vec![fellow], now);
    (claims, fellow)
}

#[test]
fn who_has_no_right_to_an_id_keeps_nobody_out_however_new_it_is() {
    let now = Instant::now();
    let (mut claims, fellow) = pair(now);
    claims.claim(ID, 5, terms(Some("u"), true), "owner", now);
    assert!(matches!(claims.poll_action(), Some(Action::Ask { .. })));
    let mut asked_again = 0;
    for terms in [
        terms(Some("v"), false),
        terms(None, true),
        terms(None, false),
    ] {
        let claim = Claim {
            from: fellow,
            client_id: ID.into(),
            stamp: Stamp {
                time: 9,
                node: "a".into(),
            },
            terms: terms.clone(),
            heard: now,
        };
        claims.handle_claim(claim.clone(), Here::Nothing);
        let answer = Action::Answer(claim, Answer::Denied);
        assert_eq!(claims.poll_action(), Some(answer));
        // What may have gone there by then is asked for once.
        if asked_again == 0 {
            let again = claims.poll_action();
            assert!(matches!(again, Some(Action::Ask { time: 5, .. })));
            asked_again += 1;
        }
        // Nor is the owner asked for again for one of this node's.
        claims.claim(ID, 6, terms, "other", now);
        let refused = Action::Refuse("other", Refusal::Denied);
        assert_eq!(claims.poll_action(), Some(refused));
        assert_eq!(claims.poll_action(), None);
    }
    claims.handle_answer(fellow, ID, 5, Answer::Nothing, now);
    assert_eq!(claims.poll_action(), Some(Action::Grant("owner")));
}

#[test]
fn owner_of_an_id_is_not_too_late_for_who_waits_without_a_right() {
    let now = Instant::now();
    let (mut claims, fellow) = pair(now);
    claims.claim(ID, 9, terms(Some("v"), false), "other", now);
    assert!(matches!(claims.poll_action(), Some(Action::Ask { .. })));
    let claim = Claim {
        from: fellow,
        client_id: ID.into(),
        stamp: Stamp {
            time: 5,
            node: "a".into(),
        },
        terms: terms(Some("u"), true),
        heard: now,
    };
    claims.handle_claim(claim.clone(), Here::Nothing);
    claims.claim(ID, 10, terms(Some("v"), false), "again", now);
    for who in ["other", "again"] {
        let refused = Action::Refuse(who, Refusal::Denied);
        assert_eq!(claims.poll_action(), Some(refused));
    }
    assert_eq!(claims.poll_action(), None);
    claims.handle_answer(fellow, ID, 9, Answer::Denied, now);
    assert_eq!(claims.poll_action(), Some(Action::Judge(claim)));
}

#[test]
fn owner_of_an_id_takes_the_place_of_who_waits_without_a_right() {
    let now = Instant::now();
    let (mut claims, _fellow) = pair(now);
    claims.claim(ID, 5, terms(None, true), "other", now);
    assert!(matches!(claims.poll_action(), Some(Action::Ask { .. })));
    claims.claim(ID, 6, terms(Some("u"), true), "owner", now);
    let refused = Action::Refuse("other", Refusal::Denied);
    assert_eq!(claims.poll_action(), Some(refused));
    let Some(Action::Ask { time, terms, .. }) = claims.poll_action() else {
        panic!("nobody is asked");
    };
    assert_eq!((time, terms.user.as_deref()), (6, Some("u")));
}

#[test]
fn client_who_waits_is_not_forgotten_for_a_session_of_its_node_or_an_older_claim() {
    let now = Instant::now();
    let (mut claims, fellow) = pair(now);
    claims.claim(ID, 5, terms(None, true), "own", now);
    let claim = |time, has_session| Claim {
        from: fellow,
        client_id: ID.into(),
        stamp: Stamp {
            time,
            node: "a".into(),
        },
        terms: Terms {
            has_session,
            ..terms(None, true)
        },
        heard: now,
    };
    for (time, has_session) in [(8, false), (9, false), (8, false), (7, true), (6, true)] {
        claims.handle_claim(claim(time, has_session), Here::Nothing);
    }
    claims.handle_answer(fellow, ID, 5, Answer::Nothing, now);
    let mut judged = Vec::new();
    while let Some(action) = claims.poll_action() {
        if let Action::Judge(claim) = action {
            judged.push((claim.stamp.time, claim.terms.has_session));
        }
    }
    assert_eq!(judged, [(9, false), (7, true)]);
}

#[test]
fn client_of_another_node_that_has_given_up_keeps_nobody_out() {
    let now = Instant::now();
    let (mut claims, fellow) = pair(now);
    for has_session in [false, true] {
        let claim = Claim {
            from: fellow,
            client_id: ID.into(),
            stamp: Stamp {
                time: 9,
                node: "a".into(),
            },
            terms: Terms {
                has_session,
                ..terms(Some("u"), true)
            },
            heard: now,
        };
        claims.handle_claim(claim, Here::Copied);
    }
    let early = now + 2 * PATIENCE - Duration::from_millis(1);
    claims.handle_timeout(early);
    claims.claim(ID, 10, terms(None, true), "early", early);
    let refused = Action::Refuse("early", Refusal::Denied);
    assert_eq!(claims.poll_action(), Some(refused));
    let late = now + 2 * PATIENCE;
    claims.handle_timeout(late);
    claims.claim(ID, 11, terms(None, true), "late", late);
    assert!(matches!(claims.poll_action(), Some(Action::Ask { .. })));
    // A session that is there is not forgotten.
    claims.handle_answer(fellow, ID, 11, Answer::Nothing, late);
    assert_eq!(claims.poll_action(), Some(Action::Grant("late")));
    claims.finish(ID, 11, late);
    let judged = claims.poll_action();
    assert!(matches!(judged, Some(Action::Judge(claim)) if claim.terms.has_session));
}
