//! `tidegate trace`: what becomes of a client's packets, and why.

use std::net::{IpAddr, SocketAddr};

use super::{
    Failure, Target,
    client::{Client, DAEMON},
    output,
};
use crate::control::{FlowTrace, PathTrace, ServiceTrace, Trace, TraceOrder, WhatIf};

/// Shows what becomes of a client's packets, step by step with reasons.
///
/// Nothing is sent and nothing is changed: the daemon looks at what the program decides from. With a
/// port it tells of that flow, without one of all recorded flows of the address, and in both cases of
/// a connection that would start now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate trace 172.16.40.100:40000\n  \
    tidegate trace 172.16.40.100 --service mqtt\n  \
    tidegate trace '[fd00:40::100]:40000' --if-down broker1\n  \
    tidegate trace 172.16.40.100:40000 --if-drained broker1 --if-weight broker2=10")]
pub(super) struct Args {
    /// The client's address; in brackets before a port if it is IPv6.
    #[arg(value_name = "IP[:PORT]", value_parser = parse_client)]
    client: (IpAddr, Option<u16>),
    /// Only this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Suppose that the backend goes down; may be repeated, as all that suppose.
    #[arg(long, value_name = "[SERVICE/]BACKEND")]
    if_down: Vec<String>,
    /// Suppose that the backend is drained.
    #[arg(long, value_name = "[SERVICE/]BACKEND")]
    if_drained: Vec<String>,
    /// Suppose that the backend gets another weight.
    #[arg(long, value_name = "[SERVICE/]BACKEND=N", value_parser = parse_weight)]
    if_weight: Vec<(String, u16)>,
    #[command(flatten)]
    target: Target,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

fn parse_client(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    text.parse::<SocketAddr>()
        .map(|socket| (socket.ip(), Some(socket.port())))
        .map_err(|_| {
            "give an address, or an address and a port, such as 192.0.2.7:40000".to_owned()
        })
}

fn parse_weight(text: &str) -> Result<(String, u16), String> {
    let parsed = text
        .rsplit_once('=')
        .and_then(|(backend, weight)| Some((backend.to_owned(), weight.parse().ok()?)));
    parsed.ok_or_else(|| "give a backend and its weight, such as broker1=10".to_owned())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (client, port) = args.client;
    let down = args.if_down.iter().cloned().map(WhatIf::Down);
    let drained = args.if_drained.iter().cloned().map(WhatIf::Drained);
    let weights = args.if_weight.iter().cloned();
    let weights = weights.map(|(backend, weight)| WhatIf::Weight { backend, weight });
    let order = TraceOrder {
        client,
        port,
        service: args.service.clone(),
        what_if: down.chain(drained).chain(weights).collect(),
    };
    let body = output::json(&order)?;
    let trace: Trace = Client::new(DAEMON, &args.target.socket)?.post("/v1/trace", Some(body))?;
    let text = if args.json {
        output::json(&trace)?
    } else {
        render(&trace)
    };
    output::print(&text)?;
    Ok(())
}

/// The answer in words.
fn render(trace: &Trace) -> String {
    let mut text = String::new();
    if trace.services.is_empty() {
        text += "no service has an address of the client's family\n";
    }
    for service in &trace.services {
        let ServiceTrace {
            name,
            vip,
            port,
            protocol,
            flows,
            new,
        } = service;
        let address = SocketAddr::new(*vip, *port);
        text += &format!("service {name} at {address}/{protocol}\n");
        for flow in flows {
            text += &render_flow(trace, flow, &flow_head(trace, flow));
        }
        if flows.is_empty() {
            text += &format!("  no flow of {} is recorded\n", trace.client);
        }
        text += &render_flow(trace, new, "a new connection");
        text += "\n";
    }
    if trace.truncated {
        text += "there may be more recorded flows of this address: give a port\n";
    }
    text
}

fn flow_head(trace: &Trace, flow: &FlowTrace) -> String {
    let port = flow.port.unwrap_or_default();
    let client = SocketAddr::new(trace.client, port);
    let known = if flow.recorded {
        "recorded"
    } else {
        "not recorded"
    };
    format!("the flow from {client} ({known})")
}

fn render_flow(trace: &Trace, flow: &FlowTrace, head: &str) -> String {
    let mut text = format!("  {head}: {}\n", outcome(&flow.path));
    text += &steps(&flow.path);
    let Some(then) = &flow.then else {
        return text;
    };
    let suppositions: Vec<String> = trace.what_if.iter().map(WhatIf::to_string).collect();
    let (before, after) = (outcome(&flow.path), outcome(&then.path));
    let fate = match then.fate.as_str() {
        "stays" => format!("it stays: {after}"),
        "moves" => format!("it moves, and its client has to connect again: {after}"),
        "ends" => format!("its packets are lost: {after}"),
        _ if before == after => format!("the same: {after}"),
        _ => after,
    };
    text += &format!("    if {}: {fate}\n", suppositions.join(", "));
    if flow.path.steps != then.path.steps {
        text += &steps(&then.path);
    }
    text
}

fn outcome(path: &PathTrace) -> String {
    let verdict = path.verdict.as_deref();
    match (&path.backend, verdict) {
        (Some(backend), Some(verdict)) => format!("to {backend} ({verdict})"),
        (Some(backend), None) => format!("to {backend}"),
        (None, Some(verdict)) => format!("to nobody ({verdict})"),
        (None, None) => format!("to one of {}", path.candidates.join(", ")),
    }
}

fn steps(path: &PathTrace) -> String {
    let lines = path.steps.iter();
    lines
        .map(|step| format!("    {:<8} {}\n", step.stage, step.finding))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{parse_client, parse_weight, render};
    use crate::control::{TraceOrder, WhatIf, example};

    #[test]
    fn clients_come_with_and_without_a_port() {
        let parsed = |text| parse_client(text).unwrap();
        assert_eq!(parsed("10.0.0.1"), ([10, 0, 0, 1].into(), None));
        assert_eq!(parsed("10.0.0.1:7"), ([10, 0, 0, 1].into(), Some(7)));
        assert_eq!(parsed("[fd00::1]:7"), ("fd00::1".parse().unwrap(), Some(7)));
        assert_eq!(parsed("fd00::1"), ("fd00::1".parse().unwrap(), None));
        assert!(parse_client("broker1").is_err());
    }

    #[test]
    fn weights_follow_the_last_equals_sign() {
        assert_eq!(parse_weight("mqtt/a=3"), Ok(("mqtt/a".to_owned(), 3)));
        assert!(parse_weight("mqtt/a").is_err() && parse_weight("a=x").is_err());
    }

    #[test]
    fn an_answer_says_who_gets_the_packets_and_what_would_change() {
        let order = TraceOrder {
            client: [10, 0, 0, 1].into(),
            port: Some(40_000),
            service: None,
            what_if: vec![WhatIf::Down("broker2".to_owned())],
        };
        let text = render(&example::trace(&order));
        for line in [
            "service mqtt at 172.16.40.24:1883/mqtt",
            "the flow from 10.0.0.1:40000 (not recorded): to broker1 (tx_dsr)",
            "slot     7 of 65537; safe",
            "if broker2 goes down: it stays: to broker1 (tx_dsr)",
            "a new connection: to broker1 (tx_dsr)",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
