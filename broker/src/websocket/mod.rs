//! MQTT over WebSocket (RFC 6455): a byte stream in binary frames over another byte stream.
//!
//! Frames are taken off where the bytes are read to, and put on where they are written from, so an
//! idle client costs no buffer, and how long frames are does not matter. MQTT packets may cross
//! them as they like (MQTT 5, 6).

mod decoder;
mod upgrade;
mod violation;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Transport;
use decoder::{Closed, Decoder, close};
pub(crate) use upgrade::{UpgradeError, upgrade};
pub(crate) use violation::Violation;

/// Payload of the longest frame that is sent: the longest whose length has two bytes.
const LONGEST_FRAME: usize = u16::MAX as usize;

/// Reads that brought no payload before others get their turn.
const BARREN_READS: usize = 16;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// The server's end of a WebSocket.
///
/// Who writes must offer bytes again that were not taken, as for any stream: the frame that they
/// belong to has been announced.
pub(crate) struct WebSocket<S> {
    stream: S,
    /// What came behind the request.
    ahead: Bytes,
    decoder: Decoder,
    header: Header,
    /// Payload that the frame being sent still lacks.
    left: usize,
    /// Control frames to be sent, whole ones.
    control: Vec<u8>,
    is_closing: bool,
}

/// The header of the frame that is being sent.
#[derive(Default)]
struct Header {
    bytes: [u8; 4],
    sent: u8,
    length: u8,
}

impl Header {
    fn of_binary(payload: usize) -> Self {
        let (bytes, length) = match u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes() {
            [0, short @ ..126] => ([BINARY, short, 0, 0], 2),
            [high, low] => ([BINARY, 126, high, low], 4),
        };
        Self {
            bytes,
            sent: 0,
            length,
        }
    }

    fn rest(&self) -> &[u8] {
        let (sent, length) = (usize::from(self.sent), usize::from(self.length));
        self.bytes.get(sent..length).unwrap_or_default()
    }

    /// Notes that so many bytes were sent; returns how many of them were not the header's.
    fn advance(&mut self, bytes: usize) -> usize {
        let own = bytes.min(self.rest().len());
        self.sent += u8::try_from(own).unwrap_or_default();
        bytes - own
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// `ahead` is what was read behind the request.
    pub(crate) fn new(stream: S, ahead: Bytes) -> Self {
        Self {
            stream,
            ahead,
            decoder: Decoder::default(),
            header: Header::default(),
            left: 0,
            control: Vec::new(),
            is_closing: false,
        }
    }

    /// Reads once; the result is the number of bytes at the start of `room`.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(room.len());
            self.ahead.copy_to_slice(&mut room[..taken]);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(taken));
        }
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Sends answers to the client's control frames, as far as the stream takes them: no reason to
    /// read no further.
    fn answer(&mut self, context: &mut Context<'_>) {
        // A stream that fails does so again for who reads or writes.
        let _ = self.poll_control(context);
    }

    /// Sends what is to be sent between the frames of the payload.
    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left == 0 && self.header.rest().is_empty() {
            if self.control.is_empty() && !self.next_control() {
                return Poll::Ready(Ok(()));
            }
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.control))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control.drain(..sent);
            if self.control.is_empty() {
                self.control = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Makes the next control frame, if there is to be one.
    fn next_control(&mut self) -> bool {
        if self.is_closing {
            return false;
        }
        if let Some(closed) = self.decoder.closed() {
            self.put_close(closed.code());
        } else if let Some(payload) = self.decoder.take_ping() {
            self.put_control(PONG, &payload);
        } else {
            return false;
        }
        true
    }

    fn put_close(&mut self, code: u16) {
        self.is_closing = true;
        self.put_control(CLOSE, &code.to_be_bytes());
    }

    fn put_control(&mut self, opcode: u8, payload: &[u8]) {
        // No more than 125 (5.5): of the server's own making, or checked by the decoder.
        self.control
            .extend([opcode, u8::try_from(payload.len()).unwrap_or_default()]);
        self.control.extend(payload);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..BARREN_READS {
            match self.decoder.closed() {
                None => {}
                // To the reader a stream that was closed in order has ended.
                Some(Closed::Ordered(_code)) => return Poll::Ready(Ok(())),
                Some(Closed::Violated(violation)) => return Poll::Ready(Err(violation.into())),
            }
            let room = buffer.initialize_unfilled();
            let read = ready!(self.poll_bytes(context, room))?;
            let Some(bytes) = room.get_mut(..read).filter(|bytes| !bytes.is_empty()) else {
                return Poll::Ready(Ok(()));
            };
            let payload = self.decoder.decode(bytes);
            self.answer(context);
            if payload > 0 {
                buffer.advance(payload);
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_control(context))?;
        if self.is_closing {
            return Poll::Ready(Err(match self.decoder.closed() {
                Some(Closed::Violated(violation)) => violation.into(),
                Some(Closed::Ordered(_)) | None => io::ErrorKind::BrokenPipe.into(),
            }));
        }
        if self.left == 0 {
            self.left = bytes.len().min(LONGEST_FRAME);
            self.header = Header::of_binary(self.left);
        }
        loop {
            let Self {
                stream,
                header,
                left,
                ..
            } = &mut *self;
            let payload = bytes.get(..*left).unwrap_or(bytes);
            let slices = [IoSlice::new(header.rest()), IoSlice::new(payload)];
            let sent = ready!(Pin::new(stream).poll_write_vectored(context, &slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let sent = header.advance(sent);
            *left = left.saturating_sub(sent);
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_control(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing && self.left == 0 {
            ready!(self.poll_control(context))?;
            if !self.is_closing {
                self.put_close(close::NORMAL);
            }
        }
        ready!(self.poll_control(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Transport> Transport for WebSocket<S> {
    fn rehome(&mut self) -> io::Result<()> {
        self.stream.rehome()
    }
}

#[cfg(test)]
mod tests;
