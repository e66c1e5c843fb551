//! `GET /v1/live`: what a page shows, as it happens, in one stream of server-sent events.
//!
//! | event | when | data |
//! |---|---|---|
//! | `status` | at once, then once a second | the daemon's whole status |
//! | `event` | as it happens; its `id` is its number | one event |
//! | a comment | when nothing was said for [`BEAT`] | nothing |
//!
//! However many look, the daemon is asked once a second, and not at all when nobody does. A stream that
//! is read slowly misses statuses, and its events wait in the daemon's own memory of them. A stream ends
//! with its session, so who is thrown out sees no more.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

use crate::{
    News,
    counters::{Counted, Counters},
    identity::{Proof, Who},
    refusal::Reason,
    router::{Shared, SharedState},
};

/// Between two statuses.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// Proxies, and those who read, take a connection for dead that says nothing for longer.
pub(crate) const BEAT: Duration = Duration::from_secs(15);

/// Streams at a time, and those of one name.
pub(crate) const MOST: usize = 64;
pub(crate) const MOST_OF_ONE: usize = 16;

/// What all streams are fed from.
pub(crate) struct Feed {
    latest: watch::Sender<Option<Bytes>>,
    /// Somebody looks.
    wanted: Notify,
    places: Arc<Places>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new(None),
            wanted: Notify::new(),
            places: Arc::default(),
        }
    }
}

/// Who looks, how many times.
#[derive(Default)]
struct Places(Mutex<BTreeMap<String, usize>>);

struct Place {
    name: String,
    of: Arc<Places>,
}

impl Places {
    fn take(self: &Arc<Self>, name: &str) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = all.values().sum();
        let own = all.get(name).copied().unwrap_or_default();
        if taken >= MOST || own >= MOST_OF_ONE {
            return None;
        }
        all.insert(name.to_owned(), own + 1);
        Some(Place {
            name: name.to_owned(),
            of: Arc::clone(self),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(all.remove(&self.name)),
        }
    }
}

impl Feed {
    fn subscribe(&self) -> watch::Receiver<Option<Bytes>> {
        let mut statuses = self.latest.subscribe();
        // One that another stream was just given is good enough.
        statuses.mark_changed();
        self.wanted.notify_one();
        statuses
    }
}

/// Asks for the status as long as somebody looks; ends when the daemon does not answer any more.
pub(crate) async fn feed(shared: Arc<Shared>) {
    let Feed { latest, wanted, .. } = &shared.feed;
    loop {
        while latest.receiver_count() == 0 {
            // It would be old when somebody comes.
            latest.send_replace(None);
            wanted.notified().await;
        }
        let Some(status) = shared.daemon.status().await else {
            return;
        };
        latest.send_replace(Some(frame("status", None, &status)));
        time::sleep(PERIOD).await;
    }
}

/// One event of the stream.
fn frame(kind: &str, id: Option<u64>, data: &str) -> Bytes {
    let mut text = format!("event: {kind}\n");
    if let Some(id) = id {
        text += &format!("id: {id}\n");
    }
    // Each line is a field of its own.
    for line in data.lines() {
        text += "data: ";
        text += line;
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

pub(crate) async fn live(
    State(shared): SharedState,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = shared.feed.places.take(&who.name) else {
        return shared.refuse(Reason::Streams);
    };
    let last = shared.daemon.last_event();
    let watcher = Watcher {
        statuses: shared.feed.subscribe(),
        // A browser whose connection was lost says what it had.
        since: last_seen(&headers).map_or(last, |seen| seen.min(last)),
        waiting: VecDeque::new(),
        has_news: true,
        proof: who.proof,
        _place: place,
        _counted: Counted::new(Arc::clone(&shared.counters), streams),
        shared,
    };
    let frames = stream::unfold(watcher, Watcher::next);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(frames)).into_response()
}

fn streams(counters: &Counters) -> &std::sync::atomic::AtomicU64 {
    &counters.streams
}

fn last_seen(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

/// One that looks.
struct Watcher {
    shared: Arc<Shared>,
    statuses: watch::Receiver<Option<Bytes>>,
    since: u64,
    waiting: VecDeque<Bytes>,
    /// Whether there may be more events.
    has_news: bool,
    proof: Proof,
    _place: Place,
    _counted: Counted<fn(&Counters) -> &std::sync::atomic::AtomicU64>,
}

/// What a watcher has waited for.
enum Said {
    Frame(Bytes),
    News(Option<News>),
    Nothing,
    End,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let beat = Instant::now() + BEAT;
        loop {
            if !self.shared.is_good(&self.proof) {
                return None;
            }
            if let Some(frame) = self.waiting.pop_front() {
                return Some((Ok(frame), self));
            }
            match self.wait(beat).await {
                Said::Frame(frame) => return Some((Ok(frame), self)),
                Said::News(Some(news)) => {
                    self.since = news.last;
                    let events = news.events.iter();
                    let frames = events.map(|(id, event)| frame("event", Some(*id), event));
                    self.waiting.extend(frames);
                }
                Said::News(None) => self.has_news = false,
                Said::Nothing => {}
                Said::End => return None,
            }
        }
    }

    /// All that is waited for may be given up.
    async fn wait(&mut self, beat: Instant) -> Said {
        let Self {
            shared,
            statuses,
            since,
            has_news,
            ..
        } = self;
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => Said::End,
            changed = statuses.changed() => match changed {
                Ok(()) => statuses.borrow_and_update().clone().map_or(Said::Nothing, Said::Frame),
                Err(_gone) => Said::End,
            },
            news = shared.daemon.events(*since), if *has_news => Said::News(news),
            () = time::sleep_until(beat) => Said::Frame(Bytes::from_static(b":\n\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_of_lines_and_ends_with_an_empty_one() {
        let text = frame("event", Some(7), "{\"a\":1}");
        assert_eq!(text, "event: event\nid: 7\ndata: {\"a\":1}\n\n");
        let text = frame("status", None, "{\n}\r\n");
        assert_eq!(text, "event: status\ndata: {\ndata: }\n\n");
    }

    #[test]
    fn places_are_bounded_for_each_and_for_all() {
        let places = Arc::<Places>::default();
        let of_one: Vec<_> = (0..MOST_OF_ONE).map_while(|_| places.take("a")).collect();
        assert_eq!(of_one.len(), MOST_OF_ONE);
        assert!(places.take("a").is_none());
        let others: Vec<_> = (0..MOST)
            .map_while(|n| places.take(&format!("b{n}")))
            .collect();
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        drop(of_one);
        assert!(places.take("a").is_some());
        drop(others);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
