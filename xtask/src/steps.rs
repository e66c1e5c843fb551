//! Names what is being done and how long it took.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps of a task so far.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<(String, Duration)>);

impl Steps {
    /// Runs one step.
    ///
    /// # Errors
    /// The step's own, with its name.
    pub(crate) fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("== {name}");
        let start = Instant::now();
        let result = run().with_context(|| format!("step \"{name}\" failed"))?;
        let took = start.elapsed();
        eprintln!("   {name}: {:.1} s", took.as_secs_f64());
        self.0.push((name.to_owned(), took));
        Ok(result)
    }

    /// Prints all steps and their sum.
    pub(crate) fn summary(&self) {
        let sum: Duration = self.0.iter().map(|(_, took)| *took).sum();
        eprintln!("== all steps passed");
        for (name, took) in &self.0 {
            eprintln!("{:>8.1} s  {name}", took.as_secs_f64());
        }
        eprintln!("{:>8.1} s  together", sum.as_secs_f64());
    }
}
