//! Retained messages, filters and slow subscribers as operators see them.

use std::time::Duration;

use super::{
    Broker,
    access::{Scene, alice},
    client::{Client, Hello},
    operate::{get, serve},
};
use crate::{
    codec::packet::Version,
    control::view::{ClientView, Page, RetainedView, SessionView, SubscriptionView, TopicView},
    metrics::Metric,
};

#[tokio::test]
async fn retained_messages_are_listed_by_topic_with_their_payloads_if_wanted() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for number in 0..300 {
        sender
            .publish(&format!("r/{number:03}"), "21 °C", 0b0001, 0)
            .await;
    }
    sender.publish("r/007/x", "a", 0b0011, 3).await;
    sender.recv().await;

    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let route = format!("/v1/retained?limit=7{after}");
        let page: Page<RetainedView> = get(&socket, &route).await.unwrap();
        assert!(page.rows.len() <= 7 && page.rows.iter().all(|row| row.payload.is_none()));
        listed.extend(page.rows.into_iter().map(|row| row.topic));
        let Some(next) = page.next else { break };
        after = format!("&after={}", console::client::encode(&next));
    }
    assert_eq!(listed.len(), 301);
    assert!(listed.is_sorted() && listed.contains(&"r/007/x".to_owned()));

    let route = "/v1/retained?filter=r/007/%23&payload=true";
    let page: Page<RetainedView> = get(&socket, route).await.unwrap();
    let [seven, below] = &page.rows[..] else {
        panic!("two messages, not {page:?}");
    };
    assert_eq!((seven.bytes, seven.qos, below.qos), (6, 0, 1));
    assert_eq!(seven.payload.as_deref(), Some("21 °C"));
    assert!(seven.age_seconds < 20 && seven.expires_in_seconds.is_none());
    let refusal = get::<Page<RetainedView>>(&socket, "/v1/retained?filter=a%23").await;
    assert!(refusal.unwrap_err().is_usage());
    broker.stop().await;
}

#[tokio::test]
async fn filters_are_listed_with_the_number_of_their_subscribers() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for number in 0..9 {
        let mut client = broker.join(Version::V5, &format!("c{number}")).await;
        client.subscribe("all", 0).await;
        client.subscribe(&format!("of/{}", number % 3), 0).await;
        clients.push(client);
    }
    let filters = async |options: &str| {
        let route = format!("/v1/topics?{options}");
        let page: Page<TopicView> = get(&socket, &route).await.unwrap();
        let rows = page.rows.into_iter();
        let rows: Vec<_> = rows.map(|row| (row.filter, row.subscribers)).collect();
        (rows, page.next)
    };
    let all = ["all", "of/0", "of/1", "of/2"].map(str::to_owned);
    let all = all.into_iter().zip([9, 3, 3, 3]).collect::<Vec<_>>();
    assert_eq!(filters("").await, (all.clone(), None));
    assert_eq!(
        filters("prefix=of/&limit=2").await,
        (all[1..3].to_vec(), Some("of/1".to_owned()))
    );
    assert_eq!(
        filters("prefix=of/&limit=2&after=of/1").await,
        (all[3..].to_vec(), None)
    );
    broker.stop().await;
}

#[tokio::test]
async fn subscriber_that_does_not_keep_up_is_called_slow_and_its_losses_counted() {
    let broker = Broker::start_with("[limits]\nqueue_messages = 5\n").await;
    let (socket, _serving) = serve(&broker).await;
    let hello = Hello::persistent(Version::V5, "lazy");
    let (mut lazy, _) = Client::connect(broker.address, &hello).await;
    lazy.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    // A window of 100 that is never acknowledged, five that wait, and what is too much.
    for _ in 0..112 {
        sender.deliver("t", "0123456789", 1).await;
    }
    broker.wait_for(Metric::DroppedQueue, 7).await;
    assert_eq!(broker.count(Metric::DroppedBytes), 70);
    assert_eq!(broker.count(Metric::SlowSubscribers), 1);
    let page: Page<ClientView> = get(&socket, "/v1/clients?slow=true").await.unwrap();
    let [client] = &page.rows[..] else {
        panic!("one slow client, not {page:?}");
    };
    assert_eq!((&*client.client_id, client.queued), ("lazy", 5));
    assert_eq!((client.inflight, client.dropped_messages), (100, 7));
    assert_eq!(client.dropped_bytes, 70);

    drop(lazy);
    broker.wait_for(Metric::ClosedLost, 1).await;
    let page: Page<SessionView> = get(&socket, "/v1/sessions?client=lazy").await.unwrap();
    assert_eq!(page.rows[0].dropped_messages, 7);
    let (_lazy, _) = Client::connect(broker.address, &hello).await;
    let page: Page<SessionView> = get(&socket, "/v1/sessions?client=lazy").await.unwrap();
    assert_eq!(page.rows[0].dropped_messages, 0);
    broker.stop().await;
}

#[tokio::test]
async fn metrics_tell_of_connects_and_shards() {
    let broker = Broker::start().await;
    let _client = broker.join(Version::V5, "c").await;
    let metrics = async {
        loop {
            let mut text = String::new();
            broker.node.status().render(&mut text);
            // The pulse's first beat may be on its way.
            if text.contains("shard_load_ratio{shard=\"0\"}") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(20), metrics).await;
    let text = text.unwrap();
    for line in [
        "tidegate_broker_ready 1",
        "tidegate_broker_connect_seconds_count 1",
        "tidegate_broker_connect_seconds_bucket{le=\"+Inf\"} 1",
        "# TYPE tidegate_broker_shard_answer_seconds histogram",
    ] {
        assert!(
            text.lines().any(|written| written == line),
            "{line}\n{text}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn shared_subscriptions_are_listed_with_the_others() {
    let broker = Broker::start_sharded(3, "").await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for shard in 0..3 {
        let mut client = broker.join(Version::V5, &broker.id_on(shard, "c")).await;
        for filter in ["$share/g/plant/+/alarm", "$queue/plant/#", "plant/3/alarm"] {
            client.subscribe(filter, 1).await;
        }
        clients.push(client);
    }
    let mut other = broker.join(Version::V5, "other").await;
    other.subscribe("$share/h/other", 0).await;
    let page: Page<TopicView> = get(&socket, "/v1/topics").await.unwrap();
    let topics = |page: Page<TopicView>| -> Vec<_> {
        let rows = page.rows.into_iter();
        rows.map(|row| (row.filter, row.subscribers)).collect()
    };
    let all = [
        ("$queue/plant/#", 3),
        ("$share/g/plant/+/alarm", 3),
        ("$share/h/other", 1),
        ("plant/3/alarm", 3),
    ];
    let all = all.map(|(filter, count)| (filter.to_owned(), count));
    assert_eq!(topics(page), all);
    let page: Page<TopicView> = get(&socket, "/v1/topics?prefix=$share/").await.unwrap();
    assert_eq!(topics(page), all[1..3]);

    let count = async |options: &str| {
        let route = format!("/v1/subscriptions?{options}");
        let page: Page<SubscriptionView> = get(&socket, &route).await.unwrap();
        page.rows.len()
    };
    assert_eq!(count("").await, 10);
    assert_eq!(count("topic=plant/3/alarm").await, 9);
    assert_eq!(count("topic=plant/4/alarm").await, 6);
    assert_eq!(count("filter=$share/g/plant/%2B/alarm").await, 3);
    // Nothing is left of those who leave.
    clients[0].unsubscribe("$queue/plant/#").await;
    for client in clients {
        client.leave().await;
    }
    let page: Page<TopicView> = get(&socket, "/v1/topics").await.unwrap();
    assert_eq!(topics(page), all[2..3]);
    broker.stop().await;
}

#[tokio::test]
async fn clients_are_listed_with_the_users_that_they_are() {
    let scene = Scene::with_rules("anonymous = true", None).await;
    let (socket, _serving) = serve(&scene.broker).await;
    let (_alice, _) = scene.connect(&alice(Version::V5)).await;
    let _nobody = scene.broker.join(Version::V5, "nobody").await;
    let page: Page<ClientView> = get(&socket, "/v1/clients").await.unwrap();
    let users: Vec<_> = page.rows.iter().map(|row| row.user.as_deref()).collect();
    assert_eq!(users, [Some("alice"), None]);
    scene.broker.stop().await;
}
