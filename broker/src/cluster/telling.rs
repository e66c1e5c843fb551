//! What a peer is told of this node's retained messages.
//!
//! ```text
//! question: sums ->        where these differ, the other end tells what it has, and then its own sums
//!        <- pages, answer: sums
//! pages ->                 of what differs still
//! ```
//!
//! Of two nodes one asks when they meet, the first by name or who begins with nothing. Nodes ask when
//! a third one is lost, whose last messages one of them may have had, and when a third one has told
//! news (`news`). What is published meanwhile is sent as it happens.

use std::time::{Duration, Instant};

use crate::retained::{self, Buckets};

/// Why sums are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The other end is to tell what differs.
    Question,
    /// Those of the other end differ.
    Answer,
}

/// How far a peer is told what there is.
#[derive(Debug, Default)]
pub(super) struct Telling {
    sums: Sums,
    /// What is being told.
    current: Option<(Buckets, Cursor)>,
    /// What is to follow.
    next: Option<Buckets>,
    /// It has asked, and waits for the sums behind what it is told.
    is_answered: bool,
    /// It was asked, or will be, and has not said that this is all.
    is_open: bool,
    /// When sums were read last.
    asked: Option<Instant>,
    /// What it has asked before this node has what it is to begin with.
    pub(super) question: Option<retained::Sums>,
    /// It has told what others may not have either.
    pub(super) has_news: bool,
}

#[derive(Debug, Default)]
enum Sums {
    #[default]
    Said,
    Due(Turn),
    /// They are being read.
    Asked(Turn),
}

#[derive(Debug)]
enum Cursor {
    Behind(Option<Box<str>>),
    /// The next page is being read.
    Asked,
}

impl Telling {
    /// Has the sums said. A question is answered with all that an answer is.
    pub(super) fn say_sums(&mut self, turn: Turn) {
        self.is_open |= turn == Turn::Question;
        self.sums = match (&self.sums, turn) {
            (Sums::Due(Turn::Question) | Sums::Asked(Turn::Question), _) => {
                Sums::Due(Turn::Question)
            }
            (Sums::Said | Sums::Due(Turn::Answer) | Sums::Asked(Turn::Answer), _) => {
                Sums::Due(turn)
            }
        };
    }

    /// Whether the sums are to be read.
    pub(super) fn poll_sums(&mut self, now: Instant) -> bool {
        let Sums::Due(turn) = self.sums else {
            return false;
        };
        self.sums = Sums::Asked(turn);
        self.asked = Some(now);
        true
    }

    /// Whether it was asked for what it has, not longer ago than that.
    pub(super) fn is_asked(&self, patience: Duration, now: Instant) -> bool {
        let is_lately = |asked| now.saturating_duration_since(asked) < patience;
        let is_due = matches!(self.sums, Sums::Due(_));
        self.is_open && !is_due && self.asked.is_some_and(is_lately)
    }

    /// It has told all that it was asked for.
    pub(super) fn handle_end(&mut self) {
        self.is_open = self.has_question();
    }

    /// It has given up what the two had told each other, and this node is to begin anew.
    pub(super) fn handle_forsaken(&mut self) {
        self.is_open = self.has_question();
        self.is_answered = false;
        self.question = None;
    }

    /// Whether a question is to be said.
    fn has_question(&self) -> bool {
        matches!(
            self.sums,
            Sums::Due(Turn::Question) | Sums::Asked(Turn::Question)
        )
    }

    /// Has who has asked told these buckets, and then the sums, unless it is about to be asked, which says
    /// them too.
    pub(super) fn answer(&mut self, buckets: Buckets) {
        self.is_answered |= !self.has_question() && !buckets.is_empty();
        self.tell(buckets);
    }

    /// Asks once more for what could not be read.
    pub(super) fn handle_timeout(&mut self) {
        if let Sums::Asked(turn) = self.sums {
            self.sums = Sums::Due(turn);
        }
    }

    /// What sums that were read are for.
    pub(super) fn handle_sums(&mut self) -> Option<Turn> {
        let Sums::Asked(turn) = self.sums else {
            return None;
        };
        self.sums = Sums::Said;
        Some(turn)
    }

    /// Has these buckets told.
    pub(super) fn tell(&mut self, buckets: Buckets) {
        match &self.current {
            None => self.current = Some((buckets, Cursor::Behind(None))),
            // An end will be told.
            Some(_) if buckets.is_empty() => {}
            // What is told already may have changed since, by what others have told.
            Some(_) => self.next = Some(self.next.unwrap_or_default().union(buckets)),
        }
    }

    /// Whether there is nothing to tell but the end of it, for which nothing need be read.
    pub(super) fn poll_end(&mut self) -> bool {
        let is_end = matches!(
            &self.current,
            Some((buckets, Cursor::Behind(_))) if buckets.is_empty()
        );
        if is_end {
            self.finish();
        }
        is_end
    }

    fn finish(&mut self) {
        let following = self.next.take();
        self.current = following.map(|buckets| (buckets, Cursor::Behind(None)));
        if self.current.is_none() && std::mem::take(&mut self.is_answered) {
            self.say_sums(Turn::Answer);
        }
    }

    /// Which page is to be read.
    pub(super) fn poll_page(&mut self) -> Option<(Buckets, Option<Box<str>>)> {
        let (buckets, cursor) = self.current.as_mut()?;
        let Cursor::Behind(after) = cursor else {
            return None;
        };
        if buckets.is_empty() {
            return None;
        }
        let after = after.take();
        *cursor = Cursor::Asked;
        Some((*buckets, after))
    }

    /// Takes note of a page that was read, and of where the next one begins; tells whether it is wanted.
    pub(super) fn handle_page(&mut self, next: Option<Box<str>>) -> bool {
        let Some((_buckets, cursor @ Cursor::Asked)) = &mut self.current else {
            return false;
        };
        if next.is_some() {
            *cursor = Cursor::Behind(next);
        } else {
            self.finish();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(topic: &str) -> Buckets {
        let mut sums = retained::Sums::default();
        sums.add(topic, 1);
        sums.differing(&retained::Sums::default())
    }

    #[test]
    fn what_differs_later_is_told_behind_what_is_being_told() {
        let (a, b) = (buckets("a"), buckets("b"));
        let mut telling = Telling::default();
        telling.tell(a);
        assert_eq!(telling.poll_page(), Some((a, None)));
        assert_eq!(telling.poll_page(), None);
        telling.tell(b);
        telling.tell(a);
        assert!(telling.handle_page(Some("t".into())));
        assert_eq!(telling.poll_page(), Some((a, Some("t".into()))));
        assert!(telling.handle_page(None));
        assert_eq!(telling.poll_page(), Some((a.union(b), None)));
        telling.tell(Buckets::default());
        assert!(telling.handle_page(None) && !telling.handle_page(None));
        assert_eq!(telling.poll_page(), None);
        // Who has it all hears that, too, and nothing is read for it.
        assert!(!telling.poll_end());
        telling.tell(Buckets::default());
        assert_eq!(telling.poll_page(), None);
        assert!(telling.poll_end() && !telling.poll_end());
    }

    #[test]
    fn sums_are_said_once_and_a_question_is_no_answer() {
        let mut telling = Telling::default();
        let now = Instant::now();
        assert!(!telling.poll_sums(now));
        telling.say_sums(Turn::Question);
        telling.say_sums(Turn::Answer);
        assert!(telling.poll_sums(now) && !telling.poll_sums(now));
        telling.handle_timeout();
        assert!(telling.poll_sums(now));
        assert_eq!(telling.handle_sums(), Some(Turn::Question));
        assert_eq!(telling.handle_sums(), None);
        telling.say_sums(Turn::Answer);
        assert!(telling.poll_sums(now));
        // What is read may be too old.
        telling.say_sums(Turn::Question);
        assert_eq!(telling.handle_sums(), None);
        assert!(telling.poll_sums(now));
        assert_eq!(telling.handle_sums(), Some(Turn::Question));
    }

    #[test]
    fn who_asks_is_told_the_sums_behind_what_differs() {
        let now = Instant::now();
        let mut telling = Telling::default();
        telling.answer(buckets("a"));
        assert!(telling.poll_page().is_some() && !telling.poll_sums(now));
        assert!(telling.handle_page(None) && telling.poll_sums(now));
        assert_eq!(telling.handle_sums(), Some(Turn::Answer));
        // Nothing differs.
        telling.answer(Buckets::default());
        assert!(telling.poll_end() && !telling.poll_sums(now));
        telling.say_sums(Turn::Question);
        assert!(telling.poll_sums(now) && telling.is_asked(Duration::from_secs(1), now));
        // They are said already, or will be.
        telling.answer(buckets("a"));
        assert_eq!(telling.handle_sums(), Some(Turn::Question));
        assert!(telling.poll_page().is_some() && telling.handle_page(None));
        assert!(!telling.poll_sums(now));
        let later = now + Duration::from_secs(1);
        assert!(!telling.is_asked(Duration::from_secs(1), later));
        telling.handle_end();
        assert!(!telling.is_asked(Duration::from_secs(1), now));
        telling.answer(buckets("a"));
        assert!(telling.poll_page().is_some() && telling.handle_page(None));
        assert!(telling.poll_sums(now));
    }
}
