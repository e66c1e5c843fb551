//! For how long a Backup waits.
//!
//! ```text
//! VRRPv3 (RFC 9568, 6.1), with the interval that the Active has told:
//!     Skew_Time            = (256 - priority) / 256 * Active_Adver_Interval
//!     Active_Down_Interval = 3 * Active_Adver_Interval + Skew_Time
//! VRRPv2 (RFC 3768, 6.1), with the interval that all are configured with:
//!     Skew_Time            = (256 - priority) / 256 seconds
//!     Master_Down_Interval = 3 * Advertisement_Interval + Skew_Time
//! ```
//! Fractions are kept: with adverts each centisecond, whole centiseconds would give all Backups the
//! same Skew_Time, and make them Active at once.

use std::time::Duration;

use super::advert::{Interval, Priority, Version};

/// How many adverts must be missed (RFC 9568, 6.1; RFC 3768, 6.1).
const MISSED: u32 = 3;

/// Skew_Time: the higher the priority, the shorter.
#[must_use]
pub fn skew(version: Version, priority: Priority, active_interval: Interval) -> Duration {
    let unit = match version {
        // RFC 9568, 6.1.
        Version::V3 => active_interval.duration(),
        // RFC 3768, 6.1.
        Version::V2 => Duration::from_secs(1),
    };
    unit * (256 - u32::from(priority.0)) / 256
}

/// Active_Down_Interval, in VRRPv2 Master_Down_Interval: so long after the last advert the Active
/// counts as dead.
#[must_use]
pub fn down(version: Version, priority: Priority, active_interval: Interval) -> Duration {
    // RFC 9568, 6.1; RFC 3768, 6.1.
    active_interval.duration() * MISSED + skew(version, priority, active_interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(centiseconds: u16) -> Interval {
        Interval::centiseconds(centiseconds).unwrap()
    }

    /// RFC 9568, 6.1.
    #[test]
    fn skew_of_version_three_is_a_part_of_the_active_interval() {
        let skew = |priority, cs| skew(Version::V3, Priority(priority), interval(cs));
        assert_eq!(skew(128, 100), Duration::from_millis(500));
        assert_eq!(skew(255, 256), Duration::from_millis(10));
        assert_eq!(skew(1, 256), Duration::from_millis(2_550));
        assert_eq!(skew(128, 4_095), Duration::from_millis(20_475));
        assert_eq!(skew(254, 1), Duration::from_nanos(78_125));
    }

    /// RFC 9568, 6.1.
    #[test]
    fn a_backup_of_version_three_misses_three_adverts_and_its_skew() {
        let down = |priority, cs| down(Version::V3, Priority(priority), interval(cs));
        assert_eq!(down(128, 100), Duration::from_millis(3_500));
        assert_eq!(down(192, 1), Duration::from_micros(32_500));
    }

    /// RFC 3768, 6.1.
    #[test]
    fn skew_of_version_two_is_a_part_of_a_second() {
        for cs in [100, 1_000, 25_500] {
            let skew = |priority| skew(Version::V2, Priority(priority), interval(cs));
            assert_eq!(skew(128), Duration::from_millis(500));
            assert_eq!(skew(254), Duration::from_nanos(7_812_500));
        }
    }

    /// RFC 3768, 6.1.
    #[test]
    fn a_backup_of_version_two_misses_three_adverts_and_its_skew() {
        let down = down(Version::V2, Priority(64), interval(200));
        assert_eq!(down, Duration::from_millis(6_750));
    }

    /// RFC 9568, 6.1: the Backup of the highest priority is the first to take over.
    #[test]
    fn a_higher_priority_waits_less() {
        for version in [Version::V2, Version::V3] {
            for cs in [1, 10, 100] {
                let mut waits = (1..=255).map(|p| down(version, Priority(p), interval(cs)));
                assert!(
                    waits
                        .clone()
                        .zip(waits.by_ref().skip(1))
                        .all(|(a, b)| a > b)
                );
            }
        }
    }
}
