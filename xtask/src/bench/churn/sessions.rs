//! Where each client's session is, and whether anybody may lose it.
//!
//! Brokers log each client that connects. The last broker that did before a session was lost is the
//! one that had it, and if that very process was ended before, the loss is its own.

use std::collections::BTreeMap;

use crate::load::Loss;

/// The message of a broker's log line for a client that connected.
const CONNECTED: &str = "client connected client_id=\"c";

/// One process of a broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incarnation {
    /// Which of the backends.
    pub(super) backend: usize,
    /// When it was killed: Unix time in seconds.
    pub(super) ended: Option<f64>,
}

/// Every connect that the brokers logged.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<u32, Vec<Connect>>);

/// A session: which of its client, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) client: u32,
    pub(super) number: usize,
}

#[derive(Clone, Copy, Debug)]
struct Connect {
    at: f64,
    incarnation: usize,
}

impl Sessions {
    /// Reads the log of one incarnation.
    pub(super) fn read(&mut self, incarnation: usize, log: &str) {
        for line in log.lines() {
            if let Some((client, at)) = connect(line) {
                let connects = self.0.entry(client).or_default();
                connects.push(Connect { at, incarnation });
            }
        }
    }

    /// The incarnation that had a client's session at a time.
    pub(super) fn home(&self, client: u32, at: f64) -> Option<usize> {
        let connects = self.0.get(&client)?.iter();
        let before = connects.filter(|connect| connect.at <= at);
        let last = before.max_by(|a, b| a.at.total_cmp(&b.at))?;
        Some(last.incarnation)
    }

    /// The sessions of the clients whose last connect was to an incarnation.
    pub(super) fn of(&self, incarnation: usize) -> Vec<Session> {
        let clients = self.0.iter();
        clients
            .filter(|(client, _)| self.home(**client, f64::INFINITY) == Some(incarnation))
            .map(|(&client, connects)| Session {
                client,
                number: connects.len(),
            })
            .collect()
    }

    /// Whether a session ended because its broker had.
    pub(super) fn is_due_to_a_death(&self, loss: &Loss, incarnations: &[Incarnation]) -> bool {
        let home = self.home(loss.client, loss.at);
        let home = home.and_then(|home| incarnations.get(home));
        home.is_some_and(|home| home.ended.is_some_and(|ended| ended <= loss.at))
    }
}

/// The client's number and the time, if the line tells of a client that connected.
fn connect(line: &str) -> Option<(u32, f64)> {
    let (_, rest) = line.split_once(CONNECTED)?;
    let client = rest.split('"').next()?.parse().ok()?;
    let stamp = line.split_ascii_whitespace().next()?;
    Some((client, unix_seconds(stamp)?))
}

/// Reads `2026-01-31T12:00:00.123456Z`.
fn unix_seconds(stamp: &str) -> Option<f64> {
    let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let mut date = || date.next()?.ok();
    let (year, month, day) = (date()?, date()?, date()?);
    let mut seconds = 0.0;
    for part in time.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // Days from the first of March of the year 0 to the beginning of 1970.
    Some((days - 719_468) as f64 * 86_400.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: &str, client: u32) -> String {
        format!(
            "2026-11-24T00:00:{at}Z DEBUG broker::shard: client connected client_id=\"c{client}\" version=V311\n"
        )
    }

    fn loss(client: u32, after: f64) -> Loss {
        Loss {
            client,
            source: None,
            at: unix_seconds("2026-11-24T00:00:00Z").unwrap() + after,
            silent_ms: 0,
            reason: String::new(),
        }
    }

    #[test]
    fn time_stamps_are_read() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(
            unix_seconds("2024-02-29T12:00:00.5Z"),
            Some(1_709_208_000.5)
        );
        assert_eq!(unix_seconds("2026-11-24T00:10:25Z"), Some(1_795_479_025.0));
        assert_eq!(unix_seconds("ready"), None);
    }

    #[test]
    fn only_the_end_of_its_own_broker_excuses_the_loss_of_a_session() {
        let start = loss(0, 0.0).at;
        let mut sessions = Sessions::default();
        sessions.read(0, &(line("01.0", 1) + &line("01.0", 2) + "no such line\n"));
        sessions.read(1, &line("05.0", 1));
        let ended = |ended: Option<f64>| Incarnation {
            backend: 0,
            ended: ended.map(|after| start + after),
        };
        let incarnations = [ended(Some(3.0)), ended(None)];
        let excused = |loss| sessions.is_due_to_a_death(&loss, &incarnations);
        assert!(excused(loss(1, 4.0)) && excused(loss(2, 9.0)));
        assert!(!excused(loss(1, 2.0)), "before the death");
        assert!(!excused(loss(1, 6.0)), "at another broker by then");
        assert!(!excused(loss(3, 6.0)), "never seen");
        assert_eq!(
            sessions.of(0),
            [Session {
                client: 2,
                number: 1
            }]
        );
    }
}
