//! What the nodes of a cluster have to know of each other's retained messages, so that all come to have
//! the same: which is the last of a topic, where they differ, and what was deleted.

use std::{sync::Arc, time::Instant};

use super::{Buckets, Cause, Deletion, Fate, Kept, Page, Retained, Sums, Walk};
use crate::{
    cluster::telling::Turn,
    message::{Message, MessageId, Qos},
};

/// Levels of topics that one page of a copy looks at: shards wait for that long at most.
const COPY_NODES: usize = 2048;

/// Before the topic behind which a copy goes on with what was deleted. In no topic (MQTT 5, 1.5.4).
const DELETED: char = '\0';

/// How another node is told what was deleted on purpose: nobody gets it, so it needs no QoS.
const MEANT: Qos = Qos::AtLeastOnce;

/// Part of a copy for another node.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// With their times; those without a payload were deleted then.
    pub(crate) messages: Vec<(Arc<Message>, u64)>,
    /// Where the copy goes on; `None` at its end.
    pub(crate) next: Option<Box<str>>,
}

impl Retained {
    /// Whether what is known of the topic is later. Nodes may publish at the same time: then a deletion
    /// counts, and of two messages the one with the greater content, for all nodes alike.
    pub(super) fn is_outdated(&self, message: &Message, at: u64) -> bool {
        if at == 0 {
            return false;
        }
        let topic = &message.topic;
        let is_deleted = self.deleted.time_of(topic).is_some_and(|time| time >= at);
        is_deleted
            || self.root.find(topic).0.is_some_and(|kept| {
                let is_older = kept.at > at;
                is_older
                    || kept.at == at && rank(&kept.message) >= rank(message) && !is_end(message)
            })
    }

    /// Whether another node's message says more than is known of its topic.
    pub(crate) fn is_news(&self, message: &Message, at: u64) -> bool {
        !self.is_outdated(message, at)
    }

    /// As [`Retained::store`], for what another node has told; it knows whether something was deleted.
    #[must_use]
    pub(crate) fn store_told(&mut self, message: &Arc<Message>, at: u64, now: Instant) -> bool {
        if is_end(message) && message.qos == MEANT && !self.is_outdated(message, at) {
            self.delete(&message.topic, at, Cause::Meant);
            return true;
        }
        self.store(message, at, now)
    }

    /// Whether it is known that there was no room for a message, and there is none.
    pub(crate) fn is_refused(&self, message: &Message, at: u64) -> bool {
        !is_end(message)
            && at > 1
            && self.deleted.time_of(&message.topic) == Some(at - 1)
            && self.root.find(&message.topic).0.is_none()
            && !self.has_room(message)
    }

    /// Why nothing older counts of a topic that is deleted.
    pub(super) fn cause_of_end(&self, topic: &str) -> Cause {
        let was_meant = |deletion: Deletion| deletion.cause == Cause::Meant;
        if self.root.find(topic).0.is_some() || self.deleted.get(topic).is_some_and(was_meant) {
            Cause::Meant
        } else {
            Cause::Passing
        }
    }

    /// Forgets a topic's message, and that anything of it up to this time counts.
    pub(super) fn delete(&mut self, topic: &str, at: u64, cause: Cause) {
        if at == 0 {
            self.forget(topic);
            return;
        }
        self.remove(topic);
        let deletion = Deletion { at, cause };
        self.restore_deleted(topic, deletion);
        self.note(topic, Fate::Deleted(deletion));
        while let Some(topic) = self.deleted.pop_excess() {
            self.note(&topic, Fate::Gone);
            self.forgotten += 1;
        }
    }

    /// Deletions that are remembered, and how many were forgotten for others.
    pub(crate) fn deletions(&self) -> (usize, u64) {
        (self.deleted.len(), self.forgotten)
    }

    /// Remembers a deletion, as an earlier life of the broker did.
    pub(crate) fn restore_deleted(&mut self, topic: &str, deletion: Deletion) {
        self.latest = self.latest.max(deletion.at);
        self.deleted.note(topic, deletion);
    }

    /// Whether nothing is known of the topic.
    #[cfg(test)]
    pub(super) fn is_unknown(&self, topic: &str) -> bool {
        self.root.find(topic).0.is_none() && self.deleted.time_of(topic).is_none()
    }

    /// The last time that is known of: the cluster's clock must not be behind it.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    pub(crate) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Of which buckets who has these sums is to be told. Sums say nothing of what was deleted; who has no
    /// messages, and asks, may have begun with nothing, and know of no deletion either.
    pub(crate) fn differing(&self, turn: Turn, sums: &Sums) -> Buckets {
        let is_nothing = *sums == Sums::default();
        if turn == Turn::Question && is_nothing && self.deleted.len() > 0 {
            Buckets::ALL
        } else {
            self.sums.differing(sums)
        }
    }

    /// A page of all topics in some buckets, and of what was deleted of them. It ends with the message
    /// which makes it so many bytes, or earlier.
    pub(crate) fn copy(
        &self,
        buckets: Buckets,
        bytes: usize,
        after: Option<&str>,
        now: Instant,
    ) -> Copied {
        if let Some(topic) = after.and_then(|after| after.strip_prefix(DELETED)) {
            return self.copy_deleted(buckets, bytes, topic);
        }
        let walk = Walk {
            now,
            nodes_left: COPY_NODES,
            bytes_left: bytes,
            buckets: Some(buckets),
            path: Vec::new(),
            page: Page::default(),
        };
        let Page { messages, next } = self.walk(walk, "#", after);
        let dated = |Kept { message, at, .. }| (message, at);
        Copied {
            messages: messages.into_iter().map(dated).collect(),
            next: next.or_else(|| Some(DELETED.to_string().into())),
        }
    }

    fn copy_deleted(&self, buckets: Buckets, bytes: usize, after: &str) -> Copied {
        let mut copied = Copied::default();
        let mut bytes_left = bytes;
        for (looked_at, (topic, deletion)) in self.deleted.behind(after).enumerate() {
            if buckets.have(topic) {
                bytes_left = bytes_left.saturating_sub(topic.len());
                let end = end_of(topic, deletion.cause);
                copied.messages.push((Arc::new(end), deletion.at));
            }
            if bytes_left == 0 || looked_at + 1 == COPY_NODES {
                copied.next = Some(format!("{DELETED}{topic}").into());
                break;
            }
        }
        copied
    }
}

fn is_end(message: &Message) -> bool {
    message.payload.is_empty()
}

/// What says that a topic has no message.
fn end_of(topic: &str, cause: Cause) -> Message {
    Message {
        topic: topic.into(),
        payload: Box::default(),
        properties: Box::default(),
        qos: match cause {
            Cause::Meant => MEANT,
            Cause::Passing => Qos::AtMostOnce,
        },
        retain: true,
        expires: None,
        id: MessageId::NONE,
    }
}

fn rank(message: &Message) -> (&[u8], &[u8], Qos) {
    (&message.payload, &message.properties, message.qos)
}
