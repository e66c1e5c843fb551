//! Tries what virtual routers depend on, each `[[vrrp.track]]` by a task of its own, and tells the event
//! loop when one is judged differently. What that costs a router is `core/vrrp/node`'s to say.

use std::collections::BTreeMap;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};

use crate::{
    config::model::{Config, Track, TrackTarget},
    core::{
        event::Event,
        vrrp::track::{Attempt, Share, Streak, TrackState},
    },
    io::{notify::exec, ping},
    journal::Journal,
};

/// A router and what it depends on, by name.
type Key = (String, String);

/// The backends of each router, by its name.
pub(super) type Shares = BTreeMap<String, Share>;

/// All that is tried. See the module.
pub(super) struct Trackers {
    all: BTreeMap<Key, Tracker>,
    shares: watch::Sender<Shares>,
    journal: Journal,
    news: mpsc::Sender<()>,
}

struct Tracker {
    config: Track,
    state: watch::Receiver<TrackState>,
    task: JoinHandle<()>,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trackers {
    /// None so far, and what is told when any is judged differently.
    pub(super) fn new(journal: Journal) -> (Self, mpsc::Receiver<()>) {
        // One is enough: whoever is told looks at all.
        let (news, told) = mpsc::channel(1);
        let trackers = Self {
            all: BTreeMap::new(),
            shares: watch::Sender::default(),
            journal,
            news,
        };
        (trackers, told)
    }

    /// Has those be tried that `config` names. What stays as it was is not disturbed.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.all);
        for router in config.vrrps() {
            for track in router.tracks() {
                let key = (router.name().to_owned(), track.name().to_owned());
                let tracker = match before.remove(&key) {
                    Some(it) if it.config == *track => it,
                    before => self.start(router.name(), track, known(before.as_ref(), track)),
                };
                self.all.insert(key, tracker);
            }
        }
    }

    /// Takes in how many backends of each router are up.
    pub(super) fn see(&self, shares: Shares) {
        self.shares.send_replace(shares);
    }

    /// How they are judged.
    pub(super) fn states(&self) -> BTreeMap<Key, TrackState> {
        let all = self.all.iter();
        all.map(|(key, it)| (key.clone(), *it.state.borrow()))
            .collect()
    }

    fn start(&self, router: &str, track: &Track, known: TrackState) -> Tracker {
        let (sender, state) = watch::channel(known);
        let watcher = Watcher {
            router: router.to_owned(),
            track: track.clone(),
            state: sender,
            shares: self.shares.subscribe(),
            journal: self.journal.clone(),
            news: self.news.clone(),
        };
        Tracker {
            config: track.clone(),
            state,
            task: tokio::spawn(watcher.run()),
        }
    }
}

/// What was found out about the same target: that it is tried at other times does not change it.
fn known(before: Option<&Tracker>, track: &Track) -> TrackState {
    let same = before.filter(|it| it.config.target() == track.target());
    same.map_or(TrackState::Unknown, |it| *it.state.borrow())
}

/// Who tries one.
struct Watcher {
    router: String,
    track: Track,
    state: watch::Sender<TrackState>,
    shares: watch::Receiver<Shares>,
    journal: Journal,
    news: mpsc::Sender<()>,
}

impl Watcher {
    async fn run(self) {
        let streak = Streak::new(self.track.fall(), self.track.rise());
        let mut streak = streak.knowing(*self.state.borrow());
        let mut ticks = time::interval(self.track.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (seen, reason) = match self.attempt().await {
                Some(Ok(())) => (Attempt::Success, None),
                Some(Err(reason)) => (Attempt::Failure, Some(reason)),
                None => continue,
            };
            if streak.observe(seen) {
                self.tell(streak.state(), reason);
            }
        }
    }

    /// Tries it; nothing if that tells nothing yet.
    async fn attempt(&self) -> Option<Result<(), String>> {
        let limit = self.track.timeout();
        match self.track.target() {
            TrackTarget::Gateway(address) => {
                let asked = ping::ping(*address, limit).await;
                Some(asked.map_err(|error| error.to_string()))
            }
            TrackTarget::Script(command) => {
                let run = exec::run(command, &[], b"", limit).await;
                Some(run.map_err(|error| error.to_string()))
            }
            TrackTarget::Backends(percent) => {
                let share = *self.shares.borrow().get(&self.router)?;
                let is_enough = share.reaches(*percent)?;
                Some(is_enough.then_some(()).ok_or_else(|| share.to_string()))
            }
        }
    }

    fn tell(&self, state: TrackState, reason: Option<String>) {
        self.state.send_replace(state);
        // If it is full, the event loop is about to look.
        let _ = self.news.try_send(());
        self.journal.tell(Event::TrackChanged {
            router: self.router.clone(),
            track: self.track.name().to_owned(),
            target: self.track.target().to_string(),
            state,
            reason,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::{Share, TrackState, Trackers};
    use crate::{config, journal::Journal};

    #[tokio::test]
    async fn a_share_of_backends_is_judged_when_it_is_known() {
        let text = include_str!("../../configs/tidegate-vrrp.toml");
        let track = "[[vrrp.track]]\nname = \"share\"\nbackends_up = 50\nweight = -50\n\
                     interval = \"10ms\"\nfall = 2\nrise = 1\n\n[[vrrp]]\nname = \"front-v6\"";
        let text = text.replace("[[vrrp]]\nname = \"front-v6\"", track);
        let config = config::parse(&text, "test.toml").unwrap();
        let (mut trackers, mut told) = Trackers::new(Journal::default());
        trackers.follow(&config);
        let key = ("front-v4".to_owned(), "share".to_owned());
        let see = |trackers: &Trackers, [up, down, unknown]: [u32; 3]| {
            let share = Share { up, down, unknown };
            trackers.see([("front-v4".to_owned(), share)].into());
        };
        // It cannot be told yet.
        see(&trackers, [0, 1, 1]);
        tokio::task::yield_now().await;
        assert_eq!(trackers.states()[&key], TrackState::Unknown);
        for (share, state) in [
            ([1, 1, 0], TrackState::Up),
            ([0, 1, 0], TrackState::Down),
            ([1, 0, 1], TrackState::Up),
        ] {
            see(&trackers, share);
            let patience = Duration::from_secs(60);
            let _: Option<()> = time::timeout(patience, told.recv()).await.unwrap();
            assert_eq!(trackers.states()[&key], state);
        }
    }

    #[tokio::test]
    async fn a_script_is_tried_until_it_fails_and_comes_back() {
        let path = std::env::temp_dir().join(format!("tidegate-track-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let text = include_str!("../../configs/tidegate-vrrp.toml");
        let track = format!(
            "[[vrrp.track]]\nname = \"file\"\nscript = [\"/usr/bin/test\", \"-e\", \"{}\"]\n\
             interval = \"20ms\"\ntimeout = \"20s\"\nfall = 2\nrise = 2\n\n[[vrrp]]\nname = \"front-v6\"",
            path.display()
        );
        let text = text.replace("[[vrrp]]\nname = \"front-v6\"", &track);
        let config = config::parse(&text, "test.toml").unwrap();
        let (mut trackers, mut told) = Trackers::new(Journal::default());
        trackers.follow(&config);
        let key = ("front-v4".to_owned(), "file".to_owned());
        assert_eq!(trackers.states()[&key], TrackState::Unknown);
        for state in [TrackState::Up, TrackState::Down, TrackState::Up] {
            match state {
                TrackState::Down => std::fs::remove_file(&path).unwrap(),
                TrackState::Up | TrackState::Unknown => std::fs::write(&path, "").unwrap(),
            }
            let patience = Duration::from_secs(60);
            let _: Option<()> = time::timeout(patience, told.recv()).await.unwrap();
            assert_eq!(trackers.states()[&key], state);
            // What stays as it was is known as before.
            trackers.follow(&config);
            assert_eq!(trackers.states()[&key], state);
        }
        std::fs::remove_file(&path).unwrap();

        // Another interval does not make it unknown, and another target does.
        let other = text.replace("20ms", "30ms");
        trackers.follow(&config::parse(&other, "test.toml").unwrap());
        assert_eq!(trackers.states()[&key], TrackState::Up);
        let other = text.replace("\"-e\"", "\"-f\"");
        trackers.follow(&config::parse(&other, "test.toml").unwrap());
        assert_eq!(trackers.states()[&key], TrackState::Unknown);
    }
}
