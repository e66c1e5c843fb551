//! The node's retained messages as operators are shown them.

use std::{fmt::Write as _, sync::PoisonError, time::Instant};

use super::view::{Page, RetainedView};
use crate::{message::Qos, retained::Kept, shard::Shared};

/// Bytes of payload that are shown: what they are is seen by then.
const PAYLOAD_SHOWN: usize = 4096;

/// Whether payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payloads {
    Hidden,
    Shown,
}

/// Lists the messages that a filter matches, by their topics.
pub(super) async fn list(
    shared: &Shared,
    filter: &str,
    after: Option<Box<str>>,
    limit: usize,
    payloads: Payloads,
    now: Instant,
) -> Page<RetainedView> {
    let store = shared.store_of(filter);
    let mut rows = Vec::new();
    let mut after = after;
    loop {
        // Shards wait for the store when it is written: it is let go between two pages.
        let page = store.read().unwrap_or_else(PoisonError::into_inner).page(
            filter,
            after.as_deref(),
            now,
        );
        rows.extend(page.messages.iter().map(|kept| view(kept, payloads, now)));
        if rows.len() > limit {
            rows.truncate(limit);
            let next = rows.last().map(|row| row.topic.clone());
            return Page { rows, next };
        }
        if page.next.is_none() || rows.len() == limit {
            let next = page.next.map(Into::into);
            return Page { rows, next };
        }
        after = page.next;
        // The thread also accepts clients.
        tokio::task::yield_now().await;
    }
}

fn view(kept: &Kept, payloads: Payloads, now: Instant) -> RetainedView {
    let Kept { message, since, .. } = kept;
    let left = |expires: Instant| expires.saturating_duration_since(now).as_secs();
    let (payload, payload_hex) = match payloads {
        Payloads::Hidden => (None, None),
        Payloads::Shown => shown(&message.payload),
    };
    RetainedView {
        topic: message.topic.to_string(),
        bytes: message.payload.len(),
        qos: match message.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
            Qos::ExactlyOnce => 2,
        },
        age_seconds: now.saturating_duration_since(*since).as_secs(),
        expires_in_seconds: message.expires.map(left),
        payload,
        payload_hex,
    }
}

/// A payload's beginning as text if it is some, in hexadecimal if not.
fn shown(payload: &[u8]) -> (Option<String>, Option<String>) {
    let start = payload.get(..PAYLOAD_SHOWN).unwrap_or(payload);
    match str::from_utf8(start) {
        Ok(text) => (Some(text.to_owned()), None),
        // Cut within a character, as it may be.
        Err(error) if start.len() < payload.len() && error.error_len().is_none() => {
            let text = String::from_utf8_lossy(start.get(..error.valid_up_to()).unwrap_or(start));
            (Some(text.into_owned()), None)
        }
        Err(_no_text) => {
            let hex = start.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a String does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            (None, Some(hex))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_what_they_are_and_not_for_long() {
        assert_eq!(shown("21 °C".as_bytes()), (Some("21 °C".to_owned()), None));
        assert_eq!(shown(&[0xff, 0x00]), (None, Some("ff00".to_owned())));
        assert_eq!(
            shown(&"a°".as_bytes()[..2]),
            (None, Some("61c2".to_owned()))
        );
        let long = "°".repeat(PAYLOAD_SHOWN);
        let (text, _) = shown(&long.as_bytes()[..2 * PAYLOAD_SHOWN]);
        assert_eq!(text.unwrap().len(), PAYLOAD_SHOWN);
        let odd = format!("a{long}");
        assert_eq!(shown(odd.as_bytes()).0.unwrap().len(), PAYLOAD_SHOWN - 1);
    }
}
