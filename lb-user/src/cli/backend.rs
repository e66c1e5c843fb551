//! `tidegate backend`: looks at and changes backends at run time.

use std::time::Duration;

use clap::Subcommand;

use super::{
    Failure, Target,
    client::{Client, DAEMON, encode},
    drain::{self, Patience},
    output::{self, time},
    status::backend_table,
};
use crate::{
    api::{BackendEntry, Weight},
    control::BackendStatus,
};

/// Lists backends, or changes one while the daemon runs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate backend list\n  tidegate backend drain mqtt/broker1\n  \
    tidegate backend weight broker2 10 --temporary"
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows all backends.
    #[command(after_help = "Example:\n  tidegate backend list --json")]
    List,
    /// Gives a backend no new flows.
    ///
    /// Its sessions go on. With --wait, the command ends when none is left.
    #[command(after_help = "Examples:\n  tidegate backend drain mqtt/broker1\n  \
        tidegate backend drain mqtt/broker1 --wait --timeout 2h")]
    Drain {
        #[command(flatten)]
        order: Order,
        /// Wait until no session is left, and tell how many are.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after so long (exit code 1); the backend goes on draining.
        #[arg(long, requires = "wait", value_name = "TIME", default_value = "30m", value_parser = time)]
        timeout: Duration,
    },
    /// Uses a backend again as its health and weight allow.
    #[command(after_help = "Example:\n  tidegate backend enable mqtt/broker1")]
    Enable(Order),
    /// Sends a backend no packets at all.
    #[command(after_help = "Example:\n  tidegate backend disable mqtt/broker1")]
    Disable(Order),
    /// Changes a backend's share of new flows.
    #[command(after_help = "Example:\n  tidegate backend weight mqtt/broker1 10")]
    Weight {
        #[command(flatten)]
        order: Order,
        /// 0 to 256; 0 takes no new flows.
        weight: u16,
    },
}

#[derive(Debug, clap::Args)]
struct Order {
    /// The backend's name, after its service's if several services have it.
    #[arg(value_name = "[SERVICE/]BACKEND")]
    backend: String,
    /// Forget the change when the daemon restarts.
    #[arg(long)]
    temporary: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let (order, verb, weight) = match &args.action {
        Action::List => return list(&client, args.json),
        Action::Drain { order, .. } => (order, "drain", None),
        Action::Enable(order) => (order, "enable", None),
        Action::Disable(order) => (order, "disable", None),
        Action::Weight { order, weight } => (order, "weight", Some(Weight { weight: *weight })),
    };
    let body = weight.map(|weight| output::json(&weight)).transpose()?;
    let changed: BackendStatus = client.post(&route(order, verb), body)?;
    if let Action::Drain {
        wait: true,
        timeout,
        ..
    } = args.action
    {
        let patience = Patience {
            timeout,
            json: args.json,
        };
        return drain::wait(&client, &order.backend, &changed, patience);
    }
    let text = if args.json {
        output::json(&changed)?
    } else {
        let BackendStatus {
            admin,
            weight,
            health,
            ..
        } = changed;
        format!(
            "{}: {admin}, weight {weight}, health {health}\n",
            order.backend
        )
    };
    output::print(&text)?;
    Ok(())
}

fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let entries: Vec<BackendEntry> = client.get("/v1/backends")?;
    let text = if json {
        output::json(&entries)?
    } else {
        let rows = entries
            .iter()
            .map(|entry| (entry.service.as_str(), &entry.backend));
        backend_table(rows)
    };
    output::print(&text)?;
    Ok(())
}

fn route(order: &Order, verb: &str) -> String {
    let (service, name) = order
        .backend
        .split_once('/')
        .unwrap_or(("-", &order.backend));
    let query = if order.temporary {
        "?temporary=true"
    } else {
        ""
    };
    format!(
        "/v1/backends/{}/{}/{verb}{query}",
        encode(service),
        encode(name)
    )
}

#[cfg(test)]
mod tests {
    use super::{Order, route};

    fn order(backend: &str, temporary: bool) -> Order {
        Order {
            backend: backend.to_owned(),
            temporary,
        }
    }

    #[test]
    fn full_name_is_two_segments() {
        assert_eq!(
            route(&order("mqtt/a", false), "drain"),
            "/v1/backends/mqtt/a/drain"
        );
    }

    #[test]
    fn short_name_leaves_the_service_open() {
        let route = route(&order("a b", true), "enable");
        assert_eq!(route, "/v1/backends/-/a%20b/enable?temporary=true");
    }
}
