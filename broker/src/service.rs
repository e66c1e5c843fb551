//! How listeners speak: PROXY headers, TLS and WebSocket, by the configuration of each, and how a
//! reload changes that.

use std::{net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::{net::TcpStream, sync::watch};
use tracing::warn;

use crate::{
    config::{self, NamedBy, Protocol},
    handshake::HandshakeError,
    metrics::{render_head, render_value},
    peer::Peer,
    proxy,
    tls::{Identity, TlsError},
    transport::{Socket, Transport},
    websocket::{WebSocket, upgrade},
};

/// A listener that cannot be as a new configuration says.
#[derive(Debug, Error)]
pub enum Unusable {
    #[error("listener {address}")]
    Files {
        address: SocketAddr,
        #[source]
        source: TlsError,
    },
    /// It would go on as it was, under what the rest of the file says of who may connect.
    #[error("listener {address} is not in the file any more; closing it takes a restart")]
    Missing { address: SocketAddr },
}

/// How a listener speaks with the clients that it accepts; a reload gives it another.
pub(crate) struct Service {
    config: config::Listener,
    identity: Option<Identity>,
}

impl Service {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn new(config: &config::Listener) -> Result<Self, TlsError> {
        let identity = config.tls.as_ref().map(Identity::load).transpose()?;
        let service = Self {
            config: config.clone(),
            identity,
        };
        if let Err(error) = service.check_time() {
            // Clients that do not check may still come.
            warn!(%error, "certificate is of no use now");
        }
        Ok(service)
    }

    /// Whether clients that check take its certificate now, if it has one.
    fn check_time(&self) -> Result<(), TlsError> {
        match (&self.identity, &self.config.tls) {
            (Some(identity), Some(files)) => identity.check_time(files),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// What in clients' certificates tells who they are.
    fn names(&self) -> Option<NamedBy> {
        self.config.tls.as_ref()?.clients.as_ref()?.names
    }

    /// When clients will take the certificate no more, in seconds of Unix time.
    fn not_after(&self) -> Option<u64> {
        Some(self.identity.as_ref()?.validity?.not_after)
    }

    /// Reads what comes before MQTT; tells who the client is.
    pub(crate) async fn open(
        &self,
        mut stream: TcpStream,
        mut address: SocketAddr,
    ) -> Result<(Box<dyn Transport>, Peer), HandshakeError> {
        let is_proxy = |prefix: &lb_decap::Prefix| prefix.contains(address.ip());
        if self.config.proxies.iter().any(is_proxy)
            && let Some(client) = proxy::read_header(&mut stream).await?
        {
            address = client;
        }
        let socket = Socket::from(stream);
        let mut peer = Peer {
            address,
            listener: self.config.address,
            certificate: None,
        };
        let transport = match &self.identity {
            Some(identity) => {
                let accepted = identity.accept(socket).await;
                let stream = accepted.map_err(HandshakeError::from_tls)?;
                let (_socket, session) = stream.get_ref();
                let shown = identity.client_certificate(session, self.names());
                peer.certificate = shown.map(Arc::new);
                self.wrap(stream).await?
            }
            None => self.wrap(socket).await?,
        };
        Ok((transport, peer))
    }

    /// Makes a byte stream for MQTT of what the network gives.
    async fn wrap<S: Transport>(
        &self,
        mut stream: S,
    ) -> Result<Box<dyn Transport>, HandshakeError> {
        Ok(match &self.config.protocol {
            Protocol::Mqtt => Box::new(stream),
            Protocol::WebSocket(door) => {
                let ahead = upgrade(&mut stream, door).await?;
                Box::new(WebSocket::new(stream, ahead))
            }
        })
    }
}

/// The services of all listeners, to exchange while they run.
pub(crate) struct Services(Vec<watch::Sender<Arc<Service>>>);

/// What listeners could be from now on, in their order.
pub(crate) struct Next(Vec<Arc<Service>>);

impl Services {
    pub(crate) fn new(services: Vec<Service>) -> Self {
        let channel = |service| watch::Sender::new(Arc::new(service));
        Self(services.into_iter().map(channel).collect())
    }

    /// For each listener, in order, its service and what becomes of it.
    pub(crate) fn subscribe(&self) -> Vec<watch::Receiver<Arc<Service>>> {
        self.0.iter().map(watch::Sender::subscribe).collect()
    }

    /// Reads all files anew for listeners with the same address.
    ///
    /// # Errors
    /// All listeners whose files cannot be used, also those whose certificate is good and whose new
    /// one is past its time or before it; and those that are not listed any more.
    pub(crate) fn prepare(&self, listeners: &[config::Listener]) -> Result<Next, Vec<Unusable>> {
        let mut listeners: Vec<_> = listeners.iter().collect();
        let (mut next, mut unusable) = (Vec::new(), Vec::new());
        for current in &self.0 {
            let address = current.borrow().config.address;
            // Each is taken once: several may ask the kernel for a port.
            let found = listeners.iter().position(|new| new.address == address);
            let Some(found) = found else {
                unusable.push(Unusable::Missing { address });
                continue;
            };
            let is_good = current.borrow().check_time().is_ok();
            let service = Service::new(listeners.remove(found)).and_then(|service| {
                let checked = if is_good {
                    service.check_time()
                } else {
                    Ok(())
                };
                checked.map(|()| service)
            });
            match service {
                Ok(service) => next.push(Arc::new(service)),
                Err(source) => unusable.push(Unusable::Files { address, source }),
            }
        }
        if unusable.is_empty() {
            Ok(Next(next))
        } else {
            Err(unusable)
        }
    }

    /// Takes what was prepared into use; connections that are there stay as they are.
    pub(crate) fn exchange(&self, Next(next): Next) {
        for (current, service) in self.0.iter().zip(next) {
            current.send_replace(service);
        }
    }

    /// Appends how long certificates are good in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let name = "certificate_not_after_seconds";
        let help = "When clients will take the certificate no more, in Unix time.";
        render_head(out, name, "gauge", help);
        for service in &self.0 {
            let service = service.borrow();
            if let Some(not_after) = service.not_after() {
                let label = format!("listener=\"{}\"", service.config.address);
                render_value(out, name, &label, not_after);
            }
        }
    }
}
