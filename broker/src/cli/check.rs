//! `tidegate-broker check`.

use std::{
    fmt,
    io::{Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    access::{self, Advice},
    cluster::PURPOSE,
    config::Config,
    tls,
};

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
    let advice = check_files(&Config::load(&args.config)?)?;
    // A closed pipe is not a failure of the check.
    if let Some(advice) = advice {
        let _ = writeln!(stderr(), "{}: mind: {advice}", args.config.display());
    }
    let _ = writeln!(stdout(), "{}: ok", args.config.display());
    Ok(ExitCode::SUCCESS)
}

fn check_files(config: &Config) -> Result<Option<Advice>, FileErrors> {
    let listeners = config.listeners().iter().enumerate();
    let mut errors: Vec<_> = listeners
        .filter_map(|(index, listener)| {
            let error = tls::check(listener.tls.as_ref()?).err()?;
            Some(anyhow::Error::from(error).context(format!("listener[{index}].tls")))
        })
        .collect();
    if let Some(cluster) = config.cluster()
        && let Err(error) = channel::Key::load(&cluster.key_file, PURPOSE)
    {
        errors.push(anyhow::Error::from(error).context("cluster.key_file"));
    }
    let access = access::check(config.access());
    let advice = access.map_err(|error| errors.push(error.into()));
    match advice {
        Ok(advice) if errors.is_empty() => Ok(advice),
        Ok(_) | Err(()) => Err(FileErrors(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing::Dir, tls::tests::Authority};

    fn check(tls: &str) -> String {
        let text = format!(
            "node = \"n\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n{tls}"
        );
        let result = check_files(&Config::parse(&text).unwrap());
        result.map_or_else(|errors| errors.to_string(), |_advice| "ok".to_owned())
    }

    #[test]
    fn rules_that_go_by_client_ids_are_pointed_out_where_these_prove_nothing() {
        let dir = Dir::new();
        let advice = |rules: &str, more: &str| {
            let acl = dir.write("acl", rules);
            let text = format!(
                "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 [access]\nanonymous = true\n{more}[access.acl]\npath = {acl:?}\n"
            );
            check_files(&Config::parse(&text).unwrap()).unwrap()
        };
        let plain = "allow user a all %u/#\n";
        assert_eq!(advice(plain, ""), None);
        for rule in ["allow client c all a\n", "deny anonymous all a/%c\n"] {
            let rules = format!("{plain}{rule}");
            assert_eq!(advice(&rules, ""), Some(Advice::ClientIds(2)), "{rule}");
            assert_eq!(advice(&rules, "client_id = \"%u\"\n"), None);
        }
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
        let told = check(&authority.future("localhost").settings());
        assert!(told.contains("is not good yet"), "{told}");
    }
}
