//! What tests of several modules need.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::message::{Message, MessageId, Qos};

/// A message of topic `t`, which no other node has seen.
pub(crate) fn message(payload: impl Into<Box<[u8]>>, qos: Qos) -> Message {
    Message {
        topic: "t".into(),
        payload: payload.into(),
        properties: Box::default(),
        qos,
        retain: false,
        expires: None,
        id: MessageId::NONE,
    }
}

/// A directory that goes with the test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-broker-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // The system throws away what is left there.
        let _ = fs::remove_dir_all(&self.0);
    }
}
