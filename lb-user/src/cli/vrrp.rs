//! `tidegate vrrp`: looks at virtual routers, and takes them out of service and back.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Subcommand;

use super::{
    Failure, Target,
    client::{Client, DAEMON, encode},
    output::{self, time},
    status::router_table,
};
use crate::control::{RouterStatus, VrrpStatus};

/// How often it looks whether a role was handed over.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows virtual routers, or has one hand its role over.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate vrrp status\n  tidegate vrrp release front --wait\n  \
    tidegate vrrp resume front"
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
    /// Shows all virtual routers.
    #[command(after_help = "Example:\n  tidegate vrrp status --json")]
    Status,
    /// Has a virtual router hand its role over, and take none until `resume` or a restart.
    ///
    /// It stays Active until its successor is heard, so no packet is lost; after the time in which
    /// one would have come it gives the role up all the same. The routers of a group move together.
    #[command(after_help = "Example:\n  tidegate vrrp release front --wait --timeout 10s")]
    Release {
        /// The name of a virtual router or of a group.
        name: String,
        /// Wait until the role is given up.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after so long (exit code 1); the order stands.
        #[arg(long, requires = "wait", value_name = "TIME", default_value = "1m", value_parser = time)]
        timeout: Duration,
    },
    /// Has a virtual router take part again, at once if it waits after a failure.
    #[command(after_help = "Example:\n  tidegate vrrp resume front")]
    Resume {
        /// The name of a virtual router or of a group.
        name: String,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let status = match &args.action {
        Action::Status => client.get("/v1/vrrp")?,
        Action::Resume { name } => client.post(&route(name, "resume"), None)?,
        Action::Release {
            name,
            wait: false,
            timeout: _,
        } => client.post(&route(name, "release"), None)?,
        Action::Release {
            name,
            wait: true,
            timeout,
        } => release(&client, name, *timeout)?,
    };
    let text = if args.json {
        output::json(&status)?
    } else if status.routers.is_empty() {
        "no virtual routers are configured\n".to_owned()
    } else {
        router_table(&status)
    };
    output::print(&text)?;
    Ok(())
}

fn release(client: &Client, name: &str, timeout: Duration) -> Result<VrrpStatus, Failure> {
    let deadline = Instant::now() + timeout;
    let mut status: VrrpStatus = client.post(&route(name, "release"), None)?;
    while is_active(&status, name) {
        if Instant::now() >= deadline {
            return Err(Failure::Runtime(anyhow!(
                "gave up waiting: {name} still has its role, and will hand it over"
            )));
        }
        client.block_on(async { tokio::time::sleep(PAUSE).await });
        status = client.get("/v1/vrrp")?;
    }
    Ok(status)
}

/// Whether a router of that name or group is Active.
fn is_active(status: &VrrpStatus, name: &str) -> bool {
    let is_named = |router: &&RouterStatus| router.name == name;
    let named = status.routers.iter().find(is_named);
    let group = named.map_or(Some(name), |router| router.group.as_deref());
    let mut routers = status.routers.iter();
    routers.any(|router| {
        let is_meant = router.name == name || (group.is_some() && router.group.as_deref() == group);
        is_meant && router.role == "active"
    })
}

fn route(name: &str, verb: &str) -> String {
    format!("/v1/vrrp/{}/{verb}", encode(name))
}

#[cfg(test)]
mod tests {
    use super::{is_active, route};
    use crate::control::example;

    #[test]
    fn names_are_one_segment() {
        assert_eq!(route("a/b", "release"), "/v1/vrrp/a%2Fb/release");
    }

    #[test]
    fn a_group_has_its_role_until_its_last_router_has_given_it_up() {
        let mut status = example::vrrp();
        let mut other = status.routers[0].clone();
        "other".clone_into(&mut other.name);
        "active".clone_into(&mut other.role);
        status.routers.push(other);
        assert!(!is_active(&status, "front"));
        for router in &mut status.routers {
            router.group = Some("g".to_owned());
        }
        assert!(is_active(&status, "front") && is_active(&status, "g"));
        status.routers[1].role = "backup".to_owned();
        assert!(!is_active(&status, "front") && !is_active(&status, "g"));
    }
}
