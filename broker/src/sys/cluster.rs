//! What a node tells of the other nodes of its cluster, below `$SYS/broker/cluster/`.
//!
//! Each node tells of all, so that whoever is connected to one of them sees them. What is told of
//! others is what they have said last ([`Tally`]).

use std::collections::BTreeSet;

use super::message;
use crate::{
    cluster::view::{ClusterStatus, Tally},
    message::Message,
};

/// Which topics were told the last time: a node that is forgotten leaves none behind.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<String>);

impl Told {
    /// What is told of the cluster; `own` is what this node has.
    pub(super) fn messages(&mut self, status: &ClusterStatus, own: Tally) -> Vec<Message> {
        let alive = status.members.iter().filter(|member| member.alive).count();
        let mut all = vec![
            ("cluster/name".to_owned(), status.cluster.clone()),
            // This one too.
            ("cluster/nodes/alive".to_owned(), (alive + 1).to_string()),
            (
                "cluster/nodes/total".to_owned(),
                (status.members.len() + 1).to_string(),
            ),
        ];
        let state = if status.left { "left" } else { "alive" };
        tell_node(&mut all, &status.node, state, Some(own));
        for member in &status.members {
            let state = match (&member.loss, member.alive) {
                (_, true) => "alive",
                (Some(_why), false) => "gone",
                (None, false) => "joining",
            };
            let tally = member.tally.filter(|_tally| member.alive);
            tell_node(&mut all, &member.node, state, tally);
        }
        let names: BTreeSet<_> = all.iter().map(|(name, _payload)| name.clone()).collect();
        let gone = self.0.difference(&names);
        // Nobody gets an empty message that is retained later on.
        let mut messages: Vec<_> = gone.map(|name| message(name, String::new())).collect();
        self.0 = names;
        let told = all.into_iter();
        messages.extend(told.map(|(name, payload)| message(&name, payload)));
        messages
    }
}

fn tell_node(all: &mut Vec<(String, String)>, node: &str, state: &str, tally: Option<Tally>) {
    let name = |what: &str| format!("cluster/node/{node}/{what}");
    all.push((name("state"), state.to_owned()));
    let Some(tally) = tally else { return };
    let Tally {
        welcomes,
        clients,
        sessions,
        subscriptions,
        retained,
        messages_in,
        messages_out,
    } = tally;
    for (what, count) in [
        ("ready", u64::from(welcomes)),
        ("clients/connected", clients),
        ("clients/total", sessions),
        ("subscriptions/count", subscriptions),
        ("retained messages/count", retained),
        ("publish/messages/received", messages_in),
        ("publish/messages/sent", messages_out),
    ] {
        all.push((name(what), count.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::MemberView;

    const TALLY: Tally = Tally {
        welcomes: true,
        clients: 7,
        sessions: 9,
        subscriptions: 3,
        retained: 1,
        messages_in: 100,
        messages_out: 200,
    };

    fn status(members: Vec<MemberView>) -> ClusterStatus {
        ClusterStatus {
            cluster: "plant".to_owned(),
            node: "a".to_owned(),
            listen: "10.0.0.1:7883".to_owned(),
            acknowledge: "local".to_owned(),
            left: false,
            members,
            met: Vec::new(),
            troubles: Vec::new(),
            copied_sessions: 0,
            bare_sessions: 0,
            copies: 0,
            copy_bytes: 0,
        }
    }

    fn member(node: &str) -> MemberView {
        MemberView {
            node: node.to_owned(),
            address: "10.0.0.2:7883".to_owned(),
            alive: true,
            connected: true,
            synced: true,
            since_seconds: 1,
            loss: None,
            filters: 0,
            queued_bytes: 0,
            lag_seconds: 0.0,
            repeated: 0,
            tally: Some(TALLY),
        }
    }

    fn told(messages: &[Message], name: &str) -> Option<String> {
        let topic = format!("$SYS/broker/cluster/{name}");
        let mut found = messages.iter().filter(|message| *message.topic == *topic);
        let message = found.next()?;
        assert!(found.next().is_none(), "{name} twice");
        Some(String::from_utf8(message.payload.to_vec()).unwrap())
    }

    #[test]
    fn all_nodes_are_told_of_by_each() {
        let mut all = Told::default();
        let messages = all.messages(&status(vec![member("b")]), TALLY);
        let is_legal = |message: &Message| crate::topic::is_valid_name(&message.topic);
        assert!(messages.iter().all(is_legal));
        for (name, payload) in [
            ("name", "plant"),
            ("nodes/alive", "2"),
            ("node/a/state", "alive"),
            ("node/b/state", "alive"),
            ("node/b/clients/connected", "7"),
            ("node/a/publish/messages/sent", "200"),
        ] {
            assert_eq!(told(&messages, name).as_deref(), Some(payload), "{name}");
        }
    }

    #[test]
    fn counts_of_a_node_that_is_gone_go_and_so_does_all_of_one_that_is_forgotten() {
        let mut all = Told::default();
        all.messages(&status(vec![member("b")]), TALLY);
        let gone = MemberView {
            alive: false,
            loss: Some("it was silent for too long".to_owned()),
            ..member("b")
        };
        let messages = all.messages(&status(vec![gone]), TALLY);
        assert_eq!(told(&messages, "nodes/alive").as_deref(), Some("1"));
        assert_eq!(told(&messages, "node/b/state").as_deref(), Some("gone"));
        let cleared = told(&messages, "node/b/clients/connected");
        assert_eq!(cleared.as_deref(), Some(""));
        let messages = all.messages(&status(Vec::new()), TALLY);
        assert_eq!(told(&messages, "node/b/state").as_deref(), Some(""));
        let messages = all.messages(&status(Vec::new()), TALLY);
        assert_eq!(told(&messages, "node/b/state"), None);
    }
}
