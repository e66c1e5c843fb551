//! The routers, against a daemon that answers from a table.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
    response::Response,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::{metrics, routes};
use crate::{
    config,
    control::{
        self, Change, ChangeError, Departure, Lasting, Order, ReloadError, Reloaded,
        Request as Ask, RouterChangeError, Status, UnknownNotifier,
        example::{backend, status, trace, vrrp},
    },
    core::{
        balancer::{Admin, SelectError},
        event::Event,
    },
    journal::Journal,
};

/// Answers one request; gives back the order, if it was one.
fn daemon(mut requests: control::Requests) -> JoinHandle<Option<Order>> {
    tokio::spawn(async move {
        match requests.receiver.recv().await? {
            Ask::Status(answer) => drop(answer.send(status())),
            Ask::Reload(answer) => {
                let refusal = config::parse("interface = 7", "a.toml").map(|_| ());
                drop(answer.send(match refusal {
                    Ok(()) => Ok(Reloaded { generation: 2 }),
                    Err(errors) => Err(ReloadError::Config(errors)),
                }));
            }
            Ask::Router(order, answer) => drop(answer.send(if order.name == "front" {
                Ok(vrrp())
            } else {
                Err(RouterChangeError::Unknown { name: order.name })
            })),
            Ask::Notify(name, answer) => drop(answer.send(match name {
                None => Ok(Vec::new()),
                Some(name) => Err(UnknownNotifier { name }),
            })),
            Ask::Trace(order, answer) => drop(answer.send(Ok(trace(&order)))),
            Ask::Stop(departure, answer) => {
                let forwards = departure == Departure::Keep;
                let _ = answer.send(control::Leaving { pid: 7, forwards });
            }
            Ask::Change(order, answer) => {
                let unknown = SelectError::Unknown {
                    name: order.backend.clone(),
                    known: vec![],
                };
                let known = order.backend.ends_with("broker1");
                let outcome = if known {
                    Ok(backend())
                } else {
                    Err(ChangeError::Select(unknown))
                };
                drop(answer.send(outcome));
                return Some(order);
            }
        }
        None
    })
}

fn control() -> (Router, JoinHandle<Option<Order>>) {
    let (handle, requests) = control::channel(Journal::default());
    (routes::control(handle), daemon(requests))
}

async fn send(router: Router, method: Method, route: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(route);
    let request = request.header("content-type", "application/json");
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    (
        status,
        serde_json::from_str(&text(response).await).unwrap_or_default(),
    )
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn status_has_the_promised_fields() {
    let (router, _daemon) = control();
    let (code, body) = send(router, Method::GET, "/v1/status", "").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(body["config"]["last_error"], Value::Null);
    assert_eq!(body["vips"][0]["state"], "assigned");
    let service = &body["services"][0];
    assert_eq!(
        (&service["state"], &service["packets"]),
        (&json!("up"), &json!(9))
    );
    let backend = &service["backends"][0];
    assert_eq!(
        (&backend["admin"], &backend["health"]),
        (&json!("enabled"), &json!("up"))
    );
    assert_eq!(
        (&backend["share"], &backend["bytes"]),
        (&json!(0.5), &json!(700))
    );
    assert_eq!(body["verdicts"]["tx_dsr"], 9);
    assert_eq!(body["flows"]["half_open"], 1);
    assert_eq!(serde_json::from_value::<Status>(body).unwrap(), status());
}

#[tokio::test]
async fn backends_are_listed_with_their_service() {
    let (router, _daemon) = control();
    let (_, body) = send(router, Method::GET, "/v1/backends", "").await;
    assert_eq!(
        (&body[0]["service"], &body[0]["name"]),
        (&json!("mqtt"), &json!("broker1"))
    );
}

#[tokio::test]
async fn refused_reload_tells_the_key() {
    let (router, _daemon) = control();
    let (code, body) = send(router, Method::POST, "/v1/reload", "").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(
        body["error"].as_str().unwrap().contains("interface"),
        "{body}"
    );
    assert!(
        body["hint"]
            .as_str()
            .unwrap()
            .contains("nothing was changed"),
        "{body}"
    );
}

#[tokio::test]
async fn orders_reach_the_daemon_as_they_were_meant() {
    let route = |verb| format!("/v1/backends/mqtt/broker1/{verb}");
    for (route, body, change, lasting) in [
        (
            route("drain"),
            "",
            Change::Admin(Admin::Draining),
            Lasting::Kept,
        ),
        (
            route("enable"),
            "",
            Change::Admin(Admin::Enabled),
            Lasting::Kept,
        ),
        (
            route("disable?temporary=true"),
            "",
            Change::Admin(Admin::Disabled),
            Lasting::Temporary,
        ),
        (
            route("weight"),
            r#"{"weight": 7}"#,
            Change::Weight(7),
            Lasting::Kept,
        ),
    ] {
        let (router, daemon) = control();
        let (code, _) = send(router, Method::POST, &route, body).await;
        assert_eq!(code, StatusCode::OK, "{route}");
        let order = daemon.await.unwrap().unwrap();
        assert_eq!(
            order,
            Order {
                backend: "mqtt/broker1".to_owned(),
                change,
                lasting
            }
        );
    }
}

#[tokio::test]
async fn routers_are_shown_and_ordered_about() {
    for (method, route) in [
        (Method::GET, "/v1/vrrp"),
        (Method::POST, "/v1/vrrp/front/release"),
        (Method::POST, "/v1/vrrp/front/resume"),
    ] {
        let (router, _daemon) = control();
        let (code, body) = send(router, method, route, "").await;
        assert_eq!(code, StatusCode::OK, "{route}");
        let router = &body["routers"][0];
        assert_eq!(
            (&router["role"], &router["vrid"]),
            (&json!("backup"), &json!(51))
        );
        assert_eq!(router["peer"]["priority"], 200);
    }
    let (router, _daemon) = control();
    let route = "/v1/vrrp/nosuch/release";
    let (code, body) = send(router, Method::POST, route, "").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(body["error"].as_str().unwrap().contains("nosuch"), "{body}");
}

#[tokio::test]
async fn dash_leaves_the_service_open() {
    let (router, daemon) = control();
    send(router, Method::POST, "/v1/backends/-/broker1/drain", "").await;
    assert_eq!(daemon.await.unwrap().unwrap().backend, "broker1");
}

#[tokio::test]
async fn wrong_requests_are_answered_with_a_hint() {
    for (method, route, body, code) in [
        (
            Method::POST,
            "/v1/backends/mqtt/nosuch/drain",
            "",
            StatusCode::NOT_FOUND,
        ),
        (
            Method::POST,
            "/v1/backends/mqtt/broker1/weight",
            "{}",
            StatusCode::BAD_REQUEST,
        ),
        (
            Method::GET,
            "/v1/reload",
            "",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (Method::GET, "/v2/status", "", StatusCode::NOT_FOUND),
    ] {
        let (router, _daemon) = control();
        let (seen, body) = send(router, method, route, body).await;
        assert_eq!(seen, code, "{route}");
        assert!(
            body["error"].is_string() && body["hint"].is_string(),
            "{route}: {body}"
        );
    }
}

#[tokio::test]
async fn traffic_ends_with_a_stop_only_if_that_is_said() {
    for (route, forwards) in [("/v1/stop", true), ("/v1/stop?detach=true", false)] {
        let (router, _daemon) = control();
        let (code, body) = send(router, Method::POST, route, "").await;
        assert_eq!(code, StatusCode::OK);
        assert_eq!(body, json!({"pid": 7, "forwards": forwards}));
    }
}

#[tokio::test]
async fn daemon_that_is_gone_is_unavailable() {
    let (handle, requests) = control::channel(Journal::default());
    drop(requests);
    let (code, _) = send(routes::control(handle), Method::GET, "/v1/status", "").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn readiness_follows_the_daemon_and_health_the_process() {
    let (handle, requests) = control::channel(Journal::default());
    for (ready, code) in [
        (false, StatusCode::SERVICE_UNAVAILABLE),
        (true, StatusCode::OK),
    ] {
        requests.ready.send_replace(ready);
        let router = routes::observation(handle.clone());
        assert_eq!(send(router, Method::GET, "/readyz", "").await.0, code);
        let router = routes::observation(handle.clone());
        assert_eq!(
            send(router, Method::GET, "/healthz", "").await.0,
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn metrics_port_changes_nothing() {
    let (handle, _requests) = control::channel(Journal::default());
    let router = routes::observation(handle);
    let (code, _) = send(router, Method::POST, "/v1/reload", "").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_page_names_every_family_once() {
    let mut status = status();
    status.vrrp.routers[0].lowered_by = vec!["silent_backends".to_owned()];
    status.vips[0].lack = Some("no_backends".to_owned());
    let page = metrics::render(&status);
    for line in [
        r#"tidegate_packets_total{verdict="tx_dsr"} 9"#,
        r#"tidegate_service_dropped_total{service="mqtt"} 2"#,
        r#"tidegate_backend_packets_total{service="mqtt",backend="broker1",address="172.16.40.20"} 7"#,
        r#"tidegate_backend_up{service="mqtt",backend="broker1",address="172.16.40.20"} 1"#,
        r#"tidegate_service_longest_keep_alive_seconds{service="mqtt"} 60"#,
        r#"tidegate_service_keep_alive_max_seconds{service="mqtt"} 2400"#,
        r#"tidegate_backend_held{service="mqtt",backend="broker1",address="172.16.40.20"} 0"#,
        r#"tidegate_vip_withdrawn{vip="172.16.40.24/32",reason="no_backends"} 1"#,
        r#"tidegate_vip_withdrawn{vip="172.16.40.24/32",reason="not_ready"} 0"#,
        r#"tidegate_flows{state="tracked"} 4"#,
        r#"tidegate_vrrp_role{router="front",role="backup"} 1"#,
        r#"tidegate_vrrp_role{router="front",role="active"} 0"#,
        r#"tidegate_vrrp_changes_total{router="front",role="backup"} 2"#,
        r#"tidegate_vrrp_adverts_sent_total{router="front"} 7"#,
        r#"tidegate_vrrp_refused_total{router="front",reason="hops"} 3"#,
        r#"tidegate_vrrp_strays_total{interface="eth0",reason="vrid"} 9"#,
        r#"tidegate_vrrp_fault{router="front",fault="no_backends"} 1"#,
        r#"tidegate_vrrp_priority_lowered{router="front",cause="silent_backends"} 1"#,
        r#"tidegate_sync_flow_lag_seconds{quantile="0.99"} 0.004"#,
        r"tidegate_sync_unacknowledged 1",
        r"tidegate_sync_sent_bytes_total 900",
        r#"tidegate_reloads_total{result="ok"} 1"#,
        r"tidegate_dashboard_sessions 3",
        r"tidegate_dashboard_accounts_valid 0",
        r#"tidegate_dashboard_logins_total{result="failed"} 6"#,
        r#"tidegate_dashboard_refused_total{reason="csrf"} 7"#,
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
    let mut types: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
}

#[tokio::test]
async fn labels_cannot_break_out_of_their_quotes() {
    let mut status = status();
    status.services[0].name = "a\"b\\c\nd".to_owned();
    let page = metrics::render(&status);
    assert!(page.contains(r#"{service="a\"b\\c\nd"}"#), "{page}");
}

/// Asks for events; nobody has to answer at the other end.
async fn events(journal: &Journal, options: &str) -> (StatusCode, Value) {
    let (handle, _requests) = control::channel(journal.clone());
    let request = Request::get(format!("/v1/events{options}"));
    let request = request.body(Body::empty()).unwrap();
    let response = routes::control(handle).oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn events_are_listed_filtered_and_waited_for() {
    let journal = Journal::default();
    for service in ["a", "b"] {
        let service = service.to_owned();
        journal.tell(Event::ServiceDown { service });
    }
    let (status, all) = events(&journal, "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(all["events"][1]["service"], "b");
    assert_eq!(
        (&all["missed"], &all["last"]),
        (&json!(0), &json!(journal.last()))
    );
    let (_, one) = events(
        &journal,
        "?service=a&kind=service_down,service_up&seconds=60",
    )
    .await;
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    assert_eq!(one["events"][0]["severity"], "error");

    // One that is asked for ends the wait, and another does not.
    let waiter = journal.clone();
    let options = format!("?since={}&wait=60&kind=stopping", journal.last());
    let waiting = tokio::spawn(async move { events(&waiter, &options).await });
    journal.tell(Event::BackendsHeard {});
    journal.tell(Event::Stopping {});
    let (_, came) = waiting.await.unwrap();
    assert_eq!(came["events"].as_array().unwrap().len(), 1);
    assert_eq!(came["events"][0]["kind"], "stopping");

    // So does the end of the daemon.
    let waiter = journal.clone();
    let options = format!("?since={}&wait=60", journal.last());
    let waiting = tokio::spawn(async move { events(&waiter, &options).await });
    journal.close();
    let (_, none) = waiting.await.unwrap();
    assert_eq!(none["events"], json!([]));
}

#[tokio::test]
async fn unknown_kinds_of_events_are_refused_with_the_known_ones() {
    for options in ["?kind=nosuch", "?severity=nosuch"] {
        let (status, body) = events(&Journal::default(), options).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let error = body["error"].as_str().unwrap();
        assert!(error.ends_with("named nosuch"), "{body}");
        assert!(
            body["hint"].as_str().unwrap().starts_with("known: "),
            "{body}"
        );
    }
}
