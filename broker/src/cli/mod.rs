//! The command line of `tidegate-broker`.
//!
//! Exit codes: 0 fine, 1 something failed at run time, 64 wrong usage or configuration, a request that was
//! refused included.

mod check;
mod clients;
mod cluster;
mod events;
mod kick;
mod listing;
mod node;
mod passwd;
mod reload;
mod retained;
mod run;
mod sessions;
mod status;
mod subscriptions;
mod target;
mod topics;
mod tune;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use console::{
    client::ClientError,
    reference::{Completions, Manual},
    tune::host::TuneError,
};

use crate::{bench, config::ConfigError};

/// Wrong usage or configuration, as in BSD's sysexits.
const EXIT_USAGE: u8 = 64;

/// A clustered MQTT broker to stand behind Tidegate.
#[derive(Debug, Parser)]
#[command(name = "tidegate-broker", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until SIGTERM or SIGINT; SIGHUP has it read its files again.
    Run(run::Args),
    /// Put load on a broker: connect, publish or subscribe with many clients.
    Bench(Box<bench::Args>),
    /// Add, change or delete a user of a password file.
    Passwd(passwd::Args),
    /// Check a configuration file, and the files that it names, and say everything that is wrong.
    Check(check::Args),
    Status(status::Args),
    Cluster(cluster::Args),
    Events(events::Args),
    Clients(clients::Args),
    Sessions(sessions::Args),
    Subscriptions(subscriptions::Args),
    Topics(topics::Args),
    Retained(retained::Args),
    Kick(kick::Args),
    Node(node::Args),
    Reload(reload::Args),
    Tune(tune::Args),
    #[command(
        after_help = "Example:\n  tidegate-broker completions bash > /etc/bash_completion.d/tidegate-broker"
    )]
    Completions(Completions),
    #[command(hide = true)]
    Manual(Manual),
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is not worth a complaint.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(*args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Clients(args) => clients::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::Subscriptions(args) => subscriptions::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::Retained(args) => retained::run(&args),
        Command::Kick(args) => kick::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Completions(args) => done(args.run(Cli::command())),
        Command::Manual(args) => done(args.run(Cli::command())),
    };
    result.unwrap_or_else(|error| {
        report(&error);
        let is_refused = error
            .downcast_ref::<ClientError>()
            .is_some_and(ClientError::is_usage)
            || error
                .downcast_ref::<TuneError>()
                .is_some_and(TuneError::is_usage);
        if is_refused || error.is::<ConfigError>() || error.is::<check::FileErrors>() {
            ExitCode::from(EXIT_USAGE)
        } else {
            ExitCode::FAILURE
        }
    })
}

fn done(outcome: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where a command's failure is told"
)]
fn report(error: &anyhow::Error) {
    eprintln!("tidegate-broker: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_of_run_says_what_is_not_done() {
        let mut cli = Cli::command();
        let run = cli.find_subcommand_mut("run").unwrap();
        assert!(
            run.render_help()
                .to_string()
                .contains("end with the process")
        );
    }

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
