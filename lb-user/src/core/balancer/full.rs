//! Who has as many flows as it takes.
//!
//! The program counts, and passes over who is full; but it looks at so many places of the ring and no
//! more. So it has to be told where there are more: `core/plan/tables.rs` leaves them out of the ring.

use std::collections::BTreeSet;

use super::{BackendKey, Balancer};

/// Of its limit, the part that has to be free before a backend that was full is not any more: one in
/// so many, or each flow that ends would be a change of tables.
const FREE: u64 = 16;

impl Balancer {
    /// Takes in who has how many flows, of how many; says whether others are full than before.
    pub fn set_loads(&mut self, loads: impl IntoIterator<Item = (BackendKey, u64, u64)>) -> bool {
        let full: BTreeSet<BackendKey> = loads
            .into_iter()
            .filter(|(key, open, limit)| {
                let free = if self.full.contains(key) {
                    (limit / FREE).max(1)
                } else {
                    1
                };
                open + free > *limit
            })
            .map(|(key, ..)| key)
            .collect();
        let is_news = full != self.full;
        self.full = full;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::{super::AdminState, BackendKey, Balancer};
    use crate::config;

    #[test]
    fn who_was_full_has_to_have_some_room_again() {
        let text = include_str!("../../../configs/tidegate-dsr.toml");
        let config = config::parse(text, "t.toml").unwrap();
        let mut balancer = Balancer::new(config, AdminState::default());
        let mut is_news = |open, limit| {
            let key = BackendKey::new("mqtt", "broker1");
            balancer.set_loads([(key, open, limit)])
        };
        assert!(!is_news(159, 160));
        assert!(is_news(160, 160));
        for open in [159, 151, 200, 160] {
            assert!(!is_news(open, 160), "{open}");
        }
        assert!(is_news(150, 160));
        assert!(!is_news(159, 160));
        // A single place is free or not.
        assert!(is_news(1, 1));
        assert!(is_news(0, 1));
    }
}
