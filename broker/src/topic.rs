//! The rules for topic names and topic filters (MQTT 5, 4.7).

/// The most levels that a topic or filter may have.
///
/// The tries recurse once per level; real topics have fewer than twenty.
pub const MAX_LEVELS: usize = 128;

/// What a level of a filter takes in memory.
const LEVEL_BYTES: usize = 1024;

/// A filter that names a shared subscription starts with this (MQTT 5, 4.8.2).
const SHARE_PREFIX: &str = "$share/";

/// The older way to share: one group without a name for each filter.
const QUEUE_PREFIX: &str = "$queue/";

/// What a subscriber wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// All messages of a filter.
    All(&'a str),
    /// The group's messages, with others.
    Share(SharedFilter<'a>),
}

/// A filter whose messages go to one member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// Empty for `$queue`.
    pub group: &'a str,
    pub filter: &'a str,
}

impl SharedFilter<'_> {
    /// As a client subscribes to it.
    pub fn text(&self) -> String {
        let Self { group, filter } = self;
        if group.is_empty() {
            format!("{QUEUE_PREFIX}{filter}")
        } else {
            format!("{SHARE_PREFIX}{group}/{filter}")
        }
    }
}

/// Whether a PUBLISH may carry this topic name.
pub fn is_valid_name(topic: &str) -> bool {
    has_legal_shape(topic) && !topic.contains(['+', '#'])
}

/// Whether a SUBSCRIBE may carry this topic filter.
pub fn is_valid_filter(filter: &str) -> bool {
    if !has_legal_shape(filter) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        match level {
            "+" => {}
            "#" if is_last => {}
            _ if level.contains(['+', '#']) => return false,
            _ => {}
        }
    }
    true
}

/// Reads the filter of a SUBSCRIBE or UNSUBSCRIBE; `None` when it is not legal.
pub fn parse_filter(text: &str) -> Option<Wanted<'_>> {
    let shared = if let Some(rest) = text.strip_prefix(SHARE_PREFIX) {
        let (group, filter) = rest.split_once('/')?;
        if group.is_empty() || group.contains(['+', '#']) {
            return None;
        }
        SharedFilter { group, filter }
    } else if let Some(filter) = text.strip_prefix(QUEUE_PREFIX) {
        SharedFilter { group: "", filter }
    } else {
        return is_valid_filter(text).then_some(Wanted::All(text));
    };
    (is_valid_filter(shared.filter) && !shared.group.contains('\0'))
        .then_some(Wanted::Share(shared))
}

/// Whether a valid filter matches a valid topic name (MQTT 5, 4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    if hides_from_wildcards(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filters = filter.split('/');
    let mut levels = topic.split('/');
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_level)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

/// Wildcards in the first level do not match topics that start with `$` (MQTT 5, 4.7.2).
pub fn hides_from_wildcards(topic: &str) -> bool {
    topic.starts_with('$')
}

/// Splits off the first level: `"a/b"` is `"a"` and what is below it. An empty level is a level.
pub fn split_level(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((level, below)) => (level, Some(below)),
        None => (path, None),
    }
}

/// Bytes that a filter takes in a session and in the trees of filters, at the most: in each of two trees
/// a level that has no other below it is a table of its own.
pub fn weight(filter: &str) -> usize {
    filter.len() + LEVEL_BYTES * filter.split('/').count()
}

/// The length is bounded by the packet: strings carry a 16-bit length.
fn has_legal_shape(text: &str) -> bool {
    !text.is_empty()
        && !text.contains('\0')
        && text.bytes().filter(|byte| *byte == b'/').count() < MAX_LEVELS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything_but_wildcards_and_nul() {
        for legal in ["a", "/", "//", "a//b", "$SYS/x", "ä/ö", "日本", " "] {
            assert!(is_valid_name(legal), "{legal:?}");
        }
        for illegal in ["", "a/+", "#", "a\0b"] {
            assert!(!is_valid_name(illegal), "{illegal:?}");
        }
    }

    #[test]
    fn wildcards_fill_a_level_and_hash_is_last() {
        for legal in ["#", "+", "a/#", "+/+/#", "/+", "$SYS/#", "ä/+"] {
            assert!(is_valid_filter(legal), "{legal:?}");
        }
        for illegal in ["", "a#", "#/a", "a+", "+a/b", "a/#/b", "a\0"] {
            assert!(!is_valid_filter(illegal), "{illegal:?}");
        }
    }

    #[test]
    fn shared_filters_are_told_from_others() {
        let share = |group, filter| Some(Wanted::Share(SharedFilter { group, filter }));
        for (text, wanted) in [
            ("$share/g/a/#", share("g", "a/#")),
            ("$share/ä b/+", share("ä b", "+")),
            ("$share/g//", share("g", "/")),
            ("$queue/a", share("", "a")),
            ("$queue//a", share("", "/a")),
            ("$share", Some(Wanted::All("$share"))),
            ("$shared/g/a", Some(Wanted::All("$shared/g/a"))),
            ("a/$share/g", Some(Wanted::All("a/$share/g"))),
            ("$share/", None),
            ("$share/g", None),
            ("$share/g/", None),
            ("$share//a", None),
            ("$share/+/a", None),
            ("$share/g#/a", None),
            ("$share/g\0/a", None),
            ("$share/g/a#", None),
            ("$queue/", None),
            ("$queue/#/a", None),
        ] {
            assert_eq!(parse_filter(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("+/+", "/a"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a/b"),
            ("$SYS/#", "$SYS/a"),
            ("a/+/c", "a//c"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+", "a"),
            ("+", "/a"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("a/+/c", "a/b/d"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(is_valid_name(&"/".repeat(MAX_LEVELS - 1)));
        assert!(!is_valid_name(&"/".repeat(MAX_LEVELS)));
        assert!(!is_valid_filter(&"/".repeat(MAX_LEVELS)));
    }
}
