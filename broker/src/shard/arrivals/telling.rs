//! What older nodes are told of sessions that have come from them.

use std::sync::Arc;

use super::Telling;
use crate::{
    cluster::{claims::Fellow, word::Word},
    shard::Shard,
};

impl Shard {
    /// Has an older node hear when all nodes know of a session's filters here.
    pub(in crate::shard) fn tell_when_known(
        &mut self,
        to: Fellow,
        client_id: &Arc<str>,
        time: u64,
    ) {
        let cluster = self.shared.cluster.as_ref();
        let version = cluster.and_then(|cluster| cluster.untold()).unwrap_or(0);
        self.clustered.tellings.push_back(Telling {
            version,
            to,
            client_id: Arc::clone(client_id),
            time,
        });
        self.release_tellings();
    }

    /// Tells older nodes of sessions whose filters all nodes know.
    pub(in crate::shard) fn release_tellings(&mut self) {
        let Some(cluster) = &self.shared.cluster else {
            return;
        };
        let known = *cluster.known().borrow();
        while let Some(telling) = self
            .clustered
            .tellings
            .pop_front_if(|telling| telling.version <= known)
        {
            let Telling {
                version: _,
                to,
                client_id,
                time,
            } = telling;
            if self.clustered.fellows.contains(&to) {
                let client_id = &*client_id;
                self.say(to.end, &Word::Told { client_id, time }, false);
            }
        }
    }
}
