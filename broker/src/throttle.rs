//! Holds a client to its rate of messages by reading no further for a while.
//!
//! What it sends meanwhile waits in its own socket, so that it learns of the bound by itself.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::{config::Limits, rate::Bucket};

/// What one client has sent lately.
pub(crate) struct Throttle {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Set while something is owed.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    /// `None` where nothing is limited: most connections need none.
    pub(crate) fn new(limits: &Limits, now: Instant) -> Option<Box<Self>> {
        let bucket = |rate| Bucket::new(rate, now);
        let is_limited = limits.publish_rate.is_some() || limits.publish_bytes_rate.is_some();
        is_limited.then(|| {
            Box::new(Self {
                messages: limits.publish_rate.map(bucket),
                bytes: limits.publish_bytes_rate.map(bucket),
                timer: None,
            })
        })
    }

    /// Notes a PUBLISH of this length.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        if let Some(bucket) = &mut self.messages {
            bucket.charge(1, now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.charge(bytes as u64, now);
        }
    }

    /// Whether something was owed when it was last asked.
    pub(crate) fn is_waiting(&self) -> bool {
        self.timer.is_some()
    }

    /// Ready when the next packet may be handled.
    pub(crate) fn poll_ready(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<()> {
        let buckets = [&self.messages, &self.bytes].into_iter().flatten();
        let debts = buckets.map(|bucket| bucket.debt(now));
        let debt = debts.max().unwrap_or_default();
        if debt == Duration::ZERO {
            self.timer = None;
            return Poll::Ready(());
        }
        let due = (now + debt).into();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        timer.as_mut().reset(due);
        timer.as_mut().poll(context)
    }
}
