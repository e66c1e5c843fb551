//! The password file: one `USER:$argon2id$...` a line.
//!
//! Empty lines and those that start with `#` are comments. The hash is a PHC string and holds its
//! own salt and cost; as no such string has a colon, user names may.

mod file;

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use console::{
    lock::LockError,
    password::{self, HashProblem},
};
use thiserror::Error;

use super::hashing::Hash;
pub(crate) use file::{Change, PasswordFile};

/// What MQTT's length of a string allows.
const MAX_NAME: usize = 65_535;

/// Why a password file cannot be used.
#[derive(Debug, Error)]
pub enum PasswordsError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("line {line}: {problem}")]
    Line { line: usize, problem: LineProblem },
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// What is wrong with a line. Says nothing of the hash itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineProblem {
    #[error("not USER:$argon2id$...")]
    NoUser,
    #[error("not a hash of Argon2: write it with `tidegate-broker passwd`")]
    NoHash,
    #[error("a hash that costs more than 1 GiB or 100 passes")]
    TooDear,
    #[error("the user is listed twice")]
    Twice,
    #[error(transparent)]
    Name(#[from] NameProblem),
}

/// What no user can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameProblem {
    #[error("a user name must not be empty")]
    Empty,
    #[error("a user name is longer than MQTT allows, 65535 bytes")]
    TooLong,
    #[error("a user name must not have control characters, blanks at its ends, or \"#\" in front")]
    Illegal,
}

/// The users of one file.
pub(super) struct Passwords {
    users: HashMap<Box<str>, Arc<Hash>>,
    nobody: Arc<Hash>,
}

impl Passwords {
    pub(super) fn load(path: &Path) -> Result<Self, PasswordsError> {
        let text = fs::read_to_string(path).map_err(PasswordsError::Read)?;
        Self::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Result<Self, PasswordsError> {
        let mut users = HashMap::new();
        let mut first = None;
        for (index, line) in text.lines().enumerate() {
            let refuse = |problem| PasswordsError::Line {
                line: index + 1,
                problem,
            };
            let Some((user, hash)) = split_line(line).map_err(refuse)? else {
                continue;
            };
            check_name(user).map_err(|problem| refuse(problem.into()))?;
            check_hash(hash).map_err(refuse)?;
            first.get_or_insert(hash);
            let known = users.insert(Box::from(user), Arc::new(Hash::new(hash)));
            if known.is_some() {
                return Err(refuse(LineProblem::Twice));
            }
        }
        Ok(Self {
            users,
            nobody: Arc::new(Hash::new(&password::unreachable(first))),
        })
    }

    pub(super) fn find(&self, user: &str) -> Option<&Arc<Hash>> {
        self.users.get(user)
    }

    /// What no password fits, at the price of the file's first hash.
    pub(super) fn nobody(&self) -> &Arc<Hash> {
        &self.nobody
    }

    /// Keeps what an older state of a file knows of the hashes that are the same.
    pub(super) fn keep_from(&mut self, older: &Self) {
        for (user, hash) in &mut self.users {
            if let Some(known) = older.find(user)
                && known.text() == hash.text()
            {
                *hash = Arc::clone(known);
            }
        }
    }
}

/// A line's user and hash; `None` for a comment.
fn split_line(line: &str) -> Result<Option<(&str, &str)>, LineProblem> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    line.rsplit_once(':').map(Some).ok_or(LineProblem::NoUser)
}

/// Whether a file can hold this user.
pub(crate) fn check_name(user: &str) -> Result<(), NameProblem> {
    if user.is_empty() {
        Err(NameProblem::Empty)
    } else if user.len() > MAX_NAME {
        Err(NameProblem::TooLong)
    } else if user.trim() != user || user.starts_with('#') || user.contains(char::is_control) {
        Err(NameProblem::Illegal)
    } else {
        Ok(())
    }
}

fn check_hash(text: &str) -> Result<(), LineProblem> {
    password::check(text).map_err(|problem| match problem {
        HashProblem::NoHash => LineProblem::NoHash,
        HashProblem::TooDear => LineProblem::TooDear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hashing::cheap;

    fn problem(text: &str) -> (usize, LineProblem) {
        match Passwords::parse(text) {
            Err(PasswordsError::Line { line, problem }) => (line, problem),
            Err(error) => panic!("{error}"),
            Ok(_passwords) => panic!("{text:?} was taken"),
        }
    }

    #[test]
    fn users_comments_and_colons_in_names_are_read() {
        let hash = cheap("sesame");
        let text = format!("# people\n\n  alice:{hash}  \nurn:dev:7:{hash}\nzoë k:{hash}\n");
        let passwords = Passwords::parse(&text).unwrap();
        for user in ["alice", "urn:dev:7", "zoë k"] {
            assert_eq!(**passwords.find(user).unwrap().text(), hash);
        }
        assert!(passwords.find("# people").is_none());
    }

    #[test]
    fn bad_lines_are_named_without_their_hash() {
        let hash = cheap("sesame");
        let dear = hash.replace("m=8,", "m=1048577,");
        assert_ne!(dear, hash);
        for (line, expected) in [
            ("alice".to_owned(), LineProblem::NoUser),
            ("alice:sesame".to_owned(), LineProblem::NoHash),
            ("alice:$2y$10$abcdefghijk".to_owned(), LineProblem::NoHash),
            (
                "alice:$argon2id$v=19$m=8,t=1,p=1".to_owned(),
                LineProblem::NoHash,
            ),
            (
                format!("alice:{}", hash.replace("$c2FsdHNhbHQ$", "$c2FsdA$")),
                LineProblem::NoHash,
            ),
            (format!("alice:{dear}"), LineProblem::TooDear),
            (format!(":{hash}"), NameProblem::Empty.into()),
            (format!("alice:{hash}\nalice:{hash}"), LineProblem::Twice),
        ] {
            let lines = line.matches('\n').count();
            let (at, problem) = problem(&format!("# one\n{line}\n"));
            assert_eq!((at, problem), (2 + lines, expected), "{line}");
            assert!(!problem.to_string().contains("sesame"));
        }
    }

    #[test]
    fn nobody_costs_what_the_first_user_does() {
        let hash = cheap("sesame");
        let passwords = Passwords::parse(&format!("alice:{hash}\n")).unwrap();
        let nobody = passwords.nobody().text();
        assert!(
            nobody.starts_with("$argon2id$v=19$m=8,t=1,p=1$"),
            "{nobody}"
        );
        check_hash(nobody).unwrap();
        let nobody = Passwords::parse("").unwrap();
        let nobody = nobody.nobody().text();
        assert!(
            nobody.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{nobody}"
        );
        check_hash(nobody).unwrap();
    }

    #[test]
    fn what_is_known_of_a_hash_outlives_a_reload_and_not_a_change() {
        let (same, changed) = (cheap("sesame"), cheap("open"));
        let older = Passwords::parse(&format!("alice:{same}\nbob:{same}\n")).unwrap();
        let mut newer = Passwords::parse(&format!("alice:{same}\nbob:{changed}\n")).unwrap();
        newer.keep_from(&older);
        let kept = |user| Arc::ptr_eq(newer.find(user).unwrap(), older.find(user).unwrap());
        assert!(kept("alice"));
        assert!(!kept("bob"));
    }
}
