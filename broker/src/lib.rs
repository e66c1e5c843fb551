//! A clustered MQTT broker built round rumqttd, and its load generator.

pub mod bench;
pub mod vip;
