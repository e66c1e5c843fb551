//! The rules for topic names and topic filters (MQTT 5, 4.7).

/// The most levels that a topic or filter may have.
///
/// The tries recurse once per level; real topics have fewer than twenty.
pub const MAX_LEVELS: usize = 128;

/// A filter that names a shared subscription starts with this.
pub const SHARE_PREFIX: &str = "$share/";

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
    fn depth_is_bounded() {
        assert!(is_valid_name(&"/".repeat(MAX_LEVELS - 1)));
        assert!(!is_valid_name(&"/".repeat(MAX_LEVELS)));
        assert!(!is_valid_filter(&"/".repeat(MAX_LEVELS)));
    }
}
