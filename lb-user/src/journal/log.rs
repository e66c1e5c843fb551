//! The log line of each event: a constant message, with what it is about as fields.

use tracing::{error, info, warn};

use crate::core::{
    event::{Direction, Event, Moved},
    vrrp::{role::Role, track::TrackState},
};

/// Writes it.
#[expect(clippy::too_many_lines, reason = "one arm for each event")]
pub(super) fn write(event: &Event) {
    match event {
        Event::RoleChanged {
            router,
            from,
            to,
            cause,
            priority,
        } => {
            if *to == Role::Active {
                info!(router, %from, %to, %cause, priority, "virtual router is Active");
            } else {
                info!(router, %from, %to, %cause, priority, "virtual router changed its role");
            }
        }
        Event::RouterFaults { router, faults } if faults.is_empty() => {
            info!(router, "virtual router may be Active");
        }
        Event::RouterFaults { router, faults } => {
            let faults: Vec<_> = faults.iter().map(|fault| fault.label()).collect();
            let faults = faults.join(" ");
            warn!(router, faults, "virtual router cannot be Active");
        }
        Event::RouterPriority {
            router,
            priority,
            lowered_by,
        } if lowered_by.is_empty() => {
            info!(
                router,
                priority, "virtual router has its own priority again"
            );
        }
        Event::RouterPriority {
            router,
            priority,
            lowered_by,
        } => {
            let causes: Vec<_> = lowered_by.iter().map(|cause| cause.label()).collect();
            let cause = causes.join(" ");
            warn!(
                router,
                priority, cause, "virtual router has a lower priority, peers go first"
            );
        }
        Event::RouterUnfit { router, error } => {
            warn!(
                router,
                error, "virtual router cannot be set up on this interface"
            );
        }
        Event::AdvertRefused {
            router,
            peer,
            reason,
            unsaid,
        } => warn!(router, %peer, %reason, unsaid, "advert refused"),
        Event::AdvertOdd {
            router,
            peer,
            remark,
            unsaid,
        } => warn!(router, %peer, %remark, unsaid, "advert is odd"),
        Event::AdvertStray {
            interface,
            peer,
            reason,
            unsaid,
        } => info!(interface, %peer, %reason, unsaid, "advert is nobody's"),
        Event::VrrpTrouble {
            interface,
            error,
            unsaid,
        } => warn!(
            interface,
            error, unsaid, "VRRP is in trouble, will be tried again"
        ),
        Event::VipMoved {
            vip,
            interface,
            what,
        } => match what {
            Moved::Assigned => info!(%vip, interface, "VIP assigned"),
            Moved::Found => info!(%vip, interface, "VIP was there before, will be left there"),
            Moved::Restored => {
                warn!(%vip, interface, "VIP was removed by somebody, assigned again")
            }
            Moved::Removed => info!(%vip, interface, "VIP removed"),
            Moved::Left => warn!(
                %vip,
                interface,
                "VIP is a peer's, but somebody has put it on this interface: remove it"
            ),
        },
        Event::VipRefused { error } => {
            warn!(error, "a VIP cannot be assigned, will be tried again");
        }
        Event::VipWithdrawn {
            vip,
            interface,
            lack,
            left: false,
        } => warn!(%vip, interface, %lack, "VIP withdrawn"),
        Event::VipWithdrawn {
            vip,
            interface,
            lack,
            left: true,
        } => warn!(
            %vip,
            interface,
            %lack,
            "VIP cannot be withdrawn: somebody else has put it there"
        ),
        Event::VipAnnounced { vip, interface } => info!(%vip, interface, "VIP announced again"),
        Event::BackendHealth {
            service,
            backend,
            from,
            to,
            reason,
        } => {
            let backend = format!("{service}/{backend}");
            info!(backend, %from, %to, reason, "backend changed state");
        }
        Event::BackendOrdered {
            service,
            backend,
            change,
            lasting,
        } => {
            let backend = format!("{service}/{backend}");
            info!(backend, change, lasting, "backend changed");
        }
        Event::BackendEvacuating {
            service,
            backend,
            reason,
        } => {
            let backend = format!("{service}/{backend}");
            info!(
                backend,
                reason, "backend takes no new clients, its sessions go on"
            );
        }
        Event::BackendWelcoming { service, backend } => {
            let backend = format!("{service}/{backend}");
            info!(backend, "backend takes new clients again");
        }
        Event::BackendDrained { service, backend } => {
            let backend = format!("{service}/{backend}");
            info!(backend, "backend is drained, no session of it is left");
        }
        Event::BackendLeft { service, backend } => {
            let backend = format!("{service}/{backend}");
            info!(backend, "backend has left, no session of it is left");
        }
        Event::BackendsSilent { service, backend } => {
            let backend = format!("{service}/{backend}");
            warn!(
                backend,
                "nobody answers: backends are kept as they are, look at this host's link"
            );
        }
        Event::BackendsHeard {} => info!("no backend is kept for want of answers any more"),
        Event::ServiceDown { service } => {
            warn!(
                service,
                "service has no healthy backend, its packets are dropped"
            );
        }
        Event::ServiceUp { service } => info!(service, "service has a healthy backend"),
        Event::FlowsFull {} => warn!(
            "no room for more flows: new ones keep to their slots, changes of backends wait; \
             limits.flows is the number there is room for"
        ),
        Event::FlowsRoom {} => info!("there is room for flows again"),
        Event::KeepAliveClaimed { service, seconds } => warn!(
            service,
            seconds,
            "a CONNECT asks for a keep-alive beyond keep_alive_max: learning windows do not wait for \
             its session; raise keep_alive_max if that device is real"
        ),
        Event::FloodBegan {
            service,
            rate,
            above,
        } => warn!(
            service,
            rate, above, "flood of SYNs: clients are challenged"
        ),
        Event::FloodEnded { service, rate } => {
            info!(service, rate, "flood of SYNs is over: no more challenges");
        }
        Event::MapsFailed { error } => {
            error!(error, "maps could not be changed, will be written anew");
        }
        Event::MapsRestored {} => info!("maps are as they should be again"),
        Event::Started { version } => info!(version, "ready"),
        Event::Stopping {} => info!("stopping"),
        Event::Reloaded { generation } => info!(generation, "configuration reloaded"),
        Event::ReloadFailed { error } => error!(error, "reload failed"),
        Event::SyncUp {
            direction,
            peer,
            records,
        } => match direction {
            Direction::Sending => info!(%peer, records, "the peer is in sync with this node"),
            Direction::Receiving => info!(%peer, records, "this node is in sync with its peer"),
        },
        Event::SyncDown {
            direction,
            peer: _,
            reason: _,
            error,
        } => warn!(%direction, error, "not in sync with the peer, service goes on"),
        Event::TrackChanged {
            router,
            track,
            target,
            state,
            reason,
        } => {
            if *state == TrackState::Down {
                warn!(router, track, target, %state, reason, "what a virtual router depends on is down");
            } else {
                info!(router, track, target, %state, "what a virtual router depends on is up");
            }
        }
        Event::NotifyFailed { notifier, error } => {
            warn!(
                notifier,
                error, "somebody could not be notified of an event"
            );
        }
        Event::NotifyTest { notifier } => info!(notifier, "test of a notification"),
        Event::Login {
            name,
            role,
            address,
        } => info!(name, role, %address, "somebody has logged in to the dashboard"),
        Event::LoginFailed {
            name,
            address,
            unsaid,
        } => warn!(name, %address, unsaid, "a login to the dashboard failed"),
        Event::AccountsRefused { error } => {
            warn!(
                error,
                "the accounts of the dashboard cannot be used, those from before are in force"
            );
        }
        Event::AccountsTaken { accounts, tokens } => {
            info!(
                accounts,
                tokens, "the accounts of the dashboard are in force again"
            );
        }
    }
}
