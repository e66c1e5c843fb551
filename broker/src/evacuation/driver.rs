//! Has the shards send clients away.

use std::time::Instant;

use futures_util::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use tracing::info;

use super::{Aim, Order, Turn, course::TURN};
use crate::{
    control::shards::{Shards, Unanswered},
    events::Event,
    metrics::Metric,
    routes::ShardId,
    shard::{Backlog, Request, SeeOff, SeenOff},
};

/// Clients that a shard sends away before others get their turn.
const MOST: u64 = 64;

/// Questions to each shard in one turn. Where few of many sessions have a client, the next turn goes
/// on.
const ROUNDS: usize = 64;

/// Works for as long as the node does.
pub(crate) async fn drive(shards: Shards) {
    let shared = shards.shared();
    let evacuation = &shared.evacuation;
    let mut ways: Vec<_> = shards.ids().map(Way::new).collect();
    loop {
        evacuation.note_sent(hear_late(&mut ways), Instant::now());
        let connected = shared.metrics.get(Metric::SessionsConnected);
        let until = match evacuation.poll(connected, Instant::now()) {
            Turn::Rest => {
                evacuation.ordered.notified().await;
                continue;
            }
            Turn::Wait(until) => until,
            Turn::Send(clients, order) => {
                let sent = send_away(&shards, &mut ways, clients, &order).await;
                let now = Instant::now();
                evacuation.note_sent(sent, now);
                now + TURN
            }
            Turn::Emptied(sent) => {
                info!(
                    sent,
                    "evacuated: no client is left, and new ones are refused"
                );
                shared.events.tell(&Event::Evacuated { sent });
                continue;
            }
            Turn::Over(sent) => {
                info!(sent, "rebalanced: new clients are welcome again");
                shared.events.tell(&Event::Rebalanced { sent });
                continue;
            }
        };
        // Orders are few, and a look too many does no harm.
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = evacuation.ordered.notified() => {}
        }
    }
}

/// How far one shard has come.
struct Way<'a> {
    shard: ShardId,
    /// Where it goes on.
    from: u32,
    /// What it has not answered yet.
    asked: Option<BoxFuture<'a, Result<SeenOff, Unanswered>>>,
    /// What it has answered, until that is counted.
    seen: Option<SeenOff>,
    /// Nobody is left there, as far as this turn goes.
    is_done: bool,
}

impl<'a> Way<'a> {
    fn new(shard: ShardId) -> Self {
        Self {
            shard,
            from: 0,
            asked: None,
            seen: None,
            is_done: false,
        }
    }

    fn ask(&mut self, shards: &'a Shards, clients: u64, order: &Order) {
        let see_off = SeeOff {
            from: self.from,
            clients,
            reason: order.referral.reason(),
            servers: order.referral.servers.clone(),
            wills: order.wills,
            backlog: match order.aim {
                Aim::Empty => Backlog::Stays,
                Aim::Keep(_) => Backlog::HandedOn,
            },
        };
        let asked = shards.ask(self.shard, |answer| Request::SeeOff(see_off, answer));
        self.asked = Some(asked.boxed());
    }

    /// Waits for its answer, if one is due.
    async fn hear(&mut self) {
        if let Some(asked) = &mut self.asked {
            let answer = asked.await;
            self.asked = None;
            // One that does not answer is told of by the pulse.
            self.seen = answer.ok();
        }
    }

    /// How many clients it has sent away since this was last asked.
    fn take_seen(&mut self) -> u64 {
        let Some(SeenOff { clients, reached }) = self.seen.take() else {
            return 0;
        };
        self.from = reached.unwrap_or(0);
        self.is_done = clients == 0 && reached.is_none();
        clients
    }
}

/// Has the shards send so many clients away in all, each as many as the others; one that has no
/// more leaves its part to them. One that is late is asked nothing more until it has answered, and
/// nobody waits for it.
async fn send_away<'a>(
    shards: &'a Shards,
    ways: &mut [Way<'a>],
    clients: u64,
    order: &Order,
) -> u64 {
    let mut sent = 0;
    for way in &mut *ways {
        way.is_done = false;
    }
    let until = Instant::now() + TURN;
    for _ in 0..ROUNDS {
        let mut left = clients.saturating_sub(sent);
        let free = |way: &&mut Way<'_>| way.asked.is_none() && !way.is_done;
        let mut asked: Vec<_> = ways.iter_mut().filter(free).collect();
        let mut others = asked.len() as u64;
        for way in &mut asked {
            let clients = left.div_ceil(others).min(MOST);
            others -= 1;
            left -= clients;
            if clients > 0 {
                way.ask(shards, clients, order);
            }
        }
        asked.retain(|way| way.asked.is_some());
        if asked.is_empty() {
            break;
        }
        let heard = future::join_all(asked.iter_mut().map(|way| way.hear()));
        let are_late = tokio::time::timeout_at(until.into(), heard).await.is_err();
        sent += asked.iter_mut().map(|way| way.take_seen()).sum::<u64>();
        if are_late {
            break;
        }
    }
    sent
}

/// How many clients were sent away by shards that were late.
fn hear_late(ways: &mut [Way<'_>]) -> u64 {
    let mut sent = 0;
    for way in ways {
        way.hear().now_or_never();
        sent += way.take_seen();
    }
    sent
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        evacuation::{Referral, Term, Wills},
        shard::Shared,
    };

    fn shards() -> (Shards, Vec<mpsc::Receiver<Request>>) {
        let shared = Shared::for_tests("", 2);
        let (senders, receivers) = (0..2).map(|_shard| mpsc::channel(8)).unzip();
        (Shards::new(shared, senders), receivers)
    }

    fn order() -> Order {
        Order {
            aim: Aim::Empty,
            rate: NonZeroU32::MIN,
            wait: Duration::ZERO,
            referral: Referral {
                term: Term::Temporary,
                servers: None,
            },
            wills: Wills::Held,
        }
    }

    /// Answers as a shard with so many clients.
    async fn serve(mut requests: mpsc::Receiver<Request>, mut clients: u64) {
        while let Some(request) = requests.recv().await {
            let Request::SeeOff(whom, answer) = request else {
                continue;
            };
            let sent = clients.min(whom.clients);
            clients -= sent;
            let seen = SeenOff {
                clients: sent,
                reached: None,
            };
            let _ = answer.send(seen);
        }
    }

    #[tokio::test]
    async fn one_that_has_few_clients_leaves_its_part_to_the_others() {
        let (shards, mut requests) = shards();
        tokio::spawn(serve(requests.remove(1), 500));
        tokio::spawn(serve(requests.remove(0), 3));
        let mut ways: Vec<_> = shards.ids().map(Way::new).collect();
        assert_eq!(send_away(&shards, &mut ways, 200, &order()).await, 200);
        // Of one client the first is asked, which has none.
        assert_eq!(send_away(&shards, &mut ways, 1, &order()).await, 1);
        assert_eq!(send_away(&shards, &mut ways, 1000, &order()).await, 302);
        assert_eq!(send_away(&shards, &mut ways, 1000, &order()).await, 0);
    }

    #[tokio::test]
    async fn shard_that_hangs_holds_up_nobody_and_what_it_does_at_last_is_counted() {
        let (shards, mut requests) = shards();
        tokio::spawn(serve(requests.remove(1), 5000));
        let mut hanging = requests.remove(0);
        let mut ways: Vec<_> = shards.ids().map(Way::new).collect();
        let turns = async {
            for turn in 0..10 {
                let sent = send_away(&shards, &mut ways, 50, &order()).await;
                // Of the first turn it was to have a half.
                assert_eq!(sent, if turn == 0 { 25 } else { 50 });
            }
        };
        tokio::time::timeout(Duration::from_secs(4), turns)
            .await
            .unwrap();
        let Some(Request::SeeOff(whom, answer)) = hanging.recv().await else {
            panic!("it was not asked");
        };
        assert!(hanging.try_recv().is_err());
        assert_eq!(hear_late(&mut ways), 0);
        let reached = Some(7);
        let clients = whom.clients;
        answer.send(SeenOff { clients, reached }).unwrap();
        assert_eq!(hear_late(&mut ways), 25);
        assert_eq!(ways[0].from, 7);
    }
}
