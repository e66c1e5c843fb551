//! Clients that are sent away, so that the node can be stopped, or has no more of them than others.
//!
//! An operator orders it (`control/node.rs`). The node says at once that it is not ready, and once
//! balancers have had the time to see that, refuses new clients and sends those that are there
//! away, so many a second: nobody has to bear all of them coming at one moment. Sessions stay where they
//! are, as with any connection that ends.
//!
//! `course` decides; `driver` has the shards do it (`shard/seeing_off.rs`). Nodes of a cluster tell each
//! other how many clients they have; `share` says how many of them are a node's part.

mod course;
mod driver;
mod share;

use std::{
    num::NonZeroU32,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::Notify;
use tracing::info;

pub(crate) use course::{Aim, Order, Referral, Term, Wills};
use course::{Course, Step};
pub(crate) use driver::drive;
pub(crate) use share::{NoShare, Other, fair_share};

use crate::{
    control::view::{EvacuationAim, EvacuationPhase, EvacuationView},
    metrics::{Metric, Metrics, render_head, render_value},
};

/// What the last clients of a node that stops have beside the time by the rate.
const LATE: Duration = Duration::from_secs(5);

/// Whether clients are sent away, and how far that has come.
#[derive(Debug, Default)]
pub(crate) struct Evacuation {
    course: RwLock<Option<Course>>,
    /// There is another order, or none any more.
    ordered: Notify,
}

/// Clients are sent away because the node stops, and no other order can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the node stops, and sends its clients away for that")]
pub(crate) struct Stopping;

/// What the driver has to do.
enum Turn {
    /// Wait for an order.
    Rest,
    Wait(Instant),
    Send(u64, Arc<Order>),
    /// All have gone.
    Emptied(u64),
    /// The order has ended.
    Over(u64),
}

impl Evacuation {
    /// Whether an order would be taken.
    ///
    /// # Errors
    /// When the node stops.
    pub(crate) fn ready_for_orders(&self) -> Result<(), Stopping> {
        let course = self.course.read().unwrap_or_else(PoisonError::into_inner);
        match &*course {
            Some(course) if course.is_final() => Err(Stopping),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends clients away from now on, of which so many are connected; tells how that begins.
    ///
    /// # Errors
    /// When the node stops.
    pub(crate) fn start(
        &self,
        order: Order,
        connected: u64,
        now: Instant,
    ) -> Result<EvacuationView, Stopping> {
        let order = Arc::new(order);
        let mut state = self.course.write().unwrap_or_else(PoisonError::into_inner);
        let course = match &mut *state {
            Some(course) if course.is_final() => return Err(Stopping),
            Some(course) => {
                course.change(order);
                course
            }
            None => state.insert(Course::new(order, connected, now)),
        };
        // Where few are too many it may be over as soon as it is looked at.
        let view = view_of(course, now);
        drop(state);
        self.ordered.notify_one();
        Ok(view)
    }

    /// Sends all clients away at a rate, beginning now, as a stop does; returns when they have gone,
    /// or should have.
    pub(crate) async fn empty(&self, rate: NonZeroU32, metrics: &Metrics) {
        let connected = metrics.get(Metric::SessionsConnected);
        let order = Order {
            aim: Aim::Empty,
            rate,
            wait: Duration::ZERO,
            referral: Referral {
                term: Term::Temporary,
                servers: None,
            },
            wills: Wills::Held,
        };
        let order = Course::last(Arc::new(order), connected, Instant::now());
        *self.course.write().unwrap_or_else(PoisonError::into_inner) = Some(order);
        self.ordered.notify_one();
        // A node that is too busy to keep to the rate is not to stay for ever.
        let due = Duration::from_secs(connected.div_ceil(u64::from(rate.get())));
        let gone = async {
            while metrics.get(Metric::SessionsConnected) > 0 {
                tokio::time::sleep(course::TURN).await;
            }
        };
        let patience = 2 * due + LATE;
        if tokio::time::timeout(patience, gone).await.is_err() {
            info!("not all clients are gone in the time that their number and the rate give");
        }
    }

    /// Sends nobody away any more; tells whether somebody was to be.
    ///
    /// # Errors
    /// When the node stops: whoever came then would keep it from that.
    pub(crate) fn stop(&self) -> Result<bool, Stopping> {
        let mut course = self.course.write().unwrap_or_else(PoisonError::into_inner);
        if course.as_ref().is_some_and(Course::is_final) {
            return Err(Stopping);
        }
        let was_on = course.take().is_some();
        drop(course);
        self.ordered.notify_one();
        Ok(was_on)
    }

    /// Whether balancers should send new clients elsewhere.
    pub(crate) fn is_on(&self) -> bool {
        self.read(|_course| ()).is_some()
    }

    /// Whether nobody is to be left.
    pub(crate) fn is_emptying(&self) -> bool {
        self.read(|course| course.order().aim == Aim::Empty) == Some(true)
    }

    /// Where a new client is to go, if it cannot come here.
    pub(crate) fn refuses(&self, now: Instant) -> Option<Arc<Order>> {
        self.read(|course| course.refuses(now).then(|| Arc::clone(course.order())))?
    }

    pub(crate) fn view(&self, now: Instant) -> Option<EvacuationView> {
        self.read(|course| view_of(course, now))
    }

    /// Appends it in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let view = self.view(Instant::now());
        let help = "1 while clients are sent away, or all have been.";
        render_head(out, "evacuating", "gauge", help);
        render_value(out, "evacuating", "", u64::from(view.is_some()));
        let help = "Clients that are yet to be sent away.";
        render_head(out, "evacuation_left", "gauge", help);
        let left = view.map_or(0, |view| view.left);
        render_value(out, "evacuation_left", "", left);
    }

    fn read<T>(&self, ask: impl FnOnce(&Course) -> T) -> Option<T> {
        let course = self.course.read().unwrap_or_else(PoisonError::into_inner);
        course.as_ref().map(ask)
    }

    fn poll(&self, connected: u64, now: Instant) -> Turn {
        let mut state = self.course.write().unwrap_or_else(PoisonError::into_inner);
        let Some(course) = &mut *state else {
            return Turn::Rest;
        };
        match course.poll(connected, now) {
            Step::Wait(until) => Turn::Wait(until),
            Step::Send(clients) => Turn::Send(clients, Arc::clone(course.order())),
            Step::Emptied => Turn::Emptied(course.sent()),
            Step::Over => {
                let sent = course.sent();
                *state = None;
                Turn::Over(sent)
            }
        }
    }

    fn note_sent(&self, clients: u64, now: Instant) {
        let mut course = self.course.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(course) = &mut *course {
            course.handle_sent(clients, now);
        }
    }
}

fn view_of(course: &Course, now: Instant) -> EvacuationView {
    let Order {
        aim,
        rate,
        wait: _,
        referral,
        wills: _,
    } = &**course.order();
    let phase = if course.is_emptied() {
        EvacuationPhase::Evacuated
    } else if course.refuses(now) {
        EvacuationPhase::Sending
    } else {
        EvacuationPhase::Waiting
    };
    EvacuationView {
        aim: match aim {
            Aim::Empty => EvacuationAim::Evacuate,
            Aim::Keep(_) => EvacuationAim::Rebalance,
        },
        phase,
        begins_in_seconds: course.rest(now).as_secs_f64().ceil() as u64,
        sent: course.sent(),
        left: course.left(),
        rate: *rate,
        servers: referral.servers.as_deref().map(str::to_owned),
    }
}

/// The rate at which clients are sent away unless another is named.
pub(crate) const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(500).expect("500 is not 0");
