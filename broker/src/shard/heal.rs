//! What a shard does about sessions when it meets another node, again or for the first time.
//!
//! While two nodes did not hear of each other, both may have let in a client of one id. So each claims
//! the ids of all its sessions from the other one, a page at a time. The older session goes to the
//! newer one, as it does when a client connects, and what waits in it is added to what waits there.
//!
//! So it is with copies that become sessions: clients may have gone to a third node before, which
//! found none.

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use super::Shard;
use crate::cluster::{
    claims::{Claim, Fellow, Terms},
    word::Word,
};

/// Sessions that are claimed in a turn.
const PAGE: usize = 256;

/// Bytes that may wait for a lane before no more are.
const ROOM: usize = 128 * 1024;

/// Sessions that are claimed from a node.
pub(super) struct Meeting {
    with: Fellow,
    matter: Matter,
}

enum Matter {
    /// All, behind the last client id that it was told.
    All(Option<Arc<str>>),
    /// Those of these clients.
    Some(VecDeque<Arc<str>>),
}

impl Meeting {
    /// With a node that was met.
    pub(super) fn new(with: Fellow) -> Self {
        let matter = Matter::All(None);
        Self { with, matter }
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
                && self.claim_page(meeting.with, &mut meeting.matter);
            if !is_over {
                self.clustered.meetings.push(meeting);
            }
        }
        !self.clustered.meetings.is_empty()
    }

    /// Claims sessions of copies from all nodes that are there.
    pub(super) fn claim_promoted(&mut self, client_ids: &VecDeque<Arc<str>>) {
        let fellows = self.clustered.fellows.iter();
        let meetings = fellows.map(|fellow| Meeting {
            with: *fellow,
            matter: Matter::Some(client_ids.clone()),
        });
        self.clustered.meetings.extend(meetings);
        self.outbox_work.notify_one();
    }

    /// Claims the next sessions; tells whether these were the last.
    fn claim_page(&mut self, from: Fellow, matter: &mut Matter) -> bool {
        let page: Vec<_> = match matter {
            Matter::All(after) => {
                let begin = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let sessions = self.sessions.range(begin);
                let page = sessions.map(|(_client_id, entry)| Arc::clone(&entry.client_id));
                page.take(PAGE).collect()
            }
            Matter::Some(client_ids) => {
                let most = PAGE.min(client_ids.len());
                client_ids.drain(..most).collect()
            }
        };
        for client_id in &page {
            self.claim_session(from, client_id);
        }
        let is_last = page.len() < PAGE;
        if let Matter::All(after) = matter {
            *after = page.into_iter().next_back();
        }
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
            is_bereft: false,
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
