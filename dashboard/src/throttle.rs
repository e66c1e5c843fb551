//! How often a password may be tried: by each address, and for each name.
//!
//! An attempt is charged when it begins and given back if the password was right, so attempts at the same
//! time count too. Whoever has logged in from an address may do so again from there although others have
//! used up what the name had: nobody can be locked out of a place where they were.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

use crate::random::Digest;

/// Wrong passwords in a row, of one address or for one name, and after how long there is one more.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// Enough for somebody who has to try all of his passwords.
const OF_ADDRESS: Rate = Rate {
    burst: 10,
    every: Duration::from_secs(30),
};

/// Of a name from everywhere: 1,440 guesses a day, which is nothing to a password that is none of the
/// most usual.
const OF_NAME: Rate = Rate {
    burst: 20,
    every: Duration::from_secs(60),
};

/// Addresses, and names, that are remembered.
pub(crate) const MOST: usize = 4_096;

/// Pairs of a name and the address that it logged in from.
pub(crate) const MOST_PLACES: usize = 1_024;

/// What is remembered of attempts.
#[derive(Default)]
pub(crate) struct Throttle {
    addresses: Buckets<IpAddr>,
    names: Buckets<Digest>,
    places: Places,
}

/// An attempt that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    network: IpAddr,
    name: Digest,
    /// Whether it is charged to the name as well.
    counts_for_name: bool,
}

impl Throttle {
    /// Begins an attempt, or says how long to wait with it.
    pub(crate) fn begin(
        &mut self,
        address: IpAddr,
        name: &str,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let (network, name) = (network(address), Digest::of(name.as_bytes()));
        let counts_for_name = !self.places.has(name, network);
        let of_address = self.addresses.wait(&network, OF_ADDRESS, now);
        let of_name = self.names.wait(&name, OF_NAME, now);
        if let Some(wait) = of_address.or(of_name.filter(|_| counts_for_name)) {
            return Err(wait);
        }
        self.addresses.charge(network, OF_ADDRESS, now);
        if counts_for_name {
            self.names.charge(name, OF_NAME, now);
        }
        Ok(Attempt {
            network,
            name,
            counts_for_name,
        })
    }

    /// The password was right, or was not looked at.
    pub(crate) fn give_back(&mut self, attempt: &Attempt) {
        self.addresses.give_back(&attempt.network, OF_ADDRESS);
        if attempt.counts_for_name {
            self.names.give_back(&attempt.name, OF_NAME);
        }
    }

    /// The password was right.
    pub(crate) fn succeed(&mut self, attempt: &Attempt) {
        self.give_back(attempt);
        self.places.add(attempt);
    }
}

/// What one customer of an IPv6 network has counts as one address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// When each of them will have all of its attempts again.
struct Buckets<K>(HashMap<K, Instant>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash + Ord> Buckets<K> {
    /// How long until there is an attempt, if there is none.
    fn wait(&self, key: &K, rate: Rate, now: Instant) -> Option<Duration> {
        let whole = *self.0.get(key)?;
        let owed = whole.saturating_duration_since(now) + rate.every;
        let wait = owed.saturating_sub(rate.every * rate.burst);
        (!wait.is_zero()).then_some(wait)
    }

    fn charge(&mut self, key: K, rate: Rate, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let whole = self.0.entry(key).or_insert(now);
        *whole = (*whole).max(now) + rate.every;
    }

    fn give_back(&mut self, key: &K, rate: Rate) {
        if let Some(whole) = self.0.get_mut(key)
            && let Some(earlier) = whole.checked_sub(rate.every)
        {
            *whole = earlier;
        }
    }

    /// Forgets all that are whole again, else the one that is next: never who tries most.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, whole| *whole > now);
        if self.0.len() >= MOST {
            let next = self.0.iter().map(|(key, whole)| (*whole, *key)).min();
            if let Some((_, key)) = next {
                self.0.remove(&key);
            }
        }
    }
}

/// Where names have logged in from, the last ones of them.
#[derive(Default)]
struct Places {
    all: BTreeSet<(Digest, IpAddr)>,
    order: VecDeque<(Digest, IpAddr)>,
}

impl Places {
    fn has(&self, name: Digest, network: IpAddr) -> bool {
        self.all.contains(&(name, network))
    }

    fn add(&mut self, attempt: &Attempt) {
        let place = (attempt.name, attempt.network);
        if !self.all.insert(place) {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > MOST_PLACES
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn address_has_so_many_attempts_and_then_one_at_a_time() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..OF_ADDRESS.burst {
            // Others names do not help.
            throttle
                .begin(address(1), &format!("name{n}"), now)
                .unwrap();
        }
        let wait = throttle.begin(address(1), "alice", now).unwrap_err();
        assert_eq!(wait, OF_ADDRESS.every);
        assert!(throttle.begin(address(2), "alice", now).is_ok());
        let later = now + wait;
        assert!(throttle.begin(address(1), "alice", later).is_ok());
        assert!(throttle.begin(address(1), "alice", later).is_err());
        let whole = later + OF_ADDRESS.every * OF_ADDRESS.burst;
        for _ in 0..OF_ADDRESS.burst {
            throttle.begin(address(1), "bob", whole).unwrap();
        }
    }

    #[test]
    fn customer_of_an_ipv6_network_is_one_address() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..OF_ADDRESS.burst {
            let address: IpAddr = format!("2001:db8::{n:x}").parse().unwrap();
            throttle.begin(address, &format!("{n}"), now).unwrap();
        }
        let same: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        assert!(throttle.begin(same, "alice", now).is_err());
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert!(throttle.begin(other, "alice", now).is_ok());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }

    #[test]
    fn name_is_tried_so_often_from_everywhere() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..OF_NAME.burst {
            throttle.begin(address(n), "alice", now).unwrap();
        }
        let wait = throttle.begin(address(1_000), "alice", now).unwrap_err();
        assert_eq!(wait, OF_NAME.every);
        assert!(throttle.begin(address(1_000), "bob", now).is_ok());
    }

    #[test]
    fn nobody_is_locked_out_of_a_place_where_they_were() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let (home, elsewhere) = (address(1), address(2));
        let attempt = throttle.begin(home, "alice", now).unwrap();
        throttle.succeed(&attempt);
        for n in 0..OF_NAME.burst {
            throttle.begin(address(100 + n), "alice", now).unwrap();
        }
        assert!(throttle.begin(elsewhere, "alice", now).is_err());
        for _ in 0..OF_ADDRESS.burst {
            throttle.begin(home, "alice", now).unwrap();
        }
        assert!(
            throttle.begin(home, "alice", now).is_err(),
            "the address's own bound holds"
        );
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..10 * OF_NAME.burst {
            let attempt = throttle.begin(address(1), "alice", now).unwrap();
            throttle.succeed(&attempt);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_tries_most_is_not_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..OF_NAME.burst {
            throttle.begin(address(n), "alice", now).unwrap();
        }
        for n in 0..3 * MOST as u32 {
            let attempt = throttle
                .begin(address(10_000 + n), &format!("{n}"), now)
                .unwrap();
            if n % 2 == 0 {
                throttle.places.add(&attempt);
            }
        }
        assert_eq!(throttle.addresses.0.len(), MOST);
        assert_eq!(throttle.names.0.len(), MOST);
        assert_eq!(throttle.places.all.len(), MOST_PLACES);
        assert_eq!(throttle.places.order.len(), MOST_PLACES);
        assert!(throttle.begin(address(9_000), "alice", now).is_err());
    }
}
