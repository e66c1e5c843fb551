//! `tidegate-broker check`.

use std::{
    fmt,
    io::{Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use crate::{access, config::Config, tls};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What is wrong with the files that the configuration names.
#[derive(Debug, thiserror::Error)]
pub(super) struct FileErrors(Vec<anyhow::Error>);

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error:#}")?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    check_files(&Config::load(&args.config)?)?;
    // A closed pipe is not a failure of the check.
    let _ = writeln!(stdout(), "{}: ok", args.config.display());
    Ok(ExitCode::SUCCESS)
}

fn check_files(config: &Config) -> Result<(), FileErrors> {
    let listeners = config.listeners().iter().enumerate();
    let mut errors: Vec<_> = listeners
        .filter_map(|(index, listener)| {
            let error = tls::check(listener.tls.as_ref()?).err()?;
            Some(anyhow::Error::from(error).context(format!("listener[{index}].tls")))
        })
        .collect();
    errors.extend(access::check(config.access()).err().map(Into::into));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(FileErrors(errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Authority;

    fn check(tls: &str) -> String {
        let text = format!(
            "node = \"n\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n{tls}"
        );
        let result = check_files(&Config::parse(&text).unwrap());
        result.map_or_else(|errors| errors.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn files_are_checked_and_named() {
        let authority = Authority::new("check");
        let (good, other) = (authority.server("localhost"), authority.server("other"));
        assert_eq!(check(&good.settings()), "ok");
        let mixed = good.settings().replace(&good.key_path(), &other.key_path());
        let told = check(&mixed);
        assert!(told.contains(&other.key_path()), "{told}");
        assert!(told.starts_with("listener[0].tls: the key in"), "{told}");
        let gone = good.settings().replace("cert.pem", "gone.pem");
        let told = check(&gone);
        assert!(told.contains("gone.pem: No such file"), "{told}");
        let expired = authority.expired("localhost");
        let told = check(&expired.settings());
        assert!(told.ends_with("has expired"), "{told}");
    }
}
