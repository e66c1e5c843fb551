//! The same node, spoken to by libraries that devices use: paho-mqtt and rumqttc.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use super::Broker;

/// Debian's Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether paho-mqtt is there; says so if it is not.
#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
async fn has_paho() -> bool {
    let probe = Command::new(PYTHON)
        .args(["-c", "import paho.mqtt.client"])
        .stderr(Stdio::null())
        .status()
        .await;
    let is_there = probe.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: paho-mqtt is not installed; `cargo xtask setup` installs it");
    }
    is_there
}

#[tokio::test]
async fn paho_clients_of_every_version_find_all_that_they_use() {
    if !has_paho().await {
        return;
    }
    let broker = Broker::start().await;
    let output = Command::new(PYTHON)
        .args(["-c", include_str!("interop.py")])
        .arg(broker.address.port().to_string())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(6 * PATIENCE, output)
        .await
        .unwrap()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        ["3", "4", "5", "properties"]
    );
    broker.stop().await;
}

#[tokio::test]
async fn rumqttc_of_mqtt3_sends_and_receives_every_qos() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let broker = Broker::start().await;
    let options = MqttOptions::new("rumqttc", "127.0.0.1", broker.address.port());
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("t/+", QoS::ExactlyOnce).await.unwrap();
    let mut received = Vec::new();
    let talk = async {
        while received.len() < 3 {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => {
                    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                        client.publish("t/ä", qos, false, "x").await.unwrap();
                    }
                }
                Event::Incoming(Packet::Publish(publish)) => received.push(publish.qos as u8),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap();
    assert_eq!(received, [0, 1, 2]);
    broker.stop().await;
}

#[tokio::test]
async fn rumqttc_of_mqtt5_sends_and_receives_every_qos() {
    use rumqttc::v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    };
    let broker = Broker::start().await;
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", broker.address.port());
    options.set_topic_alias_max(Some(5));
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
                Event::Incoming(Packet::Publish(publish)) => received.push(publish.qos as u8),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap();
    assert_eq!(received, [0, 1, 2]);
    broker.stop().await;
}
