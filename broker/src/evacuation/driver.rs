//! Has the shards send clients away.

use std::time::Instant;

use tracing::info;

use super::{Order, Turn, course::TURN};
use crate::{
    control::shards::Shards,
    events::Event,
    metrics::Metric,
    shard::{Request, SeeOff},
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
    let mut places = vec![0; usize::from(shared.shards)];
    loop {
        let connected = shared.metrics.get(Metric::SessionsConnected);
        let until = match evacuation.poll(connected, Instant::now()) {
            Turn::Rest => {
                evacuation.ordered.notified().await;
                continue;
            }
            Turn::Wait(until) => until,
            Turn::Send(clients, order) => {
                let sent = send_away(&shards, &mut places, clients, &order).await;
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

/// Has the shards send so many clients away in all, each as many as the others; one that has no
/// more leaves its part to them. `places` is where each goes on.
async fn send_away(shards: &Shards, places: &mut [u32], clients: u64, order: &Order) -> u64 {
    let mut left = clients;
    for _ in 0..ROUNDS {
        let mut is_idle = true;
        let mut others = places.len() as u64;
        for (shard, place) in shards.ids().zip(&mut *places) {
            let clients = left.div_ceil(others).min(MOST);
            others -= 1;
            let see_off = SeeOff {
                from: *place,
                clients,
                reason: order.referral.reason(),
                servers: order.referral.servers.clone(),
                wills: order.wills,
            };
            // One that does not answer is told of by the pulse; the others go on.
            let asked = shards.ask(shard, |answer| Request::SeeOff(see_off, answer));
            let Ok(seen) = asked.await else { continue };
            left -= seen.clients;
            is_idle &= seen.clients == 0 && seen.reached.is_none();
            *place = seen.reached.unwrap_or(0);
        }
        if left == 0 || is_idle {
            break;
        }
    }
    clients - left
}
