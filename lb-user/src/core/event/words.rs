//! Events in words, for people who do not know the code.

use std::fmt;

use super::{Direction, Event, Moved};
use crate::core::vrrp::role::{Cause, Role};

impl fmt::Display for Event {
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoleChanged {
                router,
                from,
                to,
                cause,
                priority,
            } => {
                let (from, to, cause) = (title(*from), title(*to), because(*cause));
                write!(
                    f,
                    "virtual router {router} is {to}, was {from}: {cause} (priority {priority})"
                )
            }
            Self::RouterFaults { router, faults } if faults.is_empty() => {
                write!(f, "virtual router {router} may be Active again")
            }
            Self::RouterFaults { router, faults } => {
                let faults = list(faults);
                write!(f, "virtual router {router} cannot be Active: {faults}")
            }
            Self::RouterPriority {
                router,
                priority,
                lowered_by,
            } if lowered_by.is_empty() => {
                write!(
                    f,
                    "virtual router {router} has its own priority again, {priority}"
                )
            }
            Self::RouterPriority {
                router,
                priority,
                lowered_by,
            } => {
                let causes = list(lowered_by);
                write!(
                    f,
                    "virtual router {router} has a lower priority, {priority}: {causes}"
                )
            }
            Self::RouterUnfit { router, error } => {
                write!(f, "virtual router {router} cannot be set up: {error}")
            }
            Self::AdvertRefused {
                router,
                peer,
                reason,
                unsaid,
            } => {
                write!(
                    f,
                    "advert of {peer} for virtual router {router} refused: {reason}"
                )?;
                more(f, *unsaid)
            }
            Self::AdvertOdd {
                router,
                peer,
                remark,
                unsaid,
            } => {
                write!(
                    f,
                    "advert of {peer} for virtual router {router} is odd: {remark}"
                )?;
                more(f, *unsaid)
            }
            Self::AdvertStray {
                interface,
                peer,
                reason,
                unsaid,
            } => {
                write!(f, "advert of {peer} on {interface} is nobody's: {reason}")?;
                more(f, *unsaid)
            }
            Self::VrrpTrouble {
                interface,
                error,
                unsaid,
            } => {
                write!(
                    f,
                    "VRRP on {interface} is in trouble, will be tried again: {error}"
                )?;
                more(f, *unsaid)
            }
            Self::VipMoved {
                vip,
                interface,
                what,
            } => match what {
                Moved::Assigned => write!(f, "VIP {vip} was put on {interface}"),
                Moved::Found => write!(f, "VIP {vip} was on {interface} before, and is left there"),
                Moved::Restored => {
                    write!(
                        f,
                        "VIP {vip} was taken off {interface} by somebody, and was put back"
                    )
                }
                Moved::Removed => write!(f, "VIP {vip} was taken off {interface}"),
                Moved::Left => write!(
                    f,
                    "VIP {vip} is a peer's, but somebody has put it on {interface}: remove it"
                ),
            },
            Self::VipRefused { error } => write!(f, "a VIP cannot be put in place: {error}"),
            Self::VipWithdrawn {
                vip,
                interface,
                lack,
                left,
            } => {
                let lack = lack.words();
                if *left {
                    write!(
                        f,
                        "VIP {vip} should be withdrawn, but somebody else has put it on {interface}: {lack}"
                    )
                } else {
                    write!(f, "VIP {vip} is withdrawn from {interface}: {lack}")
                }
            }
            Self::VipAnnounced { vip, interface } => {
                write!(
                    f,
                    "VIP {vip} is on {interface} again: its packets are served"
                )
            }
            Self::BackendHealth {
                service,
                backend,
                from,
                to,
                reason,
            } => {
                write!(f, "backend {service}/{backend} is {to}, was {from}")?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            Self::BackendOrdered {
                service,
                backend,
                change,
                lasting: _,
            } => write!(
                f,
                "an operator has changed backend {service}/{backend}: {change}"
            ),
            Self::BackendEvacuating {
                service,
                backend,
                reason,
            } => write!(
                f,
                "backend {service}/{backend} takes no new clients, its sessions go on: {reason}"
            ),
            Self::BackendWelcoming { service, backend } => {
                write!(f, "backend {service}/{backend} takes new clients again")
            }
            Self::BackendDrained { service, backend } => {
                write!(
                    f,
                    "backend {service}/{backend} is drained: no session is left"
                )
            }
            Self::BackendLeft { service, backend } => {
                write!(
                    f,
                    "backend {service}/{backend} has left: no session is left"
                )
            }
            Self::BackendsSilent { service, backend } => write!(
                f,
                "no backend answers, {service}/{backend} first: look at this host's link"
            ),
            Self::BackendsHeard {} => f.write_str("backends answer again"),
            Self::ServiceDown { service } => {
                write!(
                    f,
                    "service {service} has no healthy backend: its packets are dropped"
                )
            }
            Self::ServiceUp { service } => write!(f, "service {service} has a healthy backend"),
            Self::FlowsFull {} => f.write_str("there is no room for more flows"),
            Self::FlowsRoom {} => f.write_str("there is room for flows again"),
            Self::KeepAliveClaimed { service, seconds } => write!(
                f,
                "a client of service {service} asks for a keep-alive of {seconds} s, beyond keep_alive_max"
            ),
            Self::FloodBegan {
                service,
                rate,
                above,
            } => write!(
                f,
                "flood of SYNs to service {service}: {rate} a second, more than {above}; clients are challenged"
            ),
            Self::FloodEnded { service, rate } => {
                write!(
                    f,
                    "flood of SYNs to service {service} is over: {rate} a second"
                )
            }
            Self::MapsFailed { error } => write!(f, "the tables cannot be changed: {error}"),
            Self::MapsRestored {} => f.write_str("the tables are right again"),
            Self::Started { version } => write!(f, "tidegate {version} has started"),
            Self::Stopping {} => f.write_str("tidegate stops"),
            Self::Reloaded { generation } => {
                write!(f, "the configuration was reloaded, generation {generation}")
            }
            Self::ReloadFailed { error } => write!(f, "the reload failed: {error}"),
            Self::SyncUp {
                direction,
                peer,
                records,
            } => match direction {
                Direction::Sending => {
                    write!(
                        f,
                        "the peer {peer} is in sync with this node, {records} records"
                    )
                }
                Direction::Receiving => {
                    write!(
                        f,
                        "this node is in sync with its peer {peer}, {records} records"
                    )
                }
            },
            Self::SyncDown {
                direction,
                peer,
                reason: _,
                error,
            } => write!(f, "not in sync with the peer {peer} ({direction}): {error}"),
            Self::TrackChanged {
                router,
                track,
                target,
                state,
                reason,
            } => {
                write!(
                    f,
                    "{track} of virtual router {router} ({target}) is {state}"
                )?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            Self::NotifyFailed { notifier, error } => {
                write!(f, "{notifier} could not be notified: {error}")
            }
            Self::NotifyTest { notifier } => {
                write!(
                    f,
                    "this is a test of the notification {notifier}; nothing has happened"
                )
            }
            Self::Login {
                name,
                role,
                address,
            } => write!(f, "{name} ({role}) has logged in from {address}"),
            Self::LoginFailed {
                name,
                address,
                unsaid,
            } => {
                match name {
                    Some(name) => write!(f, "wrong password for {name} from {address}")?,
                    None => write!(f, "wrong name at the login from {address}")?,
                }
                more(f, *unsaid)
            }
            Self::AccountsRefused { error } => write!(
                f,
                "the accounts of the dashboard cannot be used, those from before are in force: {error}"
            ),
            Self::AccountsTaken { accounts, tokens } => write!(
                f,
                "the accounts of the dashboard are in force again: {accounts}, and {tokens} tokens"
            ),
        }
    }
}

const fn title(role: Role) -> &'static str {
    match role {
        Role::Initialize => "stopped",
        Role::Backup => "Backup",
        Role::Active => "Active",
    }
}

const fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::Startup => "it was started",
        Cause::Owner => "it was started, and owns the addresses",
        Cause::Adopted => "the process before this one had the role",
        Cause::Silence => "the Active was not heard any more",
        Cause::PeerReleased => "the Active gave its role up",
        Cause::Preemption => "the Active has a lower priority",
        Cause::HigherPriority => "another Active has a higher priority",
        Cause::HigherAddress => "another Active has the same priority and a higher address",
        Cause::Operator => "an operator asked for it",
        Cause::Fault => "this node cannot forward",
        Cause::Group => "another router of its group changed",
        Cause::Shutdown => "it was shut down",
    }
}

fn list(labels: &[impl fmt::Display]) -> String {
    let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
    labels.join(", ")
}

fn more(f: &mut fmt::Formatter<'_>, unsaid: u64) -> fmt::Result {
    match unsaid {
        0 => Ok(()),
        _ => write!(f, " ({unsaid} more since this was last told)"),
    }
}
