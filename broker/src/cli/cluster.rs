//! `tidegate-broker cluster`: the nodes that are one with this broker.

use std::{path::PathBuf, process::ExitCode};

use channel::Key;
use clap::Subcommand;
use console::{
    output::{self, printable},
    table::{Align, Table},
    units::{duration, size},
};

use super::target::Target;
use crate::cluster::view::{ClusterStatus, JoinOrder, Joined, MemberView};

/// Look at the cluster, and have the broker join or leave it.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:\n  tidegate-broker cluster key /etc/tidegate/cluster.key\n  \
        tidegate-broker cluster status\n  tidegate-broker cluster join broker2:7883"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the members, and which addresses cannot be reached.
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Call another node, and be a member again after `leave`. For this run of the broker: a restart
    /// goes by `cluster.seeds`.
    Join {
        /// Where the other node listens: `cluster.listen` of its configuration.
        #[arg(value_name = "HOST:PORT")]
        address: String,
        #[command(flatten)]
        target: Target,
    },
    /// Say goodbye to the other nodes and be none of them, until `join` or a restart. Clients stay.
    Leave {
        #[command(flatten)]
        target: Target,
    },
    /// Make the cluster's key in a new file that its owner alone can read; all nodes need the same.
    Key {
        /// The file; one that is there is left as it is.
        file: PathBuf,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = match &args.command {
        Command::Status { target } => {
            let status: ClusterStatus = target.client()?.get("/v1/cluster")?;
            if target.json {
                output::json(&status)?
            } else {
                render(&status)
            }
        }
        Command::Join { address, target } => {
            let order = JoinOrder {
                address: address.clone(),
            };
            let body = output::json(&order)?;
            let joined: Joined = target.client()?.post("/v1/cluster/join", Some(body))?;
            if target.json {
                output::json(&joined)?
            } else {
                format!("connected to {}\n", printable(&joined.node))
            }
        }
        Command::Leave { target } => {
            let status: ClusterStatus = target.client()?.post("/v1/cluster/leave", None)?;
            if target.json {
                output::json(&status)?
            } else {
                format!("{} has left cluster {}\n", status.node, status.cluster)
            }
        }
        Command::Key { file } => {
            Key::create(file)?;
            format!(
                "{} has a new key: copy it to the other nodes, and name it as \
                 `cluster.key_file` on all\n",
                file.display()
            )
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn render(status: &ClusterStatus) -> String {
    let ClusterStatus {
        cluster,
        node,
        listen,
        acknowledge,
        left,
        members,
        met: _,
        troubles,
        copied_sessions,
        bare_sessions,
        copies,
        copy_bytes,
    } = status;
    let standing = if *left {
        "has left it (`tidegate-broker cluster join` brings it back)".to_owned()
    } else {
        let alive = members.iter().filter(|member| member.alive).count();
        format!("is connected to {alive} of {} other nodes", members.len())
    };
    let mut text = format!(
        "cluster {cluster}: {node} {standing}\n\
         listening on {listen}, acknowledge = {acknowledge:?}\n"
    );
    if !members.is_empty() || *copies > 0 {
        text += &format!(
            "{copied_sessions} sessions have a copy on another node, {bare_sessions} have none; \
             {copies} copies of others' ({})\n",
            size(*copy_bytes as f64)
        );
    }
    if !members.is_empty() {
        text += "\n";
        text += &table(members).render();
    }
    if !troubles.is_empty() {
        text += "\n";
        for trouble in troubles {
            text += &format!("{}: {}\n", trouble.address, printable(&trouble.trouble));
        }
    }
    text
}

fn table(members: &[MemberView]) -> Table {
    let mut table = Table::new(&[
        ("NODE", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("CLIENTS", Align::Right),
        ("FOR", Align::Right),
        ("FILTERS", Align::Right),
        ("QUEUED", Align::Right),
    ]);
    for member in members {
        table.row(vec![
            member.node.clone(),
            member.address.clone(),
            state(member),
            member
                .tally
                .map_or_else(String::new, |tally| tally.clients.to_string()),
            duration(member.since_seconds),
            member.filters.to_string(),
            size(member.queued_bytes as f64),
        ]);
    }
    table
}

fn state(member: &MemberView) -> String {
    match (&member.loss, member.alive) {
        (Some(loss), _) => format!("gone: {loss}"),
        (None, true) if !member.connected => "alive, connection lost".to_owned(),
        (None, true) if !member.synced => "alive, is told the filters".to_owned(),
        (None, true) if member.tally.is_some_and(|tally| !tally.welcomes) => {
            "alive, takes no new clients".to_owned()
        }
        (None, true) => "alive".to_owned(),
        (None, false) => "joining".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::TroubleView;

    #[test]
    fn members_and_troubles_are_told_in_words() {
        let alive = MemberView {
            node: "broker2".to_owned(),
            address: "10.0.0.2:7883".to_owned(),
            alive: true,
            connected: true,
            synced: true,
            since_seconds: 90,
            loss: None,
            filters: 3,
            queued_bytes: 0,
            lag_seconds: 0.0,
            repeated: 0,
            tally: None,
        };
        let gone = MemberView {
            node: "broker3".to_owned(),
            alive: false,
            connected: false,
            loss: Some("it was silent for too long".to_owned()),
            ..alive.clone()
        };
        let mut status = ClusterStatus {
            cluster: "plant".to_owned(),
            node: "broker1".to_owned(),
            listen: "10.0.0.1:7883".to_owned(),
            acknowledge: "replicated".to_owned(),
            left: false,
            members: vec![alive, gone],
            met: Vec::new(),
            troubles: vec![TroubleView {
                address: "broker4:7883".to_owned(),
                trouble: "nobody answers".to_owned(),
            }],
            copied_sessions: 7,
            bare_sessions: 1,
            copies: 3,
            copy_bytes: 2048,
        };
        let text = render(&status);
        let first = "cluster plant: broker1 is connected to 1 of 2 other nodes\n";
        assert!(text.starts_with(first), "{text}");
        let copies = "7 sessions have a copy on another node, 1 have none; 3 copies of others'";
        assert!(text.contains(copies), "{text}");
        assert!(text.contains("gone: it was silent"), "{text}");
        assert!(text.ends_with("\nbroker4:7883: nobody answers\n"), "{text}");
        status.left = true;
        assert!(render(&status).contains("has left it"));
    }
}
