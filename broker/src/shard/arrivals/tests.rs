//! Sessions that come from another node, or go there, as a shard sees it.

mod groups;
mod waiting;

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use tokio::sync::oneshot;

use super::*;
use crate::{
    cluster::claims::{Refusal, Terms},
    config::Config,
    message::{Message, MessageId, Qos},
    receipts::{Need, Needs},
    replica::{
        Step, memory,
        place::{Peer, Place},
        wire::Writer,
    },
    routes::ShardId,
    session::{
        Cause, Grant, Subscription,
        journal::{Seq, Since},
    },
    shard::{Admission, Inheritance, Shared, testing::GROUP},
    shares::{Appetite, Presence},
    store::Store,
    testing,
    testing::Dir,
};

const FELLOW: Fellow = Fellow {
    end: ShardId(1),
    life: 1,
};

/// Of the claim, and of the client's last connection before.
const TIME: u64 = 7;
const BEFORE: u64 = 5;

const HOUR: Duration = Duration::from_secs(3600);

fn shard() -> Shard {
    let mut shard = Shard::new(ShardId(0), Shared::for_tests("", 2), Arc::default());
    judge_by(&shard, OPEN, "");
    shard.clustered.fellows.push(FELLOW);
    shard
        .clustered
        .claims
        .handle_fellows(vec![FELLOW], Instant::now());
    shard
}

/// The session of user `u`, with filters `t` and `u`, and a message that waits.
fn steps(now: Instant) -> Vec<Step> {
    let profile = Profile {
        client_id: "c".into(),
        user: Some("u".into()),
        is_assigned: false,
        grants: None,
        since: Since {
            connected: BEFORE,
            begun: 2,
        },
    };
    let state = State {
        profile: Arc::new(profile),
        expiry: HOUR,
        ends: Some(now + HOUR),
        will: None,
        will_due: None,
    };
    let subscription = Subscription {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    let message = testing::message([1], Qos::AtLeastOnce);
    let grant = Grant {
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        share: None,
    };
    vec![
        Step::State(state),
        Step::Subscribed("t".into(), subscription),
        Step::Subscribed("u".into(), subscription),
        Step::Taken(RestoredMessage {
            seq: Seq(1),
            progress: Progress::Waiting,
            content: Some((Arc::new(message), grant)),
            group: None,
        }),
    ]
}

fn piece(steps: &[Step], now: Instant) -> Vec<u8> {
    let mut writer = Writer::new(now);
    for step in steps {
        writer.push(step);
    }
    writer.take().to_vec()
}

fn hear(shard: &mut Shard, word: &Word<'_>) {
    let needs = &mut Needs::default();
    shard.handle_word(FELLOW.end, &word.encode(), needs, Instant::now());
}

fn arrive(shard: &mut Shard, piece: &[u8], is_last: bool) {
    let word = Word::Piece {
        client_id: "c",
        time: TIME,
        piece,
        greetings: Vec::new(),
        is_last,
    };
    hear(shard, &word);
}

/// Opens a session that is here, as of a client that is away.
fn open(shard: &mut Shard, user: Option<&str>) -> SessionKey {
    let owner = Identity::of_earlier(user.map(Into::into), None);
    shard.open_session("c", owner).unwrap()
}

/// Has clients judged by these settings from then on; the path is that of a file with the text.
fn judge_by(shard: &Shard, settings: &str, text: &str) {
    let dir = Dir::new();
    let path = dir.write("file", text);
    let settings = settings.replace("PATH", &format!("{path:?}"));
    let text =
        format!("node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[access]\n{settings}");
    let config = Config::parse(&text).unwrap();
    let access = &shard.shared.access;
    access.exchange(access.prepare(config.access()).unwrap());
}

/// A server may know any user.
const OPEN: &str = "anonymous = true\n[[access.authenticator]]\ntype = \"http\"\n\
                    url = \"http://127.0.0.1:9/\"\n";

const CLOSED: &str = "anonymous = false\n[[access.authenticator]]\ntype = \"file\"\npath = PATH\n";

#[test]
fn older_session_is_for_its_user_and_not_for_who_has_wanted_none() {
    let now = Instant::now();
    for (user, begun, is_heir) in [
        (Some("u"), 0, true),
        (Some("u"), BEFORE - 1, true),
        (Some("u"), BEFORE + 1, false),
        (Some("v"), 0, false),
        (None, 0, false),
    ] {
        let mut shard = shard();
        let key = open(&mut shard, user);
        shard.sessions.get_mut(key).unwrap().begun = begun;
        arrive(&mut shard, &piece(&steps(now), now), true);
        let entry = shard.sessions.get_mut(key).unwrap();
        let case = (user, begun);
        assert_eq!(entry.session.queue_len(), usize::from(is_heir), "{case:?}");
        let filters: Vec<_> = entry.session.filters().collect();
        let inherited: &[&str] = if is_heir { &["t", "u"] } else { &[] };
        assert_eq!(filters, inherited, "{case:?}");
        // Nor is what the older node forwards.
        assert_eq!(entry.transit.is_some(), is_heir, "{case:?}");
        assert!(shard.clustered.arrivals.is_empty());
    }
}

#[test]
fn what_a_client_has_had_of_its_session_elsewhere_does_not_come_with_an_older_one() {
    const NODE: u64 = 9;
    let now = Instant::now();
    let id = MessageId { run: 3, number: 4 };
    let mut older = steps(now);
    for step in &mut older {
        if let Step::Taken(message) = step {
            let (message, _grant) = message.content.as_mut().unwrap();
            Arc::make_mut(message).id = id;
        }
    }
    let place = Place {
        end: FELLOW.end,
        life: 1,
    };
    let peer = Peer { place, node: NODE };
    let long = memory(Duration::ZERO);
    // The other node may bring it as soon as it is there, and not for ever; a second time as well.
    for (since, is_here, queued) in [(None, true, 0), (None, false, 0), (Some(long), true, 1)] {
        let mut shard = shard();
        if let Some(since) = since {
            shard.shadows.note_peers(&[peer], now);
            shard.forget_mourned(now + since);
        }
        if is_here {
            open(&mut shard, Some("u"));
        }
        let newer = [older[0].clone(), Step::Had(NODE, id)];
        for steps in [&newer[..], &older, &older] {
            arrive(&mut shard, &piece(steps, now), true);
        }
        let key = shard.sessions.find("c").unwrap();
        let entry = shard.sessions.get_mut(key).unwrap();
        assert_eq!(entry.session.queue_len(), queued);
        assert_eq!(entry.had.len(), 1 - queued);
        shard.shadows.note_peers(&[peer], now);
        shard.forget_mourned(now + long);
        assert!(shard.sessions.get_mut(key).unwrap().had.is_empty());
    }
}

#[test]
fn session_that_comes_is_as_old_as_it_was_and_its_claim() {
    let now = Instant::now();
    let mut shard = shard();
    arrive(&mut shard, &piece(&steps(now), now), true);
    let key = shard.sessions.find("c").unwrap();
    let entry = shard.sessions.get_mut(key).unwrap();
    assert_eq!((entry.time, entry.begun), (TIME, 2));
    assert_eq!(entry.session.queue_len(), 1);
}

#[test]
fn session_that_comes_is_judged_by_the_policy_here() {
    let now = Instant::now();
    let mut here = shard();
    let acl = "deny all all t\nallow all all #\n";
    judge_by(&here, &format!("{OPEN}[access.acl]\npath = PATH\n"), acl);
    arrive(&mut here, &piece(&steps(now), now), true);
    let key = here.sessions.find("c").unwrap();
    let entry = here.sessions.get_mut(key).unwrap();
    let filters: Vec<_> = entry.session.filters().collect();
    assert_eq!(filters, ["u"]);

    let mut here = shard();
    judge_by(&here, CLOSED, "");
    arrive(&mut here, &piece(&steps(now), now), true);
    assert_eq!(here.sessions.find("c"), None);
    assert!(here.clustered.moving.is_empty());
}

#[test]
fn session_that_cannot_be_read_does_not_begin_in_half_or_anew() {
    let now = Instant::now();
    let steps = steps(now);
    let whole = piece(&steps, now);
    let torn = &whole[..whole.len() - 3];
    let stateless = piece(&steps[1..], now);
    for pieces in [vec![torn], vec![&whole, b"?"], vec![&*stateless]] {
        let mut shard = shard();
        let terms = Terms {
            user: Some("u".into()),
            clean_start: false,
            is_entitled: true,
            has_session: false,
            is_bereft: false,
        };
        let (ticket, mut verdict) = oneshot::channel();
        let claims = &mut shard.clustered.claims;
        claims.claim("c", TIME, terms, ticket, now);
        for (number, piece) in pieces.iter().enumerate() {
            arrive(&mut shard, piece, number + 1 == pieces.len());
        }
        assert_eq!(verdict.try_recv(), Ok(Err(Refusal::Stuck)));
        assert!(!shard.clustered.claims.is_open("c"));
        assert!(shard.clustered.arrivals.is_empty());
        assert_eq!(shard.sessions.find("c"), None);
    }
}

#[test]
fn session_that_cannot_be_read_elsewhere_goes_on_here() {
    let now = Instant::now();
    let mut shard = shard();
    let key = open(&mut shard, Some("u"));
    shard.depart(key, FELLOW, TIME, now);
    let client_id = "c";
    for (time, is_leaving) in [(TIME + 1, true), (TIME, false)] {
        hear(&mut shard, &Word::Unreadable { client_id, time });
        let entry = shard.sessions.get_mut(key).unwrap();
        assert_eq!(entry.is_leaving(), is_leaving);
    }
    assert!(shard.clustered.moving.is_empty());
}

#[test]
fn session_is_not_judged_while_it_leaves_and_is_when_it_is_called_back() {
    let now = Instant::now();
    let mut shard = shard();
    let key = open(&mut shard, None);
    shard.depart(key, FELLOW, TIME, now);
    judge_by(&shard, CLOSED, "");
    assert_eq!(shard.apply_policy(None, now), None);
    assert_eq!(shard.sessions.find("c"), Some(key));
    shard.call_back(key, now);
    assert_eq!(shard.sessions.find("c"), None);
}

#[test]
fn session_of_nobody_ends_where_a_user_has_another() {
    for (user, time, stays) in [
        (None, TIME + 1, true),
        (None, TIME, false),
        (Some("u"), TIME, true),
    ] {
        let mut shard = shard();
        let key = open(&mut shard, user);
        shard.sessions.get_mut(key).unwrap().time = TIME;
        let word = Word::Answer {
            client_id: "c",
            time,
            answer: Answer::Denied,
        };
        hear(&mut shard, &word);
        assert_eq!(shard.sessions.find("c").is_some(), stays, "{user:?}");
    }
}

#[test]
fn session_that_was_stored_is_as_old_as_it_was() {
    let now = Instant::now();
    let mut shadow = Shadow::default();
    for step in steps(now) {
        shadow.apply(step);
    }
    let mut shard = shard();
    let (parcels, _arriving) = mpsc::channel();
    let inheritance = Inheritance {
        store: Arc::new(Store::for_tests(2)),
        parcels,
        sessions: vec![shadow.into_restored(SessionId(1)).unwrap()],
        taken: BTreeSet::new(),
    };
    shard.inherit(inheritance, now);
    let key = shard.sessions.find("c").unwrap();
    let entry = shard.sessions.get_mut(key).unwrap();
    assert_eq!((entry.time, entry.begun), (BEFORE, 2));
    // And what has become of it since is stored.
    for (time, clean_start, begun) in [(TIME, false, 2), (TIME + 1, true, TIME + 1)] {
        let admission = Admission {
            client_id: "c".into(),
            time,
            clean_start,
        };
        shard.finish_claim(&admission, Some(key), now);
        let entry = shard.sessions.get_mut(key).unwrap();
        let since = Since {
            connected: time,
            begun,
        };
        assert_eq!(entry.session.snapshot().unwrap().profile.since, since);
    }
}

#[test]
fn session_waits_for_what_others_get_of_it_and_for_nothing_else() {
    let now = Instant::now();
    let mut shard = shard();
    let _parcels = shard.keep_for_tests();
    let [a, b] = ["a", "b"].map(|id| {
        let link = shard.join_kept_for_tests(id, Qos::AtLeastOnce);
        let key = shard.sessions.find(id).unwrap();
        shard.disconnect(key, &link, Cause::Broken, now);
        key
    });
    let message = testing::message([], Qos::AtLeastOnce);
    let message = Arc::new(message);
    for _ in 0..4 {
        shard.publish(Arc::clone(&message), None, &mut Needs::default(), now);
    }
    let other = Presence::new(Appetite::Ready);
    let shares = Arc::clone(&shard.shared);
    let shares = &shares.shares;
    shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
    let left = BTreeSet::from([shard.leave_group(a, GROUP).unwrap()]);
    shard.hand_on(a, &left, now);
    assert!(!shard.orphans.is_empty());
    shard.depart(b, FELLOW, TIME, now);
    assert!(!shard.send_pieces(now));
    shard.depart(a, FELLOW, TIME, now);
    assert!(shard.send_pieces(now));
    for sequence in 0..4 {
        let to = ShardId(1);
        shard.handle_confirmation(Need::Frame { to, sequence });
    }
    assert!(shard.orphans.is_empty());
    assert!(!shard.send_pieces(now));
}
