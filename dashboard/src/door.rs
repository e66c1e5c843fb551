//! The listening sockets, and the connections to them: how many there are, and how long one may take.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, info};

use crate::{
    Daemon, Page,
    book::Reader,
    counters::{Counted, Counters},
    live,
    router::{Channel, Peer, Shared, router},
    throttle::network,
    tls::{Tls, TlsError, TlsFiles},
};

/// Connections at a time, and those of one address. Who is on this host may be a proxy for many.
pub(crate) const MOST: usize = 256;
pub(crate) const MOST_OF_ONE: usize = 32;

/// For TLS to be agreed on.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// For the head of a request to arrive, counted from the end of the one before.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head: what browsers send is a tenth of it.
const LONGEST_HEAD: usize = 32 * 1024;

/// For what was sent to be acknowledged; then who should have it is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// After an error of the socket itself, such as that there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// For answers that are on their way when the daemon stops.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Where and how the dashboard is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub accounts: PathBuf,
    /// For all addresses, or for none.
    pub tls: Option<TlsFiles>,
    /// The names of this host by which it may be asked for.
    pub names: Vec<String>,
}

/// Why the dashboard cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot listen on {address} for the dashboard (dashboard.listen): {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the dashboard has no certificate (dashboard.certificate, dashboard.key): {0}")]
    Tls(#[from] TlsError),
}

/// Sockets that listen; whoever connects to them waits.
pub struct Door {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
    accounts: PathBuf,
    names: Vec<String>,
    counters: Arc<Counters>,
}

impl Door {
    /// Has everything that can be missing. A file of accounts that cannot be used is not: nobody is let
    /// in until it is put right, and the daemon does its work.
    ///
    /// # Errors
    ///
    /// If an address or the certificate cannot be had.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings {
            listen,
            accounts,
            tls,
            names,
        } = settings;
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        let mut listeners = Vec::with_capacity(listen.len());
        for address in listen {
            let failed = |source| OpenError::Listen { address, source };
            listeners.push(TcpListener::bind(address).await.map_err(failed)?);
        }
        Ok(Self {
            listeners,
            tls,
            accounts,
            names,
            counters: Arc::default(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter_map(|it| it.local_addr().ok())
    }

    /// What happens at it.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until `stop`. `own` are the daemon's routes, all under `/v1/`: whoever gets to them is known
    /// and may do what the method says.
    pub async fn serve(
        self,
        daemon: Arc<dyn Daemon>,
        page: Page,
        own: Router,
        stop: CancellationToken,
    ) {
        let addresses: Vec<_> = self.addresses().map(|it| it.to_string()).collect();
        let addresses = addresses.join(" ");
        let channel = match &self.tls {
            Some(_) => Channel::Tls,
            None => Channel::Plain,
        };
        info!(addresses, ?channel, "the dashboard is open");
        let Self {
            listeners,
            tls,
            accounts,
            names,
            counters,
        } = self;
        let shared = Shared::new(daemon, page, channel, &names, counters, stop.clone());
        let shared = Arc::new(shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(Reader::new(accounts).follow(Arc::clone(&shared)));
        tasks.spawn(live::feed(Arc::clone(&shared)));
        if let Some(tls) = &tls {
            tasks.spawn(Arc::clone(tls).follow());
        }
        let entrance = Arc::new(Entrance {
            router: router(&shared, own),
            counters: Arc::clone(&shared.counters),
            tls,
            places: Arc::default(),
            stop,
        });
        let doors = listeners.into_iter();
        let doors = doors.map(|listener| Arc::clone(&entrance).accept(listener));
        futures_util::future::join_all(doors).await;
    }
}

/// What is behind all sockets.
struct Entrance {
    router: Router,
    counters: Arc<Counters>,
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    stop: CancellationToken,
}

impl Entrance {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => match self.places.take(peer.ip()) {
                        Some(place) => {
                            let entrance = Arc::clone(&self);
                            connections.spawn(entrance.serve(socket, peer.ip(), place));
                        }
                        None => drop(self.counters.turned_away.fetch_add(1, Ordering::Relaxed)),
                    },
                    Err(error) => {
                        debug!(%error, "a connection to the dashboard was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let end = async { while connections.join_next().await.is_some() {} };
        // What is left then is dropped.
        let _ = timeout(END_TIMEOUT, end).await;
    }

    async fn serve(self: Arc<Self>, socket: TcpStream, peer: IpAddr, place: Place) {
        let _counted = Counted::new(Arc::clone(&self.counters), |it| &it.connections);
        // Who is slow to read is only slower without them.
        let _ = socket.set_nodelay(true);
        let millis = u32::try_from(SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        let _ = sockopt::set_tcp_user_timeout(&socket, millis);
        let outcome = match &self.tls {
            None => self.converse(socket, peer).await,
            Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(socket)).await {
                Ok(Ok(stream)) => self.converse(stream, peer).await,
                Ok(Err(error)) => return debug!(%error, "no TLS with a client of the dashboard"),
                Err(_elapsed) => return debug!("a client of the dashboard took too long for TLS"),
            },
        };
        if let Err(error) = outcome {
            debug!(%error, "a connection to the dashboard ended");
        }
        drop(place);
    }

    async fn converse<S>(&self, stream: S, peer: IpAddr) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            answer(self.router.clone(), request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    router.oneshot(request.map(Body::new)).await
}

/// Connections by the address that they are from.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

struct Place {
    from: IpAddr,
    of: Arc<Places>,
}

impl Places {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let from = network(address);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = all.values().sum();
        let own = all.get(&from).copied().unwrap_or_default();
        let is_here = address.to_canonical().is_loopback();
        if taken >= MOST || (own >= MOST_OF_ONE && !is_here) {
            return None;
        }
        all.insert(from, own + 1);
        let of = Arc::clone(self);
        Some(Place { from, of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(all.remove(&self.from)),
        }
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.addresses().collect();
        f.debug_struct("Door")
            .field("addresses", &addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_this_host_is_many() {
        let places = Arc::<Places>::default();
        let one: IpAddr = [192, 0, 2, 1].into();
        let own: Vec<_> = (0..MOST).map_while(|_| places.take(one)).collect();
        assert_eq!(own.len(), MOST_OF_ONE);
        let here: IpAddr = [127, 0, 0, 1].into();
        let others: Vec<_> = (0..MOST).map_while(|_| places.take(here)).collect();
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        assert!(places.take([192, 0, 2, 2].into()).is_none());
        drop((own, others));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
