use std::{num::NonZeroU16, time::Duration};

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    codec::packet::Will,
    message::MessageId,
    session::{
        Subscription,
        journal::{Profile, Since, Spread, State},
    },
};

fn ids() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(|id| PacketId::new(id.get()).unwrap())
}

/// Text that may be a topic, and a filter.
fn topics() -> impl Strategy<Value = String> {
    "\\PC{1,20}".prop_map(|text| text.replace(['+', '#', '$'], "-"))
}

prop_compose! {
    fn messages(now: Instant)(
        topic in topics(),
        payload in vec(any::<u8>(), 0..40),
        qos in 0..3_u8,
        retain: bool,
        expires in option::of(any::<u32>()),
        (run, number) in any::<(u64, u64)>(),
    ) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            properties: [1, 2].into(),
            qos: Qos::from_bits(qos).unwrap(),
            retain,
            expires: expires.map(|millis| now + Duration::from_millis(u64::from(millis))),
            id: MessageId { run, number },
        }
    }
}

prop_compose! {
    fn states(now: Instant)(
        client_id in "\\PC{0,30}",
        user in option::of("\\PC{0,30}"),
        connected: u64,
        expiry: u32,
        ends in option::of(any::<u32>()),
        will in option::of((messages(now), option::of(any::<u32>()), any::<u32>())),
    ) -> State {
        let profile = Profile { client_id: client_id.into(), user: user.map(Into::into), is_assigned: false, grants: None, since: Since { connected, begun: connected / 2 } };
        State {
            profile: Arc::new(profile),
            expiry: Duration::from_millis(u64::from(expiry)),
            ends: ends.map(|millis| now + Duration::from_millis(u64::from(millis))),
            will: will.map(|(message, expiry, delay)| Will { message: Arc::new(message), expiry, delay }),
            will_due: None,
        }
    }
}

prop_compose! {
    fn taken(now: Instant)(
        seq: u64,
        progress in option::of((any::<bool>(), ids())),
        message in option::of(messages(now)),
        qos in 1..3_u8,
        retain: bool,
        subscription_ids in vec(any::<u32>(), 0..4),
        group in option::of(("\\PC{1,9}", "\\PC{1,9}")),
    ) -> RestoredMessage {
        let qos = Qos::from_bits(qos).unwrap();
        let grant = Grant { qos, retain, subscription_ids, share: None };
        let content = message.map(|message| (Arc::new(message), grant));
        RestoredMessage {
            seq: Seq(seq),
            progress: match progress {
                None => Progress::Waiting,
                Some((true, id)) => Progress::Published(id),
                Some((false, id)) => Progress::Released(id),
            },
            group: content.as_ref().and(group).map(|(name, filter)| (name.into(), filter.into())),
            content,
        }
    }
}

fn steps(now: Instant) -> impl Strategy<Value = Step> {
    let subscription = Subscription {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        id: Some(70_000),
    };
    let seqs = || any::<u64>().prop_map(Seq);
    let spreads = prop_oneof![
        Just(Spread::Begun),
        Just(Spread::Unplaced),
        Just(Spread::Done)
    ];
    prop_oneof![
        states(now).prop_map(Step::State),
        topics().prop_map(move |filter| Step::Subscribed(filter.into(), subscription)),
        "\\PC{1,20}".prop_map(|filter| Step::Unsubscribed(filter.into())),
        taken(now).prop_map(Step::Taken),
        (seqs(), ids()).prop_map(|(seq, id)| Step::Published(seq, id)),
        (seqs(), ids()).prop_map(|(seq, id)| Step::Released(seq, id)),
        seqs().prop_map(Step::Done),
        (ids(), spreads).prop_map(|(id, spread)| Step::Received(id, spread)),
        ids().prop_map(Step::Completed),
        Just(Step::Ended),
        Just(Step::Whole),
        any::<u64>().prop_map(Step::Replacing),
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(node, run, number)| Step::Had(node, MessageId { run, number })),
        Just(Step::Complete),
    ]
}

fn whose(number: u64) -> Whose {
    Whose {
        session: SessionId(number),
        client: number.rotate_left(40),
    }
}

fn told(now: Instant) -> impl Strategy<Value = Vec<(Option<Whose>, Step)>> {
    let one = (any::<bool>(), 0..3_u64, steps(now));
    vec(one, 0..20).prop_map(|told| {
        let mut is_whose = false;
        let told = told.into_iter().map(|(is_of, number, step)| {
            is_whose |= is_of;
            (is_whose.then(|| whose(number)), step)
        });
        told.collect()
    })
}

fn write(told: &[(Option<Whose>, Step)], now: Instant) -> Bytes {
    let mut writer = Writer::new(now);
    for (whose, step) in told {
        match whose {
            Some(whose) => writer.push_of(*whose, step),
            None => writer.push(step),
        }
    }
    writer.take()
}

fn waiting(seq: u64, message: &Arc<Message>) -> Step {
    let grant = Grant {
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        share: None,
    };
    Step::Taken(RestoredMessage {
        seq: Seq(seq),
        progress: Progress::Waiting,
        content: Some((Arc::clone(message), grant)),
        group: None,
    })
}

#[test]
fn message_for_many_sessions_is_in_a_piece_once_and_in_memory_once() {
    let message = Arc::new(Message {
        topic: "t".into(),
        payload: vec![7; 10_000].into(),
        properties: Box::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        id: MessageId::NONE,
    });
    let now = Instant::now();
    let mut writer = Writer::new(now);
    for number in 0..100 {
        writer.push_of(whose(number), &waiting(1, &message));
    }
    assert!(writer.len() < 15_000, "{}", writer.len());
    let piece = writer.take();
    let messages: Vec<_> = Reader::new(&piece, now)
        .map(|read| match read.unwrap() {
            (_whose, Step::Taken(message)) => message.content.unwrap().0,
            (_whose, other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((messages.len(), &messages[99]), (100, &message));
    assert!(
        messages
            .iter()
            .all(|other| Arc::ptr_eq(other, &messages[0]))
    );
    // Another piece knows nothing of the first.
    writer.push(&waiting(1, &message));
    assert!(writer.len() > 10_000);
    let piece = writer.take();
    assert_eq!(Reader::new(&piece, now).filter(Result::is_ok).count(), 1);
}

#[test]
fn piece_is_split_by_the_shards_of_its_clients() {
    let now = Instant::now();
    let mut writer = Writer::new(now);
    for number in 0..10 {
        writer.push_of(whose(number), &Step::Done(Seq(number)));
    }
    let pieces = split(&writer.take(), now, |client| {
        let number = client.rotate_right(40);
        ShardId(u16::try_from(number % 3).unwrap())
    });
    assert_eq!(pieces.len(), 3);
    for (shard, piece) in pieces {
        for read in Reader::new(&piece, now) {
            let (whose, step) = read.unwrap();
            let number = whose.unwrap().session.0;
            assert_eq!(step, Step::Done(Seq(number)));
            assert_eq!(number % 3, u64::from(shard.0));
        }
    }
}

#[test]
fn times_are_what_is_left_of_them() {
    let told = Instant::now();
    let heard = told + Duration::from_secs(5000);
    let state = State {
        profile: Arc::new(Profile {
            client_id: "c".into(),
            user: None,
            is_assigned: false,
            grants: None,
            since: Since::default(),
        }),
        expiry: Duration::from_secs(60),
        ends: Some(told + Duration::from_secs(7)),
        will: None,
        will_due: None,
    };
    let piece = write(&[(None, Step::State(state))], told);
    let read = Reader::new(&piece, heard).next().unwrap().unwrap();
    let (None, Step::State(state)) = read else {
        panic!("{read:?}");
    };
    assert_eq!(state.ends, Some(heard + Duration::from_secs(7)));
}

proptest! {
    #[test]
    fn what_is_told_is_heard(told in told(*NOW)) {
        let piece = write(&told, *NOW);
        let heard: Result<Vec<_>, _> = Reader::new(&piece, *NOW).collect();
        prop_assert_eq!(heard, Ok(told));
    }

    #[test]
    fn what_is_cut_short_is_heard_up_to_there(told in told(*NOW), cut in any::<prop::sample::Index>()) {
        let piece = write(&told, *NOW);
        let piece = &piece[..cut.index(piece.len() + 1)];
        let heard: Vec<_> = Reader::new(piece, *NOW).take_while(Result::is_ok).collect();
        let heard: Result<Vec<_>, _> = heard.into_iter().collect();
        let heard = heard.unwrap();
        prop_assert_eq!(&heard[..], &told[..heard.len()]);
    }

    #[test]
    fn no_bytes_are_a_reason_to_panic(bytes in vec(any::<u8>(), 0..200)) {
        for step in Reader::new(&bytes, *NOW) {
            let _ = step;
        }
    }
}

/// One for both sides of a test.
static NOW: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

#[test]
fn what_no_client_can_have_said_ends_a_piece() {
    let now = Instant::now();
    let subscription = Subscription {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    let subscribed = |filter: &str| Step::Subscribed(filter.into(), subscription);
    let taken = |topic: &str| {
        let message = Message {
            topic: topic.into(),
            payload: [].into(),
            properties: [].into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        };
        let grant = Grant {
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: Vec::new(),
            share: None,
        };
        Step::Taken(RestoredMessage {
            seq: Seq(1),
            progress: Progress::Waiting,
            content: Some((Arc::new(message), grant)),
            group: None,
        })
    };
    for (step, is_legal) in [
        (subscribed("a/+/#"), true),
        (subscribed("$share/g/a"), true),
        (subscribed("a/#/b"), false),
        (subscribed(""), false),
        (taken("$SYS/uptime"), true),
        (taken("a/+"), false),
    ] {
        let mut writer = Writer::new(now);
        writer.push(&step);
        writer.push(&Step::Whole);
        let piece = writer.take();
        let mut reader = Reader::new(&piece, now);
        let read = reader.next().unwrap();
        assert_eq!(
            read,
            if is_legal {
                Ok((None, step))
            } else {
                Err(Malformed)
            }
        );
        assert_eq!(reader.next().is_some(), is_legal);
    }
}
