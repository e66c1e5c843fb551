//! What the kernel knows of interfaces, addresses, routes and neighbours, and the VIPs on them.
//!
//! [`Netlink`] is for requests, each with a time-out, on a socket of its own: on a socket that also
//! carries events, requests hang for good once the event side has overrun. [`Events`] is that other
//! socket. Nothing is decided here, and everything may be asked for twice: adding what is there and
//! removing what is not are successes.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open, with dozens of variants that mean nothing here"
)]

mod address;
mod events;
mod filter;
mod link;
mod neighbour;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time};

pub use address::{Unmarked, VipOrigin};
pub use events::{Event, Events};
pub use link::{Interface, Link, LinkProgram};
pub use neighbour::{Neighbour, Route};

/// Far above what the kernel needs: it answers in microseconds or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The request socket.
pub struct Netlink {
    connection: Mutex<Connection>,
}

/// A socket, with the task that reads it.
struct Connection {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Connection {
    fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        let task = tokio::spawn(connection);
        Ok(Self { handle, task })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("the kernel did not answer in {REQUEST_TIMEOUT:?} when asked to {request}")]
    TimedOut { request: &'static str },
    #[error("cannot {request}: {source}")]
    Refused {
        request: &'static str,
        source: io::Error,
    },
    #[error("cannot {request}: {source}")]
    Protocol {
        request: &'static str,
        source: Box<rtnetlink::Error>,
    },
    #[error("there is no interface named {name}")]
    NoSuchInterface { name: String },
    #[error("interface {name} has no Ethernet address")]
    NotEthernet { name: String },
    #[error("there is no route to {destination}")]
    NoRoute { destination: IpAddr },
}

impl NetlinkError {
    fn new(request: &'static str, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(ref message) if message.code.is_some() => {
                Self::Refused {
                    request,
                    source: message.to_io(),
                }
            }
            other => Self::Protocol {
                request,
                source: Box::new(other),
            },
        }
    }

    /// The error number with which the kernel refused.
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open(_)
            | Self::TimedOut { .. }
            | Self::Protocol { .. }
            | Self::NoSuchInterface { .. }
            | Self::NotEthernet { .. }
            | Self::NoRoute { .. } => None,
        }
    }
}

impl Netlink {
    /// Opens the request socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let connection = Mutex::new(Connection::open()?);
        Ok(Self { connection })
    }

    /// The way to ask. A connection gives up when the kernel says what it cannot read; the next
    /// request then has a new one.
    fn handle(&self) -> Result<rtnetlink::Handle, NetlinkError> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if connection.task.is_finished() {
            *connection = Connection::open()?;
        }
        Ok(connection.handle.clone())
    }
}

/// Waits for the answer to a request.
async fn ask<T>(
    request: &'static str,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetlinkError> {
    match time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(NetlinkError::new(request, error)),
        Err(_elapsed) => Err(NetlinkError::TimedOut { request }),
    }
}
