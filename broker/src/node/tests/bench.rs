//! The load generator against the node, over every transport.

use serde_json::Value;

use super::Broker;
use crate::{bench::tests::bench, metrics::Metric, tls::tests::Authority};

const ANOTHER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
const WS: &str = "protocol = \"ws\"\n";

/// A subscriber and publishers of one command line each; what the subscriber tells in the end.
async fn talk(broker: &Broker, connection: &str, size: usize, messages: u64) -> Value {
    let line = format!("sub {connection} -c 1 -t b/+ -q 2 -L {messages}");
    let receiving = tokio::spawn(bench(line));
    broker.wait_for(Metric::Subscriptions, 1).await;
    let line = format!("pub {connection} -c 3 -i 0 -I 0 -q 2 -t b/%i -s {size} -L {messages}");
    let (code, summary) = bench(line).await;
    assert_eq!(
        (code, &summary["acked"]),
        (0, &messages.into()),
        "{summary}"
    );
    let (code, summary) = receiving.await.unwrap();
    assert_eq!(code, 0, "{summary}");
    broker.wait_for(Metric::Subscriptions, 0).await;
    summary
}

#[tokio::test]
async fn load_is_put_on_over_every_transport() {
    let authority = Authority::new("bench");
    let tls = authority.server("localhost").settings();
    let settings = format!("{ANOTHER}{WS}{ANOTHER}{tls}{ANOTHER}{WS}{tls}");
    let broker = Broker::start_with(&settings).await;
    let trust = format!("--tls --ca-file {}", authority.path());
    let flags = ["", "--ws", &trust, &format!("--ws {trust}")];
    for (address, flags) in broker.node.addresses().iter().zip(flags) {
        for version in ["3.1", "3.1.1", "5"] {
            let at = format!("-h 127.0.0.1 -p {} -V {version} {flags}", address.port());
            let at = at.trim();
            for (size, messages) in [(256, 600), (300_000, 9)] {
                let summary = talk(&broker, at, size, messages).await;
                assert_eq!(
                    (&summary["gaps"], &summary["duplicates"]),
                    (&0.into(), &0.into())
                );
                assert_eq!(summary["latency_ms"]["count"], messages);
            }
            let (code, summary) = bench(format!("conn {at} -c 9 -i 0 --hold 1ms")).await;
            assert_eq!((code, &summary["connected"]), (0, &9.into()), "{summary}");
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn servers_and_clients_are_checked_as_the_command_line_says() {
    let (authority, stranger) = (Authority::new("bench-both"), Authority::new("bench-other"));
    let settings = format!(
        "{}client_ca = \"{}\"\nclient_certificates = \"required\"\n",
        authority.server("localhost").settings(),
        authority.path()
    );
    let broker = Broker::start_with(&settings).await;
    let at = format!(
        "conn -h 127.0.0.1 -p {} -c 1 --hold 1ms --tls",
        broker.address.port()
    );
    let own = authority.server("device");
    let shown = format!(
        "--cert-file {} --key-file {}",
        own.certificate_path(),
        own.key_path()
    );
    let known = format!("--ca-file {}", authority.path());
    let other = format!("--ca-file {}", stranger.path());
    for (flags, error) in [
        (format!("{known} {shown}"), None),
        (format!("--insecure {shown}"), None),
        (format!("{known} {shown} --server-name localhost"), None),
        (format!("{other} {shown}"), Some("UnknownIssuer")),
        (
            format!("{known} {shown} --server-name elsewhere"),
            Some("elsewhere"),
        ),
        (known, Some("CertificateRequired")),
    ] {
        let (code, summary) = bench(format!("{at} {flags}")).await;
        assert_eq!(code, u8::from(error.is_some()), "{flags}: {summary}");
        let errors = summary["errors"].to_string();
        assert!(errors.contains(error.unwrap_or("{}")), "{flags}: {errors}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn server_without_websocket_is_told() {
    let broker = Broker::start_with(WS).await;
    let port = broker.address.port();
    let line = format!("conn -h 127.0.0.1 -p {port} -c 2 -i 0 --ws --ws-path /elsewhere");
    let (code, summary) = bench(line).await;
    assert_eq!(code, 1);
    let told = "no WebSocket: the server answered with HTTP status 404";
    assert_eq!(summary["errors"][told], 2, "{summary}");
    broker.stop().await;
}
