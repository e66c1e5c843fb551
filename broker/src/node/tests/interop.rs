//! The same node, spoken to by libraries that devices use: paho-mqtt, MQTT.js and rumqttc.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

use super::Broker;
use crate::tls::tests::Authority;

/// Debian's Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// The oldest Node.js that MQTT.js runs on.
const OLDEST_NODE: u32 = 18;

const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}; `cargo xtask setup` installs it");
}

/// Whether paho-mqtt is there; says so if it is not.
async fn has_paho() -> bool {
    let probe = Command::new(PYTHON)
        .args(["-c", "import paho.mqtt.client"])
        .stderr(Stdio::null())
        .status()
        .await;
    let is_there = probe.is_ok_and(|status| status.success());
    if !is_there {
        skipped("paho-mqtt is not installed");
    }
    is_there
}

/// Where `cargo xtask setup` has put MQTT.js, among cargo's own files; says so if it has not, or
/// if there is nothing to run it.
async fn mqttjs() -> Option<PathBuf> {
    let version = Command::new("node").arg("--version").output().await;
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let major = text.ok().as_deref().and_then(major);
    if major.is_none_or(|major| major < OLDEST_NODE) {
        skipped(&format!("no Node.js {OLDEST_NODE} or newer is installed"));
        return None;
    }
    let test = std::env::current_exe().unwrap();
    let modules = test
        .ancestors()
        .map(|dir| dir.join("mqttjs/node_modules"))
        .find(|modules| modules.join("mqtt").is_dir());
    if modules.is_none() {
        skipped("MQTT.js is not installed");
    }
    modules
}

/// The first number of a version such as `v20.1.0`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Has a script talk to a broker until it ends well; the result is what it told, by lines.
async fn told(command: &mut Command) -> Vec<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(6 * PATIENCE, output)
        .await
        .expect("a script that ends")
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn paho_clients_of_every_version_find_all_that_they_use() {
    if !has_paho().await {
        return;
    }
    let broker = Broker::start().await;
    let mut script = Command::new(PYTHON);
    script
        .args(["-c", include_str!("interop.py")])
        .arg(broker.address.port().to_string());
    assert_eq!(told(&mut script).await, ["3", "4", "5", "properties"]);
    broker.stop().await;
}

#[tokio::test]
async fn mqttjs_clients_of_every_version_find_all_that_they_use_over_every_transport() {
    let Some(modules) = mqttjs().await else {
        return;
    };
    let authority = Authority::new("mqttjs");
    let tls = authority.server("localhost").settings();
    let another = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let ws = "protocol = \"ws\"\n";
    let broker =
        Broker::start_with(&format!("{another}{ws}{another}{tls}{another}{ws}{tls}")).await;
    let transports = ["mqtt", "ws", "mqtts", "wss"];
    let urls = broker.node.addresses().iter().zip(transports);
    let urls = urls.map(|(address, transport)| {
        let path = if transport.starts_with("ws") {
            "/mqtt"
        } else {
            ""
        };
        format!("{transport}://{address}{path}")
    });
    let mut script = Command::new("node");
    script
        .args(["-e", include_str!("mqttjs/interop.js")])
        .arg(authority.path())
        .args(urls)
        .env("NODE_PATH", &modules);
    let expected = transports.map(|transport| ["3", "4", "5"].map(|v| format!("{transport} {v}")));
    assert_eq!(told(&mut script).await, expected.concat());
    broker.stop().await;
}

/// rumqttc has the same names twice, for the types of MQTT 3 and of MQTT 5.
macro_rules! rumqttc_sends_and_receives_every_qos {
    ($test:ident, $settings:expr, use $($types:tt)+) => {
        #[tokio::test]
        async fn $test() {
            use $($types)+;
            let broker = Broker::start().await;
            let mut options = MqttOptions::new("rumqttc", "127.0.0.1", broker.address.port());
            let settings: fn(&mut MqttOptions) = $settings;
            settings(&mut options);
            let (client, mut events) = AsyncClient::new(options, 10);
            client.subscribe("topic/+", QoS::ExactlyOnce).await.unwrap();
            let mut received = Vec::new();
            let talk = async {
                while received.len() < 3 {
                    match events.poll().await.unwrap() {
                        Event::Incoming(Packet::SubAck(_)) => {
                            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                                client.publish("topic/ä", qos, false, "x").await.unwrap();
                            }
                        }
                        Event::Incoming(Packet::Publish(publish)) => {
                            received.push(publish.qos as u8);
                        }
                        Event::Incoming(_) | Event::Outgoing(_) => {}
                    }
                }
            };
            tokio::time::timeout(PATIENCE, talk).await.unwrap();
            assert_eq!(received, [0, 1, 2]);
            broker.stop().await;
        }
    };
}

rumqttc_sends_and_receives_every_qos!(
    rumqttc_of_mqtt3_sends_and_receives_every_qos,
    |_options| {},
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS}
);

rumqttc_sends_and_receives_every_qos!(
    rumqttc_of_mqtt5_sends_and_receives_every_qos,
    |options| {
        options.set_topic_alias_max(Some(5));
    },
    use rumqttc::v5::{AsyncClient, Event, MqttOptions, mqttbytes::{QoS, v5::Packet}}
);
