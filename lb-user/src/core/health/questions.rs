//! The order of all questions and answers, which tells whether anybody was heard from meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// A question's place among all that are asked, of whichever backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Its number, from 1 on: who is asked later has a greater one.
    pub number: u64,
    /// The greatest number of all whose answer, be it a refusal, was there when this one was asked;
    /// 0: none.
    pub answered: u64,
}

/// Numbers questions. For all who ask together.
#[derive(Debug, Default)]
pub struct Questions {
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Questions {
    /// The place of a question that is asked now.
    pub fn ask(&self) -> Question {
        // In this order: an answer that comes in between must not count as older than the question.
        let answered = self.answered.load(Ordering::SeqCst);
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        Question { number, answered }
    }

    /// Takes in that a host has answered a question.
    pub fn note_answer(&self, question: Question) {
        self.answered.fetch_max(question.number, Ordering::SeqCst);
    }
}
