//! `tidegate sync`: what two nodes need to keep each other up to date.

use std::path::PathBuf;

use channel::Key;
use clap::Subcommand;

use super::{Failure, output};

/// Makes the key of a pair of nodes.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:\n  tidegate sync key /etc/tidegate/sync.key\n  \
    scp -p /etc/tidegate/sync.key lb2:/etc/tidegate/sync.key"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key in a new file that its owner alone can read; both nodes need the same.
    Key {
        /// The file; one that is there is left as it is.
        file: PathBuf,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Key { file } = &args.command;
    Key::create(file).map_err(|error| Failure::Runtime(error.into()))?;
    let text = format!(
        "{} has a new key: copy it to the other node, and name it as `[sync] key_file` on both\n",
        file.display()
    );
    output::print(&text)?;
    Ok(())
}
