//! The health probes: one task a backend, started and stopped as the configuration says.
//!
//! A task only asks and tells; what follows is decided by `core::health`. Tasks are known by a
//! number: an answer that was under way when its backend was reconfigured counts for nobody.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    config::model::{self, Check, Config},
    core::{
        balancer::BackendKey,
        health::{Question, Questions},
    },
    io::probe::{self, Http, Mqtt, MqttVersion, Probe, ProbeFailure, ProbeResult},
};

/// Answers that may wait for the loop. A prober that finds it full waits, which only delays its
/// next question.
const DEPTH: usize = 256;

/// What came of one probe.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) backend: BackendKey,
    pub(super) target: SocketAddr,
    pub(super) question: Question,
    pub(super) result: ProbeResult,
    task: u64,
}

/// All probe tasks.
#[derive(Debug)]
pub(super) struct Probers {
    tasks: BTreeMap<BackendKey, Task>,
    answers: mpsc::Sender<Answer>,
    /// The order of what all tasks ask and hear. Evidence, from which others decide.
    questions: Arc<Questions>,
    last_task: u64,
}

#[derive(Debug)]
struct Task {
    number: u64,
    plan: Plan,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Everything that a task does. Its probe's own client id is made when it starts.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    target: SocketAddr,
    probe: model::Probe,
    interval: Duration,
    timeout: Duration,
    jitter: f64,
}

impl Probers {
    pub(super) fn new() -> (Self, mpsc::Receiver<Answer>) {
        let (answers, receiver) = mpsc::channel(DEPTH);
        let probers = Self {
            tasks: BTreeMap::new(),
            answers,
            questions: Arc::default(),
            last_task: 0,
        };
        (probers, receiver)
    }

    /// Starts and stops tasks so that exactly the checked backends of `config` are probed. A task
    /// whose plan stays goes on undisturbed.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut wanted = BTreeMap::new();
        for (service, backend) in config.backends() {
            if let Some(check) = service.check() {
                let target = SocketAddr::new(backend.address(), check.port_of(backend));
                let key = BackendKey::new(service.name(), backend.name());
                wanted.insert(key, plan(check, target));
            }
        }
        self.tasks
            .retain(|key, task| wanted.get(key) == Some(&task.plan));
        for (key, plan) in wanted {
            if !self.tasks.contains_key(&key) {
                let task = self.start(key.clone(), plan);
                self.tasks.insert(key, task);
            }
        }
    }

    /// Whether an answer comes from a task that still counts.
    pub(super) fn is_current(&self, answer: &Answer) -> bool {
        self.tasks
            .get(&answer.backend)
            .is_some_and(|task| task.number == answer.task)
    }

    /// Ends all tasks.
    pub(super) fn stop(&mut self) {
        self.tasks.clear();
    }

    /// Checks that all tasks are alive: one that panicked leaves its backend unjudged for good.
    ///
    /// # Errors
    ///
    /// With the backend that nobody asks any more.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self
            .tasks
            .iter()
            .find(|(_, task)| task.handle.is_finished())
        {
            Some((backend, _)) => bail!("the prober of {backend} ended"),
            None => Ok(()),
        }
    }

    fn start(&mut self, backend: BackendKey, plan: Plan) -> Task {
        self.last_task += 1;
        let number = self.last_task;
        let asker = Asker {
            backend,
            task: number,
            plan: plan.clone(),
            questions: Arc::clone(&self.questions),
            answers: self.answers.clone(),
        };
        Task {
            number,
            plan,
            handle: tokio::spawn(asker.run()),
        }
    }
}

fn plan(check: &Check, target: SocketAddr) -> Plan {
    Plan {
        target,
        probe: check.probe().clone(),
        interval: check.interval(),
        timeout: check.timeout(),
        jitter: check.jitter(),
    }
}

/// What a task goes by.
struct Asker {
    backend: BackendKey,
    task: u64,
    plan: Plan,
    questions: Arc<Questions>,
    answers: mpsc::Sender<Answer>,
}

impl Asker {
    /// Returns when the loop has gone.
    async fn run(self) {
        let plan = &self.plan;
        let probe = probe_of(&plan.probe);
        loop {
            let next = Instant::now() + jittered(plan.interval, plan.jitter);
            let question = self.questions.ask();
            let result = probe::run(&probe, plan.target, plan.timeout).await;
            if result.as_ref().err().is_none_or(ProbeFailure::was_answered) {
                self.questions.note_answer(question);
            }
            let answer = Answer {
                backend: self.backend.clone(),
                target: plan.target,
                question,
                result,
                task: self.task,
            };
            if self.answers.send(answer).await.is_err() {
                return;
            }
            sleep_until(next).await;
        }
    }
}

/// A check of the configuration, as it is made.
pub(crate) fn probe_of(probe: &model::Probe) -> Probe {
    match probe {
        model::Probe::Tcp => Probe::Tcp,
        model::Probe::Http(http) => Probe::Http(Http {
            path: http.path().to_owned(),
            host: http.host().map(str::to_owned),
            expect: http.expect(),
            drain_on: http.drain_on(),
        }),
        model::Probe::Mqtt(mqtt) => Probe::Mqtt(Mqtt {
            version: match mqtt.version() {
                model::MqttVersion::V311 => MqttVersion::V311,
                model::MqttVersion::V5 => MqttVersion::V5,
            },
            client_id: mqtt.client_id().map_or_else(own_client_id, str::to_owned),
            username: mqtt.username().map(str::to_owned),
            password: mqtt.password().map(|password| password.expose().to_owned()),
        }),
    }
}

/// A client identifier like no other prober's, within the 23 letters and digits that every server
/// takes (MQTT 3.1.1, 3.1.3.1).
fn own_client_id() -> String {
    format!("tidegate{:012x}", random() >> 16)
}

/// The interval, shortened by up to `jitter` of it: probes that started together drift apart, and a
/// dead backend is found out within `fall` whole intervals and a timeout all the same.
fn jittered(interval: Duration, jitter: f64) -> Duration {
    let share = random() as f64 / u64::MAX as f64;
    interval.mul_f64(1.0 - jitter * share)
}

/// The standard library keys every new hasher state anew, which is all the chance needed here.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{jittered, own_client_id};

    #[test]
    fn jitter_only_shortens_and_stays_within_its_share() {
        let interval = Duration::from_secs(2);
        for _ in 0..1_000 {
            let shifted = jittered(interval, 0.1);
            assert!(shifted >= interval.mul_f64(0.9) && shifted <= interval);
        }
        assert_eq!(jittered(interval, 0.0), interval);
    }

    #[test]
    fn client_ids_differ_and_suit_every_server() {
        let (a, b) = (own_client_id(), own_client_id());
        assert_ne!(a, b);
        assert!(
            a.len() <= 23 && a.chars().all(|c| c.is_ascii_alphanumeric()),
            "{a}"
        );
    }
}
