//! Retained messages: the last one of each topic, found by filters with wildcards.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Instant,
};

use crate::{
    message::Message,
    topic::{self, split_level},
};

/// The node's retained messages.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    root: Node,
    len: usize,
    /// Whether any message expires; without one there is nothing to look for.
    expiring: bool,
}

/// Ordered, so that a subscriber gets retained messages in the order of their topics.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Self>,
    message: Option<Arc<Message>>,
}

impl Retained {
    /// Keeps the message for its topic, or forgets the topic's when the payload is empty.
    pub(crate) fn store(&mut self, message: &Arc<Message>) {
        if message.payload.is_empty() {
            if self.root.remove(Some(&message.topic)) {
                self.len -= 1;
            }
            return;
        }
        self.expiring |= message.expires.is_some();
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            node = match node.children.entry(level.into()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Node::default()),
            };
        }
        if node.message.replace(Arc::clone(message)).is_none() {
            self.len += 1;
        }
    }

    /// The retained messages whose topics the filter matches, without expired ones.
    pub(crate) fn matching(&self, filter: &str, now: Instant) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.root
            .collect(Some(filter), Position::Root, &mut |message| {
                if !message.is_expired(now) {
                    found.push(Arc::clone(message));
                }
            });
        found
    }

    /// Forgets messages that have expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.expiring {
            let mut left = 0;
            self.len -= self.root.remove_expired(now, &mut left);
            self.expiring = left > 0;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Root,
    Below,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.message.is_none()
    }

    fn remove(&mut self, rest: Option<&str>) -> bool {
        let Some(rest) = rest else {
            return self.message.take().is_some();
        };
        let (level, below) = split_level(rest);
        let Some(child) = self.children.get_mut(level) else {
            return false;
        };
        let removed = child.remove(below);
        if child.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    /// Counts in `left` the messages that have yet to expire.
    fn remove_expired(&mut self, now: Instant, left: &mut usize) -> usize {
        let mut removed = 0;
        self.children.retain(|_level, child| {
            removed += child.remove_expired(now, left);
            !child.is_empty()
        });
        if let Some(message) = &self.message
            && message.expires.is_some()
        {
            if message.is_expired(now) {
                self.message = None;
                removed += 1;
            } else {
                *left += 1;
            }
        }
        removed
    }

    fn collect(
        &self,
        rest: Option<&str>,
        position: Position,
        found: &mut impl FnMut(&Arc<Message>),
    ) {
        let Some(rest) = rest else {
            if let Some(message) = &self.message {
                found(message);
            }
            return;
        };
        // `#` and `+` at the first level leave out topics that start with `$` (4.7.2).
        let shows =
            |level: &str| position == Position::Below || !topic::hides_from_wildcards(level);
        match split_level(rest) {
            ("#", None) => {
                if let Some(message) = &self.message {
                    found(message);
                }
                for (level, child) in &self.children {
                    if shows(level) {
                        child.collect(Some("#"), Position::Below, found);
                    }
                }
            }
            ("+", below) => {
                for (level, child) in &self.children {
                    if shows(level) {
                        child.collect(below, Position::Below, found);
                    }
                }
            }
            (level, below) => {
                if let Some(child) = self.children.get(level) {
                    child.collect(below, Position::Below, found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Qos;

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.as_bytes().into(),
            properties: Box::default(),
            qos: Qos::AtMostOnce,
            retain: true,
            expires: None,
        })
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let found = retained.matching(filter, Instant::now());
        found
            .iter()
            .map(|message| message.topic.to_string())
            .collect()
    }

    #[test]
    fn filters_find_retained_topics() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "/a", "$SYS/a", "ä/b"] {
            retained.store(&message(topic, "x"));
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
        let mut retained = Retained::default();
        retained.store(&message("a/b", "x"));
        retained.store(&message("a/b", "y"));
        assert_eq!(retained.len(), 1);
        retained.store(&message("a/b", ""));
        retained.store(&message("a/b", ""));
        assert_eq!(retained.len(), 0);
        assert!(retained.root.is_empty());
    }

    #[test]
    fn expired_messages_are_hidden_and_then_forgotten() {
        let now = Instant::now();
        let mut retained = Retained::default();
        let mut fleeting = Message::clone(&message("a", "x"));
        fleeting.expires = Some(now + Duration::from_secs(1));
        retained.store(&Arc::new(fleeting));
        retained.store(&message("b", "x"));
        let later = now + Duration::from_secs(1);
        assert_eq!(retained.matching("#", now).len(), 2);
        assert_eq!(retained.matching("#", later).len(), 1);
        retained.handle_timeout(later);
        assert_eq!(retained.len(), 1);
    }
}
