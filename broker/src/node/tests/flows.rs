//! Messages from client to client.

use super::{
    ALL, Broker, Node,
    client::{Client, Hello, packet},
};
use crate::{codec::packet::Version, metrics::Metric};

#[tokio::test]
async fn every_qos_flows_between_all_versions() {
    let broker = Broker::start().await;
    for from in ALL {
        for to in ALL {
            let mut sender = broker.join(from, "sender").await;
            let mut receiver = broker.join(to, "receiver").await;
            for qos in 0..=2 {
                assert_eq!(receiver.subscribe("a/+/c", qos).await, qos);
                for sent in 0..=2 {
                    let payload = format!("{from:?} {to:?} {qos} {sent}");
                    sender.deliver("a/b/c", &payload, sent).await;
                    let received = receiver.receive().await;
                    assert_eq!((received.payload, received.qos), (payload, qos.min(sent)));
                    assert_eq!((received.retain, received.dup), (false, false));
                }
            }
            sender.leave().await;
            receiver.leave().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn odd_topics_are_delivered_and_hurt_nobody() {
    let broker = Broker::start().await;
    let mut everything = broker.join(Version::V311, "everything").await;
    everything.subscribe("#", 0).await;
    let mut dollar = broker.join(Version::V5, "dollar").await;
    dollar.subscribe("$own/#", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let odd = [
        "ä",
        "日本/語",
        "//",
        "/",
        "\u{10ffff}",
        " ",
        "lane/0",
        "lane/1",
        "nudge",
    ];
    for topic in odd {
        sender.deliver(topic, "x", 1).await;
        assert_eq!(everything.receive().await.topic, topic);
    }
    sender.deliver("$own/x", "hidden from wildcards", 1).await;
    assert_eq!(dollar.receive().await.topic, "$own/x");
    sender.deliver("end", "", 1).await;
    assert_eq!(everything.receive().await.topic, "end");
    broker.stop().await;
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_with_all_ids() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    for (filter, id, qos) in [("a/#", 1, 0), ("a/+", 2, 1)] {
        let mut body = vec![0, 9, 2, 0x0b, id, 0, 3];
        body.extend(filter.as_bytes());
        body.push(qos);
        client.send(&packet(0x82, &body)).await;
        client.recv().await;
    }
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("a/b", "x", 1).await;
    let received = client.receive().await;
    assert_eq!(
        (received.qos, received.properties),
        (1, vec![0x0b, 1, 0x0b, 2])
    );
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    client.subscribe("a", 0b100).await;
    let mut other = broker.join(Version::V5, "other").await;
    other.subscribe("a", 0).await;
    client.publish("a", "x", 0, 0).await;
    assert_eq!(other.receive().await.payload, "x");
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn unsubscribed_client_gets_nothing_more() {
    let broker = Broker::start().await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        client.subscribe("a", 0).await;
        let code = |code| {
            if version.is_v5() {
                vec![0, 8, 0, code]
            } else {
                vec![0, 8]
            }
        };
        assert_eq!(client.unsubscribe("a").await, code(0));
        assert_eq!(client.unsubscribe("a").await, code(0x11));
        client.publish("a", "x", 0, 0).await;
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn publish_that_nobody_wants_says_so_in_mqtt5() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    client.publish("a", "x", 0b0010, 7).await;
    client.expect(0x40, &[0, 7, 0x10]).await;
    broker.stop().await;
}

#[tokio::test]
async fn burst_for_a_client_that_reads_late_arrives_whole_and_in_order() {
    const MESSAGES: usize = 5000;
    let broker = Broker::start_with("[limits]\nqueue_messages = 10000\n").await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let padding = "x".repeat(1000);
    for number in 0..MESSAGES {
        sender
            .deliver("t", &format!("{number} {padding}"), (number % 2) as u8)
            .await;
    }
    let mut next = [0, 1];
    for _ in 0..MESSAGES {
        let received = receiver.receive().await;
        let number: usize = received.payload.split(' ').next().unwrap().parse().unwrap();
        // QoS 0 may pass QoS 1; each keeps its own order.
        assert_eq!(number, next[number % 2]);
        next[number % 2] += 2;
    }
    assert_eq!(broker.count(Metric::DroppedQueue), 0);
    broker.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_router_dies() {
    const MESSAGES: usize = 300;
    let broker = Broker::start().await;
    let shards = u64::from(broker.node.status().shared.shards);
    let mut receivers = Vec::new();
    for index in 0..8 {
        let mut receiver = broker
            .join(Version::V311, &format!("receiver {index}"))
            .await;
        receiver.subscribe("t", 1).await;
        receivers.push(receiver);
    }
    let mut sender = broker.join(Version::V5, "sender").await;
    for number in 0..MESSAGES {
        if number == MESSAGES / 3 {
            broker.node.status().shared.lanes.kill_router();
        }
        sender.deliver("t", &number.to_string(), 1).await;
    }
    for receiver in &mut receivers {
        for number in 0..MESSAGES {
            assert_eq!(receiver.receive().await.payload, number.to_string());
        }
    }
    broker.wait_for(Metric::LaneRestarts, shards).await;
    broker.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_when_routers_die_and_hang_one_after_the_other() {
    const MESSAGES: usize = 300;
    let broker = Broker::start().await;
    let lanes = &broker.node.status().shared.lanes;
    let mut receivers = Vec::new();
    for index in 0..4 {
        let mut receiver = broker.join(Version::V5, &format!("receiver {index}")).await;
        receiver.subscribe("t", 1).await;
        receivers.push(receiver);
    }
    let mut sender = broker.join(Version::V5, "sender").await;
    let mut hanging = None;
    for number in 0..MESSAGES {
        sender
            .deliver("t", &number.to_string(), 1 + number as u8 % 2)
            .await;
        if number % 50 == 25 {
            let built = lanes.health().built;
            if number == 125 {
                hanging = Some(lanes.hang_router());
            } else {
                lanes.kill_router();
            }
            sender.deliver("between", "", 1).await;
            let is_replaced = |node: &Node| node.status().shared.lanes.health().built > built;
            broker.wait_until(is_replaced).await;
        }
    }
    for receiver in &mut receivers {
        for number in 0..MESSAGES {
            assert_eq!(receiver.receive().await.payload, number.to_string());
        }
        receiver.ping().await;
    }
    let router = broker.node.status().router();
    assert!(router.answers);
    // One that is only slow may be replaced, too.
    assert!(router.restarts >= 6 && router.hung >= 1, "{router:?}");
    let mut metrics = String::new();
    broker.node.status().render(&mut metrics);
    let hung = format!("router_restarts_total{{reason=\"hung\"}} {}", router.hung);
    for line in [&hung, "router_answers 1"] {
        let line = format!("\ntidegate_broker_{line}\n");
        assert!(metrics.contains(&line), "{line}");
    }
    drop(hanging);
    broker.stop().await;
}

#[tokio::test]
async fn client_that_does_not_read_costs_the_others_nothing() {
    const MESSAGES: usize = 4000;
    let broker = Broker::start_with("[limits]\nqueue_messages = 5000\n").await;
    let mut deaf = broker.join(Version::V311, "deaf").await;
    deaf.subscribe("t", 0).await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    receiver.subscribe("t", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let payload = "x".repeat(4000);
    let receiving = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            receiver.receive().await;
        }
    });
    for _ in 0..MESSAGES {
        sender.publish("t", &payload, 0, 0).await;
    }
    receiving.await.unwrap();
    // What was kept for it arrives once it reads.
    for _ in 0..MESSAGES {
        assert_eq!(deaf.receive().await.payload, payload);
    }
    broker.stop().await;
}

#[tokio::test]
async fn messages_for_a_full_queue_are_dropped_and_counted() {
    let broker = Broker::start_with("[limits]\nqueue_messages = 2\ninflight = 1\n").await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for number in 0..5 {
        sender.deliver("t", &number.to_string(), 1).await;
    }
    broker.wait_for(Metric::DroppedQueue, 2).await;
    for number in 0..3 {
        assert_eq!(receiver.receive().await.payload, number.to_string());
    }
    receiver.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn many_clients_on_all_shards_reach_each_other() {
    const CLIENTS: usize = 100;
    let broker = Broker::start().await;
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        let mut client = broker
            .join(ALL[index % 3], &format!("client {index}"))
            .await;
        client.subscribe("all", 1).await;
        clients.push(client);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.publish("all", &index.to_string(), 0, 0).await;
    }
    for client in &mut clients {
        let mut seen = [false; CLIENTS];
        for _ in 0..CLIENTS {
            let index: usize = client.receive().await.payload.parse().unwrap();
            assert!(!std::mem::replace(&mut seen[index], true));
        }
    }
    assert_eq!(broker.count(Metric::MessagesIn), CLIENTS as u64);
    assert_eq!(
        broker.count(Metric::MessagesOut),
        (CLIENTS * CLIENTS) as u64
    );
    broker.stop().await;
}

#[tokio::test]
async fn receive_maximum_and_packet_size_of_the_client_are_kept() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "small");
    hello.properties = vec![0x21, 0, 1, 0x27, 0, 0, 0, 20];
    let (mut small, _) = Client::connect(broker.address, &hello).await;
    small.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("t", &"x".repeat(100), 1).await;
    sender.deliver("t", "one", 1).await;
    sender.deliver("t", "two", 1).await;
    let one = small.receive_silently().await;
    assert_eq!(one.payload, "one");
    small.ping().await;
    small.send(&[0x40, 2, 0, one.id as u8]).await;
    assert_eq!(small.receive().await.payload, "two");
    broker.stop().await;
}
