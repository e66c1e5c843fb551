//! Clients that come and go beside those that stay: each goes through all that befalls a session, one
//! step after the other.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::line::{
    Hello, LAST_FAREWELL, Line, Message, Start, TAKEN_OVER, Version, acknowledge, answer,
    unexpected,
};

/// Longer than a step takes; a client that is silent for longer than this is closed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Seconds from one step of a client to its next.
const REST: u32 = 4;

/// What happens to a client, in this order, for ever.
#[derive(Clone, Copy, Debug)]
enum Step {
    Come,
    BreakOff,
    /// A message for it waits.
    Miss,
    ComeBack,
    TakeOver,
    SubscribeAnew,
    End,
}

const STEPS: [Step; 7] = [
    Step::Come,
    Step::BreakOff,
    Step::Miss,
    Step::ComeBack,
    Step::TakeOver,
    Step::SubscribeAnew,
    Step::End,
];

/// Has clients come and go, so many steps a second, until it is over; how many steps they made.
///
/// # Errors
/// What did not go as it has to.
pub(super) fn go(address: SocketAddr, rate: u32, is_over: &AtomicBool) -> Result<u64> {
    let hello = Hello {
        start: Start::Clean,
        ..Hello::again(Version::V5, "churn-publisher")
    };
    let (mut publisher, _is_present) = Line::connect(address, &hello, PATIENCE)?;
    let mut clients: Vec<_> = (0..rate * REST).map(Client::new).collect();
    for client in &mut clients {
        for step in client.before() {
            client.make(*step, address, &mut publisher)?;
        }
    }
    let begun = Instant::now();
    let mut steps = 0;
    while !is_over.load(Ordering::Relaxed) {
        let due = begun.elapsed().as_secs_f64() * f64::from(rate);
        if clients.is_empty() || steps as f64 > due {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let count = clients.len();
        let client = &mut clients[steps as usize % count];
        let step = client.step(steps as usize / count);
        client.make(step, address, &mut publisher)?;
        steps += 1;
    }
    Ok(steps)
}

struct Client {
    number: usize,
    id: String,
    line: Option<Line>,
}

impl Client {
    fn new(number: u32) -> Self {
        Self {
            number: number as usize,
            id: format!("churn-{number}"),
            line: None,
        }
    }

    /// What a client has behind it when all begin, so that there are always as many at each step.
    fn before(&self) -> &'static [Step] {
        &STEPS[..self.number % STEPS.len()]
    }

    fn step(&self, round: usize) -> Step {
        STEPS[(self.number + round) % STEPS.len()]
    }

    fn make(&mut self, step: Step, address: SocketAddr, publisher: &mut Line) -> Result<()> {
        let made = self.go(step, address, publisher);
        made.with_context(|| format!("{}: {step:?}", self.id))
    }

    fn go(&mut self, step: Step, address: SocketAddr, publisher: &mut Line) -> io::Result<()> {
        match step {
            Step::Come => self.come(address),
            Step::BreakOff => {
                self.line = None;
                Ok(())
            }
            Step::Miss => self.miss(publisher),
            Step::ComeBack => self.come_back(address),
            Step::TakeOver => self.take_over(address),
            Step::SubscribeAnew => self.subscribe_anew(),
            Step::End => match self.line.take() {
                Some(mut line) => line.send(&LAST_FAREWELL),
                None => Ok(()),
            },
        }
    }

    fn come(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut line = self.connect(address, Session::New)?;
        let filters = ["a", "b", "c"].map(|name| format!("churn/{}/{name}", self.number));
        line.subscribe(1, filters.iter().map(|filter| (&**filter, 1)))?;
        line.expect(0x90, PATIENCE, unexpected)?;
        self.line = Some(line);
        Ok(())
    }

    fn miss(&self, publisher: &mut Line) -> io::Result<()> {
        let message = publisher.encode(&Message {
            topic: &format!("churn/{}/a", self.number),
            payload: self.id.as_bytes(),
            qos: 1,
            is_repeated: false,
            id: 1,
        });
        publisher.send(&message)?;
        publisher.expect(0x40, PATIENCE, unexpected).map(drop)
    }

    fn come_back(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut line = self.connect(address, Session::Kept)?;
        let Some(packet) = line.next(PATIENCE)? else {
            return Err(io::Error::other("what waited for it does not come"));
        };
        match line.decode(&packet) {
            Some(message) if message.payload == self.id.as_bytes() => {
                let id = message.id;
                line.send(&answer(0x40, id))?;
            }
            _ => return unexpected(&mut line, packet),
        }
        self.line = Some(line);
        Ok(())
    }

    fn take_over(&mut self, address: SocketAddr) -> io::Result<()> {
        let new = self.connect(address, Session::Kept)?;
        let Some(mut old) = self.line.replace(new) else {
            return Err(io::Error::other("it was not connected"));
        };
        let told = old.expect(0xe0, PATIENCE, acknowledge)?;
        match told.farewell() {
            Some(TAKEN_OVER) => Ok(()),
            _ => unexpected(&mut old, told),
        }
    }

    fn subscribe_anew(&mut self) -> io::Result<()> {
        let Some(line) = &mut self.line else {
            return Err(io::Error::other("it was not connected"));
        };
        // What it had acknowledged when it was taken over may come again.
        let topic = |name| format!("churn/{}/{name}", self.number);
        line.unsubscribe(2, &topic("b"))?;
        line.expect(0xb0, PATIENCE, acknowledge)?;
        line.subscribe(3, [(&*topic("+"), 0)])?;
        line.expect(0x90, PATIENCE, acknowledge).map(drop)
    }

    fn connect(&self, address: SocketAddr, session: Session) -> io::Result<Line> {
        let hello = Hello::again(Version::V5, &self.id);
        let (line, is_present) = Line::connect(address, &hello, PATIENCE)?;
        match (session, is_present) {
            (Session::New, false) | (Session::Kept, true) => Ok(line),
            (Session::New, true) => Err(io::Error::other("its session has not ended")),
            (Session::Kept, false) => Err(io::Error::other("its session is lost")),
        }
    }
}

/// What a client is to find.
#[derive(Clone, Copy)]
enum Session {
    New,
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_make_all_steps_in_order_each_at_another_time() {
        for number in 0..20 {
            let client = Client::new(number);
            let steps = client.before().iter().copied();
            let steps = steps.chain((0..14).map(|round| client.step(round)));
            let names: Vec<_> = steps.map(|step| format!("{step:?}")).collect();
            let all = STEPS.iter().cycle().map(|step| format!("{step:?}"));
            assert!(all.take(names.len()).eq(names), "client {number}");
        }
        let is_at = |number: &u32| matches!(Client::new(*number).step(3), Step::TakeOver);
        assert_eq!((0..7).filter(is_at).count(), 1);
    }
}
