//! Tests of the pages that the daemons serve: with node, and in Chromium where there is one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::workspace;
use crate::exec;

const DIRECTORY: &str = "dashboard/tests";

/// How names of tests end; the other files are what tests are made of.
const TEST: &str = ".test.js";

/// Drives a browser, or says that there is none.
const BROWSER: &str = "browser.mjs";

/// Runs them, or says that there is nothing to run them.
pub(crate) fn test() -> Result<()> {
    let Some(node) = exec::which("node") else {
        eprintln!("== skipped: tests of pages: there is no node here (apt-get install nodejs)");
        return Ok(());
    };
    exec::show_run(Command::new(&node).arg("--test").args(tests()?))?;
    exec::show_run(Command::new(node).arg(workspace().join(DIRECTORY).join(BROWSER)))
}

/// Each by name: versions of node differ in what they make of a directory.
fn tests() -> Result<Vec<PathBuf>> {
    let directory = workspace().join(DIRECTORY);
    let entries = fs::read_dir(&directory)
        .with_context(|| format!("cannot look into {}", directory.display()))?;
    let mut tests = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(TEST) {
            tests.push(path);
        }
    }
    tests.sort();
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::tests;

    #[test]
    fn tests_of_pages_are_found_and_what_they_are_made_of_is_not() {
        let found = tests().unwrap();
        let has = |name| found.iter().any(|path| path.ends_with(name));
        assert!(has("model.test.js") && has("live.test.js"), "{found:?}");
        assert!(!has("chromium.js") && !has("browser.mjs"), "{found:?}");
    }
}
