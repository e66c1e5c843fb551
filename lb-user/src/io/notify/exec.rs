//! Runs a program without a shell, for so long at most.
//!
//! It gets a process group of its own, which is killed as a whole at the limit, or when nobody waits
//! for it any more. The runtime reaps it in any case. Of the daemon's files it has none: all are closed
//! on exec.

use std::{
    ffi::OsStr,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time,
};

use super::{SAID, one_line};

/// How much of what it says is kept: the end, where the reason is.
const TAIL: usize = 2_048;

/// For the pipes of one that has ended to be read: what it has started may keep them open.
const REST: Duration = Duration::from_millis(200);

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("there is no program to run")]
    Nothing,
    #[error("{program} cannot be run: {cause}")]
    Start {
        program: String,
        #[source]
        cause: io::Error,
    },
    #[error("{program} ran for longer than {limit:?} and was killed{}", said(.tail))]
    TimedOut {
        program: String,
        limit: Duration,
        tail: String,
    },
    #[error("{program} failed, {status}{}", said(.tail))]
    Failed {
        program: String,
        status: ExitStatus,
        tail: String,
    },
}

/// The end of it on one line.
fn said(tail: &str) -> String {
    let line = one_line(tail);
    let excess = line.chars().count().saturating_sub(SAID);
    let end: String = line.chars().skip(excess).collect();
    match end.as_str() {
        "" => end,
        end => format!(", it said: {end}"),
    }
}

/// Kills what is left of a process group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `command`, the first word of which is a path or is looked for in `PATH`, with more environment,
/// and `input` to read.
///
/// # Errors
///
/// If it cannot be started, takes longer than `limit`, or ends with another code than 0.
pub async fn run(
    command: &[String],
    environment: &[(String, String)],
    input: &[u8],
    limit: Duration,
) -> Result<(), ExecError> {
    let (program, arguments) = command.split_first().ok_or(ExecError::Nothing)?;
    let variables = environment.iter();
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.map(|(name, value)| (OsStr::new(name), OsStr::new(value))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|cause| ExecError::Start {
            program: program.clone(),
            cause,
        })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Tail::default(), Tail::default());
    let ended = {
        let talk = async {
            tokio::join!(feed(stdin, input), out.read(stdout), err.read(stderr));
        };
        let (mut talk, mut has_talked) = (std::pin::pin!(talk), false);
        let wait = async {
            tokio::select! {
                status = child.wait() => status,
                () = &mut talk => {
                    has_talked = true;
                    child.wait().await
                }
            }
        };
        let ended = time::timeout(limit, wait).await;
        if ended.is_ok() && !has_talked {
            drop(time::timeout(REST, talk).await);
        }
        ended
    };
    let tail = out.text() + &err.text();
    match ended {
        Ok(Ok(status)) => {
            // What it has left running on purpose goes on.
            group.0 = None;
            if status.success() {
                return Ok(());
            }
            Err(ExecError::Failed {
                program: program.clone(),
                status,
                tail,
            })
        }
        Ok(Err(cause)) => Err(ExecError::Start {
            program: program.clone(),
            cause,
        }),
        Err(_elapsed) => {
            drop(group);
            // It is dead, and only to be taken off the list of processes, unless the kernel has it wait
            // for a disk: then it dies after that, and the runtime takes it off.
            drop(time::timeout(REST, child.wait()).await);
            Err(ExecError::TimedOut {
                program: program.clone(),
                limit,
                tail,
            })
        }
    }
}

/// Whether it reads what it is given is its own business.
async fn feed(pipe: Option<tokio::process::ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        drop(pipe.write_all(input).await);
    }
}

/// The end of what was said.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else {
            return;
        };
        let mut buffer = [0; TAIL];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.0
                .extend_from_slice(buffer.get(..count).unwrap_or_default());
            let excess = self.0.len().saturating_sub(TAIL);
            self.0.drain(..excess);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ExecError, SAID, TAIL, run};

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).into()
    }

    #[tokio::test]
    async fn environment_and_input_reach_the_program() {
        let script = r#"read line; test "$line" = '{"a":1}' && test "$TIDEGATE_KIND" = stopping"#;
        let environment = [("TIDEGATE_KIND".to_owned(), "stopping".to_owned())];
        let input = b"{\"a\":1}\n";
        run(&shell(script), &environment, input, LONG)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn failure_tells_the_end_of_what_was_said() {
        let script = "seq 1 500000; echo the reason >&2; exit 3";
        let error = run(&shell(script), &[], b"", LONG).await.unwrap_err();
        let ExecError::Failed { status, tail, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(status.code(), Some(3));
        assert!(tail.ends_with("500000\nthe reason\n"), "{tail}");
        assert!(tail.len() <= 2 * TAIL);
        let told = error.to_string();
        assert!(told.ends_with(" 499999 500000 the reason"), "{told}");
        assert!(told.len() < 2 * SAID, "{told}");
        let missing = run(&["/nowhere/at/all".to_owned()], &[], b"", LONG).await;
        assert!(matches!(missing, Err(ExecError::Start { .. })));
    }

    #[tokio::test]
    async fn the_limit_ends_the_program_with_all_that_it_has_started() {
        let marker = format!("86{}", std::process::id());
        // Asked nicely it would stay.
        let script =
            format!("trap '' TERM HUP INT; sleep {marker} & sleep {marker}; sleep {marker}");
        let limit = Duration::from_millis(300);
        let error = run(&shell(&script), &[], b"", limit).await.unwrap_err();
        assert!(matches!(error, ExecError::TimedOut { .. }), "{error}");
        // Killed ones are gone when init has reaped them.
        for _ in 0..500 {
            if !is_running(&marker) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a sleep is left");
    }

    /// Whether any process but a dead one has this argument.
    fn is_running(argument: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
        lines.any(|line| {
            let mut words = line.split(|byte| *byte == 0);
            words.next() == Some(b"sleep") && words.next() == Some(argument.as_bytes())
        })
    }

    #[tokio::test]
    async fn what_it_leaves_running_does_not_keep_its_end_from_being_seen() {
        let script = "sleep 5 & exit 0";
        run(&shell(script), &[], b"", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn no_file_of_the_daemon_is_open_in_the_program() {
        let name = format!("tidegate-open-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _file = std::fs::File::create(&path).unwrap();
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!("! ls -l /proc/self/fd | grep -q -e {name} -e socket:");
        let outcome = run(&shell(&script), &[], b"", LONG).await;
        std::fs::remove_file(&path).unwrap();
        outcome.unwrap();
    }
}
