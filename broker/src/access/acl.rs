//! The ACL file: who may publish and subscribe to which topics.
//!
//! ```text
//! allow|deny  WHO  publish|subscribe|all  FILTER
//!
//! WHO      user NAME | client ID | anonymous | all      a name with blanks stands in "..."
//! FILTER   the rest of the line: a topic filter, %c is the client id, %u the user, %% a %
//! ```
//!
//! Empty lines and those that start with `#` are comments. The rules are tried in their order:
//!
//! - A publication goes by the first rule whose filter matches its topic.
//! - A subscription is allowed by the first rule that covers all of its filter, unless a rule before
//!   it denies any topic that the filter matches: then it is refused. So whoever may subscribe may
//!   have every message that the subscription brings, and no message is looked at again.
//!
//! What no rule decides goes by the file's default.

mod cover;
mod grants;
mod line;
mod permit;

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use thiserror::Error;

use super::Identity;
pub(crate) use grants::Grants;
pub(super) use grants::GrantsError;
use line::{LineProblem, Pattern, Who};
use permit::Compiled;
pub(crate) use permit::Permit;

/// Whether something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Publish,
    Subscribe,
    All,
}

/// Why an ACL file cannot be used.
#[derive(Debug, Error)]
pub enum AclError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("line {line}: {problem}")]
    Line { line: usize, problem: LineProblem },
}

/// All rules, sorted by whom they may be about.
pub(super) struct Acl {
    default: Effect,
    /// About all clients that have a user, or that have none, and the same for each of them.
    users: Arc<[Compiled]>,
    anonymous: Arc<[Compiled]>,
    /// About all clients, but with a name of each in the filter.
    named: Vec<Rule>,
    by_user: HashMap<Box<str>, Vec<Rule>>,
    by_client: HashMap<Box<str>, Vec<Rule>>,
    /// The first line that goes by the client id.
    trusts_ids_at: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// The place among all rules.
    index: usize,
    effect: Effect,
    action: Action,
    pattern: Pattern,
}

impl Acl {
    pub(super) fn load(path: &Path, default: Effect) -> Result<Self, AclError> {
        let text = fs::read_to_string(path).map_err(AclError::Read)?;
        Self::parse(&text, default)
    }

    pub(super) fn parse(text: &str, default: Effect) -> Result<Self, AclError> {
        let (mut users, mut anonymous) = (Vec::new(), Vec::new());
        let mut acl = Self {
            default,
            users: Arc::default(),
            anonymous: Arc::default(),
            named: Vec::new(),
            by_user: HashMap::new(),
            by_client: HashMap::new(),
            trusts_ids_at: None,
        };
        for (index, line) in text.lines().enumerate() {
            let parsed = line::parse(line).map_err(|problem| AclError::Line {
                line: index + 1,
                problem,
            })?;
            let Some((effect, who, action, pattern)) = parsed else {
                continue;
            };
            let rule = Rule {
                index,
                effect,
                action,
                pattern,
            };
            if matches!(who, Who::Client(_)) || rule.pattern.has_client_id() {
                acl.trusts_ids_at.get_or_insert(index + 1);
            }
            match (who, rule.pattern.plain()) {
                (Who::User(name), _) => acl.by_user.entry(name).or_default().push(rule),
                (Who::Client(id), _) => acl.by_client.entry(id).or_default().push(rule),
                (Who::Anonymous, Some(filter)) => anonymous.push(rule.with(filter)),
                (Who::All, Some(filter)) => {
                    users.push(rule.with(filter.clone()));
                    anonymous.push(rule.with(filter));
                }
                (Who::Anonymous, None) => acl.by_user.entry("".into()).or_default().push(rule),
                (Who::All, None) => acl.named.push(rule),
            }
        }
        acl.users = users.into();
        acl.anonymous = anonymous.into();
        Ok(acl)
    }

    /// The first line that goes by the client id, which a client chooses.
    pub(super) fn trusts_ids_at(&self) -> Option<usize> {
        self.trusts_ids_at
    }

    /// Picks the rules that are about one client.
    pub(super) fn permit(&self, identity: &Identity, client_id: &str) -> Permit {
        let user = identity.user();
        // No user has an empty name in a file: there stand the rules of those who have none.
        let by_user = self.by_user.get(user.unwrap_or_default());
        let by_client = self.by_client.get(client_id);
        let mut own: Vec<_> = by_user
            .into_iter()
            .chain(by_client)
            .chain([&self.named])
            .flatten()
            .filter_map(|rule| rule.compile(user, client_id))
            .collect();
        own.sort_by_key(|rule| rule.index);
        let default = match &identity.grants {
            Some(grants) => {
                own.extend(grants.compile(user, client_id));
                Effect::Deny
            }
            None => self.default,
        };
        let shared = match user {
            Some(_) => &self.users,
            None => &self.anonymous,
        };
        Permit::new(Arc::clone(shared), own.into(), default)
    }
}

impl Rule {
    fn with(&self, filter: Box<str>) -> Compiled {
        Compiled {
            index: self.index,
            effect: self.effect,
            action: self.action,
            filter: Some(filter),
        }
    }

    /// The rule for one client; `None` where it is not about that client.
    fn compile(&self, user: Option<&str>, client_id: &str) -> Option<Compiled> {
        use line::Filled;
        let filter = match self.pattern.fill(user, client_id) {
            Filled::Filter(filter) => Some(filter),
            Filled::NoUser => return None,
            // What the rule is about cannot be told from what it is not about.
            Filled::Ambiguous => match self.effect {
                Effect::Allow => return None,
                Effect::Deny => None,
            },
        };
        Some(Compiled {
            index: self.index,
            effect: self.effect,
            action: self.action,
            filter,
        })
    }
}

#[cfg(test)]
mod tests;
