//! Clients that are told to move: they say DISCONNECT and connect again, as clients do when they
//! are asked to leave a server.

use std::{io::BufRead, sync::Arc};

use tokio::sync::Notify;

use super::swarm::Swarm;

/// One bell a client; none when nobody can ring.
#[derive(Debug, Default)]
pub(super) struct Moves {
    first: u32,
    bells: Vec<Notify>,
}

impl Moves {
    pub(super) fn new(first: u32, count: u32) -> Self {
        Self {
            first,
            bells: (0..count).map(|_| Notify::new()).collect(),
        }
    }

    /// Tells a client to move; a number that is none of ours changes nothing.
    pub(super) fn ring(&self, number: u32) {
        if let Some(bell) = self.bell(number) {
            bell.notify_one();
        }
    }

    /// Waits until the client is told to move. Cancel-safe.
    pub(super) async fn rung(&self, number: u32) {
        match self.bell(number) {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }

    fn bell(&self, number: u32) -> Option<&Notify> {
        let turn = number.checked_sub(self.first)?;
        self.bells.get(turn as usize)
    }
}

/// Reads clients' numbers, one a line, until the input ends.
///
/// On a thread of its own that nobody waits for: a read of standard input cannot be cut short.
pub(super) fn listen(swarm: &Arc<Swarm>, input: impl BufRead + Send + 'static) {
    let swarm = Arc::clone(swarm);
    std::thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if let Ok(number) = line.trim().parse() {
                swarm.moves.ring(number);
            }
        }
    });
}
