//! Frames as written down in `tests/fixtures`: bytes in, verdict, bytes out.
//!
//! Unlike the cases in code, these share nothing with the program or its tests: no builder of
//! frames, no checksum. `tests/fixtures/README.md` says how to write one. They are compiled in, for
//! the tests also run where there are no files.

mod frame;
mod setting;
mod text;

use anyhow::{Context, Result, bail, ensure};
use lb_common::verdict::{Action, Verdict};
use tests::world::World;

use self::{frame::Pattern, text::Lines};

macro_rules! files {
    ($($name:literal)*) => {
        /// Every file of fixtures: its name and content.
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../fixtures/", $name, ".txt"))),)*];
    };
}

files! {
    "dsr-ipv4" "dsr-ipv6"
    "nat-ipv4" "nat-ipv6"
    "refused-ipv4" "refused-ipv6"
    "malformed-ipv4" "malformed-ipv6"
    "tunnel-ipv4" "tunnel-ipv6"
    "access-ipv4" "access-ipv6"
    "icmp-ipv4" "icmp-ipv6"
    "challenge-ipv4" "challenge-ipv6"
    "mqtt-ipv4" "mqtt-ipv6"
    "fragments-ipv4" "fragments-ipv6"
    "limits-ipv4" "limits-ipv6"
    "neighbours-ipv4" "neighbours-ipv6"
}

/// Fewer would mean that a file was left out.
const AT_LEAST: usize = 478;

/// Some frames, one after the other, and what becomes of each.
struct Fixture {
    name: String,
    steps: Vec<Step>,
}

struct Step {
    input: Vec<u8>,
    verdict: Verdict,
    /// What comes out; `None` if nothing does.
    output: Option<Pattern>,
}

#[test]
fn every_fixture_comes_out_as_written() -> Result<()> {
    let (mut count, mut failures) = (0, Vec::new());
    for (name, content) in FILES {
        let mut lines = Lines::new(name, content);
        let world = setting::read(&mut lines).context(*name)?;
        while let Some(fixture) = Fixture::read(&mut lines)? {
            count += 1;
            if let Err(error) = fixture.check(&world) {
                failures.push(format!("{name}: {}: {error:#}", fixture.name));
            }
        }
    }
    ensure!(
        failures.is_empty(),
        "{} of {count} fixtures failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    ensure!(count >= AT_LEAST, "there are {count} fixtures only");
    println!("{count} fixtures");
    Ok(())
}

impl Fixture {
    /// Reads the next one: `== NAME`, then steps.
    fn read(lines: &mut Lines<'_>) -> Result<Option<Self>> {
        let Some(line) = lines.next() else {
            return Ok(None);
        };
        let Some(name) = line.strip_prefix("== ") else {
            bail!("{}: a fixture begins with `== NAME`", lines.place());
        };
        let mut fixture = Self {
            name: name.to_owned(),
            steps: Vec::new(),
        };
        while lines.peek() == Some("in") {
            let step = Step::read(lines).with_context(|| lines.place())?;
            fixture.steps.push(step);
        }
        ensure!(
            !fixture.steps.is_empty(),
            "{}: nothing goes in",
            lines.place()
        );
        Ok(Some(fixture))
    }

    fn check(&self, world: &World) -> Result<()> {
        let alone = self.steps.len() == 1;
        for (number, step) in (1..).zip(&self.steps) {
            let checked = step.check(world);
            if alone {
                return checked;
            }
            checked.with_context(|| format!("frame {number}"))?;
        }
        Ok(())
    }
}

impl Step {
    /// `in`, bytes; `verdict LABEL`; `out` or `out changed`, if anything comes out, and bytes.
    fn read(lines: &mut Lines<'_>) -> Result<Self> {
        lines.expect("in")?;
        let input = Pattern::read(lines, &[])?.into_bytes()?;
        let label = lines.value_of("verdict")?;
        let verdict = verdict(label)?;
        let output = match (verdict.action(), lines.peek()) {
            (Action::Drop, Some("out" | "out changed")) => {
                bail!("what is dropped does not come out")
            }
            (Action::Drop, _) => None,
            (Action::Pass, Some("out" | "out changed")) => bail!("what is passed is not changed"),
            (Action::Pass, _) => Some(Pattern::exactly(input.clone())),
            (Action::Transmit | Action::Redirect, Some("out")) => {
                lines.expect("out")?;
                Some(Pattern::read(lines, &input)?)
            }
            (Action::Transmit | Action::Redirect, _) => {
                lines.expect("out changed")?;
                Some(Pattern::read_changes(lines, &input)?)
            }
        };
        Ok(Self {
            input,
            verdict,
            output,
        })
    }

    fn check(&self, world: &World) -> Result<()> {
        let outcome = world.run(&self.input)?;
        ensure!(
            outcome.verdict == self.verdict,
            "{} instead of {}",
            outcome.verdict.label(),
            self.verdict.label()
        );
        match &self.output {
            Some(expected) => expected.compare(&outcome.answer.frame),
            None => Ok(()),
        }
    }
}

fn verdict(label: &str) -> Result<Verdict> {
    let mut all = Verdict::ALL.iter().copied();
    let found = all.find(|verdict| verdict.label() == label);
    found.with_context(|| format!("there is no verdict {label}"))
}
