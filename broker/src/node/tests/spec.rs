//! What the specifications say and no other test happens to try; see `docs/mqtt.md`.

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament, packet},
};
use crate::{codec::packet::Version, metrics::Metric};

/// A SUBSCRIBE or UNSUBSCRIBE body for filters and what follows each.
fn filters(version: Version, filters: &[&str], options: Option<u8>) -> Vec<u8> {
    let mut body = vec![0, 9];
    body.extend(version.is_v5().then_some(0));
    for filter in filters {
        body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        body.extend(filter.as_bytes());
        body.extend(options);
    }
    body
}

#[tokio::test]
async fn second_connect_ends_the_connection() {
    let broker = Broker::start().await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        client.send(&Hello::new(version, "client").encode()).await;
        if version.is_v5() {
            client.expect(0xe0, &[0x82]).await;
        }
        client.expect_close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn nothing_after_a_refused_connect_is_processed() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("#", 0).await;
    let mut refused = Client::open(broker.address).await;
    let mut hello = Hello::new(Version::V311, "");
    hello.clean = false;
    let mut bytes = hello.encode();
    bytes.extend(b"\x30\x04\0\x01t!");
    refused.send(&bytes).await;
    refused.expect(0x20, &[0, 2]).await;
    refused.expect_close().await;
    watcher.ping().await;
    assert_eq!(broker.count(Metric::MessagesIn), 0);
    broker.stop().await;
}

#[tokio::test]
async fn client_ids_of_all_legal_characters_are_taken() {
    let broker = Broker::start().await;
    for version in ALL {
        for id in [
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            "ä / #",
        ] {
            broker.join(version, id).await.leave().await;
        }
        broker.join(version, &"x".repeat(300)).await.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "client");
    hello.properties = b"\x15\0\x05SCRAM\x16\0\x01x".to_vec();
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!((welcome.code, welcome.session_present), (0x8c, false));
    client.expect_close().await;
    for (first, reason) in [(0xf0, 0x82), (0xf1, 0x81)] {
        let mut client = broker.join(Version::V5, "client").await;
        client.send(&[first, 2, 0x19, 0]).await;
        client.expect(0xe0, &[reason]).await;
        client.expect_close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn longest_keep_alive_is_told_to_mqtt5_and_kept() {
    let broker = Broker::start_with("[session]\nmax_keep_alive = \"1s\"\n").await;
    let told = |properties: &[u8]| properties.windows(3).any(|bytes| bytes == [0x13, 0, 1]);
    let mut old = Hello::new(Version::V311, "old");
    old.keep_alive = 0;
    let (mut old, _) = Client::connect(broker.address, &old).await;
    for asked in [0, 60] {
        let mut hello = Hello::new(Version::V5, "new");
        hello.keep_alive = asked;
        let (mut new, welcome) = Client::connect(broker.address, &hello).await;
        assert!(told(&welcome.properties), "{welcome:?}");
        new.expect(0xe0, &[0x8d]).await;
        new.expect_close().await;
    }
    let mut hello = Hello::new(Version::V5, "new");
    hello.keep_alive = 1;
    let (_new, welcome) = Client::connect(broker.address, &hello).await;
    assert!(!told(&welcome.properties));
    // It cannot be told, so it is left alone.
    old.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn properties_reach_subscribers_unaltered_and_in_order() {
    let broker = Broker::start().await;
    let mut receiver = broker.join(Version::V5, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    let others: [&[u8]; 4] = [
        b"\x01\x01",
        b"\x03\0\x0atext/plain",
        b"\x08\0\x05reply",
        b"\x09\0\x03\xff\0\xfe",
    ];
    let users = b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x011\x26\0\x01c\0\0";
    let properties = [others.concat(), users.to_vec()].concat();
    sender.publish_with("t", &properties, "x", 0b0010, 1).await;
    let received = receiver.receive().await.properties;
    assert_eq!(received.len(), properties.len());
    let holds = |part: &[u8]| received.windows(part.len()).any(|bytes| bytes == part);
    assert!(others.iter().all(|part| holds(part)), "{received:?}");
    assert!(holds(users), "{received:?}");
    broker.stop().await;
}

#[tokio::test]
async fn will_has_its_own_properties_and_is_retained_only_if_asked() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let users = b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x011";
    for version in ALL {
        let mut hello = Hello::new(version, "mortal");
        hello.will = Some(Testament {
            topic: "will",
            payload: "x",
            retain: false,
            properties: users.to_vec(),
        });
        drop(Client::connect(broker.address, &hello).await);
        let expected: &[u8] = if version.is_v5() { users } else { &[] };
        assert_eq!(watcher.receive().await.properties, expected);
        let mut late = broker.join(version, "late").await;
        late.subscribe("will", 0).await;
        late.ping().await;
        late.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn later_subscription_replaces_an_equal_one_and_gets_retained_messages_again() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.publish("t", "kept", 0b0011, 1).await;
    sender.recv().await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        for qos in [0, 1, 0] {
            client.subscribe("t", qos).await;
            let kept = client.receive().await;
            assert_eq!((kept.qos, kept.retain), (qos, true));
            sender.deliver("t", "live", 1).await;
            let live = client.receive().await;
            assert_eq!((live.payload.as_str(), live.qos), ("live", qos));
            client.ping().await;
        }
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn each_filter_of_a_packet_has_its_code_in_its_place() {
    let broker = Broker::start().await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        let body = filters(version, &["a", "b/#/c", "b"], Some(1));
        client.send(&packet(0x82, &body)).await;
        let (first, body) = client.recv().await;
        assert_eq!((first, &body[..2]), (0x90, &[0, 9][..]));
        let bad = if version.is_v5() { 0x8f } else { 0x80 };
        assert_eq!(body[body.len() - 3..], [1, bad, 1]);
        let body = filters(version, &["b", "nobody", "a"], None);
        client.send(&packet(0xa2, &body)).await;
        let expected: &[u8] = if version.is_v5() {
            &[0, 9, 0, 0, 0x11, 0]
        } else {
            &[0, 9]
        };
        client.expect(0xb0, expected).await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn filters_are_compared_character_by_character() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    // One letter, and a letter with an accent behind it.
    client.subscribe("\u{e9}/+", 0).await;
    assert_eq!(client.unsubscribe("e\u{301}/+").await.last(), Some(&0x11));
    assert_eq!(client.unsubscribe("\u{e9}/x").await.last(), Some(&0x11));
    let mut sender = broker.join(Version::V311, "sender").await;
    for topic in ["e\u{301}/x", "\u{c9}/x", "\u{e9}/x"] {
        sender.deliver(topic, "x", 1).await;
    }
    assert_eq!(client.receive().await.topic, "\u{e9}/x");
    assert_eq!(client.unsubscribe("\u{e9}/+").await.last(), Some(&0));
    sender.deliver("\u{e9}/x", "x", 1).await;
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn delivery_that_has_begun_is_completed_after_unsubscribe() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in [Version::V311, Version::V5] {
        let hello = Hello::persistent(version, &format!("{version:?}"));
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        client.subscribe("t", 2).await;
        sender.deliver("t", "begun", 2).await;
        let begun = client.receive_silently().await;
        client.unsubscribe("t").await;
        sender.deliver("t", "not wanted", 2).await;
        client.leave().await;
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        let again = client.receive().await;
        assert_eq!((again.id, again.dup), (begun.id, true));
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn qos2_message_is_delivered_once_however_often_it_is_sent() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("t", 2).await;
    for version in [Version::V311, Version::V5] {
        let hello = Hello::persistent(version, &format!("{version:?}"));
        let (mut sender, _) = Client::connect(broker.address, &hello).await;
        sender.publish("t", "once", 0b0100, 5).await;
        sender.expect(0x50, &[0, 5]).await;
        sender.publish("t", "once", 0b1100, 5).await;
        sender.expect(0x50, &[0, 5]).await;
        sender.leave().await;
        let (mut sender, _) = Client::connect(broker.address, &hello).await;
        sender.publish("t", "once", 0b1100, 5).await;
        sender.expect(0x50, &[0, 5]).await;
        sender.send(&[0x62, 2, 0, 5]).await;
        sender.expect(0x70, &[0, 5]).await;
        assert_eq!(watcher.receive().await.payload, "once");
        // From then on the identifier is another message's.
        sender.publish("t", "another", 0b1100, 5).await;
        sender.expect(0x50, &[0, 5]).await;
        let another = watcher.receive().await;
        assert_eq!((another.payload.as_str(), another.dup), ("another", false));
        watcher.ping().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn qos1_message_is_new_each_time_and_its_dup_is_its_senders() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("t", 1).await;
    for version in ALL {
        let mut sender = broker.join(version, "sender").await;
        for flags in [0b0010, 0b1010] {
            sender.publish("t", "x", flags, 5).await;
            sender.expect(0x40, &[0, 5]).await;
            assert!(!watcher.receive().await.dup);
        }
        sender.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn acknowledgements_may_come_in_any_order_and_more_than_once() {
    let broker = Broker::start_with("[limits]\ninflight = 3\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        client.subscribe("t", 1).await;
        for number in 0..5 {
            sender.deliver("t", &number.to_string(), 1).await;
        }
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(client.receive_silently().await.id.to_be_bytes());
        }
        let [first, second, third] = ids[..] else {
            panic!("{ids:?}")
        };
        for [high, low] in [third, first, third, second] {
            client.send(&[0x40, 2, high, low]).await;
        }
        // Those of the wrong kind, and of nothing.
        client
            .send(&[0x40, 2, 9, 9, 0x70, 2, 9, 9, 0x62, 2, 9, 9])
            .await;
        for number in 3..5 {
            assert_eq!(client.receive().await.payload, number.to_string());
        }
        let (first, body) = client.recv().await;
        assert_eq!((first, &body[..2]), (0x70, &[9, 9][..]));
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn more_half_delivered_messages_than_the_connack_allows_end_the_connection() {
    let broker = Broker::start_with("[limits]\ninflight = 2\n").await;
    let (mut client, welcome) =
        Client::connect(broker.address, &Hello::new(Version::V5, "client")).await;
    assert!(
        welcome
            .properties
            .windows(3)
            .any(|bytes| bytes == [0x21, 0, 2])
    );
    for id in 1..=3 {
        client.publish("t", "x", 0b0100, id).await;
    }
    for _ in 0..2 {
        assert_eq!(client.recv().await.0, 0x50);
    }
    client.expect(0xe0, &[0x93]).await;
    client.expect_close().await;
    broker.stop().await;
}

#[tokio::test]
async fn retained_message_is_replaced_by_retained_ones_alone() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let kept = async |version| {
        let mut client = broker.join(version, "late").await;
        client.subscribe("t", 2).await;
        let kept = client.receive().await;
        client.leave().await;
        (kept.payload, kept.qos)
    };
    sender.publish("t", "first", 0b0011, 1).await;
    sender.recv().await;
    sender.deliver("t", "not retained", 2).await;
    for version in ALL {
        assert_eq!(kept(version).await, ("first".to_owned(), 1));
    }
    sender.publish("t", "second", 0b0001, 0).await;
    sender.ping().await;
    for version in ALL {
        assert_eq!(kept(version).await, ("second".to_owned(), 0));
    }
    broker.stop().await;
}

#[tokio::test]
async fn empty_retained_message_is_delivered_and_not_kept() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    for (payload, flags) in [("x", 0b0011), ("", 0b0011)] {
        sender.publish("t", payload, flags, 1).await;
        sender.recv().await;
        assert_eq!(watcher.receive().await.payload, payload);
    }
    let mut late = broker.join(Version::V5, "late").await;
    late.subscribe("t", 0).await;
    late.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn disconnect_has_a_reason_string_unless_it_would_be_too_long() {
    let broker = Broker::start().await;
    for (maximum, is_told) in [(24, false), (200, true)] {
        let mut hello = Hello::new(Version::V5, "client");
        hello.properties = vec![0x27, 0, 0, 0, maximum];
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        client.send(&[0x36, 3, 0, 1, b'a']).await;
        let (first, body) = client.recv().await;
        assert_eq!((first, body[0]), (0xe0, 0x81));
        assert_eq!(body.len() > 1, is_told);
        client.expect_close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn client_that_takes_no_aliases_and_no_answers_still_gets_every_packet_type() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "plain");
    // Neither problem nor response information.
    hello.properties = vec![0x17, 0, 0x19, 0];
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    // No response information, and all features that go without saying.
    for absent in [0x1a, 0x24, 0x25, 0x28, 0x29, 0x2a] {
        let ids = property_ids(&welcome.properties);
        assert!(!ids.contains(&absent), "{absent:#x} in {ids:?}");
    }
    assert_eq!(client.subscribe("a/+", 2).await, 2);
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("a/b", "x", 2).await;
    let received = client.receive().await;
    assert!(received.properties.is_empty());
    client.unsubscribe("a/+").await;
    client.ping().await;
    broker.stop().await;
}

/// The identifiers of a CONNACK's properties.
fn property_ids(mut rest: &[u8]) -> Vec<u8> {
    let mut ids = Vec::new();
    // The length is below 128.
    rest = &rest[1..];
    while let [id, behind @ ..] = rest {
        ids.push(*id);
        let length = match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            _ => 2 + usize::from(behind[1]),
        };
        rest = &behind[length..];
    }
    ids
}
