//! `tidegate account`: who may log in to the dashboard.

use std::path::PathBuf;

use dashboard::command::{self, Action, CommandError, Form};

use super::{Failure, output};
use crate::config::model::Dashboard;

/// Says who may log in to the dashboard, and what they may do there.
///
/// The daemon need not run; one that does takes the change within two seconds.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate account add alice --role operator\n  \
    tidegate account add alice --role operator --replace     # another password\n  \
    tidegate account token grafana --role viewer > grafana.token\n  tidegate account list"
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    /// The file of accounts (`dashboard.accounts` of the configuration).
    #[arg(long, value_name = "FILE", default_value = Dashboard::ACCOUNTS, global = true)]
    accounts: PathBuf,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let form = if args.json { Form::Json } else { Form::Text };
    let said = command::run(&args.action, &args.accounts, form)?;
    output::print(&said)?;
    Ok(())
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        if error.is_usage() {
            Self::Usage(error.to_string())
        } else {
            Self::Runtime(error.into())
        }
    }
}
