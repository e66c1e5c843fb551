//! What is said beside the streams: questions, answers and tallies. Nothing of it is repeated, and none
//! of it stands for a beat: whether a node takes messages is told by what it has taken.

use bytes::Bytes;

use super::{Action, Core, LinkId};
use crate::cluster::{view::Tally, wire::Message};

impl Core {
    /// Says something to a member; tells over which connection, if there is one.
    pub(in crate::cluster) fn say_aside(
        &mut self,
        node: &str,
        message: &Message,
    ) -> Option<LinkId> {
        let id = self.peers.get(node).filter(|peer| peer.is_alive())?.link?;
        self.answer(id, message.encode()).then_some(id)
    }

    /// Sends an answer over the connection on which it was asked; `false` if that has ended.
    pub(in crate::cluster) fn answer(&mut self, id: LinkId, message: Bytes) -> bool {
        let is_open = self.links.get(&id).is_some_and(|link| link.is_open);
        if is_open {
            self.actions.push_back(Action::Send(id, message));
        }
        is_open
    }

    /// Tells all members that are there how much this node has.
    pub(in crate::cluster) fn tell_tally(&mut self, tally: Tally) {
        let message = Message::Tally(self.time, tally).encode();
        let alive = self.peers.values().filter(|peer| peer.is_alive());
        let links: Vec<_> = alive.filter_map(|peer| peer.link).collect();
        for id in links {
            self.answer(id, message.clone());
        }
    }
}
