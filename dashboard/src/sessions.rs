//! Who is logged in. Nothing of it outlives the process.
//!
//! A session ends by itself after [`LONGEST`], or when nobody has used it for [`IDLE`]; with its account,
//! and with its account's password. What it may do is asked of the account each time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    accounts::{Known, Role},
    random::Digest,
};

/// A day's work.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// A page that is open uses its session all the time.
pub(crate) const IDLE: Duration = Duration::from_secs(3_600);

/// Sessions at a time; the one that was not used for longest makes room for the next.
pub(crate) const MOST: usize = 1_024;

/// The same for one account, so that none can log all others out.
pub(crate) const MOST_OF_ONE: usize = 16;

/// The sessions, by what is kept of their secrets.
#[derive(Default)]
pub(crate) struct Sessions {
    all: HashMap<Digest, Session>,
    count: Arc<AtomicU64>,
}

struct Session {
    name: String,
    /// The hash that the password fitted.
    password: Arc<str>,
    csrf: Arc<str>,
    began: Instant,
    used: Instant,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) key: Digest,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) csrf: Arc<str>,
    /// When it ends, however it is used.
    pub(crate) left: Duration,
}

impl Session {
    fn has_ended(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= LONGEST || now.duration_since(self.used) >= IDLE
    }
}

impl Sessions {
    pub(crate) fn new(count: Arc<AtomicU64>) -> Self {
        let all = HashMap::new();
        Self { all, count }
    }

    /// Begins one for an account whose password was right.
    pub(crate) fn begin(
        &mut self,
        secret: &str,
        csrf: String,
        name: &str,
        password: Arc<str>,
        now: Instant,
    ) {
        self.all.retain(|_, session| !session.has_ended(now));
        if self.all.values().filter(|it| it.name == name).count() >= MOST_OF_ONE {
            self.end_oldest(|session| session.name == name);
        }
        if self.all.len() >= MOST {
            self.end_oldest(|_| true);
        }
        let session = Session {
            name: name.to_owned(),
            password,
            csrf: csrf.into(),
            began: now,
            used: now,
        };
        self.all.insert(Digest::of(secret.as_bytes()), session);
        self.tell();
    }

    fn end_oldest(&mut self, of: impl Fn(&Session) -> bool) {
        let sessions = self.all.iter().filter(|(_, session)| of(session));
        let oldest = sessions.min_by_key(|(key, session)| (session.used, **key));
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.all.remove(&key);
        }
    }

    /// The session of that secret, which is used by that.
    pub(crate) fn find(&mut self, secret: &str, known: &Known, now: Instant) -> Option<Found> {
        self.resume(Digest::of(secret.as_bytes()), known, now)
    }

    /// The same for one that was found before.
    pub(crate) fn resume(&mut self, key: Digest, known: &Known, now: Instant) -> Option<Found> {
        let session = self.all.get_mut(&key)?;
        let account = known.account(&session.name);
        let account = account.filter(|account| account.password == session.password);
        let Some(account) = account.filter(|_| !session.has_ended(now)) else {
            self.end(key);
            return None;
        };
        session.used = now;
        let spent = now.duration_since(session.began);
        Some(Found {
            key,
            name: session.name.clone(),
            role: account.role,
            csrf: Arc::clone(&session.csrf),
            left: LONGEST.saturating_sub(spent),
        })
    }

    pub(crate) fn end(&mut self, key: Digest) {
        self.all.remove(&key);
        self.tell();
    }

    fn tell(&self) {
        let count = self.all.len() as u64;
        self.count.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Account, Accounts};

    fn known(names: &[(&str, Role, &str)]) -> Known {
        let mut accounts = Accounts::default();
        for (name, role, password) in names {
            let (role, password) = (*role, (*password).into());
            let account = Account { role, password };
            accounts.accounts.insert((*name).to_owned(), account);
        }
        accounts.into()
    }

    fn begin(sessions: &mut Sessions, secret: &str, name: &str, now: Instant) {
        sessions.begin(
            secret,
            format!("csrf of {secret}"),
            name,
            "hash".into(),
            now,
        );
    }

    #[test]
    fn session_ends_when_it_is_not_used_and_in_the_end_anyway() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let known = known(&[("alice", Role::Viewer, "hash")]);
        begin(&mut sessions, "idle", "alice", start);
        begin(&mut sessions, "used", "alice", start);
        let nearly = IDLE.checked_sub(Duration::from_secs(1)).unwrap();
        let mut now = start;
        while now + nearly < start + LONGEST {
            now += nearly;
            let found = sessions.find("used", &known, now).unwrap();
            assert_eq!(found.left, start + LONGEST - now);
            assert_eq!(&*found.csrf, "csrf of used");
        }
        assert!(sessions.find("used", &known, start + LONGEST).is_none());
        assert!(sessions.find("idle", &known, start + IDLE).is_none());
        assert!(sessions.all.is_empty());
    }

    #[test]
    fn session_goes_with_its_account_and_with_its_password() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let before = known(&[("alice", Role::Operator, "hash")]);
        for (secret, after, role) in [
            (
                "kept",
                known(&[("alice", Role::Viewer, "hash")]),
                Some(Role::Viewer),
            ),
            (
                "changed",
                known(&[("alice", Role::Operator, "other")]),
                None,
            ),
            ("gone", known(&[]), None),
        ] {
            begin(&mut sessions, secret, "alice", now);
            assert!(sessions.find(secret, &before, now).is_some());
            let found = sessions.find(secret, &after, now);
            assert_eq!(found.map(|found| found.role), role);
            let again = sessions.find(secret, &before, now);
            assert_eq!(
                again.is_some(),
                role.is_some(),
                "what has ended does not come back"
            );
        }
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_makes_room() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let known = known(&[
            ("alice", Role::Viewer, "hash"),
            ("bob", Role::Viewer, "hash"),
        ]);
        begin(&mut sessions, "bob", "bob", start);
        for n in 0..=MOST_OF_ONE {
            let now = start + Duration::from_secs(n as u64);
            begin(&mut sessions, &format!("alice{n}"), "alice", now);
        }
        let now = start + Duration::from_secs(60);
        assert!(sessions.find("alice0", &known, now).is_none());
        assert!(sessions.find("alice1", &known, now).is_some());
        assert!(sessions.find("bob", &known, now).is_some());
        for n in 0..2 * MOST {
            begin(&mut sessions, &format!("many{n}"), &format!("many{n}"), now);
        }
        assert_eq!(sessions.all.len(), MOST);
        assert_eq!(sessions.count.load(Ordering::Relaxed), MOST as u64);
    }

    #[test]
    fn whoever_logs_out_is_out() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let known = known(&[("alice", Role::Viewer, "hash")]);
        begin(&mut sessions, "one", "alice", now);
        begin(&mut sessions, "other", "alice", now);
        let key = sessions.find("one", &known, now).unwrap().key;
        sessions.end(key);
        assert!(sessions.find("one", &known, now).is_none());
        assert!(sessions.find("other", &known, now).is_some());
    }
}
