//! How far clients are sent away, and who is next. Pure; the time is passed in.
//!
//! ```text
//! waiting: serves on, not ready      a balancer looks, and sends new clients elsewhere
//! sending: refuses, so many a second
//! reached: evacuated until told otherwise, or, after a rebalance, ready again
//! ```

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    codec::packet::{ConnectCode, reason},
    rate::{Bucket, Rate},
};

/// Between two looks while clients are sent away: short, so that they come elsewhere evenly, and
/// long enough to cost nothing.
pub(super) const TURN: Duration = Duration::from_millis(100);

/// So much of a second's clients may be sent away at once: a node that was busy for longer is not to
/// make up for all of it.
const TURNS_PER_SECOND: u32 = 10;

/// Between two looks once all have gone: one may have been let in when the refusing began.
const IDLE: Duration = Duration::from_secs(1);

/// Who is to be sent away, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) aim: Aim,
    /// Clients a second.
    pub(crate) rate: NonZeroU32,
    /// What balancers get to see that the node is not ready.
    pub(crate) wait: Duration,
    pub(crate) referral: Referral,
    pub(crate) wills: Wills,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Nobody is left, and nobody comes.
    Empty,
    /// So many are left.
    Keep(u64),
}

/// What clients are told (MQTT 5, 4.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Referral {
    pub(crate) term: Term,
    /// Where to go, as a list separated by spaces.
    pub(crate) servers: Option<Box<str>>,
}

/// For how long they are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Temporary,
    Permanent,
}

/// What becomes of the wills of those who are sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wills {
    /// Those with a delay wait for it; the others are not published: their clients have not died.
    Held,
    /// As if the connections had broken.
    Published,
}

impl Referral {
    /// In a DISCONNECT.
    pub(crate) fn reason(&self) -> u8 {
        match self.term {
            Term::Temporary => reason::USE_ANOTHER_SERVER,
            Term::Permanent => reason::SERVER_MOVED,
        }
    }

    /// In a CONNACK.
    pub(crate) fn code(&self) -> ConnectCode {
        match self.term {
            Term::Temporary => ConnectCode::UseAnotherServer,
            Term::Permanent => ConnectCode::ServerMoved,
        }
    }
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Instant),
    /// Send so many away.
    Send(u64),
    /// The last one has gone; said once.
    Emptied,
    /// So few are left as were wanted: all is as before.
    Over,
}

/// An order on its way.
#[derive(Debug)]
pub(super) struct Course {
    order: Arc<Order>,
    began: Instant,
    sent: u64,
    left: u64,
    /// Absent while nobody is sent away.
    bucket: Option<Bucket>,
    is_emptied: bool,
    /// The node stops when all have gone.
    is_final: bool,
}

impl Course {
    pub(super) fn new(order: Arc<Order>, connected: u64, now: Instant) -> Self {
        Self {
            left: order.aim.above(connected),
            order,
            began: now,
            sent: 0,
            bucket: None,
            is_emptied: false,
            is_final: false,
        }
    }

    /// The last one of a node, whatever was ordered before.
    pub(super) fn last(order: Arc<Order>, connected: u64, now: Instant) -> Self {
        Self {
            is_final: true,
            ..Self::new(order, connected, now)
        }
    }

    /// Whether no other order is taken.
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    /// Takes another order. Balancers are not waited for anew.
    pub(super) fn change(&mut self, order: Arc<Order>) {
        self.order = order;
        self.bucket = None;
        self.is_emptied = false;
    }

    pub(super) fn order(&self) -> &Arc<Order> {
        &self.order
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Those who are yet to be sent away.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn is_emptied(&self) -> bool {
        self.is_emptied
    }

    /// How long clients are still welcome.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        (self.began + self.order.wait).saturating_duration_since(now)
    }

    /// Whether new clients are sent on at once.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        self.rest(now).is_zero()
    }

    pub(super) fn poll(&mut self, connected: u64, now: Instant) -> Step {
        self.left = self.order.aim.above(connected);
        if self.left == 0 && matches!(self.order.aim, Aim::Keep(_)) {
            return Step::Over;
        }
        let rest = self.rest(now);
        if !rest.is_zero() {
            return Step::Wait(now + rest);
        }
        if self.left == 0 {
            if self.is_emptied {
                return Step::Wait(now + IDLE);
            }
            self.is_emptied = true;
            return Step::Emptied;
        }
        let bucket = self
            .bucket
            .get_or_insert_with(|| Bucket::new(pace(self.order.rate), now));
        match bucket.tokens(now).min(self.left) {
            0 => Step::Wait(now + TURN),
            clients => Step::Send(clients),
        }
    }

    pub(super) fn handle_sent(&mut self, clients: u64, now: Instant) {
        self.sent += clients;
        self.left = self.left.saturating_sub(clients);
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(clients, now);
        }
    }
}

impl Aim {
    /// How many of so many clients are too many.
    fn above(self, connected: u64) -> u64 {
        match self {
            Self::Empty => connected,
            Self::Keep(clients) => connected.saturating_sub(clients),
        }
    }
}

fn pace(rate: NonZeroU32) -> Rate {
    Rate {
        per_second: rate,
        burst: NonZeroU32::new(rate.get() / TURNS_PER_SECOND).unwrap_or(NonZeroU32::MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(aim: Aim, rate: u32, wait: u64) -> Arc<Order> {
        Arc::new(Order {
            aim,
            rate: NonZeroU32::new(rate).unwrap(),
            wait: Duration::from_secs(wait),
            referral: Referral {
                term: Term::Temporary,
                servers: None,
            },
            wills: Wills::Held,
        })
    }

    /// Runs an order to its end; tells at which milliseconds how many are sent away.
    fn run(course: &mut Course, mut connected: u64, start: Instant) -> Vec<(u128, u64)> {
        let (mut now, mut sent) = (start, Vec::new());
        loop {
            match course.poll(connected, now) {
                Step::Wait(until) => now = until,
                Step::Send(clients) => {
                    connected -= clients;
                    course.handle_sent(clients, now);
                    sent.push(((now - start).as_millis(), clients));
                }
                Step::Emptied | Step::Over => return sent,
            }
        }
    }

    #[test]
    fn clients_go_at_the_rate_once_balancers_have_looked() {
        let start = Instant::now();
        let mut course = Course::new(order(Aim::Empty, 500, 10), 1000, start);
        assert!(!course.refuses(start + Duration::from_millis(9999)));
        assert!(course.refuses(start + Duration::from_secs(10)));
        let sent = run(&mut course, 1000, start);
        assert_eq!((sent.first(), sent.len()), (Some(&(10_000, 50)), 20));
        assert_eq!(sent.last(), Some(&(11_900, 50)));
        assert_eq!((course.sent(), course.left()), (1000, 0));
        assert!(course.is_emptied());
    }

    #[test]
    fn one_client_a_second_is_a_rate_too() {
        let start = Instant::now();
        let mut course = Course::new(order(Aim::Empty, 1, 0), 3, start);
        assert_eq!(run(&mut course, 3, start), [(0, 1), (1000, 1), (2000, 1)]);
    }

    #[test]
    fn whoever_slips_in_is_sent_away_and_the_end_is_said_once() {
        let start = Instant::now();
        let mut course = Course::new(order(Aim::Empty, 10, 0), 0, start);
        assert_eq!(course.poll(0, start), Step::Emptied);
        assert_eq!(course.poll(0, start), Step::Wait(start + IDLE));
        assert_eq!(course.poll(1, start + IDLE), Step::Send(1));
        course.handle_sent(1, start + IDLE);
        assert_eq!(course.poll(0, start + IDLE), Step::Wait(start + 2 * IDLE));
    }

    #[test]
    fn rebalance_is_over_when_no_more_than_wanted_are_left() {
        let start = Instant::now();
        let mut course = Course::new(order(Aim::Keep(70), 100, 0), 100, start);
        assert_eq!(course.left(), 30);
        let sent = run(&mut course, 100, start);
        assert_eq!(sent, [(0, 10), (100, 10), (200, 10)]);
        let mut course = Course::new(order(Aim::Keep(70), 100, 60), 70, start);
        assert_eq!(course.poll(70, start), Step::Over);
    }

    #[test]
    fn another_order_changes_the_rate_and_waits_for_nobody() {
        let start = Instant::now();
        let mut course = Course::new(order(Aim::Empty, 10, 5), 100, start);
        let later = start + Duration::from_secs(5);
        assert_eq!(course.poll(100, later), Step::Send(1));
        course.handle_sent(1, later);
        course.change(order(Aim::Empty, 1000, 5));
        assert_eq!(course.poll(99, later), Step::Send(99));
        assert_eq!(course.sent(), 1);
    }
}
