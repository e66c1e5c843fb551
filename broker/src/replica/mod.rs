//! A session as another node has it.
//!
//! What a session notes of itself ([`crate::session::journal`]) is enough to make it again. Here that
//! becomes [`Step`]s, which travel as bytes ([`wire`]), and add up to a [`Shadow`] on another node: in
//! a session that moves there, or in a copy that is kept in case its owner dies.
//!
//! ```text
//! Change -> Step::of    \                                        / Shadow::apply -> into_restored
//! Session::snapshot     -> Writer -> bytes -> ... -> Reader -> Step
//!        -> Step::whole /                                        \ Shadow, of another session
//! ```
//! [`place`] says which other node has a session's copy, and [`book`] what its owner knows of that.

pub mod book;
pub mod place;
mod recent;
mod shadow;
mod step;
pub mod wire;
pub mod word;

pub use recent::{Recent, memory};
pub use shadow::Shadow;
pub use step::{Group, Step};

use std::hash::{DefaultHasher, Hash, Hasher};

/// The hash of a client id, or of a node's name: the same in all processes.
pub fn hash_of(name: &str) -> u64 {
    // `DefaultHasher::new` has fixed keys.
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
