//! The rules of rates, and of `[overload]`.

use std::{num::NonZeroU32, time::Duration};

use toml::Spanned;

use super::{check::Check, file};
use crate::rate::Rate;

/// From where on new clients are turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// How late a thread may come to its work.
    pub lag: Duration,
    /// Bytes that the process may hold.
    pub memory: Option<u64>,
}

impl Check<'_> {
    pub(super) fn overload(&mut self, raw: file::Overload) -> Overload {
        let file::Overload { lag, memory_mib } = raw;
        let span = lag.as_ref().map_or(0..0, Spanned::span);
        let lag = self.duration("overload.lag", lag, Duration::from_secs(1));
        if lag.is_zero() {
            self.refuse("overload.lag", span, "must not be zero");
        }
        let memory = memory_mib.map(|memory| {
            let key = "overload.memory_mib";
            let mib = self.number(key, Some(memory), 0, 1..1_000_000_001);
            u64::try_from(mib).unwrap_or_default() * 1024 * 1024
        });
        Overload { lag, memory }
    }

    /// A key and its value for how often, and one for how many at once; without the latter it is as
    /// many as in a second.
    pub(super) fn rate(
        &mut self,
        (key, rate): (&str, Option<Spanned<i64>>),
        (burst_key, burst): (&str, Option<Spanned<i64>>),
    ) -> Option<Rate> {
        let Some(rate) = rate else {
            if let Some(burst) = burst {
                let message = format!("of no use without {key}");
                self.refuse(burst_key, burst.span(), message);
            }
            return None;
        };
        let legal = 1..i64::from(u32::MAX) + 1;
        let narrow = |value: i64| u32::try_from(value).ok().and_then(NonZeroU32::new);
        let per_second = self.number(key, Some(rate), 1, legal.clone());
        let burst = self.number(burst_key, burst, per_second, legal);
        Some(Rate {
            per_second: narrow(per_second).unwrap_or(NonZeroU32::MIN),
            burst: narrow(burst).unwrap_or(NonZeroU32::MIN),
        })
    }
}
