//! The limit on open files: every client is one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the system allows, and returns how many that is; `None` is no limit.
///
/// # Errors
/// When the limit stays as it was.
pub(crate) fn raise_limit() -> io::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(maximum)
}
