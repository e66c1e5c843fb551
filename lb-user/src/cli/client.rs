//! The client of the daemon's API, as the commands use it.

pub(super) use console::client::{Client, ClientError, encode};

pub(super) use crate::api::DAEMON;

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

    use console::socket;
    use tokio::{runtime::Runtime, task::JoinSet};
    use tokio_util::sync::CancellationToken;

    use super::{Client, ClientError, DAEMON};
    use crate::{
        api::{BindError, Servers},
        control::{self, Request, Status, example},
        journal::Journal,
    };

    fn path_of(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("tidegate-{}-{name}.sock", std::process::id()))
    }

    #[test]
    fn status_comes_through_the_socket() {
        let (path, runtime) = (path_of("status"), Runtime::new().unwrap());
        let servers = runtime.block_on(Servers::bind(&path, 0o600, None)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (handle, mut requests) = control::channel(Journal::default());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        runtime.block_on(async { servers.spawn(&handle, &stop, &mut tasks) });
        runtime.spawn(async move {
            while let Some(request) = requests.receiver.recv().await {
                if let Request::Status(answer) = request {
                    drop(answer.send(example::status()));
                }
            }
        });

        let client = Client::new(DAEMON, &path).unwrap();
        assert_eq!(
            client.get::<Status>("/v1/status").unwrap(),
            example::status()
        );
        let refusal = client.get::<Status>("/v1/nosuch").unwrap_err();
        assert!(
            refusal.is_usage() && refusal.to_string().contains("no such route"),
            "{refusal}"
        );
        let second = runtime
            .block_on(Servers::bind(&path, 0o600, None))
            .unwrap_err();
        assert!(
            matches!(second, BindError::Control(socket::BindError::InUse { .. })),
            "{second}"
        );

        stop.cancel();
        runtime.block_on(async { while tasks.join_next().await.is_some() {} });
        assert!(!path.exists(), "the socket goes with its server");
        let error = client.get::<Status>("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    }

    #[test]
    fn socket_of_a_dead_daemon_is_replaced_and_no_other_file_is() {
        let (path, runtime) = (path_of("stale"), Runtime::new().unwrap());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let servers = runtime.block_on(Servers::bind(&path, 0o660, None)).unwrap();
        drop(servers);
        std::fs::write(&path, "precious").unwrap();
        let refusal = runtime
            .block_on(Servers::bind(&path, 0o660, None))
            .unwrap_err();
        assert!(
            matches!(
                refusal,
                BindError::Control(socket::BindError::NotASocket { .. })
            ),
            "{refusal}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }
}
