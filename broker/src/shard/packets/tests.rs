use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    access::Identity,
    codec::packet::{Connect, RetainHandling, Version},
    metrics::{Counters, Metrics},
    peer::Peer,
    routes::ShardId,
    shard::Shared,
};

/// Topics that are in use at a time.
const ROUND: usize = 1000;

/// Topics in all; `TIDEGATE_TOPICS` says another number.
const TOPICS: usize = 100_000;

struct Fixture {
    shard: Shard,
    shared: Arc<Shared>,
    metrics: Metrics,
    key: SessionKey,
    link: Rc<Link>,
}

/// A client of MQTT 5 whose session outlives it by so many seconds.
fn hello(client_id: &str, expiry: u32) -> Connect {
    Connect {
        session_expiry: Some(expiry),
        topic_aliases: 8,
        ..Connect::for_tests(Version::V5, client_id)
    }
}

fn connect(shard: &mut Shard, connect: Connect) -> (SessionKey, Rc<Link>) {
    let counters = Arc::clone(shard.counters());
    let link = Link::new(Peer::for_tests(), &connect, shard.limits(), counters);
    let key = shard.connect(connect, Identity::ANONYMOUS, None, &link, Instant::now());
    (key.unwrap(), link)
}

impl Fixture {
    fn new() -> Self {
        Self::with("")
    }

    fn with(settings: &str) -> Self {
        let shared = Shared::for_tests(settings, 1);
        let counters = Arc::new(Counters::default());
        let metrics = Metrics::new(vec![Arc::clone(&counters)]);
        let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), counters);
        let (key, link) = connect(&mut shard, hello("c", 0));
        Self {
            shard,
            shared,
            metrics,
            key,
            link,
        }
    }

    /// Handles a packet of the client's, which reads all answers.
    fn handle(&mut self, packet: ClientPacket) {
        let Self {
            shard, key, link, ..
        } = self;
        let flow = shard.handle_packet(*key, link, packet, Instant::now());
        assert_eq!(flow, Ok(Flow::Continue));
        drop(link.take_output());
    }

    fn subscribe(&mut self, filters: &[String]) {
        let filter = |filter: &String| SubscribeFilter {
            filter: filter.clone(),
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        self.handle(ClientPacket::Subscribe(Subscribe {
            id: PacketId::MIN,
            subscription_id: None,
            filters: filters.iter().map(filter).collect(),
        }));
    }

    fn unsubscribe(&mut self, filters: Vec<String>) {
        let id = PacketId::MIN;
        self.handle(ClientPacket::Unsubscribe { id, filters });
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.handle(ClientPacket::Publish {
            id: None,
            alias: None,
            message: Message {
                topic: topic.into(),
                payload: payload.into(),
                properties: Box::default(),
                qos: Qos::AtMostOnce,
                retain: true,
                expires: None,
                id: crate::message::MessageId::NONE,
            },
        });
    }

    /// How many branches all trees have.
    fn nodes(&self) -> [usize; 4] {
        [
            self.shard.subscribers.nodes(),
            self.shared.routes.nodes(),
            self.shared.shares.nodes(),
            self.shared.retained.read().unwrap().nodes(),
        ]
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A topic of one to eight levels, some of which others have too.
    fn topic(&mut self) -> String {
        let levels = (0..=self.roll() % 8).map(|depth| match depth {
            0 => format!("{:x}", self.roll() % 16),
            _ => format!("{:x}", self.roll() >> (self.roll() % 60)),
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// A filter that the topic may match.
    fn filter(&mut self, topic: &str) -> String {
        let mut levels: Vec<_> = topic.split('/').collect();
        if let Some(level) = levels.last_mut() {
            *level = match self.roll() % 4 {
                0 => "+",
                1 => "#",
                _ => level,
            };
        }
        let filter = levels.join("/");
        match self.roll() % 16 {
            0 => format!("$share/g{:x}/{filter}", self.roll()),
            _ => filter,
        }
    }
}

#[test]
fn random_topics_leave_nothing_behind() {
    let wanted = std::env::var("TIDEGATE_TOPICS").ok();
    let topics = wanted.map_or(TOPICS, |number| number.parse().unwrap());
    let mut fixture = Fixture::new();
    let empty = fixture.nodes();
    let mut dice = Dice(1);
    for _ in 0..topics.div_ceil(ROUND) {
        let names: Vec<_> = (0..ROUND).map(|_| dice.topic()).collect();
        let mut filters: Vec<_> = names.iter().map(|name| dice.filter(name)).collect();
        fixture.subscribe(&filters);
        for name in &names {
            fixture.publish(name, b"x");
        }
        assert!(
            fixture
                .nodes()
                .iter()
                .zip(empty)
                .all(|(full, empty)| *full > empty)
        );
        filters.reverse();
        fixture.unsubscribe(filters);
        for name in &names {
            fixture.publish(name, b"");
        }
        assert_eq!(fixture.nodes(), empty);
    }
    assert_eq!(fixture.metrics.get(Metric::Subscriptions), 0);
    assert_eq!(fixture.metrics.get(Metric::SharedSubscriptions), 0);
    assert_eq!(fixture.metrics.get(Metric::RefusedSubscriptions), 0);
    assert!(fixture.metrics.get(Metric::MessagesOut) > 0);
}

#[test]
fn session_that_ends_takes_its_branches_along() {
    let mut fixture = Fixture::new();
    let empty = fixture.nodes();
    let mut dice = Dice(2);
    let names: Vec<_> = (0..ROUND).map(|_| dice.topic()).collect();
    let filters: Vec<_> = names.iter().map(|name| dice.filter(name)).collect();
    fixture.subscribe(&filters);
    let Fixture {
        shard, key, link, ..
    } = &mut fixture;
    shard.disconnect(*key, link, Cause::Broken, Instant::now());
    assert_eq!(fixture.nodes(), empty);
}

#[test]
fn sessions_that_end_together_end_in_several_turns() {
    const SESSIONS: u64 = 600;
    let mut fixture = Fixture::new();
    let Fixture { shard, metrics, .. } = &mut fixture;
    let now = Instant::now();
    for number in 0..SESSIONS {
        let (key, link) = connect(shard, hello(&number.to_string(), 1));
        shard.disconnect(key, &link, Cause::Goodbye, now);
    }
    let sessions = || metrics.get(Metric::Sessions);
    assert!(!shard.handle_timeout(now));
    assert_eq!(sessions(), SESSIONS + 1);
    let later = now + Duration::from_secs(1);
    let mut turns = 1;
    while shard.handle_timeout(later) {
        assert!(sessions() > 1);
        turns += 1;
    }
    assert_eq!((turns, sessions()), (3, 1));
    assert_eq!(metrics.get(Metric::SessionsExpired), SESSIONS);
}

#[test]
fn session_that_is_not_kept_may_be_asked_for() {
    let disconnect = ClientPacket::Disconnect {
        reason: 0,
        session_expiry: Some(5),
    };
    for (settings, expiry, flow) in [
        ("", 0, Err(reason::PROTOCOL_ERROR)),
        ("", 9, Ok(Flow::Close(Cause::Goodbye))),
        (
            "[session]\nmax_expiry = \"0s\"\n",
            9,
            Ok(Flow::Close(Cause::Goodbye)),
        ),
    ] {
        let mut fixture = Fixture::with(settings);
        let shard = &mut fixture.shard;
        let (key, link) = connect(shard, hello("leaving", expiry));
        let packet = disconnect.clone();
        assert_eq!(
            shard.handle_packet(key, &link, packet, Instant::now()),
            flow
        );
    }
}

#[test]
fn message_that_is_too_long_for_its_client_is_not_counted_as_a_full_queue() {
    for filter in ["t", "$share/g/t"] {
        let mut fixture = Fixture::new();
        let mut narrow = hello("narrow", 0);
        narrow.maximum_packet = Some(100);
        let (key, link) = connect(&mut fixture.shard, narrow);
        let (own, own_link) = (fixture.key, Rc::clone(&fixture.link));
        (fixture.key, fixture.link) = (key, link);
        fixture.subscribe(&[filter.to_owned()]);
        (fixture.key, fixture.link) = (own, own_link);
        fixture.publish("t", &[0; 200]);
        let dropped = [
            Metric::DroppedExpired,
            Metric::DroppedQueue,
            Metric::DroppedBytes,
        ];
        assert_eq!(
            dropped.map(|metric| fixture.metrics.get(metric)),
            [1, 0, 0],
            "{filter}"
        );
    }
}
