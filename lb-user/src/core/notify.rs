//! What a notifier sends, and when: it chooses events, and never more than so many a minute.
//!
//! What comes beyond the rate is held back, and told in one sentence when a minute has gone by. Changes
//! of role have a rate of their own, and of those beyond it the last one of each router is sent all
//! the same: whoever goes by them must not end up with a role that is not in force. For the same
//! reason the changes of a router are sent one after the other, however many other events may be under
//! way at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::event::ring::{Filter, Record};

/// Events that may wait for their turn; more are held back.
pub const QUEUE: usize = 256;

/// What the rate is counted by.
const MINUTE: Duration = Duration::from_secs(60);

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Event(Arc<Record>),
    /// So many events were held back.
    HeldBack(u64),
}

/// The events that are to be sent. Moments are times since any fixed one.
#[derive(Clone, Debug)]
pub struct Outbox {
    filter: Filter,
    others: Bucket,
    roles: Bucket,
    queue: VecDeque<Arc<Record>>,
    /// The last change of each router that was not sent yet.
    late: BTreeMap<String, Arc<Record>>,
    /// The routers a change of which was handed out, and is not done with.
    under_way: BTreeSet<String>,
    held_back: u64,
    is_holding: bool,
}

/// A bucket of tokens as a moment: when it will be full (generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
struct Bucket {
    cost: Duration,
    full_at: Duration,
}

impl Bucket {
    fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + self.cost;
        if full_at > now + MINUTE {
            return false;
        }
        self.full_at = full_at;
        true
    }

    /// When there is a token again.
    const fn next(&self) -> Duration {
        (self.full_at.saturating_add(self.cost)).saturating_sub(MINUTE)
    }
}

impl Outbox {
    /// An empty one that sends `per_minute` events that pass `filter`.
    #[must_use]
    pub fn new(filter: Filter, per_minute: u32) -> Self {
        let bucket = Bucket {
            cost: MINUTE / per_minute.max(1),
            full_at: Duration::ZERO,
        };
        Self {
            filter,
            others: bucket,
            roles: bucket,
            queue: VecDeque::new(),
            late: BTreeMap::new(),
            under_way: BTreeSet::new(),
            held_back: 0,
            is_holding: false,
        }
    }

    /// Takes in an event.
    pub fn handle(&mut self, record: &Arc<Record>, now: Duration) {
        if !self.wants(&record.event) {
            return;
        }
        let has_room = self.queue.len() < QUEUE;
        if let Event::RoleChanged { router, .. } = &record.event {
            if has_room && !self.late.contains_key(router) && self.roles.take(now) {
                self.queue.push_back(Arc::clone(record));
            } else {
                let before = self.late.insert(router.clone(), Arc::clone(record));
                self.held_back += u64::from(before.is_some());
            }
        } else if has_room && !self.is_holding && self.others.take(now) {
            self.queue.push_back(Arc::clone(record));
        } else {
            self.held_back += 1;
            self.is_holding = true;
        }
    }

    /// Noise is sent to who names it.
    fn wants(&self, event: &Event) -> bool {
        let kind = event.kind();
        let is_named = self.filter.kinds.contains(&kind);
        kind.is_notified() && (is_named || !kind.is_noise()) && self.filter.admits(event)
    }

    /// Takes in that so many events were forgotten before they could be taken in.
    pub fn handle_missed(&mut self, count: u64) {
        self.held_back += count;
    }

    /// Takes in that what was handed out for a router is done with.
    pub fn handle_done(&mut self, router: &str) {
        self.under_way.remove(router);
    }

    /// What to send next. Whoever sends a change of role says when that is done with.
    pub fn poll(&mut self, now: Duration) -> Option<Delivery> {
        if let Some(record) = self.pop_queued() {
            return Some(Delivery::Event(record));
        }
        if let Some(router) = self.first_late().cloned()
            && self.roles.take(now)
        {
            return self.pop_late(router);
        }
        if self.held_back > 0 && self.others.full_at <= now {
            self.is_holding = false;
            return Some(Delivery::HeldBack(std::mem::take(&mut self.held_back)));
        }
        None
    }

    /// As [`Self::poll`] when there is no time left to wait in.
    pub fn poll_last(&mut self) -> Option<Delivery> {
        if let Some(record) = self.pop_queued() {
            return Some(Delivery::Event(record));
        }
        if let Some(router) = self.first_late().cloned() {
            return self.pop_late(router);
        }
        let held_back = std::mem::take(&mut self.held_back);
        (held_back > 0).then_some(Delivery::HeldBack(held_back))
    }

    /// The first that has to wait for nobody.
    fn pop_queued(&mut self) -> Option<Arc<Record>> {
        let mut queue = self.queue.iter();
        let is_free = |router: Option<&str>| router.is_none_or(|it| !self.under_way.contains(it));
        let at = queue.position(|record| is_free(changed_router(record)))?;
        let record = self.queue.remove(at)?;
        let router = changed_router(&record).map(str::to_owned);
        self.under_way.extend(router);
        Some(record)
    }

    /// A router that is late and has to wait for nobody: what is queued of it was sent before.
    fn first_late(&self) -> Option<&String> {
        let mut late = self.late.keys();
        late.find(|router| !self.under_way.contains(*router))
    }

    fn pop_late(&mut self, router: String) -> Option<Delivery> {
        let record = self.late.remove(&router)?;
        self.under_way.insert(router);
        Some(Delivery::Event(record))
    }

    /// When there may be something to send although nothing came in.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let late = self.first_late().map(|_| self.roles.next());
        let held_back = (self.held_back > 0).then_some(self.others.full_at);
        [late, held_back].into_iter().flatten().min()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.late.len()
    }
}

/// The router the role of which has changed, if that is what happened.
pub fn changed_router(record: &Record) -> Option<&str> {
    if let Event::RoleChanged { router, .. } = &record.event {
        Some(router)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Delivery, Outbox, QUEUE, changed_router};
    use crate::core::event::ring::{Filter, Record};
    use crate::core::event::{Event, Kind, Severity};
    use crate::core::vrrp::role::{Cause, Role};

    fn record(event: Event) -> Arc<Record> {
        Arc::new(Record {
            seq: 1,
            unix_millis: 0,
            event,
        })
    }

    fn service_down() -> Arc<Record> {
        record(Event::ServiceDown {
            service: "mqtt".to_owned(),
        })
    }

    fn changed(router: &str, to: Role) -> Arc<Record> {
        record(Event::RoleChanged {
            router: router.to_owned(),
            from: Role::Backup,
            to,
            cause: Cause::Silence,
            priority: 100,
        })
    }

    fn outbox(per_minute: u32) -> Outbox {
        let filter = Filter {
            least: Some(Severity::Notice),
            ..Filter::default()
        };
        Outbox::new(filter, per_minute)
    }

    /// All that is sent, each before the next.
    fn drain(outbox: &mut Outbox, now: Duration) -> Vec<Delivery> {
        send_all(outbox, |outbox| outbox.poll(now))
    }

    fn send_all(
        outbox: &mut Outbox,
        mut next: impl FnMut(&mut Outbox) -> Option<Delivery>,
    ) -> Vec<Delivery> {
        let mut sent = Vec::new();
        while let Some(delivery) = next(outbox) {
            if let Delivery::Event(record) = &delivery
                && let Some(router) = changed_router(record)
            {
                outbox.handle_done(router);
            }
            sent.push(delivery);
        }
        sent
    }

    const START: Duration = Duration::from_secs(1_000);

    #[test]
    fn what_is_beyond_the_rate_is_told_in_one_sentence_a_minute_later() {
        let mut outbox = outbox(3);
        for _ in 0..10 {
            outbox.handle(&service_down(), START);
        }
        assert_eq!(drain(&mut outbox, START).len(), 3);
        let due = outbox.next_deadline().unwrap();
        assert_eq!(due, START + Duration::from_secs(60));
        assert_eq!(drain(&mut outbox, due - Duration::from_millis(1)), []);
        assert_eq!(drain(&mut outbox, due), [Delivery::HeldBack(7)]);
        assert_eq!(outbox.next_deadline(), None);
        outbox.handle(&service_down(), due);
        assert_eq!(drain(&mut outbox, due).len(), 1);
    }

    #[test]
    fn the_last_role_of_each_router_is_sent_whatever_the_rate() {
        let mut outbox = outbox(2);
        for _ in 0..10 {
            outbox.handle(&service_down(), START);
        }
        let last = changed("front", Role::Active);
        for _ in 0..5 {
            outbox.handle(&changed("front", Role::Backup), START);
            outbox.handle(&last, START);
        }
        // Two of the others, two changes, and one change when there is a token again.
        assert_eq!(drain(&mut outbox, START).len(), 4);
        let due = outbox.next_deadline().unwrap();
        assert_eq!(due, START + Duration::from_secs(30));
        assert_eq!(drain(&mut outbox, due), [Delivery::Event(last)]);
        let rest = drain(&mut outbox, START + Duration::from_secs(120));
        assert_eq!(rest, [Delivery::HeldBack(8 + 7)]);
    }

    #[test]
    fn a_stop_waits_for_no_rate() {
        let mut outbox = outbox(1);
        for role in [Role::Active, Role::Backup] {
            outbox.handle(&changed("front", role), START);
        }
        outbox.handle(&service_down(), START);
        outbox.handle(&service_down(), START);
        let sent = send_all(&mut outbox, Outbox::poll_last);
        assert_eq!(sent.len(), 4);
        assert_eq!(sent[2], Delivery::Event(changed("front", Role::Backup)));
        assert_eq!(sent[3], Delivery::HeldBack(1));
    }

    #[test]
    fn noise_is_for_those_who_name_it_and_failures_to_notify_for_nobody() {
        let noise = record(Event::VipRefused {
            error: "no".to_owned(),
        });
        let failed = record(Event::NotifyFailed {
            notifier: "mail".to_owned(),
            error: "no".to_owned(),
        });
        let mut plain = outbox(10);
        let mut named = outbox(10);
        named.filter.kinds = vec![Kind::VipRefused, Kind::NotifyFailed];
        for outbox in [&mut plain, &mut named] {
            outbox.handle(&noise, START);
            outbox.handle(&failed, START);
        }
        assert_eq!(drain(&mut plain, START), []);
        assert_eq!(drain(&mut named, START), [Delivery::Event(noise)]);
    }

    #[test]
    fn a_change_of_role_waits_for_the_one_before_it_and_for_nothing_else() {
        let mut outbox = outbox(3);
        let front = [Role::Active, Role::Backup, Role::Initialize].map(|to| changed("front", to));
        let rear = changed("rear", Role::Active);
        outbox.handle(&front[0], START);
        outbox.handle(&front[1], START);
        outbox.handle(&rear, START);
        // Beyond the rate, so it is late.
        outbox.handle(&front[2], START);
        outbox.handle(&service_down(), START);
        let due = START + Duration::from_secs(30);
        let event = |record: &Arc<Record>| Some(Delivery::Event(Arc::clone(record)));
        for sent in [&front[0], &rear, &service_down()] {
            assert_eq!(outbox.poll(due), event(sent));
        }
        assert_eq!((outbox.poll(due), outbox.next_deadline()), (None, None));
        outbox.handle_done("rear");
        assert_eq!((outbox.poll(due), outbox.poll_last()), (None, None));
        for sent in &front[1..] {
            outbox.handle_done("front");
            assert_eq!(outbox.poll(due), event(sent));
        }
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn a_queue_that_nobody_empties_does_not_grow() {
        let mut outbox = outbox(1_000_000);
        for _ in 0..QUEUE + 7 {
            outbox.handle(&service_down(), START);
        }
        assert_eq!(outbox.waiting(), QUEUE);
        assert_eq!(outbox.held_back, 7);
    }
}
