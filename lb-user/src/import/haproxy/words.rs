//! Takes the lines of HAProxy's files apart into words.
//!
//! Words are separated by blanks, a backslash takes the next character as it is, `'` quotes all, `"` all
//! but a backslash and variables of the environment, `#` begins a comment.

/// A line with something on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// At least one.
    pub(super) words: Vec<String>,
}

impl Line {
    /// The word at `at`, or nothing.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }
}

/// Why a line cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a quotation mark is not closed")]
    Open,
    #[error("what variables of the environment hold is not known here")]
    Variable,
}

/// The words of a line.
pub(super) fn split(text: &str) -> Result<Vec<String>, Unreadable> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let is_plain = quote == Some('\'');
        match c {
            '\\' if !is_plain => {
                // At the end of a line it stands for nothing.
                let escaped = characters.next().map(|next| match next {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
                word.get_or_insert_default().extend(escaped);
            }
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            '$' if quote == Some('"') => {
                let is_name = |c: &char| *c == '{' || *c == '_' || c.is_ascii_alphabetic();
                if characters.peek().is_some_and(is_name) {
                    return Err(Unreadable::Variable);
                }
                word.get_or_insert_default().push(c);
            }
            '#' if quote.is_none() => break,
            c if c.is_whitespace() && quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Unreadable::Open);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::{Unreadable, split};

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap()
    }

    #[test]
    fn blanks_quotes_and_backslashes_are_as_in_haproxy() {
        assert_eq!(words("  mode tcp   # a comment"), ["mode", "tcp"]);
        assert_eq!(
            words(r#"a 'b "c" \d' "e\"f" g\ h"#),
            ["a", r#"b "c" \d"#, "e\"f", "g h"]
        );
        assert_eq!(words(r"log '' \#x"), ["log", "", "#x"]);
        assert_eq!(words("# all of it"), [""; 0]);
        assert_eq!(words("'$HOME' $x"), ["$HOME", "$x"]);
    }

    #[test]
    fn what_is_open_or_not_known_is_refused() {
        assert_eq!(split("a \"b"), Err(Unreadable::Open));
        assert_eq!(
            split("server a \"${ADDR}:1883\""),
            Err(Unreadable::Variable)
        );
    }
}
