//! The sockets that the routers speak and listen on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{Interest, unix::AsyncFd};

use super::{Notice, Placed, notices::Notices};
use crate::{
    core::vrrp::node::{Incoming, Line, Node, Outgoing},
    io::vrrp::{Buffer, Endpoint, VrrpSocket},
};

/// Adverts that are read of a line before the others get their turn, and timers: a flood on one
/// line stops no router.
const BATCH: usize = 64;

/// The lines that are open.
pub(super) struct Lines {
    open: BTreeMap<Line, Open>,
    buffer: Buffer,
    notices: Notices,
}

struct Open {
    socket: AsyncFd<VrrpSocket>,
    /// The interface's: another of the same name is another line.
    index: u32,
}

impl Lines {
    pub(super) fn new(notices: Notices) -> Self {
        Self {
            open: BTreeMap::new(),
            buffer: Buffer::default(),
            notices,
        }
    }

    /// Opens what is not open, and closes what nobody speaks on. Returns what cannot be opened.
    pub(super) fn sync(&mut self, wanted: &BTreeSet<Line>, placed: &Placed) -> BTreeSet<Line> {
        let index_of = |line: &Line| placed.ends.get(&line.interface).map(|(index, _)| *index);
        self.open
            .retain(|line, open| wanted.contains(line) && index_of(line) == Some(open.index));
        let mut broken = BTreeSet::new();
        for line in wanted {
            if self.open.contains_key(line) {
                continue;
            }
            let Some(index) = index_of(line) else {
                broken.insert(line.clone());
                continue;
            };
            match open(line, index) {
                Ok(socket) => drop(self.open.insert(line.clone(), Open { socket, index })),
                Err(error) => {
                    self.notices.tell(Notice::Trouble {
                        about: line.interface.clone(),
                        error: format!("{error:#}"),
                    });
                    broken.insert(line.clone());
                }
            }
        }
        broken
    }

    /// Sends an advert, if its line is open.
    pub(super) fn send(&self, outgoing: &Outgoing) {
        let Some(open) = self.open.get(&outgoing.line) else {
            return;
        };
        if let Err(error) = open.socket.get_ref().send(&outgoing.message, outgoing.to) {
            self.notices.tell(Notice::Trouble {
                about: outgoing.line.interface.clone(),
                error: format!("cannot send an advert to {}: {error}", outgoing.to),
            });
        }
    }

    /// Waits until something came.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        for open in self.open.values() {
            // A socket that fails is read, which says why.
            if open.socket.poll_read_ready(context).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Reads what came, up to a batch a line.
    pub(super) fn read(&mut self, node: &mut Node, now: Instant) {
        let Self {
            open,
            buffer,
            notices,
        } = self;
        for (line, open) in open {
            for _ in 0..BATCH {
                let read = open.socket.try_io(Interest::READABLE, |socket| {
                    let received = socket.receive(buffer)?;
                    let received = received.ok_or(io::ErrorKind::WouldBlock)?;
                    let incoming = Incoming {
                        line,
                        envelope: received.envelope,
                        payload: received.payload,
                    };
                    node.handle_advert(&incoming, now);
                    Ok(())
                });
                match read {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The kernel tells it once: the interface went down, say.
                    Err(error) => notices.tell(Notice::Trouble {
                        about: line.interface.clone(),
                        error: format!("cannot read adverts: {error}"),
                    }),
                }
            }
        }
    }
}

fn open(line: &Line, index: u32) -> anyhow::Result<AsyncFd<VrrpSocket>> {
    let socket = VrrpSocket::open(&Endpoint {
        interface: line.interface.clone(),
        index,
        source: line.source,
        reach: line.reach,
    })?;
    Ok(socket.watched()?)
}
