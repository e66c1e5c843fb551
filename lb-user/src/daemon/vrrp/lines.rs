//! The sockets that the routers speak and listen on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time,
};

use super::{
    Notice,
    notices::Notices,
    sockets::{Client, Errand, Opened},
};
use crate::{
    core::vrrp::node::{Closed, Incoming, Line, Node, Outgoing},
    io::vrrp::{Buffer, VrrpSocket},
};

/// Adverts that are read of a line before the others get their turn, and timers: a flood on one
/// line stops no router.
const BATCH: usize = 64;

/// How often lines that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long is waited for lines that are being opened: most are there in less, and no router has to
/// be held meanwhile. A part of the shortest interval of adverts.
const PATIENCE: Duration = Duration::from_millis(5);

/// How often it is looked whether those that take longer are there.
const LOOK: Duration = Duration::from_millis(50);

/// The lines of the routers, open or not.
pub(super) struct Lines {
    open: BTreeMap<Line, Open>,
    /// Those that are being opened.
    opening: BTreeMap<Line, u32>,
    /// Those that could not be opened, and when that was.
    failed: BTreeMap<Line, (u32, Instant)>,
    sockets: Client,
    buffer: Buffer,
    notices: Notices,
}

struct Open {
    socket: AsyncFd<VrrpSocket>,
    /// The interface's: another of the same name is another line.
    index: u32,
}

impl Lines {
    pub(super) fn new(sockets: Client, notices: Notices) -> Self {
        Self {
            open: BTreeMap::new(),
            opening: BTreeMap::new(),
            failed: BTreeMap::new(),
            sockets,
            buffer: Buffer::default(),
            notices,
        }
    }

    /// Has opened what is not open, and closed what nobody speaks on. `index_of` has the interfaces
    /// that are there.
    pub(super) async fn sync(
        &mut self,
        wanted: &BTreeSet<Line>,
        index_of: impl Fn(&Line) -> Option<u32>,
        now: Instant,
    ) -> Closed {
        while let Ok(opened) = self.sockets.opened.try_recv() {
            self.take(opened, now);
        }
        let is_right = |line: &Line, index| wanted.contains(line) && index_of(line) == Some(index);
        self.failed
            .retain(|line, (index, _)| is_right(line, *index));
        self.opening.retain(|line, index| is_right(line, *index));
        let closing = self
            .open
            .extract_if(.., |line, open| !is_right(line, open.index));
        for (_, open) in closing {
            let errand = Errand::Close(open.socket.into_inner());
            // With too many at once it is closed here.
            drop(self.sockets.errands.try_send(errand));
        }
        let mut has_asked = false;
        for line in wanted {
            if let Some(index) = index_of(line) {
                has_asked |= self.ask(line, index, now);
            }
        }
        if has_asked {
            self.wait(now).await;
        }
        let closed = wanted.iter().filter(|line| !self.open.contains_key(line));
        let is_opening =
            |line: &Line| self.opening.contains_key(line) && !self.failed.contains_key(line);
        let (opening, broken) = closed.cloned().partition(is_opening);
        Closed { opening, broken }
    }

    /// Has a line opened, unless it is, or was tried a moment ago.
    fn ask(&mut self, line: &Line, index: u32, now: Instant) -> bool {
        let has_failed = self.failed.get(line);
        let is_early = has_failed.is_some_and(|(_, at)| now.duration_since(*at) < RETRY);
        if self.open.contains_key(line) || self.opening.contains_key(line) || is_early {
            return false;
        }
        let errand = Errand::Open(line.clone(), index);
        let is_asked = self.sockets.errands.try_send(errand).is_ok();
        if is_asked {
            self.opening.insert(line.clone(), index);
        } else {
            self.failed.insert(line.clone(), (index, now));
        }
        is_asked
    }

    /// Waits for lines that are being opened, but not for long.
    async fn wait(&mut self, now: Instant) {
        let deadline = time::Instant::now() + PATIENCE;
        while !self.opening.is_empty() {
            match time::timeout_at(deadline, self.sockets.opened.recv()).await {
                Ok(Some(opened)) => self.take(opened, now),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes in what came of opening a line, if that is still what is wanted.
    fn take(&mut self, opened: Opened, now: Instant) {
        let Opened {
            line,
            index,
            socket,
        } = opened;
        if self.opening.get(&line) != Some(&index) {
            if let Ok(socket) = socket {
                drop(self.sockets.errands.try_send(Errand::Close(socket)));
            }
            return;
        }
        self.opening.remove(&line);
        match socket.and_then(|socket| Ok(socket.watched()?)) {
            Ok(socket) => {
                self.failed.remove(&line);
                self.open.insert(line, Open { socket, index });
            }
            Err(error) => {
                self.notices.tell(Notice::Trouble {
                    about: line.interface.clone(),
                    error: format!("{error:#}"),
                });
                self.failed.insert(line, (index, now));
            }
        }
    }

    /// When there may be news of lines that are not open.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let failed = self.failed.iter();
        let failed = failed.filter(|(line, _)| !self.opening.contains_key(line));
        let failed = failed.map(|(_, (_, at))| *at + RETRY);
        let opening = self.opening.values().map(|_| now + LOOK);
        failed.chain(opening).min()
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
            ..
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{IpAddr, Ipv4Addr},
        time::{Duration, Instant},
    };

    use anyhow::anyhow;

    use super::{Lines, RETRY};
    use crate::{
        core::vrrp::{
            node::{Closed, Line},
            settings::Reach,
        },
        daemon::vrrp::{
            notices::Notices,
            sockets::{self, Errand, Opened, Opener},
        },
    };

    const INDEX: u32 = 7;

    fn wanted() -> BTreeSet<Line> {
        [Line {
            interface: "eth0".to_owned(),
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            reach: Reach::Multicast,
        }]
        .into()
    }

    /// Lines, and the kernel's place, which is taken by the test.
    fn lines() -> (Lines, Opener) {
        let (client, opener) = sockets::channel();
        (Lines::new(client, Notices::new().0), opener)
    }

    /// The next line that is to be opened, on the interface of what index.
    fn asked(opener: &mut Opener) -> Option<(Line, u32)> {
        match opener.errands.try_recv().ok()? {
            Errand::Open(line, index) => Some((line, index)),
            Errand::Close(_) => None,
        }
    }

    /// Says that it cannot be opened.
    fn refuse(opener: &Opener, (line, index): (Line, u32)) {
        let socket = Err(anyhow!("no"));
        let opened = Opened {
            line,
            index,
            socket,
        };
        assert!(opener.opened.try_send(opened).is_ok());
    }

    #[tokio::test]
    async fn a_kernel_that_takes_its_time_keeps_nobody_waiting() {
        let ((mut lines, mut opener), now) = (lines(), Instant::now());
        let opening = Closed {
            opening: wanted(),
            ..Closed::default()
        };
        for _ in 0..3 {
            let closed = lines.sync(&wanted(), |_| Some(INDEX), now).await;
            assert_eq!(closed, opening);
        }
        assert!(asked(&mut opener).is_some());
        assert!(asked(&mut opener).is_none(), "once is enough");
        assert!(lines.deadline(now) > Some(now));
    }

    #[tokio::test]
    async fn a_line_that_failed_is_tried_again_after_a_while() {
        let ((mut lines, mut opener), start) = (lines(), Instant::now());
        let broken = Closed {
            broken: wanted(),
            ..Closed::default()
        };
        lines.sync(&wanted(), |_| Some(INDEX), start).await;
        let line = asked(&mut opener).unwrap();
        refuse(&opener, line);
        for now in [start, start + RETRY - Duration::from_millis(1)] {
            let closed = lines.sync(&wanted(), |_| Some(INDEX), now).await;
            assert_eq!(closed, broken);
            assert_eq!(asked(&mut opener), None);
            assert_eq!(lines.deadline(now), Some(start + RETRY));
        }
        let closed = lines.sync(&wanted(), |_| Some(INDEX), start + RETRY).await;
        assert_eq!(closed, broken, "it is broken until it is open");
        assert!(asked(&mut opener).is_some());
    }

    #[tokio::test]
    async fn another_interface_of_the_name_is_another_line() {
        let ((mut lines, mut opener), now) = (lines(), Instant::now());
        lines.sync(&wanted(), |_| Some(INDEX), now).await;
        let old = asked(&mut opener).unwrap();
        lines.sync(&wanted(), |_| Some(INDEX + 1), now).await;
        assert_eq!(asked(&mut opener).unwrap().1, INDEX + 1);
        refuse(&opener, old);
        let closed = lines.sync(&wanted(), |_| Some(INDEX + 1), now).await;
        assert!(closed.broken.is_empty(), "what came of the old one");
        let closed = lines.sync(&wanted(), |_| None, now).await;
        assert_eq!(closed.broken, wanted(), "there is none of the name");
    }
}
