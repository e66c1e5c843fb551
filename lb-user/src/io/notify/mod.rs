//! Ways to tell people and programs of events: a program that is run, a web hook, an e-mail.
//!
//! Each is one attempt with a deadline; what to tell, how often to try and what to do with failures is
//! `daemon/notify.rs`'s business. Secrets are read from their files for each attempt, and kept nowhere.

#[cfg(test)]
mod authority;
pub mod email;
pub mod exec;
mod tls;
pub mod webhook;

use console::secret::{SecretError, read as secret};

/// How much of what others say is told: it becomes part of a sentence.
const SAID: usize = 400;

/// What others have said, without anything that moves a cursor or begins a line.
fn one_line(text: &str) -> String {
    let is_space = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<_> = text.split(is_space).filter(|it| !it.is_empty()).collect();
    words.join(" ")
}
