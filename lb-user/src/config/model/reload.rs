//! Which settings a reload cannot change.

use std::fmt;

use lb_common::abi::Forward;

use super::{Api, Config};

/// A setting that is fixed from start to stop, changed by a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` cannot change while the daemon runs: restart it, or put the old value back")]
pub struct ReloadBlocker {
    key: &'static str,
}

impl ReloadBlocker {
    /// The key path of the setting.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.key
    }
}

/// All of them, as sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadBlockers(pub Vec<ReloadBlocker>);

impl fmt::Display for ReloadBlockers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&sentences.join("; "))
    }
}

impl std::error::Error for ReloadBlockers {}

impl Config {
    /// The settings that differ in `new` and take a restart, empty if a reload will do.
    #[must_use]
    pub fn reload_blockers(&self, new: &Self) -> Vec<ReloadBlocker> {
        let Self {
            interface,
            xdp_mode,
            seed,
            state_dir,
            pin_dir,
            log,
            api:
                Api {
                    socket,
                    mode,
                    group,
                },
            metrics,
            dashboard,
            limits,
            nat,
            sync,
            // Everything below is applied by a reload.
            tracking_idle: _,
            tunnel_sources: _,
            tunnel_mtu: _,
            tracking_shortest: _,
            tracking_longest: _,
            vips: _,
            vrrps: _,
            notifies: _,
            services: _,
        } = self;
        [
            ("interface", *interface != new.interface),
            ("xdp_mode", *xdp_mode != new.xdp_mode),
            ("seed", *seed != new.seed),
            ("state_dir", *state_dir != new.state_dir),
            ("pin_dir", *pin_dir != new.pin_dir),
            ("log", *log != new.log),
            ("api.socket", *socket != new.api.socket),
            ("api.mode", *mode != new.api.mode),
            ("api.group", *group != new.api.group),
            ("metrics.listen", *metrics != new.metrics),
            ("dashboard", *dashboard != new.dashboard),
            ("limits", *limits != new.limits),
            ("sync", *sync != new.sync),
            // Flows are recorded with the number of their source, whose address must stay.
            ("nat", self.translates() && *nat != new.nat),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(ReloadBlocker { key }))
        .collect()
    }

    /// Whether any service is `nat`.
    #[must_use]
    pub fn translates(&self) -> bool {
        let mut services = self.services.iter();
        services.any(|service| service.forward() == Forward::Nat)
    }
}
