use clap::Parser;

use super::{super::args::Args, Plan, PlanError, Task};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// The plan of a command line, in a run numbered 0xbeef.
pub(in crate::bench) async fn plan(line: &str) -> Result<Plan, PlanError> {
    let args = Cli::try_parse_from(format!("bench {line}").split(' '))
        .unwrap()
        .args;
    Plan::new(*args.kind, 0xbeef).await
}

fn routes(plan: &Plan, number: u32) -> Vec<String> {
    let show = |route: super::Route| {
        let source = route
            .source
            .map(|source| source.to_string())
            .unwrap_or_default();
        format!("{source} > {}", route.target)
    };
    plan.routes(number).map(show).collect()
}

#[tokio::test]
async fn every_pair_of_host_and_source_gets_its_turn() {
    let line = "conn -h 127.0.0.1,127.0.0.9 -p 1 -n 100 --ifaddr 127.0.0.2,127.0.0.3";
    let plan = plan(line).await.unwrap();
    let turns: Vec<_> = (100..104)
        .flat_map(|number| routes(&plan, number))
        .collect();
    assert_eq!(
        turns,
        [
            "127.0.0.2 > 127.0.0.1:1",
            "127.0.0.2 > 127.0.0.9:1",
            "127.0.0.3 > 127.0.0.1:1",
            "127.0.0.3 > 127.0.0.9:1",
        ]
    );
}

#[tokio::test]
async fn a_source_serves_hosts_of_its_own_family() {
    let plan = plan("conn -h [::1],127.0.0.1 -p 1 --ifaddr 127.0.0.2,::2")
        .await
        .unwrap();
    assert_eq!(routes(&plan, 0), ["::2 > [::1]:1"]);
    assert_eq!(routes(&plan, 1), ["127.0.0.2 > 127.0.0.1:1"]);
}

#[tokio::test]
async fn without_source_addresses_the_kernel_chooses() {
    let plan = plan("conn -h ::1 -p 1").await.unwrap();
    assert_eq!(routes(&plan, 7), [" > [::1]:1"]);
}

#[tokio::test]
async fn identities_are_expanded_from_their_templates() {
    let plan = plan("pub -h ::1 --client-id c%i -u user-%c -P %u-%i")
        .await
        .unwrap();
    let identity = plan.identity(3);
    assert_eq!(identity.client_id, "c3");
    assert_eq!(identity.username.as_deref(), Some("user-c3"));
    assert_eq!(identity.password.as_deref(), Some("user-c3-3"));
}

#[tokio::test]
async fn default_client_ids_fit_the_oldest_protocol() {
    let plan = plan("conn -h ::1 -c 1").await.unwrap();
    assert_eq!(plan.identity(7).client_id, "conn-beef-7");
    assert!(plan.identity(u32::MAX).client_id.len() <= 23);
}

#[tokio::test]
async fn pings_follow_the_keep_alive() {
    for (line, seconds) in [
        ("conn -h ::1", Some(1.0)),
        ("conn -h ::1 -k 1", Some(0.5)),
        ("conn -h ::1 -k 0", Some(1.0)),
        ("pub -h ::1", Some(150.0)),
        ("sub -h ::1 -k 0", None),
        ("sub -h ::1 --ping-interval 2s", Some(2.0)),
        ("conn -h ::1 --ping-interval 0s", None),
    ] {
        let interval = plan(line).await.unwrap().ping_interval;
        assert_eq!(
            interval.map(|interval| interval.as_secs_f64()),
            seconds,
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_text_too_long_for_mqtt_is_refused() {
    let topic = "t".repeat(65_536);
    let error = plan(&format!("pub -h ::1 -t {topic}")).await.unwrap_err();
    assert!(matches!(error, PlanError::TextTooLong), "{error}");
    let task = plan(&format!("pub -h ::1 -t {}", &topic[1..]))
        .await
        .unwrap()
        .task;
    assert!(matches!(task, Task::Publish(_)));
}
