//! Retained messages: the last one of each topic, found by filters with wildcards.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Instant,
};

use crate::{
    message::Message,
    topic::{self, split_level},
};

/// How many levels of topics one page looks at, so that no filter holds a shard up for long.
const PAGE_NODES: usize = 256;

/// A message, and since when it is its topic's.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) message: Arc<Message>,
    pub(crate) since: Instant,
}

/// Some of the messages that a filter matches.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Kept>,
    /// Where the next page goes on; `None` when there is none.
    pub(crate) next: Option<Box<str>>,
}

/// The node's retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    root: Node,
    len: usize,
    bound: usize,
    /// The topics of messages that expire, by when they do.
    deadlines: BTreeSet<(Instant, Box<str>)>,
}

/// Ordered, so that a subscriber gets retained messages in the order of their topics.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Self>,
    message: Option<Kept>,
}

impl Retained {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            root: Node::default(),
            len: 0,
            bound,
            deadlines: BTreeSet::new(),
        }
    }

    /// Another bound; what is kept already stays.
    pub(crate) fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Whether there is room for a message of this topic.
    pub(crate) fn has_room(&self, topic: &str) -> bool {
        self.len < self.bound || self.root.has_message(topic)
    }

    /// Keeps the message for its topic, or forgets the topic's when the payload is empty; tells
    /// whether there was room.
    #[must_use]
    pub(crate) fn store(&mut self, message: &Arc<Message>, now: Instant) -> bool {
        if message.payload.is_empty() {
            self.forget(&message.topic);
            return true;
        }
        if !self.has_room(&message.topic) {
            return false;
        }
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            node = match node.children.entry(level.into()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Node::default()),
            };
        }
        let kept = Kept {
            message: Arc::clone(message),
            since: now,
        };
        match node.message.replace(kept) {
            Some(replaced) => self.unschedule(&replaced.message),
            None => self.len += 1,
        }
        if let Some(expires) = message.expires {
            self.deadlines.insert((expires, message.topic.clone()));
        }
        true
    }

    fn forget(&mut self, topic: &str) {
        if let Some(kept) = self.root.remove(Some(topic)) {
            self.len -= 1;
            self.unschedule(&kept.message);
        }
    }

    fn unschedule(&mut self, message: &Message) {
        if let Some(expires) = message.expires {
            self.deadlines.remove(&(expires, message.topic.clone()));
        }
    }

    /// One page of the retained messages whose topics the filter matches, without expired ones.
    ///
    /// `after` is where the page before this one ended. A message that is stored or forgotten
    /// between two pages is found or not, as its topic lies ahead or behind.
    pub(crate) fn page(&self, filter: &str, after: Option<&str>, now: Instant) -> Page {
        self.page_of(PAGE_NODES, filter, after, now)
    }

    fn page_of(&self, nodes: usize, filter: &str, after: Option<&str>, now: Instant) -> Page {
        let resume = match after {
            None => Resume::Start,
            Some(path) => Resume::Behind(Some(path)),
        };
        let mut walk = Walk {
            now,
            nodes_left: nodes,
            path: Vec::new(),
            page: Page::default(),
        };
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.root.collect(Some(filter), resume, &mut walk);
        walk.page
    }

    /// Whether [`Retained::handle_timeout`] has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadlines.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Forgets messages that have expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.is_due(now)
            && let Some((_due, topic)) = self.deadlines.pop_first()
        {
            self.forget(&topic);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// A walk over the tree in the order of topics, and where it is.
struct Walk<'a> {
    now: Instant,
    nodes_left: usize,
    /// Empty at the root, which stands for no topic.
    path: Vec<&'a str>,
    page: Page,
}

/// How much of a branch earlier pages have covered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume<'a> {
    Start,
    /// The branch's own node, and what comes before this path below it.
    Behind(Option<&'a str>),
}

impl Walk<'_> {
    fn visit(&mut self, message: Option<&Kept>) -> ControlFlow<()> {
        if let Some(kept) = message
            && !kept.message.is_expired(self.now)
        {
            self.page.messages.push(kept.clone());
        }
        self.nodes_left = self.nodes_left.saturating_sub(1);
        if self.nodes_left > 0 {
            return ControlFlow::Continue(());
        }
        self.page.next = Some(self.path.join("/").into());
        ControlFlow::Break(())
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.message.is_none()
    }

    fn has_message(&self, topic: &str) -> bool {
        let mut node = self;
        for level in topic.split('/') {
            let Some(child) = node.children.get(level) else {
                return false;
            };
            node = child;
        }
        node.message.is_some()
    }

    fn remove(&mut self, rest: Option<&str>) -> Option<Kept> {
        let Some(rest) = rest else {
            return self.message.take();
        };
        let (level, below) = split_level(rest);
        let child = self.children.get_mut(level)?;
        let removed = child.remove(below);
        if child.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    fn collect<'a>(
        &'a self,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        if resume == Resume::Start && !walk.path.is_empty() {
            // `#` includes the level above it (4.7.1.2).
            let matches = matches!(filter, None | Some("#"));
            walk.visit(self.message.as_ref().filter(|_message| matches))?;
        }
        match filter.map(split_level) {
            None => ControlFlow::Continue(()),
            Some(("#", None)) => self.collect_children(filter, resume, walk),
            Some(("+", below)) => self.collect_children(below, resume, walk),
            Some((level, below)) => match self.children.get_key_value(level) {
                Some((level, child)) => child.collect_as(level, below, resume, walk),
                None => ControlFlow::Continue(()),
            },
        }
    }

    fn collect_children<'a>(
        &'a self,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        let first = match resume {
            Resume::Behind(Some(path)) => split_level(path).0,
            Resume::Start | Resume::Behind(None) => "",
        };
        let levels = (Bound::Included(first), Bound::Unbounded);
        for (level, child) in self.children.range::<str, _>(levels) {
            // `#` and `+` at the first level leave out topics that start with `$` (4.7.2).
            if !(walk.path.is_empty() && topic::hides_from_wildcards(level)) {
                child.collect_as(level, filter, resume, walk)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Collects from this node as the child `level` of one to which `resume` applies.
    fn collect_as<'a>(
        &'a self,
        level: &'a str,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        let resume = match resume {
            Resume::Start | Resume::Behind(None) => Resume::Start,
            Resume::Behind(Some(path)) => {
                let (reached, below) = split_level(path);
                match level.cmp(reached) {
                    Ordering::Less => return ControlFlow::Continue(()),
                    Ordering::Equal => Resume::Behind(below),
                    Ordering::Greater => Resume::Start,
                }
            }
        };
        walk.path.push(level);
        self.collect(filter, resume, walk)?;
        walk.path.pop();
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

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

    impl Retained {
        fn keep(&mut self, message: &Arc<Message>) -> bool {
            self.store(message, Instant::now())
        }
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        topics_by(PAGE_NODES, retained, filter)
    }

    /// Reads all pages of so many nodes each.
    fn topics_by(nodes: usize, retained: &Retained, filter: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let Page { messages, next } =
                retained.page_of(nodes, filter, after.as_deref(), Instant::now());
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
            let mut retained = Retained::new(usize::MAX);
            for topic in &topics {
                assert!(retained.keep(&message(topic, "x")));
            }
            let whole = topics_by(usize::MAX, &retained, &filter);
            prop_assert_eq!(topics_by(nodes, &retained, &filter), whole);
        }
    }

    #[test]
    fn pages_go_on_where_their_last_topic_was_forgotten() {
        let mut retained = Retained::new(usize::MAX);
        for topic in ["a/1", "a/2", "a/3"] {
            assert!(retained.keep(&message(topic, "x")));
        }
        let first = retained.page_of(2, "#", None, Instant::now());
        assert_eq!(first.next.as_deref(), Some("a/1"));
        assert!(retained.keep(&message("a/1", "")));
        let second = retained.page_of(2, "#", first.next.as_deref(), Instant::now());
        let topics: Vec<_> = second
            .messages
            .iter()
            .map(|kept| &*kept.message.topic)
            .collect();
        assert_eq!(topics, ["a/2", "a/3"]);
    }

    #[test]
    fn filters_find_retained_topics() {
        let mut retained = Retained::new(usize::MAX);
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
        let mut retained = Retained::new(usize::MAX);
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
        let mut retained = Retained::new(2);
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
        let mut retained = Retained::new(usize::MAX);
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
        let mut retained = Retained::new(usize::MAX);
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
}
