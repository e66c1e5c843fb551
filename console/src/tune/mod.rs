//! `tune`: what the settings of the kernel are, what they should be, and why.
//!
//! It writes nothing unless it is told to apply or to undo. The programs say what kind of host they
//! are for, and where the files are.

pub mod catalogue;
pub mod host;
pub mod plan;
mod render;

use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use self::{
    catalogue::{OPEN_FILES, Role, Setting, settings},
    host::{Failed, Host, TuneError, Undone},
    plan::{Change, Reading},
};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Show,
    /// Write what is wrong, and with a file have it so after the next boot as well.
    Apply(Option<PathBuf>),
    /// Put back what was before, and remove such a file.
    Undo(PathBuf),
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Order {
    pub role: Role,
    pub host: Host,
    pub action: Action,
    /// The settings that are meant; none are those that matter on all hosts of the kind.
    pub only: Vec<String>,
}

/// What was done, and how all settings stand afterwards.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was written.
    pub applied: Vec<Change>,
    pub undone: Vec<Undone>,
    /// What should have been written, and why it is not.
    pub failed: Vec<Failed>,
    /// What was done to the file for the next boot.
    pub file: Option<FileChange>,
    pub settings: Vec<Reading>,
    /// What a process started here may open; the daemon's own limit is that of its unit.
    pub open_files: Option<u64>,
    pub open_files_wanted: Option<u64>,
}

/// What became of the file for the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    Written(PathBuf),
    Removed(PathBuf),
}

impl Report {
    /// As people read it.
    #[must_use]
    pub fn text(&self) -> String {
        render::text(self)
    }
}

/// Does it.
///
/// # Errors
///
/// If a setting is not known, or a file cannot be read or written. A setting that the kernel does
/// not take is in the report.
pub fn run(order: &Order) -> Result<Report, TuneError> {
    let Order {
        role,
        host,
        action,
        only,
    } = order;
    let known = settings(*role);
    if let Some(key) = only
        .iter()
        .find(|key| known.iter().all(|it| it.key != **key))
    {
        return Err(TuneError::Unknown { key: key.clone() });
    }
    let mut report = Report {
        applied: Vec::new(),
        undone: Vec::new(),
        failed: Vec::new(),
        file: None,
        settings: Vec::new(),
        open_files: getrlimit(Resource::Nofile).maximum,
        open_files_wanted: match role {
            Role::Broker => Some(OPEN_FILES),
            Role::Balancer => None,
        },
    };
    match action {
        Action::Show => {}
        Action::Apply(file) => {
            let readings = read(*role, host)?;
            let changes = readings.iter().filter(|it| it.is_meant(only));
            let changes: Vec<_> = changes.filter_map(Reading::change).collect();
            (report.applied, report.failed) = host.apply(&changes)?;
            if let Some(file) = file
                && host::persist(file, &host.noted()?)?
            {
                report.file = Some(FileChange::Written(file.clone()));
            }
        }
        Action::Undo(file) => {
            (report.undone, report.failed) = host.undo(only)?;
            // What is left to be undone is left in it.
            let has_file = if host.noted()?.is_empty() {
                host::forget(file)?.then(|| FileChange::Removed(file.clone()))
            } else {
                host::rewrite(file, &host.noted()?)?.then(|| FileChange::Written(file.clone()))
            };
            report.file = has_file;
        }
    }
    report.settings = read(*role, host)?;
    report
        .settings
        .retain(|it| only.is_empty() || it.is_meant(only));
    Ok(report)
}

fn read(role: Role, host: &Host) -> Result<Vec<Reading>, TuneError> {
    let read = |setting: &Setting| -> Result<Reading, TuneError> {
        let current = host.read(setting.key)?;
        Ok(Reading::new(setting, current.as_deref()))
    };
    settings(role).iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        Action, FileChange, Order, Report,
        catalogue::Role,
        host::{TuneError, tests::Dir},
        run,
    };

    fn order(dir: &Dir, action: Action, only: &[&str]) -> Result<Report, TuneError> {
        run(&Order {
            role: Role::Broker,
            host: dir.host(),
            action,
            only: only.iter().map(|key| (*key).to_owned()).collect(),
        })
    }

    /// A host on which one setting that matters and one that sometimes does are too small.
    fn small(name: &str) -> Dir {
        let dir = Dir::new(name);
        dir.set("net.core.somaxconn", "128\n");
        dir.set("net.core.netdev_max_backlog", "1000\n");
        dir
    }

    #[test]
    fn nothing_is_written_by_looking() {
        let dir = small("show");
        let report = order(&dir, Action::Show, &[]).unwrap();
        assert_eq!(dir.get("net.core.somaxconn"), "128\n");
        assert!(report.applied.is_empty() && !dir.host().state.exists());
        let text = report.text();
        assert!(text.contains("CHANGE   net.core.somaxconn = 128"), "{text}");
        assert!(text.contains("missing  fs.nr_open"), "{text}");
    }

    #[test]
    fn what_matters_is_applied_and_the_rest_by_name() {
        let dir = small("apply");
        order(&dir, Action::Apply(None), &[]).unwrap();
        assert_eq!(dir.get("net.core.somaxconn"), "8192");
        assert_eq!(dir.get("net.core.netdev_max_backlog"), "1000\n");
        let only = ["net.core.netdev_max_backlog"];
        let report = order(&dir, Action::Apply(None), &only).unwrap();
        assert_eq!(report.applied.len(), 1);
        assert_eq!(dir.get("net.core.netdev_max_backlog"), "16384");
    }

    #[test]
    fn a_file_for_the_next_boot_has_all_that_was_applied_and_goes_with_it() {
        let dir = small("boot");
        let file = dir.path("90.conf");
        let both = ["net.core.somaxconn", "net.core.netdev_max_backlog"];
        order(&dir, Action::Apply(None), &both[..1]).unwrap();
        let report = order(&dir, Action::Apply(Some(file.clone())), &both[1..]).unwrap();
        assert_eq!(report.file, Some(FileChange::Written(file.clone())));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("net.core.somaxconn = 8192\n"), "{text}");
        assert!(
            text.contains("net.core.netdev_max_backlog = 16384\n"),
            "{text}"
        );
        order(&dir, Action::Undo(file.clone()), &both[..1]).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("somaxconn") && text.contains("netdev"),
            "{text}"
        );
        assert_eq!(dir.get("net.core.somaxconn"), "128");
        let report = order(&dir, Action::Undo(file.clone()), &[]).unwrap();
        assert_eq!(report.file, Some(FileChange::Removed(file.clone())));
        assert_eq!(dir.get("net.core.netdev_max_backlog"), "1000");
        assert!(!file.exists() && !dir.host().state.exists());
    }

    #[test]
    fn nothing_to_change_makes_no_file() {
        let dir = Dir::new("good");
        dir.set("net.core.somaxconn", "65535\n");
        let file = dir.path("90.conf");
        let report = order(&dir, Action::Apply(Some(file.clone())), &[]).unwrap();
        assert_eq!((report.file, file.exists()), (None, false));
        assert_eq!(dir.get("net.core.somaxconn"), "65535\n");
    }

    #[test]
    fn settings_that_are_not_known_are_refused() {
        let dir = small("unknown");
        let refused = order(&dir, Action::Apply(None), &["kernel.panic"]);
        assert!(
            matches!(refused, Err(TuneError::Unknown { .. })),
            "{refused:?}"
        );
    }
}
