//! Questions of operators that go to other nodes, and those that come from there.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::Driver;
use crate::cluster::{
    core::LinkId,
    questions::{Aside, Asked, Question, Reply, Ticket, Unheard, holding},
    wire::Message,
};

/// What a node answers that has no place for another question, as JSON.
const BUSY: &[u8] = br#"{"Err":"it is asked too much at once"}"#;

impl Driver {
    /// Asks a peer; whoever waits hears the answer, or why there is none.
    pub(super) fn ask(&mut self, node: &str, question: Question, reply: Reply) {
        let unheard = match self.open.number() {
            None => Unheard::Busy,
            Some(number) => {
                let message = Message::Aside(number, Aside::Question(question));
                match self.core.say_aside(node, &message) {
                    Some(link) => {
                        self.open.put(number, link, reply);
                        return;
                    }
                    None => Unheard::Away,
                }
            }
        };
        // Who has asked may have given up.
        let _ = reply.send(Err(unheard));
    }

    pub(super) fn handle_aside(&mut self, link: LinkId, number: u64, aside: Aside) {
        let question = match aside {
            Aside::Question(question) => question,
            Aside::Answer(answer) => {
                self.open.handle_answer(link, number, answer);
                return;
            }
        };
        let place = Arc::clone(&self.places).try_acquire_owned();
        let is_asked = place.is_ok_and(|place| {
            let ticket = Ticket {
                link,
                number,
                place,
            };
            self.asking.try_send(Asked { question, ticket }).is_ok()
        });
        if !is_asked {
            let busy = Aside::Answer(Bytes::from_static(BUSY));
            self.core
                .answer(link, Message::Aside(number, busy).encode());
        }
    }

    /// Sends an answer to who has asked, if that is still there.
    pub(super) fn reply(&mut self, ticket: Ticket, answer: Vec<u8>) {
        let Ticket {
            link,
            number,
            place,
        } = ticket;
        let message = Message::Aside(number, Aside::Answer(answer.into()));
        self.core.answer(link, holding(message.encode(), place));
    }

    /// Tells the other nodes how much this one has.
    pub(super) fn tell_tally(&mut self, now: Instant) {
        self.core.set_time(self.cluster.now());
        self.core.tell_tally(self.shared.tally());
        self.settle(now);
    }
}
