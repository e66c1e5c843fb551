//! The percent signs in topics, client ids, user names and passwords.

/// What a template may refer to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names<'a> {
    pub(super) number: u32,
    pub(super) client_id: &'a str,
    pub(super) username: &'a str,
}

/// Replaces `%i` by the client's number, `%c` by its id, `%u` by its user name and `%%` by one
/// percent sign; any other percent sign stands for itself.
pub(super) fn expand(template: &str, names: Names<'_>) -> String {
    let mut text = String::with_capacity(template.len() + 8);
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let known = match tail.as_bytes().first() {
            Some(b'i') => {
                text.push_str(&names.number.to_string());
                true
            }
            Some(b'c') => {
                text.push_str(names.client_id);
                true
            }
            Some(b'u') => {
                text.push_str(names.username);
                true
            }
            Some(b'%') => {
                text.push('%');
                true
            }
            _ => {
                text.push('%');
                false
            }
        };
        rest = &tail[usize::from(known)..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::{Names, expand};

    const NAMES: Names<'_> = Names {
        number: 17,
        client_id: "c-17",
        username: "ann",
    };

    #[test]
    fn every_place_holder_is_replaced() {
        assert_eq!(expand("bench/%i/%c/%u", NAMES), "bench/17/c-17/ann");
        assert_eq!(expand("%i%i", NAMES), "1717");
    }

    #[test]
    fn other_percent_signs_stand_for_themselves() {
        assert_eq!(expand("100%/%x/%%i/%", NAMES), "100%/%x/%i/%");
    }

    #[test]
    fn text_beyond_ascii_is_kept() {
        assert_eq!(expand("größe/%é/%i", NAMES), "größe/%é/17");
    }
}
