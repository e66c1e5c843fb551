//! Shell completions and manual pages, both made of a command line's own definitions, so that neither
//! can name an option that is not there.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::output;

/// What the pages of both programs belong to.
const MANUAL: &str = "Tidegate";

/// Prints what has a shell complete commands and options.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell that is to complete.
    shell: Shell,
}

impl Completions {
    /// Prints the completions of `command`.
    ///
    /// # Errors
    ///
    /// If stdout fails.
    pub fn run(&self, command: Command) -> anyhow::Result<()> {
        output::print(&completions(command, self.shell)).map(drop)
    }
}

/// Writes the manual pages into a directory, which is made where it is missing.
#[derive(Debug, clap::Args)]
pub struct Manual {
    /// Where they go.
    directory: PathBuf,
}

impl Manual {
    /// Writes the page of `command`, and of each of its subcommands that is not hidden.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn run(&self, command: Command) -> anyhow::Result<()> {
        write_pages(command, &self.directory)
    }
}

/// The text that a shell reads to complete a program's commands and options.
fn completions(mut command: Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn write_pages(command: Command, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    // `help COMMAND` says what `COMMAND --help` says, which is in the page of the command.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!(
        "{} {}",
        command.get_name(),
        command.get_version().unwrap_or_default()
    );
    write_page(&command, &source, directory)
}

fn write_page(command: &Command, source: &str, directory: &Path) -> anyhow::Result<()> {
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        write_page(inner, source, directory)?;
    }
    let page = Man::new(command.clone()).source(source).manual(MANUAL);
    let path = directory.join(page.get_filename());
    let written = File::create(&path).and_then(|mut file| {
        page.render(&mut file)?;
        file.flush()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use clap::ValueEnum as _;

    use super::*;

    fn command() -> Command {
        Command::new("boat")
            .version("1.2.3")
            .about("Crosses rivers")
            .subcommand(
                Command::new("row")
                    .about("Moves on")
                    .arg(Arg::new("speed").long("speed").help("Strokes a minute")),
            )
            .subcommand(Command::new("sink").hide(true))
    }

    #[test]
    fn every_shell_completes_commands_and_options() {
        for shell in Shell::value_variants() {
            let text = completions(command(), *shell);
            assert!(text.contains("row") && text.contains("speed"), "{shell}");
        }
    }

    #[test]
    fn each_command_that_is_not_hidden_has_a_page() {
        let directory = std::env::temp_dir().join(format!("tidegate-pages-{}", std::process::id()));
        let inner = directory.join("man1");
        write_pages(command(), &inner).unwrap();
        let mut names: Vec<_> = fs::read_dir(&inner)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let page = fs::read_to_string(inner.join("boat-row.1")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["boat-row.1", "boat.1"]);
        assert!(
            page.contains(".TH boat-row 1  \"boat 1.2.3\" Tidegate"),
            "{page}"
        );
        assert!(page.contains("Strokes a minute"), "{page}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = write_pages(command(), Path::new("/dev/null/man1")).unwrap_err();
        assert!(error.to_string().contains("/dev/null/man1"), "{error}");
    }
}
