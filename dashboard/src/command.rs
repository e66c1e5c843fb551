//! The command `account` of both daemons: who may log in.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, stdin},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use console::{
    output::json,
    password::{self, HashError},
    secret::{self, Secret, SecretError},
    table::{Align, Table},
    terminal::{AskError, ask_secretly},
};
use serde::Serialize;

use crate::{
    accounts::{self, Account, AccountsError, Role, Token},
    file::AccountsFile,
    random::{self, Digest},
};

/// What people can still remember, and lists of leaked ones begin to be of no use.
const SHORTEST: usize = 8;
const LONGEST: usize = 1_024;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes an account, and asks for its password.
    ///
    /// A viewer sees everything, an operator changes things as well.
    Add {
        /// 1 to 64 letters, digits, `-`, `_`, `.` and `@`.
        name: String,
        /// What the account may do.
        #[arg(long, value_enum)]
        role: Role,
        /// Take the password from the first line of this file (`-`: standard input), and ask nobody.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Give an account that is there this role and password; its sessions end.
        #[arg(long)]
        replace: bool,
    },
    /// Makes a token for a program, and prints it, this once.
    ///
    /// It is sent with each request: `Authorization: Bearer TOKEN`.
    Token {
        /// 1 to 64 letters, digits, `-`, `_`, `.` and `@`.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// Put it in the place of a token that is there.
        #[arg(long)]
        replace: bool,
    },
    /// Lists accounts and tokens.
    List,
    /// Removes an account, the sessions of which end, or a token.
    Remove {
        /// The name of either.
        name: String,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{name:?} is no name: use 1 to 64 letters, digits, `-`, `_`, `.` and `@`")]
    Name { name: String },
    #[error("{name} is there already: --replace changes it, `account remove {name}` removes it")]
    Exists { name: String },
    #[error("there is no account or token named {name}: `account list` shows all")]
    Unknown { name: String },
    #[error("a password has at least {SHORTEST} characters")]
    Short,
    #[error("a password has no more than {LONGEST} bytes")]
    Long,
    #[error("a password is UTF-8 text, as browsers send nothing else")]
    NoText,
    #[error("the two passwords differ: nothing was changed")]
    Differ,
    #[error("there is no terminal to ask for the password on: use --password-file")]
    NoTerminal,
    #[error("interrupted: nothing was changed")]
    Interrupted,
    #[error("cannot ask for the password: {0}")]
    Ask(#[source] io::Error),
    #[error(transparent)]
    PasswordFile(#[from] SecretError),
    #[error("the password cannot be read from standard input: {0}")]
    Stdin(#[source] io::Error),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
    #[error("{file}: {source}", file = file.display())]
    File {
        file: PathBuf,
        source: AccountsError,
    },
    #[error("the answer has no JSON form")]
    Json,
}

impl CommandError {
    /// Whether whoever gave the command can give another one that works.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Name { .. }
            | Self::Exists { .. }
            | Self::Unknown { .. }
            | Self::Short
            | Self::Long
            | Self::NoText
            | Self::Differ
            | Self::NoTerminal
            | Self::PasswordFile(_) => true,
            Self::Interrupted
            | Self::Ask(_)
            | Self::Stdin(_)
            | Self::Hash(_)
            | Self::Random(_)
            | Self::File { .. }
            | Self::Json => false,
        }
    }
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
}

/// What was done, for scripts.
#[derive(Serialize)]
struct Done<'a> {
    name: &'a str,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// One line of the list.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    kind: &'static str,
    role: Role,
}

/// Does it; what comes back is to be printed.
///
/// # Errors
///
/// If nothing was done.
pub fn run(action: &Action, file: &Path, form: Form) -> Result<String, CommandError> {
    match action {
        Action::Add {
            name,
            role,
            password_file,
            replace,
        } => {
            // Before a password is asked for in vain.
            check_new(&open(file)?, name, *replace)?;
            let password = match password_file {
                Some(from) => read_password(from)?,
                None => ask(name)?,
            };
            let password = password::hash(&password)?.into();
            let account = Account {
                role: *role,
                password,
            };
            let mut opened = open(file)?;
            check_new(&opened, name, *replace)?;
            opened.accounts.tokens.remove(name);
            let before = opened.accounts.accounts.insert(name.clone(), account);
            save(&opened, file)?;
            let change = if before.is_some() { "changed" } else { "added" };
            told(name, change, None, form)
        }
        Action::Token {
            name,
            role,
            replace,
        } => {
            let mut opened = open(file)?;
            check_new(&opened, name, *replace)?;
            let secret = random::secret().map_err(CommandError::Random)?;
            let token = Token {
                role: *role,
                hash: Digest::of(secret.as_bytes()),
            };
            opened.accounts.accounts.remove(name);
            let before = opened.accounts.tokens.insert(name.clone(), token);
            save(&opened, file)?;
            let change = if before.is_some() { "changed" } else { "added" };
            told(name, change, Some(&secret), form)
        }
        Action::List => list(&open(file)?, form),
        Action::Remove { name } => {
            let mut opened = open(file)?;
            let account = opened.accounts.accounts.remove(name).is_some();
            let token = opened.accounts.tokens.remove(name).is_some();
            if !account && !token {
                return Err(CommandError::Unknown { name: name.clone() });
            }
            save(&opened, file)?;
            told(name, "removed", None, form)
        }
    }
}

fn open(file: &Path) -> Result<AccountsFile, CommandError> {
    AccountsFile::open(file).map_err(|source| CommandError::File {
        file: file.to_owned(),
        source,
    })
}

fn save(opened: &AccountsFile, file: &Path) -> Result<(), CommandError> {
    opened.save().map_err(|source| CommandError::File {
        file: file.to_owned(),
        source,
    })
}

fn check_new(opened: &AccountsFile, name: &str, replace: bool) -> Result<(), CommandError> {
    let name = name.to_owned();
    if !accounts::is_name(&name) {
        return Err(CommandError::Name { name });
    }
    if opened.accounts.has(&name) && !replace {
        return Err(CommandError::Exists { name });
    }
    Ok(())
}

fn told(
    name: &str,
    change: &'static str,
    token: Option<&str>,
    form: Form,
) -> Result<String, CommandError> {
    let done = Done {
        name,
        change,
        token,
    };
    match form {
        Form::Json => json(&done).map_err(|_no_form| CommandError::Json),
        // The token alone, so that a script can take it as it is.
        Form::Text => Ok(match token {
            Some(token) => format!("{token}\n"),
            None => format!("{name} {change}\n"),
        }),
    }
}

fn list(opened: &AccountsFile, form: Form) -> Result<String, CommandError> {
    let accounts = opened.accounts.accounts.iter();
    let accounts = accounts.map(|(name, account)| (name, "password", account.role));
    let tokens = opened.accounts.tokens.iter();
    let tokens = tokens.map(|(name, token)| (name, "token", token.role));
    let all = accounts.chain(tokens);
    let all = all.map(|(name, kind, role)| Listed { name, kind, role });
    match form {
        Form::Json => {
            let all: Vec<_> = all.collect();
            json(&all).map_err(|_no_form| CommandError::Json)
        }
        Form::Text => {
            let left = Align::Left;
            let mut table = Table::new(&[("NAME", left), ("LOGS IN BY", left), ("ROLE", left)]);
            for Listed { name, kind, role } in all {
                table.row(vec![name.to_owned(), kind.to_owned(), role.to_string()]);
            }
            Ok(table.render())
        }
    }
}

fn ask(name: &str) -> Result<Secret, CommandError> {
    if !stdin().is_terminal() {
        return Err(CommandError::NoTerminal);
    }
    let ask = |prompt: &str| {
        ask_secretly(prompt).map_err(|error| match error {
            AskError::Interrupted => CommandError::Interrupted,
            AskError::Terminal(error) => CommandError::Ask(error),
        })
    };
    let first = ask(&format!("Password for {name}: "))?;
    let second = ask("The same again: ")?;
    if first != second {
        return Err(CommandError::Differ);
    }
    legal(&first)
}

fn read_password(from: &Path) -> Result<Secret, CommandError> {
    if from != Path::new("-") {
        return legal(secret::read(from)?.as_bytes());
    }
    let mut line = Vec::new();
    // One byte more tells a password that is too long, and there may be a line's end behind.
    let input = stdin().lock().take(LONGEST as u64 + 3);
    let read = io::BufReader::new(input).read_until(b'\n', &mut line);
    read.map_err(CommandError::Stdin)?;
    legal(&line)
}

/// The password without its line's end.
fn legal(line: &[u8]) -> Result<Secret, CommandError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_other| CommandError::NoText)?;
    if text.chars().count() < SHORTEST {
        Err(CommandError::Short)
    } else if text.len() > LONGEST {
        Err(CommandError::Long)
    } else {
        Ok(Secret::new(line))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{accounts::Known, file, tests::Scratch};

    struct Console {
        scratch: Scratch,
        accounts: PathBuf,
        password: PathBuf,
    }

    impl Console {
        fn new() -> Self {
            let scratch = Scratch::new();
            let password = scratch.file("password");
            fs::write(&password, "open sesame\n").unwrap();
            fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
            Self {
                accounts: scratch.file("accounts.toml"),
                scratch,
                password,
            }
        }

        fn add(&self, name: &str, role: Role, replace: bool) -> Result<String, CommandError> {
            self.run(&Action::Add {
                name: name.to_owned(),
                role,
                password_file: Some(self.password.clone()),
                replace,
            })
        }

        fn run(&self, action: &Action) -> Result<String, CommandError> {
            run(action, &self.accounts, Form::Text)
        }

        fn known(&self) -> Known {
            file::read(&self.accounts).unwrap().into()
        }
    }

    #[test]
    fn account_is_made_changed_listed_and_removed() {
        let console = Console::new();
        assert_eq!(
            console.add("alice", Role::Viewer, false).unwrap(),
            "alice added\n"
        );
        let mode = fs::metadata(&console.accounts)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        let exists = console.add("alice", Role::Operator, false).unwrap_err();
        assert!(matches!(exists, CommandError::Exists { .. }) && exists.is_usage());
        let changed = console.add("alice", Role::Operator, true).unwrap();
        assert_eq!(changed, "alice changed\n");
        let alice = console.known().account("alice").cloned().unwrap();
        assert_eq!(alice.role, Role::Operator);
        assert!(password::fits(
            &alice.password,
            &Secret::new(b"open sesame")
        ));
        assert_eq!(
            console.run(&Action::List).unwrap(),
            "NAME   LOGS IN BY  ROLE\nalice  password    operator\n"
        );
        let remove = Action::Remove {
            name: "alice".to_owned(),
        };
        assert_eq!(console.run(&remove).unwrap(), "alice removed\n");
        assert!(matches!(
            console.run(&remove),
            Err(CommandError::Unknown { .. })
        ));
        assert!(console.known().is_empty());
    }

    #[test]
    fn token_is_printed_once_and_only_its_hash_is_kept() {
        let console = Console::new();
        let make = |replace| {
            console.run(&Action::Token {
                name: "grafana".to_owned(),
                role: Role::Viewer,
                replace,
            })
        };
        let token = make(false).unwrap();
        let token = token.trim_end();
        assert_eq!(token.len(), 64);
        let text = fs::read_to_string(&console.accounts).unwrap();
        assert!(!text.contains(token), "{text}");
        let known = console.known();
        let found = known.token(Digest::of(token.as_bytes())).unwrap();
        assert_eq!(found, &("grafana".to_owned(), Role::Viewer));
        assert!(matches!(make(false), Err(CommandError::Exists { .. })));
        assert_ne!(make(true).unwrap().trim_end(), token);
        let gone = console.known().token(Digest::of(token.as_bytes())).cloned();
        assert_eq!(gone, None);
        let listed = run(&Action::List, &console.accounts, Form::Json).unwrap();
        let expected = r#"[{"name":"grafana","kind":"token","role":"viewer"}]"#;
        assert_eq!(listed.trim_end(), expected);
    }

    #[test]
    fn name_is_an_accounts_or_a_tokens() {
        let console = Console::new();
        console.add("alice", Role::Viewer, false).unwrap();
        let token = |replace| Action::Token {
            name: "alice".to_owned(),
            role: Role::Viewer,
            replace,
        };
        assert!(matches!(
            console.run(&token(false)),
            Err(CommandError::Exists { .. })
        ));
        console.run(&token(true)).unwrap();
        assert_eq!(console.known().counts(), (0, 1));
        console.add("alice", Role::Viewer, true).unwrap();
        assert_eq!(console.known().counts(), (1, 0));
    }

    #[test]
    fn bad_names_and_passwords_leave_no_file() {
        let console = Console::new();
        let name = console.add("a b", Role::Viewer, false).unwrap_err();
        assert!(matches!(name, CommandError::Name { .. }));
        fs::write(&console.password, "short\n").unwrap();
        let short = console.add("alice", Role::Viewer, false).unwrap_err();
        assert!(matches!(short, CommandError::Short));
        fs::set_permissions(&console.password, fs::Permissions::from_mode(0o644)).unwrap();
        let open = console.add("alice", Role::Viewer, false).unwrap_err();
        assert!(matches!(open, CommandError::PasswordFile(_)));
        assert!(!console.accounts.exists());
        let left = fs::read_dir(console.scratch.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn password_is_text_of_some_length() {
        assert!(legal("sesämeöö\r\n".as_bytes()).is_ok());
        assert!(matches!(legal(b"1234567\n"), Err(CommandError::Short)));
        assert!(matches!(legal("äääa".as_bytes()), Err(CommandError::Short)));
        assert!(matches!(legal(&[0xff; 9]), Err(CommandError::NoText)));
        assert!(legal(&[b'x'; LONGEST]).is_ok());
        assert!(matches!(
            legal(&[b'x'; LONGEST + 1]),
            Err(CommandError::Long)
        ));
    }
}
