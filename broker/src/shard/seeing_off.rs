//! Clients that are sent elsewhere.

use std::{rc::Rc, time::Instant};

use super::{SessionKey, Sessions, Shard};
use crate::{evacuation::Wills, link::Link, metrics::Metric, session::Cause};

/// Sessions that one question looks at.
const LOOKS: u32 = 4096;

/// Whom to send away.
#[derive(Clone, Debug)]
pub(crate) struct SeeOff {
    /// Where to begin.
    pub(crate) from: u32,
    /// So many at most.
    pub(crate) clients: u64,
    /// What MQTT 5 clients are told.
    pub(crate) reason: u8,
    /// Where they should go.
    pub(crate) servers: Option<Box<str>>,
    pub(crate) wills: Wills,
    pub(crate) backlog: Backlog,
}

/// What becomes of what groups sent a session that goes on, and its client was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// It waits for the client. Where all are sent away, others would have it for some turns only, and
    /// the last of them would have more than their queues take.
    Stays,
    /// Other members that are connected get it.
    HandedOn,
}

/// Who was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenOff {
    pub(crate) clients: u64,
    /// Where to go on; `None` behind the last session.
    pub(crate) reached: Option<u32>,
}

impl Shard {
    pub(super) fn see_off(&mut self, whom: &SeeOff, now: Instant) -> SeenOff {
        let SeeOff {
            from,
            clients,
            reason,
            servers,
            wills,
            backlog,
        } = whom;
        let cause = match wills {
            Wills::Held => Cause::Referred,
            Wills::Published => Cause::Broken,
        };
        let (leaving, reached) = self.sessions.connected_from(*from, *clients);
        let clients = leaving.len() as u64;
        for (key, link) in leaving {
            link.refer(*reason, servers.as_deref());
            self.counters.inc(Metric::ClosedReferred);
            self.part(key, &link, (cause, *backlog), now);
        }
        SeenOff { clients, reached }
    }
}

impl Sessions {
    /// Some sessions that have a connection, and where to look for more.
    fn connected_from(&self, from: u32, most: u64) -> (Vec<(SessionKey, Rc<Link>)>, Option<u32>) {
        let mut connected = Vec::new();
        let mut place = from;
        while place - from < LOOKS && (connected.len() as u64) < most {
            let Some(entry) = self.place(place) else {
                return (connected, None);
            };
            if let Some(link) = entry.and_then(|entry| entry.link.as_ref()) {
                connected.push((SessionKey::of(place), Rc::clone(link)));
            }
            place += 1;
        }
        (connected, Some(place))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{message::Qos, receipts::Needs, routes::ShardId, shard::Shared, testing};

    fn see_off(shard: &mut Shard, from: u32, clients: u64) -> SeenOff {
        let whom = SeeOff {
            from,
            clients,
            reason: 0x9c,
            servers: None,
            wills: Wills::Held,
            backlog: Backlog::HandedOn,
        };
        shard.see_off(&whom, Instant::now())
    }

    #[test]
    fn no_more_are_sent_away_than_wanted_and_none_is_passed_over() {
        let shared = Shared::for_tests("", 1);
        let mut shard = Shard::new(ShardId(0), shared, Arc::default());
        let links: Vec<_> = (0..5)
            .map(|number| shard.join_kept_for_tests(&format!("c{number}"), Qos::AtLeastOnce))
            .collect();
        let gone = |links: &[Rc<Link>]| links.iter().filter(|link| link.is_closing()).count();
        let seen = see_off(&mut shard, 0, 2);
        assert_eq!((seen.clients, gone(&links)), (2, 2));
        let reached = seen.reached.unwrap();
        let seen = see_off(&mut shard, reached, 10);
        assert_eq!((seen.clients, seen.reached, gone(&links)), (3, None, 5));
        let seen = see_off(&mut shard, 0, 10);
        assert_eq!((seen.clients, seen.reached), (0, None));
    }

    #[test]
    fn what_groups_sent_stays_where_all_are_sent_away() {
        for backlog in [Backlog::Stays, Backlog::HandedOn] {
            let shared = Shared::for_tests("[limits]\ninflight = 1", 1);
            let mut shard = Shard::new(ShardId(0), shared, Arc::default());
            let now = Instant::now();
            let _parcels = shard.keep_for_tests();
            let _first = shard.join_kept_for_tests("first", Qos::AtLeastOnce);
            let message = Arc::new(testing::message([], Qos::AtLeastOnce));
            for _ in 0..4 {
                shard.publish(Arc::clone(&message), None, &mut Needs::default(), now);
            }
            let _other = shard.join_kept_for_tests("other", Qos::AtLeastOnce);
            let whom = SeeOff {
                from: 0,
                clients: 1,
                reason: 0x9c,
                servers: None,
                wills: Wills::Published,
                backlog,
            };
            shard.see_off(&whom, now);
            let waiting = |shard: &mut Shard, id| {
                let key = shard.sessions.find(id).unwrap();
                shard.sessions.get_mut(key).unwrap().session.queue_len()
            };
            let [first, other] = ["first", "other"].map(|id| waiting(&mut shard, id));
            match backlog {
                Backlog::Stays => assert_eq!((first, other), (3, 0)),
                // One of them is in flight.
                Backlog::HandedOn => assert_eq!((first, other), (0, 2)),
            }
        }
    }
}
