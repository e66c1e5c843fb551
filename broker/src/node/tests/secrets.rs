//! What the log tells of clients that are refused.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing::Level;

use super::{
    Broker,
    access::set,
    client::{Client, Hello},
};
use crate::{
    access::{
        jwt::tests::{Issuer, claims, seconds_from_now},
        web::tests::{Reply, TestServer},
    },
    codec::packet::Version,
    testing::Dir,
};

/// Where lines go.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_of_refusals_has_no_user_password_or_token_in_it() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(move || lines.clone())
        .finish();
    // Clients are accepted on this thread, and nowhere else.
    let _until_the_end = tracing::subscriber::set_default(subscriber);

    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "probe-known", "probe-right");
    let issuer = Issuer::new("ES256");
    let tokens = issuer.settings(&dir);
    let server = TestServer::start(Reply::Status(500)).await;
    let settings = format!(
        "[access]\n[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n\
         {tokens}{tokens}from = \"username\"\n\
         [[access.authenticator]]\ntype = \"http\"\nurl = {:?}\n",
        server.url
    );
    let broker = Broker::start_with(&settings).await;
    let expired = issuer.token(&json!({"sub": "probe-sub", "exp": seconds_from_now(-3600)}));
    let foreign = Issuer::new("ES256").token(&claims());
    let odd_answer = json!({"result": "allow", "user": ["probe-answer"]});
    let mut secrets = vec!["probe-"];
    for (reply, user, password) in [
        (Reply::Status(500), "probe-known", "probe-wrong"),
        (Reply::Status(500), "probe-unknown", "probe-password"),
        (Reply::Status(500), "probe-user", &*expired),
        (Reply::Status(500), &*expired, "probe-password"),
        (Reply::Raw(b"probe-raw".to_vec()), "probe-user", &*foreign),
        (
            Reply::Json(odd_answer.to_string()),
            &*foreign,
            "probe-password",
        ),
        (Reply::Json("probe-json".to_owned()), "probe-user", ""),
    ] {
        server.answer(reply);
        for version in [Version::V311, Version::V5] {
            let hello = Hello::new(version, "c").with_login(user, password);
            let (_client, welcome) = Client::connect(broker.address, &hello).await;
            assert_ne!(welcome.code, 0);
        }
    }
    broker.stop().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for told in [
        "access refused",
        "clients were refused access",
        "cannot ask",
    ] {
        assert!(text.contains(told), "{told} is not in {text}");
    }
    secrets.extend(expired.split('.').chain(foreign.split('.')));
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}
