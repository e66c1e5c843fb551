//! Owners that are there all the time, and make their copies anew.

use super::*;

#[test]
fn what_was_told_in_an_earlier_life_counts_until_it_is_told_anew() {
    for (has_word, is_told) in [(true, false), (false, false), (true, true)] {
        let mut scene = Scene::new();
        let clients = ["left out", "begun", "complete"].map(|client_id| {
            let whose = scene.copy(client_id, None);
            scene.say(whose, &[taken(1)]);
            (whose, scene.state_of(whose))
        });
        let ended = scene.copy("ended", None);
        if has_word {
            scene.hear(Word::Lost(Fate::Renewed));
        }
        scene.life += 1;
        let [
            (left_out, _),
            (begun, begun_state),
            (complete, complete_state),
        ] = clients;
        scene.tell_all(begun, begun_state, &[2]);
        scene.tell_all(complete, complete_state, &[2]);
        scene.say(complete, &[Step::Complete, taken(3)]);
        scene.say(ended, &[Step::Ended]);
        assert!(!scene.shard.shadows.has_copy("ended"));
        assert!(scene.shard.shadows.has_copy("left out"));
        let (life, shard) = (scene.life, u16::try_from(left_out.client % 2).unwrap());
        // What is of an earlier life, and of no shard.
        for (life, shard, of) in [(life - 1, shard, 2), (life, 2, 2), (life, 0, 0)] {
            scene.hear(Word::Told { life, shard, of });
        }
        if is_told {
            scene.hear(Word::Told { life, shard, of: 2 });
        }
        assert_eq!(scene.shard.shadows.has_copy("left out"), !is_told);
        scene.lose();
        assert!(!scene.is_here("ended"));
        assert_eq!(scene.is_here("left out"), !is_told);
        assert_eq!(scene.messages("complete"), [2, 3]);
        if !is_told {
            assert_eq!(scene.messages("begun"), [1]);
            assert_eq!(scene.messages("left out"), [1]);
        }
        assert_eq!(scene.shard.shadows.owners.len(), 0);
    }
}

#[test]
fn copies_of_who_goes_on_without_this_node_are_of_use_when_it_has_come_back_and_is_lost() {
    for (is_back, is_long) in [(true, false), (false, false), (false, true)] {
        let mut scene = Scene::new();
        for client_id in ["c", "d"] {
            let whose = scene.copy(client_id, None);
            scene.say(whose, &[taken(1)]);
        }
        scene.hear(Word::Lost(Fate::Apart));
        // It may have the session of a client that comes here, and what it has is newer.
        scene.connect("d");
        assert!(scene.messages("d").is_empty());
        assert!(!scene.shard.shadows.has_copy("c"));
        if is_back {
            scene.life += 1;
            scene.say(Whose::first(0), &[Step::Ended]);
            assert!(scene.shard.shadows.has_copy("c"));
        }
        if is_long {
            scene.now += scene.shard.shadows.memory;
            scene.shard.forget_mourned(scene.now);
        }
        scene.lose();
        assert_eq!(scene.is_here("c"), !is_long);
        assert_eq!(scene.messages("d").len(), usize::from(!is_long));
    }
}

#[test]
fn copies_that_are_made_anew_hold_no_more_memory_than_they_have() {
    let mut scene = Scene::new();
    let bytes = |scene: &Scene| scene.shard.shadows.owners[&END].bytes;
    let whose = scene.copy("c", None);
    let state = scene.state_of(whose);
    scene.say(whose, &[taken(1)]);
    let before = bytes(&scene);
    for _ in 0..2 {
        scene.life += 1;
        scene.hear(Word::Lost(Fate::Renewed));
        assert_eq!(bytes(&scene), before);
        scene.tell_all(whose, state.clone(), &[1]);
        assert_eq!(bytes(&scene), 2 * before);
        scene.hear(Word::Lost(Fate::Renewed));
        assert_eq!(bytes(&scene), before);
        scene.tell_all(whose, state.clone(), &[1]);
        scene.say(whose, &[Step::Complete]);
        assert_eq!(bytes(&scene), before);
    }
    scene.say(whose, &[Step::Ended]);
    assert_eq!(bytes(&scene), 0);
}

#[test]
fn nobody_waits_for_a_copy_that_is_of_no_use_to_it() {
    let mut scene = Scene::new();
    let cluster = scene.shard.shared.cluster.clone().unwrap();
    cluster.meet_for_tests(&[END, THIRD]);
    let whose = scene.copy("kept", None);
    let brief = Whose {
        client: hash_of("brief"),
        session: SessionId(SessionId::BRIEF | 1),
    };
    let mut state = scene.state_of(whose);
    let profile = Arc::make_mut(&mut state.profile);
    profile.client_id = "brief".into();
    state.will = Some(will(0));
    scene.say(brief, &[Step::Whole, Step::State(state)]);
    for (client_id, clean_start, must_wait) in [
        ("kept", false, true),
        ("kept", true, false),
        ("brief", false, false),
    ] {
        let before = scene.said();
        scene.claim_on(client_id, true, clean_start);
        assert_eq!(
            scene.said() == before,
            must_wait,
            "{client_id} {clean_start}"
        );
    }
    // The session that ends is somebody else's.
    let before = scene.said();
    let other = scene.copy("other", None);
    scene.claim("kept", true);
    scene.say(other, &[Step::Ended]);
    assert_eq!(scene.said(), before);
}
