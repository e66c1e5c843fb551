//! Who may log in, as a file has it.
//!
//! ```toml
//! [[account]]
//! name = "alice"
//! role = "operator"
//! password = "$argon2id$..."
//!
//! [[token]]
//! name = "grafana"
//! role = "viewer"
//! hash = "..."        # SHA-256 of the token, which is as long as a key and needs no slow hash
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    sync::Arc,
};

use console::{
    lock::LockError,
    password::{self, HashProblem},
};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::random::Digest;

/// Entries of a file. More is no list of people.
pub(crate) const MOST: usize = 4_096;

/// What somebody may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything.
    Viewer,
    /// Change things, too.
    Operator,
}

impl Role {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let mut all = [Self::Viewer, Self::Operator].into_iter();
        all.find(|role| role.label() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Why a file of accounts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error(
        "its mode is {mode:04o}: others must not read it, nor write to it (chmod 0600, or 0640)"
    )]
    Mode { mode: u32 },
    #[error("it belongs to user {uid}: it must be root's, or the daemon's own (chown)")]
    Owner { uid: u32 },
    #[error("line {line}: {problem}")]
    Entry { line: usize, problem: EntryProblem },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("it cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// What is wrong with a line. Says nothing of what stands there: it may be a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    #[error("not TOML")]
    Syntax,
    #[error(
        "not what a file of accounts has: [[account]] with name, role and password, and [[token]] with \
         name, role and hash, all strings"
    )]
    Shape,
    #[error("not a name: 1 to 64 letters, digits, `-`, `_`, `.` and `@`")]
    Name,
    #[error("the role is neither \"viewer\" nor \"operator\"")]
    Role,
    #[error("the password is {0}; the command `account add` writes one")]
    Password(#[source] HashProblem),
    #[error("the hash is not 64 hexadecimal digits; the command `account token` writes one")]
    Hash,
    #[error("the name is there twice")]
    Twice,
    #[error("more than {MOST} accounts and tokens")]
    TooMany,
}

/// One who logs in with a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) role: Role,
    /// The PHC string.
    pub(crate) password: Arc<str>,
}

/// One who shows a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) role: Role,
    pub(crate) hash: Digest,
}

/// All of a file. Names are unique across both kinds.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) tokens: BTreeMap<String, Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    account: Vec<Spanned<RawAccount>>,
    #[serde(default)]
    token: Vec<Spanned<RawToken>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    name: String,
    role: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    name: String,
    role: String,
    hash: String,
}

impl Accounts {
    pub(crate) fn parse(text: &str) -> Result<Self, AccountsError> {
        let at = |start: usize| text.bytes().take(start).filter(|b| *b == b'\n').count() + 1;
        let refuse = |start, problem| AccountsError::Entry {
            line: at(start),
            problem,
        };
        let is_toml = toml::de::DeTable::parse(text);
        if let Err(error) = is_toml {
            let start = error.span().map_or(0, |span| span.start);
            return Err(refuse(start, EntryProblem::Syntax));
        }
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            refuse(start, EntryProblem::Shape)
        })?;
        if raw.account.len() + raw.token.len() > MOST {
            return Err(refuse(0, EntryProblem::TooMany));
        }
        let mut own = Self::default();
        for entry in raw.account {
            let start = entry.span().start;
            own.take_account(entry.into_inner())
                .map_err(|problem| refuse(start, problem))?;
        }
        for entry in raw.token {
            let start = entry.span().start;
            own.take_token(entry.into_inner())
                .map_err(|problem| refuse(start, problem))?;
        }
        Ok(own)
    }

    fn take_account(&mut self, raw: RawAccount) -> Result<(), EntryProblem> {
        password::check(&raw.password).map_err(EntryProblem::Password)?;
        let account = Account {
            role: Role::named(&raw.role).ok_or(EntryProblem::Role)?,
            password: raw.password.into(),
        };
        self.check_new(&raw.name)?;
        self.accounts.insert(raw.name, account);
        Ok(())
    }

    fn take_token(&mut self, raw: RawToken) -> Result<(), EntryProblem> {
        let token = Token {
            role: Role::named(&raw.role).ok_or(EntryProblem::Role)?,
            hash: Digest::parse(&raw.hash).ok_or(EntryProblem::Hash)?,
        };
        self.check_new(&raw.name)?;
        self.tokens.insert(raw.name, token);
        Ok(())
    }

    fn check_new(&self, name: &str) -> Result<(), EntryProblem> {
        if !is_name(name) {
            Err(EntryProblem::Name)
        } else if self.has(name) {
            Err(EntryProblem::Twice)
        } else {
            Ok(())
        }
    }

    /// Whether anybody has that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.accounts.contains_key(name) || self.tokens.contains_key(name)
    }

    /// The file that these are read from again.
    pub(crate) fn render(&self) -> String {
        let mut text =
            "# Who may log in. Made by the command `account`, which keeps no comments.\n"
                .to_owned();
        // None of these has a character that TOML would want to be escaped.
        for (name, Account { role, password }) in &self.accounts {
            text += &format!(
                "\n[[account]]\nname = \"{name}\"\nrole = \"{role}\"\npassword = \"{password}\"\n"
            );
        }
        for (name, Token { role, hash }) in &self.tokens {
            let hash = hash.hex();
            text +=
                &format!("\n[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{hash}\"\n");
        }
        text
    }
}

/// Whether somebody can be called that.
pub(crate) fn is_name(name: &str) -> bool {
    let is_right = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(is_right)
}

/// Accounts as they are asked for.
pub(crate) struct Known {
    accounts: Accounts,
    tokens: HashMap<Digest, (String, Role)>,
    nobody: Arc<str>,
}

impl Default for Known {
    fn default() -> Self {
        Accounts::default().into()
    }
}

impl From<Accounts> for Known {
    fn from(accounts: Accounts) -> Self {
        let tokens = accounts.tokens.iter();
        let tokens = tokens.map(|(name, token)| (token.hash, (name.clone(), token.role)));
        let model = accounts.accounts.values().next();
        let nobody = password::unreachable(model.map(|account| &*account.password));
        Self {
            tokens: tokens.collect(),
            nobody: nobody.into(),
            accounts,
        }
    }
}

impl Known {
    pub(crate) fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.accounts.get(name)
    }

    /// What no password fits, at the price of an account's.
    pub(crate) const fn nobody(&self) -> &Arc<str> {
        &self.nobody
    }

    /// Whose token it is, by what is kept of it.
    pub(crate) fn token(&self, token: Digest) -> Option<&(String, Role)> {
        self.tokens.get(&token)
    }

    /// Whether nobody can log in at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.accounts.is_empty()
    }

    /// Accounts, and tokens.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Accounts { accounts, tokens } = &self.accounts;
        (accounts.len() as u64, tokens.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::cheap;

    fn problem(text: &str) -> (usize, EntryProblem) {
        match Accounts::parse(text) {
            Err(AccountsError::Entry { line, problem }) => (line, problem),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{text:?} was taken"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut accounts = Accounts::default();
        let (role, password) = (Role::Operator, cheap("sesame").into());
        accounts
            .accounts
            .insert("alice@example.org".to_owned(), Account { role, password });
        let (role, hash) = (Role::Viewer, Digest::of(b"token"));
        accounts
            .tokens
            .insert("grafana".to_owned(), Token { role, hash });
        let read = Accounts::parse(&accounts.render()).unwrap();
        assert!(read == accounts);
        let known = Known::from(read);
        assert_eq!(known.counts(), (1, 1));
        let grafana = ("grafana".to_owned(), Role::Viewer);
        assert_eq!(known.token(Digest::of(b"token")), Some(&grafana));
        assert_eq!(known.token(Digest::of(b"grafana")), None);
        assert!(!known.is_empty());
        assert!(Known::from(Accounts::parse("").unwrap()).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_no_secret() {
        let hash = cheap("sesame");
        let entry = |name: &str, role: &str, password: &str| {
            format!(
                "[[account]]\nname = \"{name}\"\nrole = \"{role}\"\npassword = \"{password}\"\n"
            )
        };
        let good = entry("a", "viewer", &hash);
        let token = "[[token]]\nname = \"t\"\nrole = \"viewer\"\nhash = \"secret\"\n";
        for (text, line, expected) in [
            ("x".to_owned(), 1, EntryProblem::Syntax),
            (format!("{good}[[account]\n"), 5, EntryProblem::Syntax),
            (format!("{good}colour = 1\n"), 5, EntryProblem::Shape),
            (format!("account = \"{hash}\"\n"), 1, EntryProblem::Shape),
            (entry("a b", "viewer", &hash), 1, EntryProblem::Name),
            (entry("", "viewer", &hash), 1, EntryProblem::Name),
            (entry("a", "root", &hash), 1, EntryProblem::Role),
            (
                entry("a", "viewer", "sesame"),
                1,
                EntryProblem::Password(HashProblem::NoHash),
            ),
            (format!("{good}{good}"), 5, EntryProblem::Twice),
            (
                good.clone()
                    + &token
                        .replace("\"t\"", "\"a\"")
                        .replace("secret", &"0".repeat(64)),
                5,
                EntryProblem::Twice,
            ),
            (format!("{good}{token}"), 5, EntryProblem::Hash),
        ] {
            assert_eq!(problem(&text), (line, expected), "{text}");
            let told = Accounts::parse(&text).err().unwrap();
            let told = format!("{told} {told:?}");
            assert!(
                !told.contains("sesame") && !told.contains("secret"),
                "{told}"
            );
            assert!(!told.contains(&hash), "{told}");
        }
    }

    #[test]
    fn nobody_costs_what_the_first_account_does() {
        let mut accounts = Accounts::default();
        let (role, password) = (Role::Operator, cheap("sesame").into());
        accounts
            .accounts
            .insert("alice".to_owned(), Account { role, password });
        let known = Known::from(accounts);
        assert!(known.nobody().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
    }

    #[test]
    fn more_entries_than_people_are_refused() {
        let hash = "0".repeat(64);
        let entry = |n: usize| {
            format!("[[token]]\nname = \"t{n}\"\nrole = \"viewer\"\nhash = \"{hash}\"\n")
        };
        let text: String = (0..=MOST).map(entry).collect();
        assert_eq!(problem(&text).1, EntryProblem::TooMany);
    }
}
