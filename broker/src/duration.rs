//! How durations are written, in the configuration and on the command line.

use std::time::Duration;

/// A century is longer than any timer here can mean, and keeps `Instant` sums from overflowing.
const LONGEST_MILLIS: u64 = 100 * 366 * 86_400_000;

/// Reads a whole number with its unit, such as `500ms`, `10s`, `2m`, `3h` or `7d`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let millis = number.checked_mul(millis)?;
    (millis <= LONGEST_MILLIS).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_an_upper_bound() {
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse("2m"), Some(Duration::from_mins(2)));
        let huge = "999999999999999999999s";
        for wrong in ["", "5", "s", "2 s", "-5s", "1w", "99999999999d", huge] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
