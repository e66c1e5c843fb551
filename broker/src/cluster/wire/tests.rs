use proptest::{collection::vec, prelude::*};

use super::*;
use crate::shard::{Query, Selection};

const ROOM: Room = Room {
    open: 3,
    away: 300,
    is_slow: true,
};

fn all() -> Vec<Message> {
    let page = Page {
        after: Some("a/#".into()),
        filters: vec![("$queue/b".into(), Some(ROOM)), ("c/+".into(), None)],
        is_last: true,
    };
    let mut sums = Sums::default();
    sums.add("t", 7);
    let query = Query {
        after: Some("c".into()),
        limit: 7,
        filter: Selection {
            slow: true,
            ..Selection::default()
        },
    };
    vec![
        Message::Hello(Hello {
            cluster: "plant".to_owned(),
            node: "broker1".to_owned(),
            incarnation: 7,
            port: 7883,
            lease_millis: 2000,
        }),
        Message::Foreign(PROTOCOL + 1),
        Message::Refusal(Refusal::NameTaken {
            name: "broker1".to_owned(),
        }),
        Message::Resume(Resume {
            stream: 3,
            heard: Some((1, 9)),
            is_choked: true,
            wants_retained: true,
            time: 1 << 60,
        }),
        Message::Taken(12),
        Message::Safe(Safe {
            up_to: 11,
            aside: vec![(3, 5), (9, 9)],
        }),
        Message::Item(1, Item::Messages(Bytes::from_static(b"frame"))),
        Message::Item(2, Item::Changes(vec![Change::Removed("a/b".into())])),
        Message::Item(
            2,
            Item::Changes(vec![Change::Group("$share/g/t".into(), ROOM)]),
        ),
        Message::Item(3, Item::Page(page)),
        Message::Item(
            4,
            Item::Retained {
                messages: Bytes::from_static(b"frame"),
                is_last: true,
            },
        ),
        Message::Item(5, Item::Sums(Turn::Answer, sums)),
        Message::Members(vec![Member {
            node: "broker2".to_owned(),
            host: IpAddr::from([10, 0, 0, 2]),
            port: 7883,
        }]),
        Message::Farewell(Parting::Stops),
        Message::Farewell(Parting::Leaves),
        Message::Aside(7, Aside::Question(Question::Clients(query))),
        Message::Aside(8, Aside::Answer(Bytes::from_static(b"{}"))),
        Message::Tally(
            1 << 60,
            Tally {
                welcomes: true,
                clients: 1,
                sessions: 2,
                subscriptions: 3,
                retained: 4,
                messages_in: 5,
                messages_out: 1 << 40,
            },
        ),
    ]
}

#[test]
fn what_is_said_is_understood() {
    for message in all() {
        assert_eq!(Message::decode(message.encode()), Ok(message));
    }
}

#[test]
fn what_is_cut_short_is_not() {
    for message in all() {
        let bytes = message.encode();
        // What a frame of messages ends with is not known here.
        let shortest = if let Message::Item(_, Item::Messages(_)) = message {
            10
        } else if let Message::Item(_, Item::Retained { .. }) = message {
            11
        } else if let Message::Aside(_, Aside::Answer(_)) = message {
            9
        } else {
            bytes.len()
        };
        for length in 0..shortest {
            let decoded = Message::decode(bytes.slice(..length));
            let is_foreign = matches!(decoded, Ok(Message::Foreign(_)));
            assert!(is_foreign || decoded == Err(Malformed), "{decoded:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_reason_to_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(bytes.into());
    }
}
