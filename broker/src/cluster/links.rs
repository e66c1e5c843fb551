//! Connections to other nodes: TCP with the encrypted channel on it.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    rc::Rc,
    time::Duration,
};

use channel::{ChannelError, Key, KeyError, Reader, Writer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{mpsc, oneshot},
    task::spawn_local,
    time,
};
use tracing::{debug, warn};

use super::{
    PURPOSE,
    core::LinkId,
    driver::Driver,
    keeper::PAGE_BYTES,
    strangers::{Place, Strangers},
};

/// The longest message: MQTT's longest packet, and what may be before it in one item. Only who has
/// the key may send any.
const LONGEST: usize = 256 * 1024 * 1024 + 2 * PAGE_BYTES;

/// For a call to be taken. A part of the lease, as the packet that opens a connection may be lost and is
/// sent again after a second: another call is sooner.
const CALL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));

/// For a caller to do its part of the handshake, and to say its first word once it could. Members do
/// so at once, and others are not to hold their places.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// How long accepting rests when there are no file descriptors.
const REST: Duration = Duration::from_millis(100);

/// How long the other end may take to read the last words: a socket closed with bytes unread is reset,
/// and the reset overtakes them.
const LINGER: Duration = Duration::from_secs(1);

/// Messages of a connection before others have their turn.
const MESSAGES_PER_TURN: u32 = 16;

/// Why a call comes to nothing.
#[derive(Debug, Error)]
enum CallError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("it cannot be called: {0}")]
    Call(#[source] io::Error),
    #[error("nobody answers")]
    NoAnswer,
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// The driver's end of a connection. What it holds is bounded by what may be on its way.
pub(super) struct LinkEnd {
    pub(super) messages: mpsc::UnboundedSender<bytes::Bytes>,
    /// Dropped when the connection is to end.
    _open: oneshot::Sender<()>,
}

/// Calls an address.
pub(super) async fn call(driver: Rc<RefCell<Driver>>, address: Box<str>) {
    let (key_file, lease, from) = {
        let driver = driver.borrow();
        (driver.key_file(), driver.lease(), driver.listening_at())
    };
    let patience = (lease / 4).clamp(CALL.0, CALL.1);
    match try_call(&address, from, &key_file, patience).await {
        Ok((host, writer, reader)) => open(&driver, Some(address), host, (writer, reader), None),
        Err(error) => Driver::handle_call_failed(&driver, &address, &error.to_string()),
    }
}

async fn try_call(
    address: &str,
    from: IpAddr,
    key_file: &Path,
    patience: Duration,
) -> Result<(IpAddr, Writer, Reader), CallError> {
    let key = Key::load(key_file, PURPOSE)?;
    let stream = time::timeout(patience, connect(address, from)).await;
    let stream = stream
        .map_err(|_elapsed| CallError::NoAnswer)?
        .map_err(CallError::Call)?;
    let host = stream.peer_addr().map_err(CallError::Call)?.ip();
    let (writer, reader) = channel::call(stream, &key, LONGEST).await?;
    Ok((host, writer, reader))
}

/// Connects from the address that the node listens on, where that can be: others are told that a node
/// is where its calls come from.
async fn connect(address: &str, from: IpAddr) -> io::Result<TcpStream> {
    let mut trouble = None;
    for to in lookup_host(address).await? {
        match connect_to(to, from).await {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = Some(error),
        }
    }
    Err(trouble.unwrap_or_else(|| io::Error::other("the name has no address")))
}

async fn connect_to(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // To be called from another address is better than not to be called.
    if can_come_from(from, to.ip())
        && let Err(error) = socket.bind(SocketAddr::new(from, 0))
    {
        debug!(%from, %to, %error, "cannot call from the address that the node listens on");
    }
    socket.connect(to).await
}

/// Whether packets from one address can get to the other one, as far as the addresses tell. A link-local
/// one of IPv6 is none without its interface, which others could not be told.
fn can_come_from(from: IpAddr, to: IpAddr) -> bool {
    let is_link_local = matches!(from, IpAddr::V6(from) if from.is_unicast_link_local());
    from.is_ipv4() == to.is_ipv4()
        && !from.is_unspecified()
        && !is_link_local
        && (!from.is_loopback() || to.is_loopback())
}

/// Takes calls, for as long as the thread runs.
pub(super) async fn accept(driver: Rc<RefCell<Driver>>, listener: TcpListener) {
    let strangers = Rc::default();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept another node's call");
                time::sleep(REST).await;
                continue;
            }
        };
        let host = address.ip();
        let is_known = driver.borrow().is_host_of_member(host);
        let Some(place) = Strangers::enter(&strangers, host, is_known) else {
            // A node that finds no place calls again.
            Driver::note_stranger(&driver, host, "too many are being let in");
            continue;
        };
        let driver = Rc::clone(&driver);
        spawn_local(async move {
            let key_file = driver.borrow().key_file();
            match answer(&key_file, stream).await {
                Ok(ends) => open(&driver, None, host, ends, Some(place)),
                Err(error) => Driver::note_stranger(&driver, host, &error.to_string()),
            }
        });
    }
}

async fn answer(key_file: &Path, stream: TcpStream) -> Result<(Writer, Reader), CallError> {
    let key = Key::load(key_file, PURPOSE)?;
    let answered = time::timeout(FIRST_WORD, channel::answer(stream, &key, LONGEST)).await;
    Ok(answered.map_err(|_elapsed| ChannelError::Slow)??)
}

/// Gives a connection its two tasks. A caller keeps its place among strangers until it has said
/// something: its part of the handshake may be one that was recorded, and sent once more.
fn open(
    driver: &Rc<RefCell<Driver>>,
    called: Option<Box<str>>,
    host: IpAddr,
    (writer, reader): (Writer, Reader),
    place: Option<Place>,
) {
    let (messages, outgoing) = mpsc::unbounded_channel();
    let (open, ended) = oneshot::channel();
    let (lost, is_lost) = oneshot::channel();
    let end = LinkEnd {
        messages,
        _open: open,
    };
    let id = driver.borrow_mut().add_link(end);
    let writers = driver.borrow().writers().clone();
    let writing = write(Rc::clone(driver), id, writer, outgoing);
    writers.spawn_local(async move {
        tokio::select! {
            () = writing => {}
            // Nobody is left to read what waits. Where this node ends the connection it is sent.
            Ok(()) = is_lost => {}
        }
    });
    let reading = read(
        Rc::clone(driver),
        id,
        reader,
        ended,
        place.map(|place| (place, host)),
    );
    spawn_local(async move {
        if reading.await.is_err() {
            let _ = lost.send(());
        }
    });
    Driver::handle_connected(driver, id, called, host);
}

async fn write(
    driver: Rc<RefCell<Driver>>,
    id: LinkId,
    mut writer: Writer,
    mut outgoing: mpsc::UnboundedReceiver<bytes::Bytes>,
) {
    while let Some(message) = outgoing.recv().await {
        if let Err(error) = writer.send(&message).await {
            Driver::handle_closed(&driver, id, &error.to_string());
            return;
        }
    }
    debug!(link = id.0, "connection to another node ends");
}

/// The other end has ended the connection, or it was lost.
struct Lost;

/// Takes in what comes until the connection ends; `place` is that of a caller who has said nothing yet,
/// and where it calls from.
async fn read(
    driver: Rc<RefCell<Driver>>,
    id: LinkId,
    mut reader: Reader,
    mut ended: oneshot::Receiver<()>,
    mut place: Option<(Place, IpAddr)>,
) -> Result<(), Lost> {
    let patience = time::sleep(FIRST_WORD);
    tokio::pin!(patience);
    let mut count = 0_u32;
    loop {
        let received = tokio::select! {
            biased;
            _ = &mut ended => break,
            () = &mut patience, if place.is_some() => {
                let trouble = "it says nothing";
                Driver::handle_closed(&driver, id, trouble);
                if let Some((_place, host)) = place {
                    Driver::note_stranger(&driver, host, trouble);
                }
                return Err(Lost);
            }
            received = reader.receive_part() => received,
        };
        match received {
            Ok(Some(message)) => {
                place = None;
                Driver::handle_message(&driver, id, message.into());
            }
            Ok(None) => Driver::handle_part(&driver, id),
            Err(error) => {
                Driver::handle_closed(&driver, id, &error.to_string());
                return Err(Lost);
            }
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(MESSAGES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    let rest = async { while reader.receive().await.is_ok() {} };
    let _late = time::timeout(LINGER, rest).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn calls_come_from_an_address_from_which_they_get_there() {
        let can = |from: &str, to: &str| can_come_from(from.parse().unwrap(), to.parse().unwrap());
        assert!(can("192.0.2.1", "192.0.2.2") && can("2001:db8::1", "2001:db8::2"));
        assert!(can("127.0.0.2", "127.0.0.1") && can("192.0.2.1", "127.0.0.1"));
        for (from, to) in [
            ("0.0.0.0", "192.0.2.2"),
            ("::", "2001:db8::2"),
            ("192.0.2.1", "2001:db8::2"),
            ("127.0.0.1", "192.0.2.2"),
            ("fe80::1", "fe80::2"),
        ] {
            assert!(!can(from, to), "{from} {to}");
        }
    }

    #[tokio::test]
    async fn who_cannot_call_from_where_it_listens_calls_all_the_same() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        // For documents: no host has them.
        for from in [
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        ] {
            let stream = connect(&address.to_string(), from).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
        }
    }
}
