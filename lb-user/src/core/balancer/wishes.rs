//! Backends that say themselves that they take no new clients.

use super::{Admin, BackendKey, Balancer, Health, HealthState};
use crate::config::model::{Backend, Service};

impl Balancer {
    /// Whether `backend` says, where it is asked how it is, that it takes no new clients.
    #[must_use]
    pub fn wants_drain(&self, backend: &BackendKey) -> bool {
        self.health.get(backend).is_some_and(Health::wants_drain)
    }

    /// Whether that is followed. Where no other backend of the service takes new clients it is not:
    /// one that may refuse them is better than none.
    #[must_use]
    pub fn is_evacuated(&self, service: &Service, backend: &Backend) -> bool {
        let key = BackendKey::of(service, backend);
        self.wants_drain(&key)
            && service.backends().iter().any(|other| {
                let key = BackendKey::of(service, other);
                let is_used = self.health(&key) == HealthState::Up
                    && self.admin.admin(&key) == Admin::Enabled
                    && self.weight(&key, other) > 0;
                let has_room = !self.full.contains(&key);
                is_used && has_room && !other.is_leaving() && !self.wants_drain(&key)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{balancer::tests::balancer_of, health::ProbeOutcome};

    const TEXT: &str = r#"
interface = "eth0"
[[vip]]
address = "172.16.40.24/32"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
forward = "dsr"
backend = [
  { name = "a", address = "172.16.40.20" },
  { name = "b", address = "172.16.40.21" },
  { name = "spare", address = "172.16.40.22", weight = 0 },
]
[service.check]
type = "http"
drain_on = 503
fall = 2
rise = 1
"#;

    fn key(name: &str) -> BackendKey {
        BackendKey::new("mqtt", name)
    }

    fn all_up() -> Balancer {
        let mut balancer = balancer_of(TEXT);
        for name in ["a", "b", "spare"] {
            balancer.observe(&key(name), ProbeOutcome::Success);
        }
        balancer
    }

    fn drain(balancer: &mut Balancer, name: &str) {
        for _ in 0..2 {
            let reason = "HTTP status 503".to_owned();
            balancer.observe(&key(name), ProbeOutcome::Drain { reason });
        }
    }

    /// How each backend stands, and the weight that it takes new flows by.
    fn standing(balancer: &Balancer) -> Vec<(Admin, u16)> {
        let services = balancer.desired().services;
        let weights = services[0].backends.iter().map(|backend| backend.weight);
        let service = &balancer.config().services()[0];
        let backends = service.backends().iter();
        let standing = backends.map(|backend| balancer.standing(service, backend));
        standing.zip(weights).collect()
    }

    #[test]
    fn backend_that_wants_it_drains_and_is_used_again() {
        let mut balancer = all_up();
        drain(&mut balancer, "a");
        let (drains, is_used) = ((Admin::Draining, 0), (Admin::Enabled, 1));
        let spare = (Admin::Enabled, 0);
        assert_eq!(standing(&balancer), [drains, is_used, spare]);
        balancer.observe(&key("a"), ProbeOutcome::Success);
        assert_eq!(standing(&balancer), [is_used, is_used, spare]);
    }

    #[test]
    fn wish_is_not_followed_where_nobody_else_takes_new_clients() {
        let mut balancer = all_up();
        drain(&mut balancer, "a");
        drain(&mut balancer, "b");
        let is_used = (Admin::Enabled, 1);
        assert_eq!(standing(&balancer)[..2], [is_used, is_used]);
        balancer.observe(&key("b"), ProbeOutcome::Success);
        assert_eq!(standing(&balancer)[..2], [(Admin::Draining, 0), is_used]);
        for cause in [Admin::Disabled, Admin::Draining] {
            balancer.set_admin(&key("b"), cause);
            assert_eq!(standing(&balancer)[0], is_used);
        }
    }

    #[test]
    fn wish_is_not_followed_where_the_others_are_full() {
        let mut balancer = all_up();
        drain(&mut balancer, "a");
        assert_eq!(standing(&balancer)[0], (Admin::Draining, 0));
        assert!(balancer.set_loads([(key("b"), 100, 100)]));
        assert_eq!(standing(&balancer)[0], (Admin::Enabled, 1));
        assert!(balancer.set_loads([(key("b"), 80, 100)]));
        assert_eq!(standing(&balancer)[0], (Admin::Draining, 0));
    }

    #[test]
    fn operators_word_goes_before_a_wish() {
        let mut balancer = all_up();
        drain(&mut balancer, "a");
        balancer.set_admin(&key("a"), Admin::Disabled);
        let service = &balancer.config().services()[0];
        let a = &service.backends()[0];
        assert_eq!(balancer.standing(service, a), Admin::Disabled);
        assert!(balancer.is_evacuated(service, a));
    }
}
