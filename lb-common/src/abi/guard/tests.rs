//! Buckets against a plain model, and keys.

use proptest::prelude::*;

use super::{AccessKey, Rate, SourceKey};
use crate::abi::{Ip, ServiceId};

const SECOND: u64 = 1_000_000_000;

/// How many of `arrivals`, times in nanoseconds, a fresh bucket lets through.
fn admitted(rate: Rate, arrivals: impl IntoIterator<Item = u64>) -> u64 {
    let mut bucket = 0;
    let mut count = 0;
    for now in arrivals {
        if let Some(next) = rate.take(bucket, now) {
            bucket = next;
            count += 1;
        }
    }
    count
}

#[test]
fn a_full_bucket_lets_a_burst_through_and_then_its_rate() {
    let rate = Rate::new(50, 100);
    assert_eq!(admitted(rate, (0..1_000).map(|_| 7 * SECOND)), 100);
    let flood = (0..1_000_000).map(|n| SECOND + n * 10_000);
    // Ten seconds of a hundred thousand a second.
    assert_eq!(admitted(rate, flood), 100 + 50 * 10 - 1);
}

#[test]
fn a_burst_of_one_spaces_connections_evenly() {
    let rate = Rate::new(10, 1);
    let every = |nanos| admitted(rate, (1..=100).map(|n| n * nanos));
    assert_eq!(every(SECOND / 10), 100);
    assert_eq!(every(SECOND / 20), 50);
}

#[test]
fn without_a_rate_there_is_no_limit() {
    assert!(!Rate::NONE.is_some());
    assert!(Rate::new(0, 0).is_some());
}

#[test]
fn a_v6_source_is_its_64_and_a_v4_source_is_itself() {
    let key = |text: &str| {
        let address: core::net::IpAddr = text.parse().unwrap();
        SourceKey::new(Ip::from(address), ServiceId(1))
    };
    assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:2:ffff::9"));
    assert_ne!(key("2001:db8:1:2::3"), key("2001:db8:1:3::3"));
    assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
}

#[test]
fn prefixes_of_both_families_count_behind_the_service() {
    assert_eq!(AccessKey::prefix_bits(true, 32), AccessKey::BITS);
    assert_eq!(AccessKey::prefix_bits(false, 128), AccessKey::BITS);
    assert_eq!(AccessKey::prefix_bits(false, 0), AccessKey::SERVICE_BITS);
}

/// The bucket as it is usually told: filled over time, emptied by one.
struct Model {
    tokens: f64,
    filled: u64,
}

impl Model {
    fn take(&mut self, per_second: u32, burst: u32, now: u64) -> bool {
        let gained = (now - self.filled) as f64 / SECOND as f64 * f64::from(per_second);
        self.tokens = (self.tokens + gained).min(f64::from(burst));
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(has_one));
        has_one
    }
}

proptest! {
    #[test]
    fn it_is_a_token_bucket(
        per_second in 1_u32..100_000,
        burst in 1_u32..1_000,
        gaps in prop::collection::vec(0_u64..50_000_000, 1..400),
    ) {
        let rate = Rate::new(per_second, burst);
        let mut model = Model { tokens: f64::from(burst), filled: SECOND };
        let (mut bucket, mut now) = (0, SECOND);
        let (mut ours, mut theirs) = (0_i64, 0_i64);
        for gap in gaps {
            now += gap;
            if let Some(next) = rate.take(bucket, now) {
                bucket = next;
                ours += 1;
            }
            theirs += i64::from(model.take(per_second, burst, now));
            // The interval is rounded down to nanoseconds.
            prop_assert!((ours - theirs).abs() <= 1, "{} and {}", ours, theirs);
        }
    }

    #[test]
    fn no_window_takes_more_than_burst_and_rate(
        per_second in 1_u32..10_000,
        burst in 1_u32..100,
        gaps in prop::collection::vec(0_u64..1_000_000, 1..600),
    ) {
        let rate = Rate::new(per_second, burst);
        let (mut bucket, mut now) = (0, 0);
        let mut taken = Vec::new();
        for gap in gaps {
            now += gap;
            if let Some(next) = rate.take(bucket, now) {
                bucket = next;
                taken.push(now);
            }
        }
        for (at, start) in taken.iter().enumerate() {
            for (count, end) in (1_u64..).zip(&taken[at..]) {
                let interval = SECOND / u64::from(per_second);
                let most = u64::from(burst) + (end - start) / interval;
                prop_assert!(count <= most);
            }
        }
    }
}
