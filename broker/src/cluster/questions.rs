//! What nodes ask each other for operators, and the questions that wait for their answers.
//!
//! ```text
//! control/wide.rs -> Cluster::ask -> driver ==question==> the peer's driver -> its control/answers.rs
//!                 <- the answer, or why there is none <==answer==
//! ```
//!
//! Questions and answers go over the pair's connection, which only who has the key has, and beside its
//! streams: nothing is kept for a node that does not answer, and nothing repeated. Whoever asks would
//! rather hear of a broken connection than wait, and asks for listings page by page.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::core::LinkId;
use crate::shard::{Kick, Query};

/// Questions of others that are worked on, or whose answers are not sent, at a time.
pub(super) const ASKED: usize = 16;

/// Questions to others that may wait for an answer.
const OPEN: usize = 256;

/// What a node is asked. Answers are JSON: `Ok` with what its own control socket shows, or `Err`
/// with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    Status,
    Clients(Query),
    Sessions(Query),
    Subscriptions(Query),
    Topics(Query),
    Kick(Kick),
}

/// What is said beside the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    Question(Question),
    Answer(Bytes),
}

/// A question of another node, on its way to who can answer it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) ticket: Ticket,
}

/// Where the answer goes.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) link: LinkId,
    pub(super) number: u64,
    /// Given back when the answer is on its way.
    pub(super) place: OwnedSemaphorePermit,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unheard {
    #[error("there is no connection to it")]
    Away,
    #[error("the connection to it was lost")]
    Lost,
    #[error("it does not answer in time")]
    Late,
    #[error("too many questions wait for answers")]
    Busy,
    #[error("this node is stopping")]
    Stopping,
}

/// Where who has asked waits.
pub(super) type Reply = oneshot::Sender<Result<Bytes, Unheard>>;

/// An answer that keeps the question's place until it is sent: who asks and does not read finds no
/// more places.
struct Held {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

/// Bytes that keep the place until they are dropped.
pub(super) fn holding(bytes: Bytes, place: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held {
        bytes,
        _place: place,
    })
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Questions that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Open {
    last: u64,
    waiting: BTreeMap<u64, (LinkId, Reply)>,
}

impl Open {
    /// The number of the next question; `None` when there are too many.
    pub(super) fn number(&mut self) -> Option<u64> {
        // Who has asked does not wait for ever.
        self.waiting
            .retain(|_number, (_link, reply)| !reply.is_closed());
        if self.waiting.len() >= OPEN {
            return None;
        }
        self.last += 1;
        Some(self.last)
    }

    /// Notes that a question was put.
    pub(super) fn put(&mut self, number: u64, link: LinkId, reply: Reply) {
        self.waiting.insert(number, (link, reply));
    }

    /// Passes an answer on. One that comes too late, or from who was not asked, is for nobody.
    pub(super) fn handle_answer(&mut self, link: LinkId, number: u64, answer: Bytes) {
        let asked = self.waiting.get(&number);
        if asked.is_some_and(|(asked, _reply)| *asked == link)
            && let Some((_link, reply)) = self.waiting.remove(&number)
        {
            // Who has asked may have given up.
            let _ = reply.send(Ok(answer));
        }
    }

    /// A connection has ended: what was asked over it is not answered.
    pub(super) fn lose(&mut self, link: LinkId) {
        let lost = self
            .waiting
            .extract_if(.., |_number, (asked, _reply)| *asked == link);
        for (_number, (_link, reply)) in lost {
            let _ = reply.send(Err(Unheard::Lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(open: &mut Open, link: u64) -> (u64, oneshot::Receiver<Result<Bytes, Unheard>>) {
        let (reply, answer) = oneshot::channel();
        let number = open.number().unwrap();
        open.put(number, LinkId(link), reply);
        (number, answer)
    }

    #[test]
    fn answer_is_for_who_has_asked_and_only_of_who_was_asked() {
        let mut open = Open::default();
        let (first, mut for_first) = ask(&mut open, 1);
        let (second, mut for_second) = ask(&mut open, 2);
        assert_ne!(first, second);
        open.handle_answer(LinkId(2), first, Bytes::from_static(b"forged"));
        open.handle_answer(LinkId(2), 99, Bytes::from_static(b"unasked"));
        assert!(for_first.try_recv().is_err());
        open.handle_answer(LinkId(1), first, Bytes::from_static(b"a"));
        open.handle_answer(LinkId(1), first, Bytes::from_static(b"again"));
        assert_eq!(for_first.try_recv(), Ok(Ok(Bytes::from_static(b"a"))));
        open.handle_answer(LinkId(2), second, Bytes::from_static(b"b"));
        assert_eq!(for_second.try_recv(), Ok(Ok(Bytes::from_static(b"b"))));
        assert!(open.waiting.is_empty());
    }

    #[test]
    fn end_of_a_connection_is_told_to_those_who_have_asked_over_it() {
        let mut open = Open::default();
        let (_number, mut lost) = ask(&mut open, 1);
        let (number, mut kept) = ask(&mut open, 2);
        open.lose(LinkId(1));
        assert_eq!(lost.try_recv(), Ok(Err(Unheard::Lost)));
        open.handle_answer(LinkId(2), number, Bytes::new());
        assert_eq!(kept.try_recv(), Ok(Ok(Bytes::new())));
    }

    #[test]
    fn questions_are_bounded_and_those_that_nobody_waits_for_are_forgotten() {
        let mut open = Open::default();
        let mut waiting: Vec<_> = (0..OPEN).map(|_| ask(&mut open, 1)).collect();
        assert_eq!(open.number(), None);
        waiting.pop();
        assert!(open.number().is_some());
    }
}
