//! Shared subscriptions: `$share/GROUP/FILTER` and `$queue/FILTER`.

use super::{
    ALL, Broker,
    client::{Client, Hello, Received, packet},
};
use crate::{codec::packet::Version, metrics::Metric};

/// Names of which two or more belong to each shard of a small machine.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

async fn members(broker: &Broker, filter: &str, qos: u8) -> Vec<Client> {
    let mut members = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        let mut member = broker.join(ALL[index % 3], name).await;
        assert_eq!(member.subscribe(filter, qos).await, qos);
        members.push(member);
    }
    members
}

fn payloads(received: &[Received]) -> Vec<&str> {
    received.iter().map(|one| one.payload.as_str()).collect()
}

async fn receive(client: &mut Client, count: usize) -> Vec<Received> {
    let mut received = Vec::new();
    for _ in 0..count {
        received.push(client.receive().await);
    }
    received
}

#[tokio::test]
async fn messages_are_spread_evenly_over_the_members_of_all_shards() {
    const EACH: usize = 10;
    let broker = Broker::start().await;
    for (filter, qos) in [("$share/g/t/#", 0), ("$share/g/t/+", 1), ("$queue/t/1", 1)] {
        let mut members = members(&broker, filter, qos).await;
        let mut sender = broker.join(Version::V311, "sender").await;
        for number in 0..EACH * NAMES.len() {
            sender.deliver("t/1", &number.to_string(), qos).await;
        }
        let mut numbers = Vec::new();
        for member in &mut members {
            for received in receive(member, EACH).await {
                assert_eq!((received.qos, received.retain), (qos, false));
                numbers.push(received.payload.parse::<usize>().unwrap());
            }
            member.ping().await;
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..EACH * NAMES.len()));
        assert_eq!(
            broker.count(Metric::SharedSubscriptions),
            NAMES.len() as u64
        );
        for member in members {
            member.leave().await;
        }
        broker.wait_for(Metric::SharedSubscriptions, 0).await;
    }
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn each_group_and_each_subscription_of_ones_own_gets_a_copy() {
    let broker = Broker::start().await;
    let mut both = broker.join(Version::V5, "both").await;
    both.subscribe("$share/one/t", 0).await;
    both.subscribe("t", 1).await;
    let mut two = broker.join(Version::V5, "two").await;
    two.subscribe("$share/two/+", 0).await;
    two.subscribe("$queue/#", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("t", "x", 1).await;
    let mut qos: Vec<_> = receive(&mut both, 2)
        .await
        .iter()
        .map(|one| one.qos)
        .collect();
    qos.sort_unstable();
    assert_eq!(qos, [0, 1]);
    assert_eq!(payloads(&receive(&mut two, 2).await), ["x", "x"]);
    both.ping().await;
    two.ping().await;
    // With a wildcard in its first level, a group's filter matches no `$` topics either.
    sender.deliver("$t", "hidden", 1).await;
    sender.deliver("u", "seen", 1).await;
    assert_eq!(payloads(&receive(&mut two, 2).await), ["seen", "seen"]);
    broker.stop().await;
}

#[tokio::test]
async fn member_of_many_groups_gets_a_copy_for_each_and_no_more_groups_than_its_share() {
    const GROUPS: usize = 1024;
    let broker = Broker::start_with("[limits]\nqueue_messages = 2000\n").await;
    let mut member = broker.join(Version::V5, "member").await;
    for number in 0..GROUPS {
        let filter = format!("$share/g{number}/t");
        assert_eq!(member.subscribe(&filter, 1).await, 1);
    }
    assert_eq!(member.subscribe("$share/more/t", 1).await, 0x97);
    assert_eq!(member.subscribe("$share/g0/t", 1).await, 1);
    assert_eq!(member.subscribe("own", 1).await, 1);
    for name in NAMES {
        let mut sender = broker.join(Version::V311, name).await;
        sender.deliver("t", name, 1).await;
        for received in receive(&mut member, GROUPS).await {
            assert_eq!(received.payload, name);
        }
    }
    assert!(broker.count(Metric::LaneMessages) <= NAMES.len() as u64);
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn member_that_leaves_hands_on_what_it_has_not_acknowledged() {
    let broker = Broker::start_with("[limits]\ninflight = 1\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for name in NAMES {
        let mut leaving = broker.join(Version::V5, "leaving").await;
        leaving.subscribe("$share/g/t", 1).await;
        for number in ["1", "2", "3"] {
            sender.deliver("t", number, 1).await;
        }
        assert_eq!(leaving.receive_silently().await.payload, "1");
        let mut staying = broker.join(Version::V311, name).await;
        staying.subscribe("$share/g/t", 1).await;
        staying.ping().await;
        // What it was sent is still its own to acknowledge; the rest is not.
        leaving.unsubscribe("$share/g/t").await;
        let handed_on = receive(&mut staying, 2).await;
        assert_eq!(payloads(&handed_on), ["2", "3"]);
        assert!(handed_on.iter().all(|one| one.qos == 1 && !one.dup));
        staying.ping().await;
        leaving.leave().await;
        assert_eq!(payloads(&receive(&mut staying, 1).await), ["1"]);
        staying.leave().await;
    }
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn member_that_is_taken_over_hands_on_what_it_was_not_sent() {
    let broker = Broker::start_with("[limits]\ninflight = 1\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let hello = Hello::persistent(Version::V5, "older");
    let (mut older, _) = Client::connect(broker.address, &hello).await;
    older.subscribe("$share/g/t", 1).await;
    for number in ["1", "2", "3"] {
        sender.deliver("t", number, 1).await;
    }
    assert_eq!(older.receive_silently().await.payload, "1");
    for name in NAMES {
        let mut staying = broker.join(Version::V311, name).await;
        staying.subscribe("$share/g/t", 1).await;
        let (mut newer, welcome) = Client::connect(broker.address, &hello).await;
        assert!(welcome.session_present);
        assert_eq!(payloads(&receive(&mut staying, 2).await), ["2", "3"]);
        assert_eq!(newer.receive_silently().await.payload, "1");
        staying.leave().await;
        for number in ["2", "3"] {
            sender.deliver("t", number, 1).await;
        }
        older = newer;
    }
    drop(older);
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn member_that_leaves_several_groups_at_once_hands_on_in_all() {
    let broker = Broker::start_with("[limits]\ninflight = 1\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let mut leaving = broker.join(Version::V311, "leaving").await;
    for filter in ["own", "$share/g/t", "$queue/t"] {
        leaving.subscribe(filter, 1).await;
    }
    for topic in ["own", "t"] {
        sender.deliver(topic, topic, 1).await;
    }
    assert_eq!(leaving.receive_silently().await.payload, "own");
    let mut staying = broker.join(Version::V311, "staying").await;
    for filter in ["$share/g/t", "$queue/t"] {
        staying.subscribe(filter, 1).await;
    }
    staying.ping().await;
    let mut body = vec![0, 8, 0, 10];
    body.extend(b"$share/g/t");
    body.extend([0, 8]);
    body.extend(b"$queue/t");
    leaving.send(&packet(0xa2, &body)).await;
    leaving.expect(0xb0, &[0, 8]).await;
    assert_eq!(payloads(&receive(&mut staying, 2).await), ["t", "t"]);
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn qos2_message_that_one_member_was_sent_is_never_sent_to_another() {
    let broker = Broker::start_with("[limits]\ninflight = 1\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for name in NAMES {
        let hello = Hello::persistent(Version::V5, "begun");
        let (mut begun, _) = Client::connect(broker.address, &hello).await;
        begun.subscribe("$share/g/t", 2).await;
        sender.deliver("t", "1", 2).await;
        sender.deliver("t", "2", 2).await;
        assert_eq!(begun.receive_silently().await.payload, "1");
        let mut other = broker.join(Version::V5, name).await;
        other.subscribe("$share/g/t", 2).await;
        // The one that waits goes to who is there, the one that has begun waits for its client.
        begun.leave().await;
        assert_eq!(payloads(&receive(&mut other, 1).await), ["2"]);
        let (mut begun, _) = Client::connect(broker.address, &hello).await;
        let again = begun.receive_silently().await;
        assert_eq!((again.payload.as_str(), again.dup), ("1", true));
        // Its session ends.
        begun.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
        begun.expect_close().await;
        sender.deliver("t", "3", 2).await;
        assert_eq!(payloads(&receive(&mut other, 1).await), ["3"]);
        other.leave().await;
        // What went to a seat that is given up would come behind what follows.
        broker.wait_for(Metric::SharedSubscriptions, 0).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn message_that_its_member_refuses_is_gone() {
    let broker = Broker::start_with("[limits]\ninflight = 1\n").await;
    let mut refusing = broker.join(Version::V5, "refusing").await;
    refusing.subscribe("$share/g/t", 2).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for (qos, kind) in [(1, 0x40), (2, 0x50)] {
        sender.deliver("t", "refused", qos).await;
        sender.deliver("t", "next", 1).await;
        let [high, low] = refusing.receive_silently().await.id.to_be_bytes();
        let mut other = broker.join(Version::V5, "other").await;
        other.subscribe("$share/g/t", 2).await;
        refusing.send(&[kind, 3, high, low, 0x80]).await;
        assert_eq!(refusing.receive().await.payload, "next");
        refusing.ping().await;
        other.ping().await;
        other.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn absent_members_are_given_what_nobody_else_can_take() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for name in NAMES {
        let hello = Hello::persistent(Version::V5, "absent");
        let (mut absent, _) = Client::connect(broker.address, &hello).await;
        absent.subscribe("$share/g/t", 1).await;
        let mut present = broker.join(Version::V311, name).await;
        present.subscribe("$share/g/t", 1).await;
        absent.leave().await;
        for number in ["1", "2"] {
            sender.deliver("t", number, 1).await;
        }
        assert_eq!(payloads(&receive(&mut present, 2).await), ["1", "2"]);
        present.leave().await;
        sender.deliver("t", "3", 1).await;
        sender.deliver("t", "not kept", 0).await;
        sender.ping().await;
        let (mut absent, welcome) = Client::connect(broker.address, &hello).await;
        assert!(welcome.session_present);
        assert_eq!(absent.receive().await.payload, "3");
        absent.unsubscribe("$share/g/t").await;
        absent.leave().await;
    }
    assert_eq!(broker.count(Metric::DroppedShared), NAMES.len() as u64);
    broker.stop().await;
}

#[tokio::test]
async fn members_whose_queue_is_full_are_passed_over() {
    let broker = Broker::start_with("[limits]\ninflight = 1\nqueue_messages = 1\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let mut members = Vec::new();
    for name in NAMES {
        let mut member = broker.join(Version::V311, name).await;
        member.subscribe("$share/g/t", 1).await;
        members.push(member);
    }
    // One in flight and one in the queue of each, and three for which there is no place.
    for number in 0..2 * NAMES.len() + 3 {
        sender.deliver("t", &number.to_string(), 1).await;
    }
    broker.wait_for(Metric::DroppedShared, 3).await;
    for member in &mut members {
        receive(member, 2).await;
        member.ping().await;
    }
    assert_eq!(broker.count(Metric::DroppedQueue), 0);
    broker.stop().await;
}

#[tokio::test]
async fn members_subscription_says_what_it_gets() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.publish("t", "retained", 0b0011, 1).await;
    sender.recv().await;
    let mut member = broker.join(Version::V5, "member").await;
    // With an identifier, QoS 1 and retain as published.
    let filter = b"$share/g/t";
    let mut body = vec![0, 9, 2, 0x0b, 7, 0, filter.len() as u8];
    body.extend(filter);
    body.push(0b1001);
    member.send(&packet(0x82, &body)).await;
    assert_eq!(member.recv().await, (0x90, vec![0, 9, 0, 1]));
    // There are no retained messages for groups.
    member.ping().await;
    sender.publish("t", "live", 0b0101, 2).await;
    let received = member.receive().await;
    assert_eq!((received.payload.as_str(), received.qos), ("live", 1));
    assert!(received.retain);
    assert_eq!(received.properties, [0x0b, 7]);
    broker.stop().await;
}

#[tokio::test]
async fn illegal_shared_filters_are_refused() {
    let broker = Broker::start().await;
    for filter in [
        "$share/g",
        "$share/g/",
        "$share//t",
        "$share/+/t",
        "$share/g/t#",
        "$queue/",
    ] {
        let mut old = broker.join(Version::V311, "old").await;
        assert_eq!(old.subscribe(filter, 0).await, 0x80);
        let mut new = broker.join(Version::V5, "new").await;
        assert_eq!(new.subscribe(filter, 0).await, 0x8f);
        assert_eq!(new.unsubscribe(filter).await.last(), Some(&0x8f));
    }
    let mut new = broker.join(Version::V5, "new").await;
    assert_eq!(new.unsubscribe("$share/g/t").await.last(), Some(&0x11));
    // A group knows nothing of whom a message is from.
    let mut body = vec![0, 9, 0, 0, 10];
    body.extend(b"$share/g/t");
    body.push(0b100);
    new.send(&packet(0x82, &body)).await;
    new.expect(0xe0, &[0x82]).await;
    new.expect_close().await;
    broker.stop().await;
}
