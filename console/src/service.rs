//! What a daemon tells the service manager that has started it, in systemd's form: one datagram for
//! what is told at once (sd_notify(3)).
//!
//! Nothing is waited for. A manager that does not read must not hold up a daemon that works, and one
//! that misses a word hears the next.

use std::{
    convert::Infallible,
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use tokio::time;

/// How often a stop that takes long asks for more time.
const EXTENSION_PERIOD: Duration = Duration::from_secs(5);

/// For how long it asks: several requests may be missed.
const EXTENSION: Duration = Duration::from_secs(30);

/// How many times within the manager's patience it is told that all is well.
const SIGNS_OF_LIFE: u32 = 3;

/// The manager, if there is one that wants to know.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    patience: Option<Duration>,
}

/// What the manager has put into the environment.
#[derive(Debug, Default)]
struct Wishes {
    /// `NOTIFY_SOCKET`
    socket: Option<OsString>,
    /// `WATCHDOG_USEC`
    patience: Option<OsString>,
    /// `WATCHDOG_PID`
    process: Option<OsString>,
}

impl Manager {
    /// Whoever the environment names.
    ///
    /// # Errors
    ///
    /// If it names a socket that cannot be used.
    pub fn find() -> io::Result<Self> {
        Self::named(&Wishes {
            socket: env::var_os("NOTIFY_SOCKET"),
            patience: env::var_os("WATCHDOG_USEC"),
            process: env::var_os("WATCHDOG_PID"),
        })
    }

    /// Nobody.
    #[must_use]
    pub const fn nobody() -> Self {
        Self {
            socket: None,
            patience: None,
        }
    }

    fn named(wishes: &Wishes) -> io::Result<Self> {
        let Some(name) = &wishes.socket else {
            return Ok(Self::nobody());
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name)?)?;
        socket.set_nonblocking(true)?;
        let own = process::id().to_string();
        let is_ours = wishes.process.as_ref().is_none_or(|it| *it == *own);
        let micros = wishes.patience.as_ref().and_then(|it| it.to_str());
        let micros = micros.and_then(|it| it.parse().ok()).filter(|it| *it > 0);
        Ok(Self {
            socket: Some(socket),
            patience: micros.filter(|_| is_ours).map(Duration::from_micros),
        })
    }

    /// The start is over.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// How often [`Self::alive`] is wanted; `None` if nobody counts on it.
    #[must_use]
    pub fn pulse(&self) -> Option<Duration> {
        self.patience.map(|patience| patience / SIGNS_OF_LIFE)
    }

    /// The daemon does its work. One that does not say so for too long is killed and started again.
    pub fn alive(&self) {
        if self.patience.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// Asks for more time again and again, as long as this is waited for: whoever stops in order may
    /// take as long as its configuration says.
    pub async fn ask_for_time(&self) -> Infallible {
        let request = format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros());
        loop {
            self.tell(&request);
            time::sleep(EXTENSION_PERIOD).await;
        }
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            // There is nobody to tell of what the manager did not hear.
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// The manager's end, in a directory of its own.
    struct Ear {
        directory: PathBuf,
        socket: UnixDatagram,
    }

    impl Ear {
        fn open(name: &str) -> Self {
            let name = format!("tidegate-{name}-{}", process::id());
            let directory = env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { directory, socket }
        }

        fn wishes(&self) -> Wishes {
            Wishes {
                socket: Some(self.directory.join("notify").into_os_string()),
                ..Wishes::default()
            }
        }

        fn next(&self) -> Option<String> {
            let mut buffer = [0; 100];
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    }

    impl Drop for Ear {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.directory));
        }
    }

    #[test]
    fn a_manager_hears_of_the_start_and_the_end() {
        let ear = Ear::open("start");
        let manager = Manager::named(&ear.wishes()).unwrap();
        manager.ready();
        manager.alive();
        manager.stopping();
        assert_eq!(ear.next().as_deref(), Some("READY=1"));
        // Nobody has asked for signs of life.
        assert_eq!(ear.next().as_deref(), Some("STOPPING=1"));
        assert_eq!(ear.next(), None);
    }

    #[test]
    fn signs_of_life_are_for_who_asked_this_process_for_them() {
        let ear = Ear::open("alive");
        let asked = |process: Option<u32>, micros: &str| {
            let manager = Manager::named(&Wishes {
                patience: Some(micros.into()),
                process: process.map(|it| it.to_string().into()),
                ..ear.wishes()
            });
            let manager = manager.unwrap();
            manager.alive();
            (manager.pulse(), ear.next())
        };
        let told = (Some(Duration::from_secs(10)), Some("WATCHDOG=1".to_owned()));
        assert_eq!(asked(Some(process::id()), "30000000"), told);
        assert_eq!(asked(None, "30000000"), told);
        assert_eq!(asked(Some(1), "30000000"), (None, None));
        assert_eq!(asked(None, "soon"), (None, None));
        assert_eq!(asked(None, "0"), (None, None));
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let ear = Ear::open("deaf");
        let manager = Manager::named(&ear.wishes()).unwrap();
        // More than any kernel queues for one socket.
        for _ in 0..100_000 {
            manager.ready();
        }
        assert_eq!(ear.next().as_deref(), Some("READY=1"));
    }

    #[test]
    fn a_socket_without_a_file_is_found_by_its_name() {
        let name = format!("tidegate-abstract-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager::named(&Wishes {
            socket: Some(format!("@{name}").into()),
            ..Wishes::default()
        });
        manager.unwrap().ready();
        let mut buffer = [0; 7];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
        assert_eq!(&buffer, b"READY=1");
    }

    #[test]
    fn without_a_manager_nothing_is_told_and_one_that_is_gone_is_an_error() {
        let nobody = Manager::named(&Wishes::default()).unwrap();
        nobody.ready();
        assert_eq!(nobody.pulse(), None);
        let gone = Manager::named(&Wishes {
            socket: Some("/nonexistent/notify".into()),
            ..Wishes::default()
        });
        assert!(gone.is_err());
    }

    #[tokio::test]
    async fn a_stop_that_takes_long_asks_for_time() {
        let ear = Ear::open("stop");
        let manager = Manager::named(&ear.wishes()).unwrap();
        let stop = time::timeout(Duration::from_millis(1), manager.ask_for_time());
        assert!(stop.await.is_err());
        assert_eq!(ear.next().as_deref(), Some("EXTEND_TIMEOUT_USEC=30000000"));
    }
}
