//! A client that connects to both nodes at once.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::line::{Hello, Line, TAKEN_OVER, Version, answer};

use super::{End, PATIENCE, Roamer, Seen};

/// A connection that was let in.
struct Runner {
    node: usize,
    line: Line,
    is_present: bool,
}

impl Roamer {
    /// Connects to both nodes at once: one connection has to go on, and all others to end.
    pub(super) fn race(&mut self, addresses: [SocketAddr; 2], seen: &mut Seen) -> io::Result<()> {
        seen.races += 1;
        let mut runners = self.start(addresses, seen)?;
        let deadline = Instant::now() + PATIENCE;
        while runners.len() > 1 && Instant::now() < deadline {
            runners.retain_mut(|runner| match self.look(&mut runner.line) {
                Some(end) => {
                    seen.untold += u64::from(end != End::Told);
                    false
                }
                None => true,
            });
            thread::sleep(Duration::from_micros(200));
        }
        seen.live += u64::from(runners.len() > 1);
        let Some(winner) = runners.pop() else {
            seen.vain += 1;
            // The session is to go on, wherever it is.
            return self.go(addresses, seen);
        };
        seen.strangers += u64::from(!winner.is_present);
        self.node = winner.node;
        let old = std::mem::replace(&mut self.line, winner.line);
        self.say_goodbye(old, seen);
        Ok(())
    }

    /// Those that are let in.
    fn start(&self, addresses: [SocketAddr; 2], seen: &mut Seen) -> io::Result<Vec<Runner>> {
        let hello = Hello::again(Version::V5, &self.client_id);
        let mut lines = Vec::new();
        for address in addresses {
            lines.push(Line::open(address, PATIENCE)?);
        }
        for line in &mut lines {
            line.hail(&hello)?;
        }
        let mut runners = Vec::new();
        for (node, mut line) in lines.into_iter().enumerate() {
            match line.hear_welcome(PATIENCE) {
                Ok(is_present) => runners.push(Runner {
                    node,
                    line,
                    is_present,
                }),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_refused) => seen.refused += 1,
            }
        }
        Ok(runners)
    }

    /// Takes what is there on a connection that may end, or go on.
    fn look(&mut self, line: &mut Line) -> Option<End> {
        match line.next_here() {
            Ok(Some(packet)) if packet.farewell() == Some(TAKEN_OVER) => Some(End::Told),
            Ok(Some(packet)) => {
                let id = self.take(&packet)?;
                let sent = line.send(&answer(0x40, id));
                sent.is_err().then_some(End::Cut)
            }
            Ok(None) => None,
            Err(_closed) => Some(End::Cut),
        }
    }
}
