mod copies;

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::message::{MessageId, Qos};

fn message(topic: &str, payload: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: payload.as_bytes().into(),
        properties: Box::default(),
        qos: Qos::AtMostOnce,
        retain: true,
        expires: None,
        id: MessageId::NONE,
    })
}

impl Retained {
    fn keep(&mut self, message: &Arc<Message>) -> bool {
        self.store(message, 0, Instant::now())
    }
}

fn topics(retained: &Retained, filter: &str) -> Vec<String> {
    topics_by(PAGE_NODES, retained, filter)
}

fn page(nodes: usize, retained: &Retained, filter: &str, after: Option<&str>) -> Page {
    let walk = Walk {
        now: Instant::now(),
        nodes_left: nodes,
        bytes_left: usize::MAX,
        buckets: None,
        path: Vec::new(),
        page: Page::default(),
    };
    retained.walk(walk, filter, after)
}

/// Reads all pages of so many nodes each.
fn topics_by(nodes: usize, retained: &Retained, filter: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let Page { messages, next } = page(nodes, retained, filter, after.as_deref());
        assert!(messages.len() <= nodes);
        found.extend(messages.iter().map(|kept| kept.message.topic.to_string()));
        if next.is_none() {
            return found;
        }
        after = next;
    }
}

proptest! {
    #[test]
    fn pages_of_any_length_hold_every_match_once(
        topics in vec("[ab$/]{1,6}", 0..40),
        filter in "([ab+]/){0,3}[ab+#]",
        nodes in 1..9_usize,
    ) {
        let mut retained = Retained::new(Bounds::NONE);
        for topic in &topics {
            assert!(retained.keep(&message(topic, "x")));
        }
        let whole = topics_by(usize::MAX, &retained, &filter);
        prop_assert_eq!(topics_by(nodes, &retained, &filter), whole);
    }
}

#[test]
fn pages_go_on_where_their_last_topic_was_forgotten() {
    let mut retained = Retained::new(Bounds::NONE);
    for topic in ["a/1", "a/2", "a/3"] {
        assert!(retained.keep(&message(topic, "x")));
    }
    let first = page(2, &retained, "#", None);
    assert_eq!(first.next.as_deref(), Some("a/1"));
    assert!(retained.keep(&message("a/1", "")));
    let second = page(2, &retained, "#", first.next.as_deref());
    let topics: Vec<_> = second
        .messages
        .iter()
        .map(|kept| &*kept.message.topic)
        .collect();
    assert_eq!(topics, ["a/2", "a/3"]);
}

#[test]
fn filters_find_retained_topics() {
    let mut retained = Retained::new(Bounds::NONE);
    for topic in ["a", "a/b", "a/b/c", "/a", "$SYS/a", "ä/b"] {
        assert!(retained.keep(&message(topic, "x")));
    }
    assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
    assert_eq!(topics(&retained, "+/b"), ["a/b", "ä/b"]);
    assert_eq!(topics(&retained, "#"), ["/a", "a", "a/b", "a/b/c", "ä/b"]);
    assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/a"]);
    assert_eq!(topics(&retained, "+/a"), ["/a"]);
    assert_eq!(topics(&retained, "a/b"), ["a/b"]);
    assert_eq!(retained.len(), 6);
}

#[test]
fn empty_payload_forgets_the_topic() {
    let mut retained = Retained::new(Bounds::NONE);
    assert!(retained.keep(&message("a/b", "x")));
    assert!(retained.keep(&message("a/b", "y")));
    assert_eq!(retained.len(), 1);
    assert!(retained.keep(&message("a/b", "")));
    assert!(retained.keep(&message("a/b", "")));
    assert_eq!(retained.len(), 0);
    assert!(retained.root.is_empty());
}

#[test]
fn new_topics_beyond_the_bound_are_refused() {
    let mut retained = Retained::new(Bounds {
        messages: 2,
        ..Bounds::NONE
    });
    assert!(retained.keep(&message("a/b", "x")) && retained.keep(&message("a", "x")));
    assert!(!retained.keep(&message("b", "x")));
    assert!(!retained.keep(&message("a/b/c", "x")));
    assert!(retained.keep(&message("a", "y")));
    assert!(retained.keep(&message("a", "")) && retained.keep(&message("b", "x")));
    assert_eq!(topics(&retained, "#"), ["a/b", "b"]);
}

#[test]
fn expired_messages_are_hidden_and_then_forgotten() {
    let now = Instant::now();
    let mut retained = Retained::new(Bounds::NONE);
    let mut fleeting = Message::clone(&message("a", "x"));
    fleeting.expires = Some(now + Duration::from_secs(1));
    assert!(retained.keep(&Arc::new(fleeting)));
    assert!(retained.keep(&message("b", "x")));
    let later = now + Duration::from_secs(1);
    assert_eq!(retained.page("#", None, now).messages.len(), 2);
    assert_eq!(retained.page("#", None, later).messages.len(), 1);
    assert!(retained.is_due(later) && !retained.is_due(now));
    retained.handle_timeout(later);
    assert_eq!(retained.len(), 1);
    assert!(!retained.is_due(later));
}

#[test]
fn replaced_and_forgotten_messages_expire_no_more() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut retained = Retained::new(Bounds::NONE);
    for (topic, replacement) in [("a", "y"), ("b", "")] {
        let mut fleeting = Message::clone(&message(topic, "x"));
        fleeting.expires = Some(later);
        assert!(retained.keep(&Arc::new(fleeting)));
        assert!(retained.keep(&message(topic, replacement)));
    }
    assert!(!retained.is_due(later));
    retained.handle_timeout(later);
    assert_eq!(topics(&retained, "#"), ["a"]);
}

fn bounded(bytes: usize) -> Retained {
    Retained::new(Bounds {
        bytes,
        ..Bounds::NONE
    })
}

#[test]
fn page_for_another_node_is_bounded_in_bytes() {
    let mut retained = bounded(usize::MAX);
    let payload = "x".repeat(1000);
    for topic in ["a", "b", "c", "d"] {
        assert!(retained.keep(&message(topic, &payload)));
    }
    let now = Instant::now();
    let lengths = [1, 1500, 10_000].map(|bytes| {
        let page = retained.copy(copies::all_buckets(), bytes, None, now);
        let is_whole = page.next.as_deref() == Some("\0");
        assert_eq!(is_whole, page.messages.len() == 4);
        page.messages.len()
    });
    assert_eq!(lengths, [1, 2, 4]);
}

#[test]
fn messages_beyond_the_bytes_are_refused() {
    let mut retained = bounded(3000);
    let payload = "x".repeat(600);
    assert!(retained.keep(&message("a", &payload)));
    assert!(retained.keep(&message("b", &payload)));
    assert!(!retained.has_room(&message("c", &payload)));
    assert!(!retained.keep(&message("c", &payload)));
    // A shorter one fits, and so does a replacement.
    assert!(retained.keep(&message("b", "y")));
    assert!(retained.keep(&message("c", "y")));
    assert_eq!(topics(&retained, "#"), ["a", "b", "c"]);
    let bytes = retained.bytes();
    assert!(retained.keep(&message("c", "")));
    assert!(retained.keep(&message("c", "y")));
    assert_eq!(retained.bytes(), bytes);
}

#[test]
fn topic_whose_new_message_has_no_room_has_none() {
    let mut retained = bounded(2000);
    assert!(retained.keep(&message("a", "old")));
    assert!(!retained.keep(&message("a", &"x".repeat(2000))));
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
}

#[test]
fn deep_topics_weigh_more() {
    let mut retained = bounded(20 * LEVEL_BYTES);
    assert!(!retained.has_room(&message(&"a/".repeat(30), "x")));
    assert!(retained.keep(&message(&"a/".repeat(10), "x")));
    // Levels that are there already take nothing.
    assert!(retained.keep(&message(&format!("{}b", "a/".repeat(10)), "x")));
}

proptest! {
    #[test]
    fn bytes_are_those_of_what_is_kept(
        changes in vec(("[ab/]{1,5}", 0..3_usize, any::<bool>()), 0..60),
    ) {
        let now = Instant::now();
        let mut retained = bounded(12 * LEVEL_BYTES);
        for (topic, payload, expires) in &changes {
            let mut message = Message::clone(&message(topic, &"x".repeat(*payload)));
            message.expires = expires.then_some(now);
            let message = Arc::new(message);
            let had_room = message.payload.is_empty() || retained.has_room(&message);
            prop_assert_eq!(retained.store(&message, 0, now), had_room);
            prop_assert!(retained.bytes() <= retained.bounds.bytes);
        }
        retained.handle_timeout(now);
        for (topic, ..) in &changes {
            assert!(retained.store(&message(topic, ""), 0, now));
        }
        prop_assert_eq!((retained.bytes(), retained.nodes()), (0, 1));
    }
}

#[test]
fn many_messages_that_expire_at_once_are_forgotten_little_by_little() {
    let now = Instant::now();
    let mut retained = Retained::new(Bounds::NONE);
    for number in 0..FORGOTTEN_PER_TURN + 1 {
        let mut fleeting = Message::clone(&message(&number.to_string(), "x"));
        fleeting.expires = Some(now);
        assert!(retained.keep(&Arc::new(fleeting)));
    }
    retained.handle_timeout(now);
    assert_eq!(retained.len(), 1);
    assert!(retained.page("#", None, now).messages.is_empty());
    retained.handle_timeout(now);
    assert_eq!(retained.len(), 0);
}
