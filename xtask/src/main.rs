//! `cargo xtask`: everything a contributor runs that is not plain cargo.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::setup::Purpose;
use xtask::{bench, build, dist, elevate, lab, lint, setup, test, up};

/// Sets up, builds, runs, tests and measures Tidegate.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what is missing to build, run and test; silent when nothing is.
    Setup {
        /// Also what the checks before a merge take.
        #[arg(long)]
        ci: bool,
        /// Also qemu and a Linux 6.1 for it, which is unpacked and never installed.
        #[arg(long)]
        kernel: bool,
    },
    /// Builds `tidegate` and `tidegate-broker`.
    Build {
        /// Optimised, as users install them.
        #[arg(long)]
        release: bool,
    },
    /// Writes manual pages and shell completions, as the programs themselves make them.
    Manual(dist::manual::Args),
    /// Makes Debian packages and tarballs of an optimised build.
    Dist(dist::Args),
    /// Runs the tests: all, or one level.
    Test(test::Args),
    /// Runs the checks that need no test: format, clippy, docs, dependencies, architecture.
    Lint,
    /// Runs what has to pass before a merge: `lint`, then `test`.
    Ci,
    /// Shows Tidegate at work on the reference network, in namespaces of this machine.
    Up(up::Args),
    /// Removes what a killed `up` or test left behind.
    Down,
    /// Measures.
    #[command(subcommand)]
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup { ci, kernel } => {
            setup::ensure(if ci { Purpose::Ci } else { Purpose::Test })?;
            if kernel {
                setup::ensure_machine()?;
            }
            Ok(())
        }
        Task::Build { release } => {
            setup::ensure(Purpose::Build)?;
            let profile = if release {
                build::Profile::Release
            } else {
                build::Profile::Dev
            };
            build::programs(profile).map(drop)
        }
        Task::Manual(args) => {
            setup::ensure(Purpose::Build)?;
            dist::manual::run(&args)
        }
        Task::Dist(args) => {
            setup::ensure(Purpose::Build)?;
            setup::ensure_packagers()?;
            dist::run(&args)
        }
        Task::Test(args) => test::run(&args),
        Task::Lint => lint::run(),
        Task::Ci => {
            lint::run()?;
            test::run(&test::Args::default())
        }
        Task::Up(args) => up::run(&args),
        Task::Down => {
            if elevate::alone_through_sudo()? {
                return Ok(());
            }
            lab::clean_leftovers()
        }
        Task::Bench(args) => bench::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
