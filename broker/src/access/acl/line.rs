//! One line of an ACL file.

use std::fmt;

use thiserror::Error;

use super::{Action, Effect};
use crate::topic::{self, Wanted};

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineProblem {
    /// The line is not quoted: in another file, named by mistake, it may be a secret.
    #[error("it does not begin with \"allow\" or \"deny\"")]
    Effect,
    #[error("{0:?} is not \"user NAME\", \"client ID\", \"anonymous\" or \"all\"")]
    Who(String),
    #[error("a name is missing, or its closing quotation mark")]
    Name,
    #[error("{0:?} is not \"publish\", \"subscribe\" or \"all\"")]
    Action(String),
    #[error("{0:?} is not a topic filter")]
    Filter(String),
    #[error("shared subscriptions go by the filter behind the group: leave \"$share/GROUP/\" out")]
    Share,
    #[error("%c is the client id, %u the user, %% a percent sign, and there is nothing else")]
    Percent,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    User(Box<str>),
    Client(Box<str>),
    Anonymous,
    All,
}

/// A topic filter with places for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    ClientId,
    User,
}

/// A pattern with the names of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Filter(Box<str>),
    /// A user's name is asked for and there is none.
    NoUser,
    /// A name has a character that means something in a filter.
    Ambiguous,
}

/// Reads a line; `None` for a comment.
pub(super) fn parse(line: &str) -> Result<Option<(Effect, Who, Action, Pattern)>, LineProblem> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (effect, rest) = word(line);
    let effect = match effect {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return Err(LineProblem::Effect),
    };
    let (who, rest) = who(rest)?;
    let (action, rest) = word(rest);
    let action = match action {
        "publish" => Action::Publish,
        "subscribe" => Action::Subscribe,
        "all" => Action::All,
        other => return Err(LineProblem::Action(other.to_owned())),
    };
    Ok(Some((effect, who, action, Pattern::parse(rest)?)))
}

/// The first word, and what follows the blanks behind it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn who(text: &str) -> Result<(Who, &str), LineProblem> {
    let (kind, rest) = word(text);
    match kind {
        "all" => Ok((Who::All, rest)),
        "anonymous" => Ok((Who::Anonymous, rest)),
        "user" => name(rest).map(|(name, rest)| (Who::User(name), rest)),
        "client" => name(rest).map(|(name, rest)| (Who::Client(name), rest)),
        other => Err(LineProblem::Who(other.to_owned())),
    }
}

fn name(text: &str) -> Result<(Box<str>, &str), LineProblem> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or(LineProblem::Name)?,
        None => word(text),
    };
    if name.is_empty() {
        return Err(LineProblem::Name);
    }
    Ok((name.into(), rest.trim_start()))
}

impl fmt::Display for Pattern {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('%', "%%")),
            Part::ClientId => f.write_str("%c"),
            Part::User => f.write_str("%u"),
        })
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, LineProblem> {
        if matches!(topic::parse_filter(text), Some(Wanted::Share(_))) {
            return Err(LineProblem::Share);
        }
        let mut pieces = text.split('%');
        let mut plain = pieces.next().unwrap_or_default().to_owned();
        let mut parts = Vec::new();
        while let Some(piece) = pieces.next() {
            let mut rest = piece.chars();
            let part = match rest.next() {
                Some('c') => Part::ClientId,
                Some('u') => Part::User,
                // The second sign of two; what is between it and the next one is plain.
                None => {
                    let behind = pieces.next().ok_or(LineProblem::Percent)?;
                    plain.push('%');
                    plain.push_str(behind);
                    continue;
                }
                Some(_) => return Err(LineProblem::Percent),
            };
            parts.push(Part::Text(std::mem::take(&mut plain).into()));
            parts.push(part);
            plain = rest.as_str().to_owned();
        }
        parts.push(Part::Text(plain.into()));
        let pattern = Self(parts);
        // Names are letters to the rules of filters.
        match pattern.fill(Some("u"), "c") {
            Filled::Filter(filter) if topic::is_valid_filter(&filter) => Ok(pattern),
            Filled::Filter(_) | Filled::NoUser | Filled::Ambiguous => {
                Err(LineProblem::Filter(text.to_owned()))
            }
        }
    }

    pub(super) fn has_client_id(&self) -> bool {
        self.0.contains(&Part::ClientId)
    }

    /// The filter, if it has no place for a name.
    pub(super) fn plain(&self) -> Option<Box<str>> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// Puts a client's names in their places.
    pub(super) fn fill(&self, user: Option<&str>, client_id: &str) -> Filled {
        let mut filter = String::new();
        for part in &self.0 {
            let name = match part {
                Part::Text(text) => {
                    filter.push_str(text);
                    continue;
                }
                Part::ClientId => client_id,
                Part::User => match user {
                    Some(user) => user,
                    None => return Filled::NoUser,
                },
            };
            // Topics that start with `$` are apart from all others (4.7.2).
            let is_apart = filter.is_empty() && name.starts_with('$');
            if name.is_empty() || name.contains(['/', '+', '#']) || is_apart {
                return Filled::Ambiguous;
            }
            filter.push_str(name);
        }
        Filled::Filter(filter.into())
    }
}
