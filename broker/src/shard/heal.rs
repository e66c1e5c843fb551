//! What a shard does about sessions when it meets another node, again or for the first time.
//!
//! While two nodes did not hear of each other, both may have let in a client of one id. So each claims
//! the ids of all its sessions from the other one, a page at a time. The older session goes to the
//! newer one, as it does when a client connects, and what waits in it is added to what waits there.

use std::{ops::Bound, sync::Arc};

use super::Shard;
use crate::cluster::{
    claims::{Claim, Fellow, Terms},
    word::Word,
};

/// Sessions that are claimed in a turn.
const PAGE: usize = 256;

/// Bytes that may wait for a lane before no more are.
const ROOM: usize = 128 * 1024;

/// A node that was met.
pub(super) struct Meeting {
    with: Fellow,
    /// The last client id that it was told.
    after: Option<Arc<str>>,
}

impl Meeting {
    pub(super) fn new(with: Fellow) -> Self {
        Self { with, after: None }
    }
}

impl Shard {
    /// Claims sessions from nodes that were met, as far as there is room; tells whether there are more.
    pub(super) fn claim_sessions(&mut self) -> bool {
        let meetings = std::mem::take(&mut self.clustered.meetings);
        for mut meeting in meetings {
            if !self.clustered.fellows.contains(&meeting.with) {
                continue;
            }
            let is_over = self.outbox.waiting(meeting.with.end) <= ROOM
                && self.claim_page(meeting.with, &mut meeting.after);
            if !is_over {
                self.clustered.meetings.push(meeting);
            }
        }
        !self.clustered.meetings.is_empty()
    }

    /// Claims the next sessions; tells whether these were the last.
    fn claim_page(&mut self, from: Fellow, after: &mut Option<Arc<str>>) -> bool {
        let begin = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<_> = self
            .sessions
            .range(begin)
            .map(|(_client_id, entry)| Arc::clone(&entry.client_id))
            .take(PAGE)
            .collect();
        for client_id in &page {
            self.claim_session(from, client_id);
        }
        let is_last = page.len() < PAGE;
        *after = page.into_iter().next_back();
        is_last
    }

    /// Claims the id of a session that is here.
    pub(super) fn claim_session(&mut self, from: Fellow, client_id: &str) {
        let key = self.sessions.find(client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        let Some(entry) = entry.filter(|entry| !entry.is_leaving()) else {
            return;
        };
        let terms = Terms {
            user: entry.owner.user().map(Into::into),
            clean_start: false,
            is_entitled: true,
            has_session: true,
        };
        let time = entry.time;
        if let Some(cluster) = self.shared.cluster.clone() {
            let stamp = cluster.stamp(time);
            let word = Word::Claim {
                client_id,
                stamp,
                terms,
            };
            self.say(from.end, &word, false);
        }
    }

    /// Claims a session back from a node whose own is older.
    pub(super) fn claim_back(&mut self, claim: &Claim) {
        if claim.terms.has_session {
            self.claim_session(claim.from, &claim.client_id);
        }
    }
}
