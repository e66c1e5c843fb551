//! `tidegate-broker reload`: has the broker read its configuration again.

use std::process::ExitCode;

use console::output;

use super::target::Target;
use crate::control::view::Reloaded;

/// Have the broker read its configuration and certificates again, as SIGHUP does; a file with
/// mistakes changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate-broker check --config /etc/tidegate/tidegate-broker.toml && tidegate-broker reload")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let reloaded: Reloaded = args.target.client()?.post("/v1/reload", None)?;
    let text = if args.target.json {
        output::json(&reloaded)?
    } else {
        render(&reloaded)
    };
    output::print(&text)?;
    // What could not be taken is what was asked for.
    Ok(if reloaded.kept.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(reloaded: &Reloaded) -> String {
    let Reloaded {
        needs_restart,
        kept,
    } = reloaded;
    let mut text = "reloaded\n".to_owned();
    for key in needs_restart {
        text += &format!("{key} has changed in the file: restart the broker for that\n");
    }
    for reason in kept {
        text += &format!("not taken, it goes on as before: {reason}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_said() {
        let text = render(&Reloaded {
            needs_restart: vec!["limits".to_owned()],
            kept: vec!["listener 0.0.0.0:8883 keeps its certificates".to_owned()],
        });
        assert!(
            text.contains("limits has changed") && text.contains("8883"),
            "{text}"
        );
    }
}
