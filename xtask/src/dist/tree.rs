//! A package's files below a directory, as they will be below a host's root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::layout::{File, Kind};
use crate::exec;

/// Writes them all.
pub(super) fn write(files: &[File], root: &Path) -> Result<()> {
    for file in files {
        let to = root.join(&file.to);
        let context = || format!("cannot put {} to {}", file.from.display(), to.display());
        make_directories(root, to.parent().unwrap_or(root)).with_context(context)?;
        fs::copy(&file.from, &to).with_context(context)?;
        let mode = match file.kind {
            Kind::Program => 0o755,
            Kind::Plain | Kind::Config | Kind::Compressed => 0o644,
        };
        fs::set_permissions(&to, Permissions::from_mode(mode)).with_context(context)?;
        match file.kind {
            Kind::Program => strip(&to)?,
            // Without the name and the time of what it was made of.
            Kind::Compressed => exec::run(Command::new("gzip").args(["-9", "-n"]).arg(&to))?,
            Kind::Plain | Kind::Config => {}
        }
    }
    Ok(())
}

/// Directories that everybody can enter, whatever the builder's umask.
fn make_directories(root: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for directory in directory.ancestors().take_while(|it| it.starts_with(root)) {
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Takes off what is only of use beside the sources.
fn strip(program: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    strip.args(["--strip-unneeded", "--remove-section=.comment"]);
    exec::run(strip.arg(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::WorkDir;

    #[test]
    fn files_are_as_everybody_may_use_them() {
        let work = WorkDir::new().unwrap();
        let from = work.path().join("secretive");
        fs::write(&from, "text\n").unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o600)).unwrap();
        let file = |to: &str, kind| File {
            from: from.clone(),
            to: to.to_owned(),
            kind,
        };
        let root = work.path().join("root");
        let files = [
            file("etc/boat/a.toml", Kind::Config),
            file("usr/share/doc/boat/changelog", Kind::Compressed),
        ];
        write(&files, &root).unwrap();
        let mode = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("etc/boat/a.toml"), 0o644);
        assert_eq!(mode("etc/boat"), 0o755);
        assert_eq!(mode(&files[1].place()), 0o644);
        assert!(!root.join(&files[1].to).exists());
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let work = WorkDir::new().unwrap();
        let file = File {
            from: "/nonexistent/boat".into(),
            to: "usr/bin/boat".into(),
            kind: Kind::Plain,
        };
        let error = write(&[file], &work.path().join("root")).unwrap_err();
        assert!(
            format!("{error:#}").contains("/nonexistent/boat"),
            "{error:#}"
        );
    }
}
