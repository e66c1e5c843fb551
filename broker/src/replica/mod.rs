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

mod shadow;
mod step;
pub mod wire;

pub use shadow::Shadow;
pub use step::{Group, Step};
