//! Asks an address a thousand times a second, and notes who answers when.
//!
//! The question is an ICMP echo request, which the kernel of the host that has the address answers,
//! whoever has put it there. Hosts that set different hop limits are told apart by them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv,
    send, socket_with,
};

use super::{Host, run_first};

/// Between two questions.
pub const PING_PERIOD: Duration = Duration::from_millis(1);

/// How often a reader looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// What tells our echoes from others'.
const MARK: [u8; 4] = *b"tgfo";

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The number of the question.
    pub number: usize,
    pub at: Instant,
    /// The hop limit that it came with.
    pub ttl: u8,
}

/// What was asked and answered.
#[derive(Debug, Default)]
pub struct Record {
    /// When each question was sent.
    pub asked: Vec<Instant>,
    /// In the order of their coming.
    pub answers: Vec<Answer>,
}

impl Record {
    /// When those questions were sent that nobody answered.
    #[must_use]
    pub fn lost(&self) -> Vec<Instant> {
        let answered: BTreeSet<usize> = self.answers.iter().map(|it| it.number).collect();
        let asked = self.asked.iter().enumerate();
        let lost = asked.filter(|(number, _)| !answered.contains(number));
        lost.map(|(_, at)| *at).collect()
    }
}

/// Who asks.
#[derive(Debug)]
pub struct Pinger(OwnedFd);

impl Pinger {
    /// One that asks `vip` from a host.
    ///
    /// # Errors
    /// Needs root.
    pub fn open(host: &Host, vip: Ipv4Addr) -> Result<Self> {
        host.netns().enter(|| {
            let socket = raw_socket(ipproto::ICMP).context("no raw socket for pings")?;
            connect(&socket, &SocketAddrV4::new(vip, 0))?;
            Ok(Self(socket))
        })
    }

    /// Asks for as long as `during` takes, which sees the answers that came so far.
    ///
    /// # Errors
    /// Those of `during`.
    pub fn ask<T>(&self, during: impl FnOnce(&Answers) -> Result<T>) -> Result<(T, Record)> {
        let (is_over, answers) = (AtomicBool::new(false), Answers::default());
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| send_all(&self.0, &is_over));
            let reader = scope.spawn(|| receive_all(&self.0, &is_over, &answers));
            let result = during(&answers);
            is_over.store(true, Ordering::Relaxed);
            let asked = asker.join().unwrap_or_default();
            // One that panicked has read nothing more.
            drop(reader.join());
            let answers = answers.all();
            Ok((result?, Record { asked, answers }))
        })
    }
}

/// The answers so far.
#[derive(Debug, Default)]
pub struct Answers(std::sync::Mutex<Vec<Answer>>);

impl Answers {
    /// Whether so many questions in a row were answered with this hop limit, the last ones and all of
    /// them since then.
    #[must_use]
    pub fn are_steady(&self, ttl: u8, count: usize, since: Instant) -> bool {
        let all = self.lock();
        let latest = &all[all.len().saturating_sub(count)..];
        let is_his = |answer: &Answer| answer.ttl == ttl && answer.at >= since;
        let mut numbers: Vec<usize> = latest.iter().map(|it| it.number).collect();
        numbers.sort_unstable();
        let is_dense = numbers.windows(2).all(|pair| pair[1] - pair[0] == 1);
        latest.len() == count && latest.iter().all(is_his) && is_dense
    }

    /// The first answer with this hop limit since then.
    #[must_use]
    pub fn first(&self, ttl: u8, since: Instant) -> Option<Answer> {
        let all = self.lock();
        let mut fitting = all.iter().filter(|it| it.ttl == ttl && it.at >= since);
        fitting.next().copied()
    }

    fn all(&self) -> Vec<Answer> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Answer>> {
        let all = self.0.lock();
        all.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Returns when each question was sent.
fn send_all(socket: &OwnedFd, is_over: &AtomicBool) -> Vec<Instant> {
    // Without it the figures are those of a busy machine.
    let _ = run_first();
    let mut asked = Vec::new();
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        asked.push(Instant::now());
        // A host that nobody answers for is an error of some of the sends, and a question all the same.
        let _ = send(socket, &question(asked.len() - 1), SendFlags::DONTWAIT);
        next += PING_PERIOD;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    asked
}

fn receive_all(socket: &OwnedFd, is_over: &AtomicBool, answers: &Answers) {
    let _ = run_first();
    let mut buffer = [0; 256];
    while !is_over.load(Ordering::Relaxed) {
        // Errors that routers and our own kernel tell of come here too.
        let Ok((length, _)) = recv(socket, &mut buffer[..], RecvFlags::empty()) else {
            continue;
        };
        let at = Instant::now();
        if let Some((number, ttl)) = answer(&buffer[..length]) {
            answers.lock().push(Answer { number, at, ttl });
        }
    }
}

/// An echo request (RFC 792) that carries its number.
fn question(number: usize) -> [u8; 20] {
    let mut message = [0; 20];
    message[0] = 8;
    message[8..12].copy_from_slice(&MARK);
    message[12..].copy_from_slice(&(number as u64).to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The number and the hop limit of an echo reply with its IPv4 header.
fn answer(packet: &[u8]) -> Option<(usize, u8)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let message = packet.get(header..)?;
    let number = message.get(12..20)?.try_into().ok()?;
    let is_ours = message[0] == 0 && message[8..12] == MARK;
    let number = usize::try_from(u64::from_be_bytes(number)).ok()?;
    is_ours.then_some((number, packet[8]))
}

/// RFC 1071, over an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let words = message
        .chunks(2)
        .map(|it| u16::from_be_bytes([it[0], it[1]]));
    let sum: u32 = words.map(u32::from).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// A raw socket that looks up from time to time.
///
/// # Errors
/// Needs root.
pub(crate) fn raw_socket(protocol: Protocol) -> Result<OwnedFd> {
    let kind = (AddressFamily::INET, SocketType::RAW);
    let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_comes_back_as_its_answer() {
        let mut packet = vec![0; 20];
        (packet[0], packet[8]) = (0x45, 63);
        packet.extend(question(1_000_000));
        assert_eq!(answer(&packet), None, "it is the question");
        packet[20] = 0;
        assert_eq!(answer(&packet), Some((1_000_000, 63)));
        assert_eq!(answer(&packet[..30]), None);
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn answers_are_steady_without_a_gap_and_of_one_host() {
        let at = Instant::now();
        let is_steady = |numbers: &[usize], ttl| {
            let answers = numbers.iter().map(|&number| Answer { number, at, ttl });
            let answers = Answers(std::sync::Mutex::new(answers.collect()));
            answers.are_steady(64, 3, at)
        };
        assert!(is_steady(&[0, 4, 6, 5], 64));
        assert!(!is_steady(&[0, 4, 6, 7], 64));
        assert!(!is_steady(&[4, 5, 6], 63));
        assert!(!is_steady(&[5, 6], 64));
    }

    #[test]
    fn what_nobody_has_answered_is_lost() {
        let asked = [Instant::now(); 3].to_vec();
        let answer = |number| Answer {
            number,
            at: asked[0],
            ttl: 64,
        };
        let record = |answers| Record {
            asked: asked.clone(),
            answers,
        };
        assert_eq!(record(vec![answer(2), answer(0)]).lost(), [asked[1]]);
        assert_eq!(record(vec![]).lost(), asked);
    }

    #[test]
    fn a_question_sums_up_to_nothing() {
        for number in [0, 1, 65_536, usize::MAX] {
            assert_eq!(checksum(&question(number)), 0);
        }
    }
}
