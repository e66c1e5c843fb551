use std::{sync::OnceLock, time::Instant};

use proptest::{collection::vec, option, prelude::*};

use super::*;

/// One for both sides of a test.
fn clock() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    *CLOCK.get_or_init(|| Clock::at(Instant::now(), 1_800_000_000_000))
}

prop_compose! {
    fn messages()(
        topic in "\\PC{1,20}",
        payload in vec(any::<u8>(), 0..40),
        properties in vec(any::<u8>(), 0..20),
        qos in 0..3_u8,
        retain: bool,
        expires in option::of(any::<u32>()),
        run in 0..2_u64,
        number: u64,
    ) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            properties: properties.into(),
            qos: Qos::from_bits(qos).unwrap(),
            retain,
            expires: expires.map(|millis| clock().now() + Duration::from_millis(u64::from(millis))),
            id: MessageId { run, number },
        }
    }
}

/// As logins write them.
fn filters() -> impl Strategy<Value = String> {
    "[a-z]{1,9}/(%u|%c|%%|\\+)(/#)?"
}

prop_compose! {
    fn states()(
        client_id in "\\PC{0,30}",
        user in option::of("\\PC{0,30}"),
        is_assigned: bool,
        grants in option::of((vec(filters(), 0..3), vec(filters(), 0..3))),
        since in (any::<u64>(), any::<u64>()),
        expiry: u32,
        ends in option::of(any::<i32>()),
        due in option::of(any::<i32>()),
        will in option::of((messages(), option::of(any::<u32>()), any::<u32>())),
    ) -> State {
        let moment = |millis: i32| {
            let distance = Duration::from_millis(u64::from(millis.unsigned_abs()));
            if millis < 0 { clock().now() - distance } else { clock().now() + distance }
        };
        State {
            profile: Arc::new(Profile {
                client_id: client_id.into(),
                user: user.map(Into::into),
                is_assigned,
                grants: grants.map(|(publish, subscribe)| {
                    let [publish, subscribe] = [&publish, &subscribe]
                        .map(|filters| filters.iter().map(String::as_str).collect::<Vec<_>>());
                    Arc::new(Grants::of_filters(&publish, &subscribe).unwrap())
                }),
                since: Since { connected: since.0, begun: since.1 },
            }),
            expiry: Duration::from_millis(u64::from(expiry)),
            ends: ends.map(moment),
            will: will.map(|(message, expiry, delay)| Will {
                message: Arc::new(message),
                expiry,
                delay,
            }),
            will_due: due.map(moment),
        }
    }
}

fn entries() -> impl Strategy<Value = Entry> {
    let progress = (0..3, 1..=u16::MAX).prop_map(|(kind, id)| {
        let id = PacketId::new(id).unwrap();
        match kind {
            0 => Progress::Waiting,
            1 => Progress::Published(id),
            _ => Progress::Released(id),
        }
    });
    let share = option::of(("[^+#/]{0,9}", "\\PC{1,20}"));
    let content = (
        any::<u64>(),
        0..3_u8,
        any::<bool>(),
        vec(any::<u32>(), 0..5),
        share,
    );
    (progress, content).prop_map(|(progress, (body, qos, retain, subscription_ids, share))| {
        let content = Content {
            body: BodyId(body),
            grant: Grant {
                qos: Qos::from_bits(qos).unwrap(),
                retain,
                subscription_ids,
                share: None,
            },
            share: share.map(|(group, filter)| Share {
                group: group.into(),
                filter: filter.into(),
            }),
        };
        let content = match progress {
            Progress::Released(_) => None,
            Progress::Waiting | Progress::Published(_) => Some(content),
        };
        Entry { progress, content }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        state in states(),
        entry in entries(),
        qos in 0..3_u8,
        flags: (bool, bool),
        id in option::of(any::<u32>()),
    ) {
        let clock = clock();
        let bytes = encode_state(&state, clock);
        let again = decode_state(&bytes, clock).unwrap();
        prop_assert_eq!(again, state);
        prop_assert_eq!(decode_entry(&encode_entry(&entry)), Some(entry));
        let subscription = Subscription {
            qos: Qos::from_bits(qos).unwrap(),
            no_local: flags.0,
            retain_as_published: flags.1,
            id,
        };
        let bytes = encode_subscription(&subscription);
        prop_assert_eq!(decode_subscription(&bytes), Some(subscription));
    }

    #[test]
    fn messages_expire_at_the_same_time_by_the_wall(
        message in messages(),
        away in 0..1_000_000_u64,
        at in prop_oneof![Just(0), any::<u64>()],
    ) {
        let before = clock();
        let bytes = encode_retained(&message, 17, at, before);
        let after = Clock::at(Instant::now() + Duration::from_secs(7), 1_800_000_000_000 + away);
        let row = decode_retained(&bytes, after).unwrap();
        prop_assert_eq!((row.since, row.at), (17, at));
        let again = row.message.unwrap();
        let expires = again.expires.map(|expires| after.to_wall(expires));
        prop_assert_eq!(expires, message.expires.map(|expires| before.to_wall(expires)));
        let unlimited = |message: &Message| Message { expires: None, ..message.clone() };
        prop_assert_eq!(unlimited(&again), unlimited(&message));
    }

    #[test]
    fn damaged_rows_are_refused_and_never_panic(bytes in vec(any::<u8>(), 0..80)) {
        let clock = Clock::at(Instant::now(), 0);
        let _ = decode_state(&bytes, clock);
        let _ = decode_entry(&bytes);
        let _ = decode_subscription(&bytes);
        let _ = decode_message(&bytes, clock);
        let _ = decode_retained(&bytes, clock);
    }
}

#[test]
fn deletion_is_a_time_alone_and_rows_of_earlier_formats_have_none() {
    let clock = clock();
    for cause in [Cause::Meant, Cause::Passing] {
        let deletion = Deletion { at: 77, cause };
        let bytes = encode_deleted(deletion);
        let row = decode_retained(&bytes, clock).unwrap();
        assert_eq!((row.deletion(), &row.message), (deletion, &None));
        assert_eq!(decode_retained(&bytes[..8], clock), None);
    }
    let mut earlier = 17_u64.to_be_bytes().to_vec();
    // QoS 1, retained, of topic `t` without properties.
    earlier.extend([0b101, 0, 1, b't', 0, 0, 0, 0, b'x']);
    let row = decode_retained(&earlier, clock).unwrap();
    assert_eq!((row.since, row.at), (17, 0));
    assert_eq!(&*row.message.unwrap().payload, b"x");
}

#[test]
fn rows_that_are_cut_short_are_refused() {
    let entry = Entry {
        progress: Progress::Waiting,
        content: Some(Content {
            body: BodyId(1),
            grant: Grant {
                qos: Qos::AtLeastOnce,
                retain: false,
                subscription_ids: vec![7],
                share: None,
            },
            share: None,
        }),
    };
    let bytes = encode_entry(&entry);
    for length in 0..bytes.len() {
        assert_eq!(decode_entry(&bytes[..length]), None, "{length}");
    }
}
