//! `cargo xtask test`: every level of tests, from pure functions to whole networks.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::build::{self, Profile, cargo};
use crate::elevate;
use crate::exec;
use crate::kernel;
use crate::lab::BIN_DIR;
use crate::pages;
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
    /// Only the packet tests in a Linux 6.1, all of them; the same as the level `kernel`.
    #[arg(long, conflicts_with = "level")]
    kernel: bool,
}

/// A level of tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Level {
    /// Pure code, no root: what plain `cargo test` runs, and the pages.
    Unit,
    /// Packets through the loaded XDP program.
    Datapath,
    /// The same in an emulated machine with Linux 6.1; with the other levels, only the fixtures.
    Kernel,
    /// Real programs in network namespaces, and the demonstration.
    Netns,
}

/// What property tests begin with. The same every time: whether a change passes must not depend on
/// luck. Plain `cargo test` looks at other cases each time.
const SEED: &str = "PROPTEST_RNG_SEED";

/// The module of the privileged tests that holds the packet fixtures.
const DATAPATH: &str = "datapath::";

/// Of these, what goes through all programs, and takes an emulated machine a minute, not many; with
/// what it prints.
const FEW: [&str; 3] = [
    "datapath::fixtures::",
    "datapath::verifier::",
    "--nocapture",
];

/// Of these, what takes more packets a second than an emulated machine makes.
const TOO_FAST: [&str; 1] = ["datapath::answers::answers_have_a_rate"];

/// Runs the tests.
///
/// # Errors
/// Names the step that failed.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let filter = args.filter.as_deref();
    let only = args.kernel.then_some(Level::Kernel).or(args.level);
    let wanted = |level| only.is_none_or(|only| only == level);
    if let Some(purpose) = purpose(only) {
        steps.step("setup", || setup::ensure(purpose))?;
    }
    if wanted(Level::Unit) {
        steps.step("unit tests", || {
            let mut command = cargo();
            if std::env::var_os(SEED).is_none() {
                command.env(SEED, "1");
            }
            exec::show_run(command.arg("test").args(filter))
        })?;
        if filter.is_none() {
            steps.step("tests of pages", pages::test)?;
        }
    }
    if wanted(Level::Datapath) {
        steps.step("datapath tests", || {
            privileged(&[filter.unwrap_or(DATAPATH)])
        })?;
    }
    if wanted(Level::Kernel) {
        match setup::why_no_kernel() {
            // Whoever asks for it by name must not take a skip for a pass.
            Some(reason) if only.is_some() => bail!("no Linux 6.1 can be run: {reason}"),
            Some(reason) => eprintln!("== skipped: datapath tests in Linux 6.1: {reason}"),
            None if only.is_some() => in_older_kernel(&mut steps, &[filter.unwrap_or(DATAPATH)])?,
            None => in_older_kernel(&mut steps, &FEW)?,
        }
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

/// What a level, or all of them, take. Unit tests alone go without what is not there, and say so.
fn purpose(only: Option<Level>) -> Option<Purpose> {
    match only {
        None => Some(Purpose::Test),
        Some(Level::Datapath | Level::Netns) => Some(Purpose::Lab),
        Some(Level::Unit | Level::Kernel) => None,
    }
}

/// Runs the packet tests in the oldest kernel that is tested.
fn in_older_kernel(steps: &mut Steps, arguments: &[&str]) -> Result<()> {
    let machine = steps.step("setup of an emulated machine", setup::ensure_machine)?;
    let name = format!("datapath tests in Linux {}", machine.kernel.release());
    steps.step(&name, || {
        let skipped = TOO_FAST.iter().flat_map(|test| ["--skip", *test]);
        let arguments: Vec<&str> = arguments.iter().copied().chain(skipped).collect();
        kernel::test(&machine, &arguments)
    })
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
