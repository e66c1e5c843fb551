//! The command line: one file a command, each with its `Args` and a `run`.
//!
//! Exit codes: 0 done, 64 wrong usage or configuration, 1 anything else; `import` and `doctor` have
//! more. Results go to stdout, all else to stderr; a reader that closes the pipe is no error.

mod account;
mod backend;
mod check;
mod client;
mod decap;
mod doctor;
mod drain;
mod events;
mod import;
mod notify;
mod output;
mod reload;
mod run;
mod status;
mod stop;
mod sync;
mod top;
mod trace;
mod tune;
mod vrrp;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use console::reference::{Completions, Manual};

use self::client::ClientError;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// Something did not work, and was told.
const EXIT_FAILED: u8 = 1;

/// Errors were found, and told; warnings are [`EXIT_FAILED`].
const EXIT_ERRORS: u8 = 2;

/// Something could not be carried over, and was told.
const EXIT_INCOMPLETE: u8 = 2;

/// Where the daemon's control socket is unless the configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/tidegate/tidegate.sock";

/// An XDP load balancer for MQTT.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  tidegate run --config /etc/tidegate/tidegate.toml\n  tidegate status --watch"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Import(import::Args),
    Status(status::Args),
    Reload(reload::Args),
    Stop(stop::Args),
    Backend(backend::Args),
    Top(top::Args),
    Trace(trace::Args),
    Vrrp(vrrp::Args),
    Events(events::Args),
    Notify(notify::Args),
    Sync(sync::Args),
    Decap(decap::Args),
    Tune(tune::Args),
    Account(account::Args),
    Doctor(doctor::Args),
    #[command(
        after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate"
    )]
    Completions(Completions),
    #[command(hide = true)]
    Manual(Manual),
}

/// Which daemon to talk to.
#[derive(Debug, clap::Args)]
struct Target {
    /// The control socket of the daemon (`api.socket` of its configuration).
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    socket: std::path::PathBuf,
}

/// Why a command failed, as far as the exit code goes.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The user can correct it and try again.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Runtime(#[from] anyhow::Error),
    /// The log says why.
    #[error("see the log")]
    Logged(Cause),
    /// All is done that can be, and what is wrong was told: with which code to end.
    #[error("what is wrong was told")]
    Told(u8),
}

/// Where the cause of a failure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Config,
    Runtime,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if error.is_usage() {
            Self::Usage(error.to_string())
        } else {
            Self::Runtime(error.into())
        }
    }
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help on a closed pipe is nobody's loss.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Vrrp(args) => vrrp::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Notify(args) => notify::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Decap(args) => decap::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Account(args) => account::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => args.run(Cli::command()).map_err(Failure::from),
        Command::Manual(args) => args.run(Cli::command()).map_err(Failure::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            output::complain(&message);
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Told(code)) => ExitCode::from(code),
        Err(Failure::Logged(Cause::Config)) => ExitCode::from(EXIT_USAGE),
        Err(Failure::Logged(Cause::Runtime)) => ExitCode::FAILURE,
        Err(Failure::Runtime(error)) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_says_what_it_does() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
