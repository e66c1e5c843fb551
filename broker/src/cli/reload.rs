//! `tidegate-broker reload`: has the broker read its configuration again.

use std::process::ExitCode;

use console::output;

use super::target::Target;
use crate::control::view::Reloaded;

/// Have the broker read its configuration and the files that it names again, as SIGHUP does; with
/// a mistake in any of them nothing changes.
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
    Ok(ExitCode::SUCCESS)
}

fn render(reloaded: &Reloaded) -> String {
    let Reloaded { needs_restart } = reloaded;
    let mut text = "reloaded\n".to_owned();
    for key in needs_restart {
        text += &format!("{key} has changed in the file: restart the broker for that\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_restart_is_said() {
        let text = render(&Reloaded {
            needs_restart: vec!["log".to_owned()],
        });
        assert!(text.contains("log has changed"), "{text}");
    }
}
