//! `cargo xtask test`: every level of tests, from pure functions to whole networks.

use anyhow::Result;
use clap::ValueEnum;

use crate::build::{self, Profile, cargo};
use crate::elevate;
use crate::exec;
use crate::lab::BIN_DIR;
use crate::setup::{self, Purpose};
use crate::steps::Steps;
use crate::up;

/// What to test.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// One level; all of them when left out.
    level: Option<Level>,
    /// Only tests whose name contains this.
    #[arg(requires = "level")]
    filter: Option<String>,
}

/// A level of tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Level {
    /// Pure code, no root: what plain `cargo test` runs.
    Unit,
    /// Packets through the loaded XDP program.
    Datapath,
    /// Real programs in network namespaces, and the demonstration.
    Netns,
}

/// The module of the privileged tests that holds the packet fixtures.
const DATAPATH: &str = "datapath::";

/// Runs the tests.
///
/// # Errors
/// Names the step that failed.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let filter = args.filter.as_deref();
    let wanted = |level| args.level.is_none_or(|only| only == level);
    if wanted(Level::Datapath) || wanted(Level::Netns) {
        steps.step("setup", || setup::ensure(Purpose::Lab))?;
    }
    if wanted(Level::Unit) {
        steps.step("unit tests", || {
            exec::show_run(cargo().arg("test").args(filter))
        })?;
    }
    if wanted(Level::Datapath) {
        steps.step("datapath tests", || {
            privileged(&[filter.unwrap_or(DATAPATH)])
        })?;
    }
    if wanted(Level::Netns) {
        let programs = steps.step("build", || build::programs(Profile::Dev))?;
        let mut arguments = vec!["--skip", DATAPATH];
        arguments.extend(filter);
        steps.step("netns tests", || privileged(&arguments))?;
        if filter.is_none() {
            for story in up::Args::stories() {
                steps.step(&format!("up {story}"), || up::with(&story, &programs))?;
            }
        }
    }
    steps.summary();
    Ok(())
}

/// Runs the `tests` package as root, and everything it starts from one profile.
fn privileged(arguments: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--package", "tests"]);
    command.env(BIN_DIR, build::target_dir()?.join("debug"));
    elevate::run_as_root(&mut command)?;
    command.arg("--").args(arguments);
    exec::show_run(&mut command)
}
