//! What is measured: a new kind of service is one more line of [`ALL`].

use lb_common::abi::{Balance, Encapsulation, Forward};

/// A kind of service to measure.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    pub(crate) forward: Forward,
    pub(crate) balance: Balance,
    /// Of tunnels.
    pub(crate) form: Encapsulation,
    /// Length of its list of clients that may connect; 0: anybody may.
    pub(crate) prefixes: u32,
    /// Whether flows are looked up in every slot, as in those that changed hands lately.
    pub(crate) is_mixed: bool,
}

/// Every kind, in the order in which they are measured.
pub(crate) const ALL: [Mode; 10] = [
    Mode::new("dsr_maglev", Forward::Dsr, Balance::Maglev),
    Mode::new("dsr_source", Forward::Dsr, Balance::Source),
    Mode {
        is_mixed: true,
        ..Mode::new("dsr_maglev_mixed", Forward::Dsr, Balance::Maglev)
    },
    Mode {
        prefixes: 100_000,
        ..Mode::new("dsr_maglev_access_list", Forward::Dsr, Balance::Maglev)
    },
    Mode::new("tunnel_maglev_ipip", Forward::Tunnel, Balance::Maglev),
    Mode {
        form: Encapsulation::Gue,
        ..Mode::new("tunnel_maglev_gue", Forward::Tunnel, Balance::Maglev)
    },
    Mode::new("dsr_round_robin", Forward::Dsr, Balance::RoundRobin),
    Mode::new("dsr_least_conn", Forward::Dsr, Balance::LeastConn),
    Mode::new("nat_maglev", Forward::Nat, Balance::Maglev),
    Mode::new("nat_round_robin", Forward::Nat, Balance::RoundRobin),
];

impl Mode {
    const fn new(name: &'static str, forward: Forward, balance: Balance) -> Self {
        Self {
            name,
            forward,
            balance,
            form: Encapsulation::IpIp,
            prefixes: 0,
            is_mixed: false,
        }
    }

    /// Whether each flow has a record.
    pub(crate) fn is_tracked(&self) -> bool {
        self.forward == Forward::Nat || self.balance.is_tracked()
    }

    /// The modes of these names, or all of them if there are none.
    pub(crate) fn of_names(names: &[String]) -> anyhow::Result<Vec<Self>> {
        let known = |name: &String| ALL.iter().any(|mode| mode.name == name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let all = ALL.map(|mode| mode.name).join(", ");
            anyhow::bail!("there is no mode {name}; there are: {all}");
        }
        let wanted = |mode: &Mode| names.is_empty() || names.iter().any(|name| mode.name == name);
        Ok(ALL.into_iter().filter(wanted).collect())
    }
}
