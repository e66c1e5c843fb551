//! The same node, spoken to by clients that others wrote.

use std::process::{Output, Stdio};

use tokio::process::{Child, Command};

use super::{Broker, access::set};
use crate::{metrics::Metric, testing::Dir};

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

fn command(program: &str, broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &broker.address.port().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts `mosquitto_sub`; `None`, with a note, where it is not installed.
#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn subscriber(broker: &Broker, arguments: &[&str]) -> Option<Child> {
    match command("mosquitto_sub", broker, arguments).spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            eprintln!("SKIPPED: mosquitto_sub cannot be run: {error}");
            None
        }
    }
}

async fn publish(broker: &Broker, arguments: &[&str]) {
    let status = command("mosquitto_pub", broker, arguments)
        .status()
        .await
        .unwrap();
    assert!(status.success(), "mosquitto_pub {arguments:?}: {status}");
}

async fn lines(child: Child) -> Vec<String> {
    let Output { status, stdout, .. } = child.wait_with_output().await.unwrap();
    assert!(status.success(), "mosquitto_sub: {status}");
    String::from_utf8(stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn mosquitto_clients_of_every_version_talk() {
    let broker = Broker::start().await;
    talk(&broker, &[]).await;
    broker.stop().await;
}

/// Has clients of every version exchange messages of every QoS; `connection` is what they need to
/// reach the broker.
pub(super) async fn talk(broker: &Broker, connection: &[&str]) {
    let mut subscribers = Vec::new();
    for version in VERSIONS {
        let arguments = [
            "-V", version, "-t", "m/#", "-q", "2", "-C", "9", "-W", "20", "-F", "%t %q %p",
        ];
        let Some(child) = subscriber(broker, &[connection, &arguments].concat()) else {
            return;
        };
        subscribers.push(child);
    }
    broker.wait_for(Metric::Subscriptions, 3).await;
    let mut sent = Vec::new();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let arguments = ["-V", version, "-t", "m/ü", "-q", qos, "-m", version];
            publish(broker, &[connection, &arguments].concat()).await;
            sent.push(format!("m/ü {qos} {version}"));
        }
    }
    // The order is only that of each publisher; these are nine.
    sent.sort();
    for child in subscribers {
        let mut received = lines(child).await;
        received.sort();
        assert_eq!(received, sent);
    }
}

#[tokio::test]
async fn mosquitto_client_resumes_its_session_and_sees_retained_messages() {
    let broker = Broker::start().await;
    for version in ["mqttv311", "mqttv5"] {
        let mut arguments = vec![
            "-V", version, "-i", "keeper", "-c", "-q", "1", "-t", "q", "-W", "20",
        ];
        if version == "mqttv5" {
            arguments.extend(["-x", "100"]);
        }
        // `-E` leaves once subscribed.
        let first: Vec<_> = arguments.iter().copied().chain(["-E"]).collect();
        let Some(child) = subscriber(&broker, &first) else {
            return;
        };
        lines(child).await;
        publish(
            &broker,
            &["-V", version, "-t", "q", "-q", "1", "-m", "while away"],
        )
        .await;
        publish(&broker, &["-V", version, "-t", "kept", "-r", "-m", version]).await;
        let second: Vec<_> = arguments.iter().copied().chain(["-C", "1"]).collect();
        let child = subscriber(&broker, &second).unwrap();
        assert_eq!(lines(child).await, ["while away"]);
        let late = [
            "-V", version, "-t", "kept", "-C", "1", "-W", "20", "-F", "%r %p",
        ];
        let child = subscriber(&broker, &late).unwrap();
        assert_eq!(lines(child).await, [format!("1 {version}")]);
    }
    broker.stop().await;
}

#[tokio::test]
async fn mosquitto_clients_log_in() {
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "alice", "sesame");
    let broker = Broker::start_with(&format!(
        "[access]\n[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n"
    ))
    .await;
    for version in VERSIONS {
        let login = ["-V", version, "-u", "alice", "-P"];
        let with = |password: &'static str, rest: &[&'static str]| -> Vec<&str> {
            [&login[..], &[password], rest].concat()
        };
        let waits = with("sesame", &["-t", "t", "-C", "1", "-W", "20"]);
        let Some(child) = subscriber(&broker, &waits) else {
            return;
        };
        broker.wait_for(Metric::Subscriptions, 1).await;
        let message = ["-t", "t", "-m", version];
        let wrong = command("mosquitto_pub", &broker, &with("open", &message));
        assert!(!{ wrong }.status().await.unwrap().success());
        let nameless = command(
            "mosquitto_pub",
            &broker,
            &["-V", version, "-t", "t", "-m", "x"],
        );
        assert!(!{ nameless }.status().await.unwrap().success());
        publish(&broker, &with("sesame", &message)).await;
        assert_eq!(lines(child).await, [version]);
        broker.wait_for(Metric::Subscriptions, 0).await;
    }
    broker.stop().await;
}
