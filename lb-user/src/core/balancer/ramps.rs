//! Slow start: a backend that returns takes a growing share of new flows, not all at once.
//!
//! A backend that was down or disabled, or that a reload has added, is *cold*: as soon as it takes
//! packets again its ramp begins, at the first of [`STEPS`] steps, and after the service's
//! `slow_start` it has its weight. At the start of the daemon none is cold: nobody would take the
//! others' share. The clock is whoever calls [`Balancer::advance_ramps`]'s.

use std::time::Duration;

use super::{Admin, BackendKey, Balancer, predecessor};
use crate::config::model::{Backend, Config, Service};

/// Steps from next to nothing to the whole weight. Each is a change of tables, in which slots of
/// `maglev` change hands: few enough for that, and small enough for a backend that was started just
/// now.
pub(super) const STEPS: u16 = 10;

/// How far a backend has come. One that has arrived has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ramp {
    /// It takes no packets yet.
    Cold,
    /// It takes packets since then; the step is from 1 to less than [`STEPS`].
    Rising { since: Duration, step: u16 },
}

impl Ramp {
    const fn step(self) -> u16 {
        match self {
            Self::Cold => 1,
            Self::Rising { step, .. } => step,
        }
    }
}

impl Balancer {
    /// Whether any backend is on its way to its weight, or will be when it takes packets.
    #[must_use]
    pub fn has_ramps(&self) -> bool {
        !self.ramps.is_empty()
    }

    /// Takes in that the time is `now`, since any fixed moment; whether that changes what is desired.
    pub fn advance_ramps(&mut self, now: Duration) -> bool {
        if self.ramps.is_empty() {
            return false;
        }
        let next: Vec<_> = self
            .config
            .backends()
            .filter_map(|(service, backend)| {
                let key = BackendKey::of(service, backend);
                let ramp = *self.ramps.get(&key)?;
                let next = self.next_step(service, backend, ramp, now);
                (next != Some(ramp)).then_some((key, ramp.step(), next))
            })
            .collect();
        let mut has_changed = false;
        for (key, step, next) in next {
            has_changed |= next.map_or(STEPS, Ramp::step) != step;
            match next {
                Some(ramp) => self.ramps.insert(key, ramp),
                None => self.ramps.remove(&key),
            };
        }
        has_changed
    }

    fn next_step(
        &self,
        service: &Service,
        backend: &Backend,
        ramp: Ramp,
        now: Duration,
    ) -> Option<Ramp> {
        let whole = service.slow_start()?;
        match ramp {
            Ramp::Cold if self.is_present(service, backend) => Some(Ramp::Rising {
                since: now,
                step: 1,
            }),
            Ramp::Cold => Some(Ramp::Cold),
            Ramp::Rising { since, .. } => {
                let gone = now.saturating_sub(since).as_nanos();
                let steps = gone * u128::from(STEPS) / whole.as_nanos().max(1);
                let step = u16::try_from(steps).unwrap_or(STEPS).saturating_add(1);
                (step < STEPS).then_some(Ramp::Rising { since, step })
            }
        }
    }

    /// Notes that a backend stops taking packets, or is new.
    pub(super) fn cool(&mut self, key: &BackendKey) {
        let mut backends = self.config.backends();
        let of_key =
            |(service, backend): &(&Service, &Backend)| BackendKey::of(service, backend) == *key;
        if backends
            .find(of_key)
            .is_some_and(|(service, _)| service.slow_start().is_some())
        {
            self.ramps.insert(key.clone(), Ramp::Cold);
        }
    }

    /// Takes over from an earlier configuration how far backends have come; those that it did not
    /// have in their service are cold.
    pub(super) fn follow_ramps(&mut self, old: &Self) {
        let mut ramps = std::mem::take(&mut self.ramps);
        for (service, backend) in self.config.backends() {
            if service.slow_start().is_none() || !has_service(&old.config, service) {
                continue;
            }
            let ramp = match predecessor(&old.config, service, backend) {
                Some((service, backend)) => {
                    old.ramps.get(&BackendKey::of(service, backend)).copied()
                }
                None => Some(Ramp::Cold),
            };
            ramps.extend(ramp.map(|ramp| (BackendKey::of(service, backend), ramp)));
        }
        self.ramps = ramps;
    }

    /// The weight of a backend in tables, on its ramp. With `slow_start` all weights of a service are
    /// multiplied, at all times, so that small ones have steps too: only their ratios matter.
    pub(super) fn eased(&self, service: &Service, key: &BackendKey, weight: u16) -> u16 {
        match self.ramps.get(key) {
            Some(ramp) => weight.saturating_mul(ramp.step()),
            None => whole(service, weight),
        }
    }

    /// The weight that a backend takes new flows by: 0 if it takes none.
    pub(super) fn effective_weight(&self, service: &Service, backend: &Backend) -> f64 {
        let key = BackendKey::of(service, backend);
        if !self.is_present(service, backend) || self.standing(service, backend) != Admin::Enabled {
            return 0.0;
        }
        let step = self.ramps.get(&key).map_or(STEPS, |ramp| ramp.step());
        f64::from(self.weight(&key, backend)) * f64::from(step) / f64::from(STEPS)
    }
}

/// The weight in tables of a backend that is on no ramp.
pub(super) fn whole(service: &Service, weight: u16) -> u16 {
    match service.slow_start() {
        Some(_) => weight.saturating_mul(STEPS),
        None => weight,
    }
}

/// Where all backends are new, none takes the others' share.
fn has_service(config: &Config, service: &Service) -> bool {
    config
        .services()
        .iter()
        .any(|old| old.key() == service.key())
}

#[cfg(test)]
mod tests;
