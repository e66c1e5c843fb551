//! Sockets are opened and closed on a thread of their own: to join a group or leave it takes the
//! kernel's lock of all interfaces, which others may hold for long, and adverts have to go out
//! meanwhile.

use tokio::sync::mpsc;

use crate::{
    core::vrrp::node::Line,
    io::vrrp::{Endpoint, VrrpSocket},
};

/// More than there are lines, as a rule. Those that find no place wait for the next attempt.
const DEPTH: usize = 64;

/// What there is to do.
pub(super) enum Errand {
    Open(Line, u32),
    Close(VrrpSocket),
}

/// What came of opening a line on the interface of that index.
pub(super) struct Opened {
    pub(super) line: Line,
    pub(super) index: u32,
    pub(super) socket: anyhow::Result<VrrpSocket>,
}

/// Who has it done.
pub(super) struct Client {
    pub(super) errands: mpsc::Sender<Errand>,
    pub(super) opened: mpsc::Receiver<Opened>,
}

/// Who does it.
pub(super) struct Opener {
    pub(super) errands: mpsc::Receiver<Errand>,
    pub(super) opened: mpsc::Sender<Opened>,
}

pub(super) fn channel() -> (Client, Opener) {
    let (errand_sender, errands) = mpsc::channel(DEPTH);
    let (opened_sender, opened) = mpsc::channel(DEPTH);
    let client = Client {
        errands: errand_sender,
        opened,
    };
    let opener = Opener {
        errands,
        opened: opened_sender,
    };
    (client, opener)
}

impl Opener {
    /// Runs until nobody is left who wants sockets.
    pub(super) async fn run(mut self) {
        while let Some(errand) = self.errands.recv().await {
            match errand {
                Errand::Open(line, index) => {
                    let socket = open(&line, index);
                    let opened = Opened {
                        line,
                        index,
                        socket,
                    };
                    // Whoever has asked may have gone.
                    drop(self.opened.send(opened).await);
                }
                Errand::Close(socket) => drop(socket),
            }
        }
    }
}

fn open(line: &Line, index: u32) -> anyhow::Result<VrrpSocket> {
    let socket = VrrpSocket::open(&Endpoint {
        interface: line.interface.clone(),
        index,
        source: line.source,
        reach: line.reach,
    })?;
    Ok(socket)
}
