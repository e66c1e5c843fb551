//! How two topic filters stand to each other: is one all of the other, have they a topic in common?
//!
//! A topic name is a filter that matches itself alone, so [`covers`] also tells whether a filter
//! matches a topic.

use crate::topic::hides_from_wildcards;

/// Whether `wide` matches every topic that `narrow` does.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if starts_with_wildcard(wide) && hides_from_wildcards(narrow) {
        return false;
    }
    // Every topic has a first level.
    let wide = if wide == "+/#" { "#" } else { wide };
    let mut wide = wide.split('/');
    let mut narrow = narrow.split('/');
    loop {
        match (wide.next(), narrow.next()) {
            // Of the level above as well (4.7.1.2), which `narrow` may have ended with.
            (Some("#"), _) | (None, None) => return true,
            (Some(_), None) | (None, Some(_)) | (Some(_), Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// Whether there is a topic that both match.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let hides = |a: &str, b: &str| starts_with_wildcard(a) && hides_from_wildcards(b);
    if hides(a, b) || hides(b, a) {
        return false;
    }
    let mut a = a.split('/');
    let mut b = b.split('/');
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => return false,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

fn starts_with_wildcard(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trie::Trie;

    /// All topics of up to four levels, with a level that no filter of the tests names. One level may
    /// be empty, which no topic is: a filter for nothing else than that is of no harm.
    fn topics() -> Vec<String> {
        let mut all = vec![];
        let mut longest: Vec<String> = vec![String::new()];
        for depth in 0..4 {
            let separator = if depth == 0 { "" } else { "/" };
            longest = longest
                .iter()
                .flat_map(|start| {
                    ["a", "", "$s", "other"].map(|level| format!("{start}{separator}{level}"))
                })
                .collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    /// The topics that a filter matches, by what delivers messages.
    fn matching(filter: &str, topics: &[String]) -> Vec<bool> {
        let mut trie = Trie::default();
        trie.insert(filter, (), ());
        let is_match = |topic: &String| {
            let mut found = false;
            trie.for_each_match(topic, |_key, _value| found = true);
            found
        };
        topics.iter().map(is_match).collect()
    }

    fn filters() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "", "$s", "+"]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map(
            "not empty",
            |(mut levels, is_open)| {
                if is_open {
                    levels.pop();
                    levels.push("#");
                }
                let filter = levels.join("/");
                (!filter.is_empty()).then_some(filter)
            },
        )
    }

    proptest! {
        #[test]
        fn agree_with_what_is_delivered(a in filters(), b in filters()) {
            let topics = topics();
            let (in_a, in_b) = (matching(&a, &topics), matching(&b, &topics));
            let both = || in_a.iter().zip(&in_b);
            let is_all = both().all(|(in_a, in_b)| *in_a || !in_b);
            prop_assert_eq!(covers(&a, &b), is_all, "{} covers {}", a, b);
            let is_common = both().any(|(in_a, in_b)| *in_a && *in_b);
            prop_assert_eq!(overlap(&a, &b), is_common, "{} overlaps {}", a, b);
            for (topic, in_a) in topics.iter().zip(&in_a) {
                prop_assert_eq!(covers(&a, topic), *in_a, "{} matches {}", a, topic);
            }
        }
    }
}
