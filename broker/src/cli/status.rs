//! `tidegate-broker status`: how the broker is.

use std::process::ExitCode;

use console::{
    output,
    table::{Align, Table},
    units::{duration, size},
};

use super::{
    listing::{self, Scope},
    target::Target,
};
use crate::control::view::{
    AuthenticatorStatus, ClusterNodes, Condition, NodeStatus, Rates, RouterStatus, ShardStatus,
    StoreView,
};

/// Show clients, sessions and traffic of the broker, and the load of its threads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate-broker status\n  \
    tidegate-broker status --cluster   # a line for each node\n  \
    tidegate-broker status --json | jq .rates")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.scope.cluster {
        return run_wide(&args.target);
    }
    let status: NodeStatus = args.target.client()?.get("/v1/status")?;
    let text = if args.target.json {
        output::json(&status)?
    } else {
        render(&status)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn run_wide(target: &Target) -> anyhow::Result<ExitCode> {
    let ClusterNodes { nodes, silent } = target.client()?.get("/v1/cluster/nodes")?;
    let text = if target.json {
        nodes.iter().map(output::json).collect::<Result<_, _>>()?
    } else {
        node_table(&nodes).render()
    };
    output::print(&text)?;
    Ok(listing::outcome(&silent))
}

fn node_table(nodes: &[NodeStatus]) -> Table {
    let mut table = Table::new(&[
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("VERSION", Align::Left),
        ("UP", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("SESSIONS", Align::Right),
        ("FILTERS", Align::Right),
        ("RETAINED", Align::Right),
        ("MSGS IN/S", Align::Right),
        ("MSGS OUT/S", Align::Right),
        ("HIGHEST LOAD", Align::Right),
    ]);
    for node in nodes {
        let loads = node.shards.iter().map(|shard| shard.load);
        table.row(vec![
            node.node.clone(),
            state(node).to_owned(),
            output::printable(&node.version),
            duration(node.uptime_seconds),
            node.connections.to_string(),
            node.sessions.to_string(),
            node.subscriptions.to_string(),
            node.retained.to_string(),
            format!("{:.0}", node.rates.messages_in),
            format!("{:.0}", node.rates.messages_out),
            format!("{:.0} %", loads.fold(0.0, f64::max) * 100.0),
        ]);
    }
    table
}

fn state(status: &NodeStatus) -> &'static str {
    match status.evacuation {
        _ if status.ready => "ready",
        Some(_) => "evacuating",
        None => "not ready",
    }
}

fn render(status: &NodeStatus) -> String {
    let NodeStatus {
        node,
        version,
        pid,
        uptime_seconds,
        ready: _,
        evacuation: _,
        listeners,
        connections,
        sessions,
        subscriptions,
        retained,
        store,
        router,
        authenticators,
        rates,
        shards,
    } = status;
    let Rates {
        connects,
        messages_in,
        messages_out,
        messages_dropped,
        bytes_in,
        bytes_out,
    } = rates;
    let stored = match store {
        Some(store) => render_store(store),
        None => "nothing: sessions and retained messages end with the process".to_owned(),
    };
    let ready = state(status);
    let up = duration(*uptime_seconds);
    let mut text = format!(
        "{node}: {ready}, up {up} (tidegate-broker {version}, pid {pid})\n\
         listening on {}\n\n\
         connections    {connections}\n\
         sessions       {sessions}\n\
         subscriptions  {subscriptions}\n\
         retained       {retained}\n\
         stored         {stored}\n\
         router         {}\n\n\
         a second: {messages_in:.0} messages in ({}), {messages_out:.0} out ({}), \
         {messages_dropped:.0} dropped, {connects:.0} connects\n\n",
        listeners.join(", "),
        router_line(*router),
        size(*bytes_in),
        size(*bytes_out),
    );
    text += &shard_table(shards).render();
    if !authenticators.is_empty() {
        text += "\n";
        text += &authenticator_table(authenticators).render();
    }
    text
}

fn router_line(router: RouterStatus) -> String {
    let RouterStatus {
        up_seconds,
        answers,
        restarts,
        hung,
    } = router;
    let mut text = if answers {
        format!("up {}", duration(up_seconds))
    } else {
        "does not answer".to_owned()
    };
    if restarts > 0 {
        text += &format!(", {restarts} failed before it");
    }
    if hung > 0 {
        text += &format!(", {hung} of them hung");
    }
    text
}

fn render_store(store: &StoreView) -> String {
    let StoreView {
        condition,
        bytes,
        max_bytes,
    } = store;
    // Exact enough for people.
    let (bytes, most) = (size(*bytes as f64), size(*max_bytes as f64));
    let trouble = match condition {
        Condition::Good => "",
        Condition::Full => "; full: what would have to be stored is refused",
        Condition::LowSpace => {
            "; too little space on the file system: what would have to be stored is refused"
        }
        Condition::Failing => {
            "; cannot be written, see the log: what would have to be stored is refused"
        }
    };
    format!("{bytes} of {most}{trouble}")
}

fn authenticator_table(authenticators: &[AuthenticatorStatus]) -> Table {
    let mut table = Table::new(&[
        ("AUTHENTICATOR", Align::Left),
        ("ALLOWED", Align::Right),
        ("DENIED", Align::Right),
        ("IGNORED", Align::Right),
        ("UNAVAILABLE", Align::Right),
        ("KEYS", Align::Right),
        ("", Align::Left),
    ]);
    for AuthenticatorStatus {
        name,
        allowed,
        denied,
        ignored,
        unavailable,
        keys,
        problem,
    } in authenticators
    {
        table.row(vec![
            name.clone(),
            allowed.to_string(),
            denied.to_string(),
            ignored.to_string(),
            unavailable.to_string(),
            keys.map_or_else(String::new, |keys| keys.to_string()),
            problem
                .as_deref()
                .map(output::printable)
                .unwrap_or_default(),
        ]);
    }
    table
}

fn shard_table(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&[
        ("SHARD", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("SESSIONS", Align::Right),
        ("LOAD", Align::Right),
        ("ANSWERS IN", Align::Right),
    ]);
    for ShardStatus {
        shard,
        connections,
        sessions,
        load,
        answered_in_seconds,
    } in shards
    {
        let answers = answered_in_seconds.map_or_else(
            || "does not answer".to_owned(),
            |seconds| format!("{:.1} ms", seconds * 1000.0),
        );
        table.row(vec![
            shard.to_string(),
            connections.to_string(),
            sessions.to_string(),
            format!("{:.0} %", load * 100.0),
            answers,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_a_line_each_with_the_load_of_their_busiest_thread() {
        let mut node = status();
        node.shards[1].load = 0.71;
        let lines = node_table(&[node]).render();
        let line = lines.lines().nth(1).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..3], ["broker1", "not", "ready"], "{lines}");
        assert_eq!(words[words.len() - 2..], ["71", "%"], "{lines}");
    }

    #[test]
    fn shard_that_does_not_answer_is_said_in_words() {
        let text = render(&status());
        assert!(
            text.starts_with("broker1: not ready, up 1 h 2 min"),
            "{text}"
        );
        assert!(text.contains("1.5 kB") && text.contains("1.2 ms"), "{text}");
        assert!(text.contains("does not answer"), "{text}");
        let router = "router         up 1 min 5 s, 2 failed before it, 1 of them hung\n";
        assert!(text.contains(router), "{text}");
        assert!(text.contains("2.0 MB of 2.0 MB; full"), "{text}");
        assert!(text.contains("no answer within 5s"), "{text}");
    }

    fn status() -> NodeStatus {
        let shard = ShardStatus {
            shard: 1,
            connections: 10,
            sessions: 12,
            load: 0.305,
            answered_in_seconds: Some(0.0012),
        };
        NodeStatus {
            node: "broker1".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_seconds: 3725,
            ready: false,
            evacuation: None,
            listeners: vec!["0.0.0.0:1883".to_owned()],
            connections: 10,
            sessions: 12,
            subscriptions: 0,
            retained: 0,
            store: Some(StoreView {
                condition: Condition::Full,
                bytes: 2_000_000,
                max_bytes: 2_000_000,
            }),
            router: RouterStatus {
                up_seconds: 65,
                answers: true,
                restarts: 2,
                hung: 1,
            },
            authenticators: vec![AuthenticatorStatus {
                name: "jwt-2".to_owned(),
                allowed: 7,
                denied: 0,
                ignored: 0,
                unavailable: 0,
                keys: Some(3),
                problem: Some("no answer within 5s".to_owned()),
            }],
            rates: Rates {
                bytes_in: 1500.0,
                ..Rates::default()
            },
            shards: vec![
                shard,
                ShardStatus {
                    answered_in_seconds: None,
                    ..shard
                },
            ],
        }
    }
}
