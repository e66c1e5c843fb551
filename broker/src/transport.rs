//! The byte stream under a connection; TLS, WebSocket and PROXY wrap one into another.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A byte stream that can move between threads.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the stream belong to the runtime that calls this.
    ///
    /// A socket works with any runtime, but is woken through the one that it was registered with.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    fn rehome(self: Box<Self>) -> io::Result<Box<dyn Transport>>;
}

impl Transport for TcpStream {
    fn rehome(self: Box<Self>) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(Self::from_std(self.into_std()?)?))
    }
}
