//! Where everything that happens is told, once: from here it goes to the log, and to whoever asks for
//! events or waits for them.
//!
//! A [`Journal`] is a handle that may be cloned. Telling takes a lock for as long as it takes to put
//! an event into memory, and waits for nobody who reads. The threads of virtual routers tell by a
//! queue all the same (`daemon/vrrp/notices.rs`), as the log may block.

mod log;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::core::event::{
    Event, Kind,
    ring::{Filter, Page, Ring},
};

/// The journal. See the module.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    news: watch::Sender<News>,
}

/// What those who wait are woken by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The number of the last event.
    pub last: u64,
    /// Whether the daemon is stopping, and nobody should wait for more.
    pub is_closing: bool,
}

impl Default for Journal {
    /// One whose numbers go on where those of earlier daemons ended: more than one event in a
    /// millisecond, all the time, is not to be expected.
    fn default() -> Self {
        let ring = Ring::new(unix_millis());
        let last = ring.last();
        Self(Arc::new(Shared {
            ring: Mutex::new(ring),
            news: watch::Sender::new(News {
                last,
                is_closing: false,
            }),
        }))
    }
}

impl Journal {
    /// Tells of an event: logs it, and remembers it.
    pub fn tell(&self, event: Event) {
        log::write(&event);
        let last = self.ring().push(event, unix_millis());
        self.0
            .news
            .send_modify(|news| news.last = news.last.max(last));
    }

    /// All that happened after the event of number `since`.
    #[must_use]
    pub fn since(&self, since: u64, filter: &Filter) -> Page {
        self.ring().since(since, filter)
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.ring().last()
    }

    /// How many there were of each kind.
    #[must_use]
    pub fn counts(&self) -> Vec<(Kind, u64)> {
        self.ring().counts().collect()
    }

    /// What wakes those who wait for events.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<News> {
        self.0.news.subscribe()
    }

    /// Has nobody wait for more, as the daemon is stopping; events are still taken.
    pub fn close(&self) {
        self.0.news.send_modify(|news| news.is_closing = true);
    }

    /// No code that can panic runs under the lock, so its ring is whole.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Journal;
    use crate::core::event::{Event, ring::Filter};

    #[tokio::test]
    async fn those_who_wait_are_woken_by_events_and_by_the_end() {
        let journal = Journal::default();
        let (start, mut news) = (journal.last(), journal.news());
        let teller = journal.clone();
        tokio::spawn(async move { teller.tell(Event::Stopping {}) });
        let found = *news.wait_for(|news| news.last > start).await.unwrap();
        assert!(!found.is_closing);
        let page = journal.since(start, &Filter::default());
        assert_eq!(page.records[0].event, Event::Stopping {});
        journal.close();
        assert!(news.wait_for(|news| news.is_closing).await.is_ok());
    }
}
