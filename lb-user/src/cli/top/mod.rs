//! `tidegate top`: what passes each second, live.
//!
//! Two tables need no library for terminals: the screen is a text that is drawn over the last one.

mod rates;
mod screen;
mod terminal;

use std::time::{Duration, Instant};

use tokio::time;

use self::{
    rates::Rates,
    screen::Sort,
    terminal::{Event, Terminal},
};
use super::{
    Failure, Target,
    client::{Client, DAEMON},
    output::{self, Reader},
};
use crate::control::Status;

/// Shows what passes each second: services, backends, drops, MQTT packets.
///
/// Keys: `q` quits; `a`, `p`, `b`, `n`, `s`, `r`, `d` order by name, packets, bits, new connections,
/// sessions, resets and drops.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate top\n  tidegate top --interval 5 --sort packets\n  \
    tidegate top --json --count 1 | jq '.services[] | {name, packets_per_second}'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Seconds between two looks.
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
    /// End after so many intervals.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// What to order by at first.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Print one line of JSON an interval.
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .filter(|seconds| (0.1..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds, from 0.1 to 86400".to_owned())
}

/// A status, and when it was taken.
type Look = (Instant, Status);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let mut before = look(&client)?;
    let mut view = View::new(args, &client)?;
    let mut left = args.count;
    while left != Some(0) {
        if view.wait(&client, &before)? == Next::Quit {
            break;
        }
        let now = match look(&client) {
            Ok(now) => now,
            // It may be started anew: who watches, waits.
            Err(failure) if view.terminal.is_some() => {
                view.complain(&failure)?;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if view.show(&before, &now)? == Reader::Gone {
            break;
        }
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn look(client: &Client) -> Result<Look, Failure> {
    let status = client.get("/v1/status")?;
    Ok((Instant::now(), status))
}

/// Whether to look again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Look,
    Quit,
}

/// What shows the rates.
struct View {
    json: bool,
    sort: Sort,
    interval: Duration,
    terminal: Option<Terminal>,
    /// What was shown last, for another order.
    shown: Option<(Status, Rates)>,
}

impl View {
    fn new(args: &Args, client: &Client) -> Result<Self, Failure> {
        let terminal = if args.json {
            None
        } else {
            let taken = client.block_on(async { Terminal::take() });
            taken.map_err(anyhow::Error::from)?
        };
        let view = Self {
            json: args.json,
            sort: args.sort,
            interval: args.interval,
            terminal,
            shown: None,
        };
        if let Some(terminal) = &view.terminal {
            terminal.show("looking for the first time ...")?;
        }
        Ok(view)
    }

    /// Waits until it is time to look again; keys are obeyed meanwhile.
    fn wait(&mut self, client: &Client, (looked, _): &Look) -> Result<Next, Failure> {
        let due = time::Instant::from_std(*looked + self.interval).max(time::Instant::now());
        loop {
            let event = client.block_on(async {
                let Some(terminal) = &mut self.terminal else {
                    time::sleep_until(due).await;
                    return None;
                };
                time::timeout_at(due, terminal.event()).await.ok()
            });
            match event {
                None => return Ok(Next::Look),
                Some(Event::End | Event::Key(b'q' | 3 | 4)) => return Ok(Next::Quit),
                Some(Event::Key(key)) => {
                    self.sort = Sort::of_key(key).unwrap_or(self.sort);
                    self.redraw()?;
                }
            }
        }
    }

    fn show(&mut self, (then, before): &Look, (now, status): &Look) -> Result<Reader, Failure> {
        let rates = Rates::between(before, status, *now - *then);
        if self.json {
            return Ok(output::print(&output::json(&rates)?)?);
        }
        self.shown = Some((status.clone(), rates));
        self.redraw()
    }

    fn redraw(&self) -> Result<Reader, Failure> {
        let Some((status, rates)) = &self.shown else {
            return Ok(Reader::There);
        };
        let Some(terminal) = &self.terminal else {
            let size = screen::Size {
                columns: usize::MAX,
                rows: usize::MAX,
            };
            let text = screen::render(status, rates, self.sort, size);
            return Ok(output::print(&(text + "\n"))?);
        };
        let text = screen::render(status, rates, self.sort, terminal.size());
        Ok(terminal.show(&text)?)
    }

    fn complain(&self, failure: &Failure) -> Result<(), Failure> {
        if let Some(terminal) = &self.terminal {
            terminal.show(&format!("{failure:#}\n\ntrying again; q quits"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_interval;

    #[test]
    fn intervals_are_seconds_within_reason() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "1e9", "NaN", "soon"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
