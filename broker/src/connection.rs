//! One client's connection: bytes in, packets to the shard, bytes out.
//!
//! Generic over the byte stream. A hand-written future and no `async fn`, because twenty thousand
//! of them are held: an idle one owns no buffer, and reads go through one buffer per thread.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tracing::debug;

use crate::{
    codec::{
        self,
        packet::{ClientPacket, reason},
    },
    config::Limits,
    link::Link,
    metrics::Metric,
    session::Cause,
    shard::{Flow, SessionKey, Shard},
    throttle::Throttle,
    websocket::Violation,
};

/// One read's worth; shared by all connections of a thread.
const READ_BYTES: usize = 64 * 1024;

/// Reads before other connections get their turn.
const READS_PER_TURN: usize = 2;

/// How long a client gets to take its last packets.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what a client still sends is read and thrown away after a DISCONNECT: a socket that is
/// closed with bytes unread is reset, and the reset overtakes the DISCONNECT. A round trip is enough.
const LINGER: Duration = Duration::from_millis(500);

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A connected client's socket. Resolves when the connection is over.
pub(crate) struct Connection<S> {
    stream: S,
    shard: Rc<RefCell<Shard>>,
    key: SessionKey,
    link: Rc<Link>,
    limits: Limits,
    /// The start of a packet whose end has not arrived.
    inbound: BytesMut,
    /// Why packets are left in `inbound`.
    stalled: Option<Stall>,
    keep_alive: Option<KeepAlive>,
    throttle: Option<Box<Throttle>>,
    closing: Option<Pin<Box<Sleep>>>,
    is_shut: bool,
}

/// Closes a connection that was silent for one and a half times its keep-alive (3.1.2.10).
struct KeepAlive {
    allowed: Duration,
    heard: Instant,
    /// When output last went to a client that was not read because of what it had not read.
    drained: Instant,
    timer: Pin<Box<Sleep>>,
}

/// What a connection waits for before it handles the packets that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// Room on the lanes to other shards.
    Lanes,
    /// The client has sent more than its rate allows.
    Rate,
    /// The next turn: a few packets may be work for many subscribers.
    Turn,
    /// The client has published as much as may be without an answer.
    Answers,
    /// Room for the answers; also how a connection starts.
    Output,
}

/// Why a turn ended.
enum Turn {
    /// Wakers are registered.
    Wait,
    Over,
    /// The client has broken the rules of what carries MQTT.
    Violated(Violation),
}

impl From<io::Error> for Turn {
    fn from(error: io::Error) -> Self {
        Violation::of(&error).map_or(Self::Over, Self::Violated)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// `rest` is what was read behind the CONNECT.
    pub(crate) fn new(
        stream: S,
        shard: Rc<RefCell<Shard>>,
        key: SessionKey,
        link: Rc<Link>,
        limits: Limits,
        keep_alive: u16,
        rest: Bytes,
    ) -> Self {
        let keep_alive = (keep_alive > 0).then(|| {
            let allowed = Duration::from_secs(u64::from(keep_alive)) * 3 / 2;
            let timer = Box::pin(tokio::time::sleep(allowed));
            let now = Instant::now();
            KeepAlive {
                allowed,
                heard: now,
                drained: now,
                timer,
            }
        });
        Self {
            stream,
            shard,
            key,
            link,
            limits,
            stalled: (!rest.is_empty()).then_some(Stall::Output),
            inbound: BytesMut::from(rest),
            keep_alive,
            throttle: Throttle::new(&limits, Instant::now()),
            closing: None,
            is_shut: false,
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Turn {
        if self.stalled.is_some() {
            self.handle_stalled(context);
        }
        let mut reads = 0;
        loop {
            match self.poll_write(context) {
                Poll::Ready(Err(error)) => return error.into(),
                Poll::Ready(Ok(())) if self.link.is_closing() => return self.poll_close(context),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if self.link.is_closing() {
                return self.poll_close_timeout(context);
            }
            if self.stalled.is_some() || self.link.is_full() {
                if self.stalled == Some(Stall::Output) && !self.link.is_full() {
                    context.waker().wake_by_ref();
                }
                break;
            }
            if reads == READS_PER_TURN {
                context.waker().wake_by_ref();
                break;
            }
            reads += 1;
            match self.poll_read(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Turn::Over,
                Poll::Ready(Err(error)) => return error.into(),
                Poll::Ready(Ok(_bytes)) => {}
            }
        }
        self.poll_keep_alive(context)
    }

    /// Reads once and handles the packets in it; the result is the number of bytes read.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if !bytes.is_empty() {
                self.handle_bytes(bytes, context);
            }
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn handle_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        self.link.note_read(bytes.len());
        let now = Instant::now();
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard = now;
        }
        if self.inbound.is_empty() {
            let handled = self.handle_packets(bytes, now, context);
            self.inbound.extend_from_slice(&bytes[handled..]);
        } else {
            self.inbound.extend_from_slice(bytes);
            self.handle_inbound(now, context);
        }
    }

    fn handle_stalled(&mut self, context: &mut Context<'_>) {
        self.stalled = None;
        self.handle_inbound(Instant::now(), context);
    }

    fn handle_inbound(&mut self, now: Instant, context: &mut Context<'_>) {
        let mut inbound = std::mem::take(&mut self.inbound);
        let handled = self.handle_packets(&inbound, now, context);
        if handled < inbound.len() {
            inbound.advance(handled);
            self.inbound = inbound;
        }
    }

    /// Handles the whole packets at the start of `bytes`; returns their length.
    fn handle_packets(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        context: &mut Context<'_>,
    ) -> usize {
        let all = bytes.len();
        let mut shard = self.shard.borrow_mut();
        let work = shard.begin_work();
        while !self.link.is_closing() {
            if shard.is_spent(work) {
                self.stalled = Some(Stall::Turn);
                context.waker().wake_by_ref();
                break;
            }
            if shard.stall(self.key, bytes, context.waker()) {
                self.stalled = Some(Stall::Lanes);
                break;
            }
            // A node that stops takes no more messages, and still hears acknowledgements: messages
            // are left without an answer, so that their senders have them for another node.
            let is_draining = shard.is_draining();
            let is_discarded = is_draining && codec::is_publish(bytes);
            if let Some(throttle) = self.throttle.as_mut().filter(|_throttle| !is_draining) {
                let waited = throttle.is_waiting();
                if throttle.poll_ready(now, context).is_pending() {
                    let counters = shard.counters();
                    counters.add(Metric::MessagesThrottled, usize::from(!waited));
                    self.stalled = Some(Stall::Rate);
                    break;
                }
            }
            // No client of MQTT 5 sends more; in MQTT 3 there is no way to tell it.
            if self.owes_enough() && codec::is_publish_to_answer(bytes) {
                self.stalled = Some(Stall::Answers);
                break;
            }
            // What a client does not read must not grow with what it sends.
            if self.link.is_full() {
                self.stalled = Some(Stall::Output);
                break;
            }
            let frame = match codec::frame(bytes, self.limits.packet_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    close_for(&shard, &self.link, error.reason());
                    break;
                }
            };
            if is_discarded {
                bytes = &bytes[frame.total..];
                continue;
            }
            let packet = codec::decode(bytes, frame, self.link.version(), now);
            bytes = &bytes[frame.total..];
            shard.counters().inc(Metric::PacketsIn);
            if let (Some(throttle), Ok(ClientPacket::Publish { .. })) =
                (&mut self.throttle, &packet)
            {
                throttle.charge(frame.total, now);
            }
            let flow = packet
                .map_err(codec::DecodeError::reason)
                .and_then(|packet| shard.handle_packet(self.key, &self.link, packet, now));
            match flow {
                Ok(Flow::Continue) => {}
                Ok(Flow::Close(cause)) => {
                    shard.counters().inc(Metric::ClosedGoodbye);
                    // At once: the client may be back before its socket is closed here.
                    shard.disconnect(self.key, &self.link, cause, now);
                    self.link.close_silently();
                }
                Err(reason) => close_for(&shard, &self.link, reason),
            }
        }
        all - bytes.len()
    }

    /// Whether so many PUBLISH packets wait for others to take them that no more are read.
    fn owes_enough(&self) -> bool {
        self.link.unanswered() >= usize::from(self.limits.inflight)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.link.take_starved() {
                self.shard
                    .borrow_mut()
                    .pump(self.key, &self.link, Instant::now());
            }
            let mut output = self.link.take_output();
            let is_empty = output.is_empty();
            if output.writable().is_empty() {
                self.link.put_back(output);
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                // What is held back is written when the shard wakes the task for it.
                return if is_empty {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            let written = Pin::new(&mut self.stream).poll_write(context, output.writable());
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.link.note_written(bytes);
                    self.note_drained(output.len());
                    output.advance(bytes);
                    self.link.put_back(output);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.link.put_back(output);
                    return Poll::Pending;
                }
            }
        }
    }

    fn note_drained(&mut self, output_before: usize) {
        if let Some(keep_alive) = &mut self.keep_alive
            && Link::would_be_full(output_before)
        {
            keep_alive.drained = Instant::now();
        }
    }

    /// Everything is written: tells the client so.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Turn {
        if !self.is_shut {
            match Pin::new(&mut self.stream).poll_shutdown(context) {
                Poll::Ready(Ok(())) if self.link.lingers() => {
                    self.is_shut = true;
                    self.closing = Some(Box::pin(tokio::time::sleep(LINGER)));
                }
                Poll::Ready(_closed) => return Turn::Over,
                Poll::Pending => return self.poll_close_timeout(context),
            }
        }
        for _ in 0..READS_PER_TURN {
            match self.poll_discard(context) {
                Poll::Pending => return self.poll_close_timeout(context),
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Turn::Over,
                Poll::Ready(Ok(_bytes)) => {}
            }
        }
        context.waker().wake_by_ref();
        self.poll_close_timeout(context)
    }

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    fn poll_close_timeout(&mut self, context: &mut Context<'_>) -> Turn {
        let timer = self
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_TIMEOUT)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Turn::Over,
            Poll::Pending => Turn::Wait,
        }
    }

    /// The timer is set again only when it fires: packets merely note when they came.
    fn poll_keep_alive(&mut self, context: &mut Context<'_>) -> Turn {
        let Some(keep_alive) = &mut self.keep_alive else {
            return Turn::Wait;
        };
        while keep_alive.timer.as_mut().poll(context).is_ready() {
            // While the client leaves its output unread, what it sends lies unread too; that it
            // takes some of the output is then the sign that it lives.
            let due = keep_alive.heard.max(keep_alive.drained) + keep_alive.allowed;
            // This wait is no fault of the client's.
            let is_held = matches!(
                self.stalled,
                Some(Stall::Lanes | Stall::Rate | Stall::Answers)
            );
            let is_held = is_held && !self.link.is_full();
            if due <= Instant::now() && !is_held {
                self.shard.borrow().counters().inc(Metric::ClosedKeepAlive);
                self.link.close(reason::KEEP_ALIVE_TIMEOUT);
                context.waker().wake_by_ref();
                return Turn::Wait;
            }
            let next = if is_held {
                Instant::now() + keep_alive.allowed
            } else {
                due
            };
            keep_alive.timer.as_mut().reset(next.into());
        }
        Turn::Wait
    }
}

fn close_for(shard: &Shard, link: &Link, reason: u8) {
    debug!(reason, "closing a connection for a protocol error");
    shard.counters().inc(Metric::ClosedProtocol);
    link.close(reason);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.link.begin_poll(context);
        let turn = self.turn(context);
        self.link.end_poll();
        let violation = match turn {
            Turn::Wait => return Poll::Pending,
            Turn::Over => None,
            Turn::Violated(violation) => Some(violation),
        };
        let mut shard = self.shard.borrow_mut();
        let counters = shard.counters();
        if let Some(violation) = violation {
            debug!(%violation, "closing a connection for its WebSocket");
            counters.inc(violation.metric());
        }
        if !self.link.is_closing() {
            counters.inc(if violation.is_some() {
                Metric::ClosedProtocol
            } else {
                Metric::ClosedLost
            });
        }
        shard.disconnect(self.key, &self.link, Cause::Broken, Instant::now());
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
