use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    time,
};

use super::{Notifiers, Worker, message::Message};
use crate::{
    config::{self, model::Config},
    control::NotifierStatus,
    core::{
        event::{Event, ring::Record},
        notify::Delivery,
        vrrp::role::{Cause, Role},
    },
    journal::Journal,
};

/// More than anything here takes.
const SOON: Duration = Duration::from_secs(60);

fn config(notifies: &str) -> Config {
    let base = include_str!("../../../configs/tidegate-dsr.toml");
    config::parse(&format!("{base}\n{notifies}"), "test.toml").unwrap()
}

fn exec(name: &str, script: &str, more: &str) -> String {
    format!(
        "[[notify]]\nname = \"{name}\"\ntype = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''', \"hook\"]\n{more}\n"
    )
}

fn changed(to: Role, cause: Cause) -> Event {
    Event::RoleChanged {
        router: "front".to_owned(),
        from: Role::Active,
        to,
        cause,
        priority: 200,
    }
}

async fn wait_for(notifiers: &Notifiers, wanted: impl Fn(&Notifiers) -> bool) {
    let reached = async {
        while !wanted(notifiers) {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = time::timeout(SOON, reached).await;
    waited.unwrap_or_else(|_| panic!("{:?}", notifiers.status()));
}

fn message(event: Event) -> Message {
    Message::of(&Delivery::Event(Arc::new(Record {
        seq: 7,
        unix_millis: 0,
        event,
    })))
}

#[test]
fn programs_made_for_keepalived_get_what_they_know() {
    let arguments = |to, cause| message(changed(to, cause)).keepalived_arguments();
    assert_eq!(
        arguments(Role::Active, Cause::Silence),
        ["INSTANCE", "front", "MASTER", "200"]
    );
    assert_eq!(arguments(Role::Backup, Cause::Operator)[2], "BACKUP");
    assert_eq!(arguments(Role::Backup, Cause::Fault)[2], "FAULT");
    assert_eq!(arguments(Role::Initialize, Cause::Shutdown)[2], "STOP");
    let other = message(Event::Stopping {});
    assert_eq!(other.keepalived_arguments(), [""; 0]);
}

#[test]
fn a_mail_says_what_happened_in_its_subject_and_all_else_below() {
    let told = message(changed(Role::Backup, Cause::Fault));
    assert!(told.subject().contains("virtual router front is Backup"));
    let body = told.body();
    for part in ["cause: fault", "Kind: role_changed", "Time: 1970-01-01T"] {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    let failed = message(Event::ReloadFailed {
        error: "one\nBcc: all@example.org".to_owned(),
    });
    assert!(failed.subject().ends_with("one Bcc: all@example.org"));
    let environment = told.environment();
    let has = |name: &str, value: &str| environment.contains(&(name.to_owned(), value.to_owned()));
    assert!(has("TIDEGATE_CAUSE", "fault") && has("TIDEGATE_STATE", "FAULT"));
}

#[tokio::test]
async fn a_program_that_hangs_keeps_nothing_from_the_others_or_from_itself() {
    let directory = std::env::temp_dir().join(format!("tidegate-hang-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display();
    // The first one hangs.
    let script = format!("mkdir {path}/first && sleep 600; echo $TIDEGATE_TO >> {path}/hung");
    let quick = format!("cat >> {path}/quick");
    let text = exec("hangs", &script, "timeout = \"600s\"") + &exec("quick", &quick, "");
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    notifiers.follow(&config(&text));
    journal.tell(Event::Stopping {});
    journal.tell(changed(Role::Active, Cause::Preemption));
    wait_for(&notifiers, |all| {
        let status = all.status();
        (status[0].sent, status[0].running, status[1].sent) == (1, 1, 2)
    })
    .await;
    let told = std::fs::read_to_string(directory.join("quick")).unwrap();
    assert!(told.contains("\"kind\":\"stopping\"") && told.contains("\"cause\":\"preemption\""));
    notifiers.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn changes_of_a_role_arrive_in_their_order_however_long_one_takes() {
    let directory = std::env::temp_dir().join(format!("tidegate-order-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display();
    // The first one takes until it may go.
    let script = format!(
        "if mkdir {path}/first; then until test -e {path}/go; do sleep 0.02; done; fi; \
         echo $TIDEGATE_KIND $TIDEGATE_TO >> {path}/told"
    );
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    notifiers.follow(&config(&exec("order", &script, "timeout = \"600s\"")));
    journal.tell(changed(Role::Backup, Cause::Fault));
    wait_for(&notifiers, |_| directory.join("first").exists()).await;
    for (role, cause) in [
        (Role::Active, Cause::Preemption),
        (Role::Backup, Cause::Operator),
        (Role::Active, Cause::Silence),
    ] {
        journal.tell(changed(role, cause));
    }
    journal.tell(Event::Stopping {});
    wait_for(&notifiers, |all| all.status()[0].sent == 1).await;
    std::fs::write(directory.join("go"), "").unwrap();
    wait_for(&notifiers, |all| all.status()[0].sent == 5).await;
    let told = std::fs::read_to_string(directory.join("told")).unwrap();
    let expected = ["stopping", "role_changed backup", "role_changed active"];
    let expected = [&expected[..], &expected[1..]].concat();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    notifiers.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn what_happens_before_the_stop_is_told_before_the_end() {
    let path = std::env::temp_dir().join(format!("tidegate-last-{}", std::process::id()));
    let script = format!("echo \"$@\" >> {}", path.display());
    let text = exec(
        "roles",
        &script,
        "keepalived_arguments = true\nper_minute = 1",
    );
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    notifiers.follow(&config(&text));
    for cause in [Cause::Silence, Cause::Operator] {
        journal.tell(changed(Role::Backup, cause));
    }
    journal.tell(changed(Role::Initialize, Cause::Shutdown));
    notifiers.stop().await;
    let told = std::fs::read_to_string(&path).unwrap();
    let expected = ["INSTANCE front BACKUP 200", "INSTANCE front STOP 200"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn what_is_due_waits_for_one_that_is_under_way_to_end() {
    let config = config(&exec("one", "true", "at_once = 1"));
    let notify = &config.notifies()[0];
    let (_end, told) = watch::channel(None);
    let mut worker = Worker::new(notify, &Journal::default(), NotifierStatus::default(), told);
    worker.outbox.handle_missed(1);
    assert!(worker.next_departure().is_some());
    worker.flights.spawn(std::future::pending());
    assert_eq!(worker.next_departure(), None);
}

#[tokio::test]
async fn who_was_taken_out_is_not_told_what_happens_later() {
    let directory = std::env::temp_dir().join(format!("tidegate-gone-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display();
    let script =
        format!("echo $TIDEGATE_KIND >> {path}/told; until test -e {path}/go; do sleep 0.02; done");
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    notifiers.follow(&config(&exec("gone", &script, "timeout = \"600s\"")));
    journal.tell(Event::Stopping {});
    wait_for(&notifiers, |_| directory.join("told").exists()).await;
    notifiers.follow(&config(""));
    // It has its turn before this goes on.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    journal.tell(Event::BackendsHeard {});
    std::fs::write(directory.join("go"), "").unwrap();
    notifiers.stop().await;
    let told = std::fs::read_to_string(directory.join("told")).unwrap();
    assert_eq!(told, "stopping\n");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn each_event_is_told_once_though_who_tells_is_changed_meanwhile() {
    let directory = std::env::temp_dir().join(format!("tidegate-once-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let tell = |word: &str| {
        let script = format!("echo {word} $TIDEGATE_KIND >> {}/told", directory.display());
        config(&exec("ops", &script, "at_once = 1"))
    };
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    notifiers.follow(&tell("old"));
    journal.tell(Event::Stopping {});
    // Neither has had its turn by then.
    notifiers.follow(&tell("new"));
    journal.tell(Event::BackendsHeard {});
    notifiers.follow(&config(""));
    journal.tell(Event::Stopping {});
    notifiers.stop().await;
    let told = std::fs::read_to_string(directory.join("told")).unwrap();
    let mut told: Vec<_> = told.lines().collect();
    told.sort_unstable();
    assert_eq!(told, ["new backends_heard", "old stopping"]);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn failures_are_counted_told_and_notified_to_nobody() {
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    let before = journal.last();
    notifiers.follow(&config(&exec("fails", "echo why >&2; exit 7", "")));
    journal.tell(Event::Stopping {});
    wait_for(&notifiers, |all| all.status()[0].failed == 1).await;
    let error = notifiers.status()[0].last_error.clone().unwrap();
    assert!(
        error.contains("exit status: 7") && error.contains("why"),
        "{error}"
    );
    let page = journal.since(before, &crate::core::event::ring::Filter::default());
    assert!(
        matches!(&page.records[1].event, Event::NotifyFailed { notifier, .. } if notifier == "fails")
    );

    // A test says the same to who asks.
    let (sender, receiver) = oneshot::channel();
    notifiers.test(None, sender);
    let tests = receiver.await.unwrap().unwrap();
    assert!(tests[0].error.as_ref().unwrap().contains("exit status: 7"));
    let (sender, receiver) = oneshot::channel();
    notifiers.test(Some("nosuch"), sender);
    assert!(receiver.await.unwrap().is_err());
}

#[tokio::test]
async fn a_reload_disturbs_nobody_who_stays_as_they_were() {
    let journal = Journal::default();
    let mut notifiers = Notifiers::new(journal.clone());
    let (one, two) = (exec("one", "true", ""), exec("two", "true", ""));
    notifiers.follow(&config(&(one.clone() + &two)));
    journal.tell(Event::Stopping {});
    wait_for(&notifiers, |all| all.status().iter().all(|it| it.sent == 1)).await;
    let changed = exec("two", "exit 0", "");
    notifiers.follow(&config(&(changed + &one)));
    let sent: Vec<_> = notifiers
        .status()
        .into_iter()
        .map(|it| (it.name, it.sent))
        .collect();
    assert_eq!(sent, [("two".to_owned(), 0), ("one".to_owned(), 1)]);
    notifiers.follow(&config(""));
    assert_eq!(notifiers.status(), []);
}
