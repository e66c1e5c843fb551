//! Who is told when a pair fails over, and what makes it do so beside links and backends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::{Host, wait_until};

/// What a server has taken.
type Taken = Arc<Mutex<Vec<String>>>;

/// Serves each connection to a port of a host by `talk`, which returns what was taken.
fn serve(
    host: &Host,
    port: u16,
    talk: impl Fn(TcpStream) -> std::io::Result<String> + Send + 'static,
) -> Result<Taken> {
    let listener = host.netns().enter(|| {
        let listener = TcpListener::bind(("0.0.0.0", port));
        listener.context("no port to serve on")
    })?;
    let taken = Taken::default();
    let theirs = Arc::clone(&taken);
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(message) = talk(stream) {
                let mut all = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(message);
            }
        }
    });
    Ok(taken)
}

/// Takes a POST and returns its body.
fn take_post(stream: TcpStream) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Takes an e-mail as RFC 5321 says, and returns it.
fn take_mail(stream: TcpStream) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let (mut mail, mut line) = (String::new(), String::new());
    stream.write_all(b"220 sink ready\r\n")?;
    while reader.read_line(&mut line)? > 0 {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sink\r\n250 8BITMIME\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                line.clear();
                while reader.read_line(&mut line)? > 0 && line != ".\r\n" {
                    mail += &line;
                    line.clear();
                }
                b"250 taken\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                break;
            }
            _ => b"250 ok\r\n",
        };
        stream.write_all(answer)?;
        line.clear();
    }
    Ok(mail)
}

fn wait_for(taken: &Taken, what: &str, parts: &[&str]) -> Result<String> {
    let found = wait_until(SOON, what, || {
        let all = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = all.iter();
        all.find(|one| parts.iter().all(|part| one.contains(part)))
            .cloned()
    });
    found.with_context(|| format!("{:?}", taken.lock()))
}

#[test]
fn program_web_hook_and_mail_tell_of_a_fail_over_and_what_hangs_delays_nothing() -> Result<()> {
    let mut pair = Pair::new()?;
    let client = &pair.lab.topology.client;
    let posts = serve(client, 8_080, take_post)?;
    let mails = serve(client, 2_525, take_mail)?;
    let address = client.address(xtask::lab::Family::V4);
    // One hangs, one talks to nobody, and one is answered by nobody; the others are told all the same.
    let notifies = format!(
        r#"
[[notify]]
name = "hangs"
type = "exec"
command = ["/bin/sleep", "600"]
timeout = "600s"
at_once = 1
[[notify]]
name = "nowhere"
type = "webhook"
url = "http://172.16.40.250/"
[[notify]]
name = "closed"
type = "email"
server = "{address}"
port = 9
tls = "none"
retries = 1
from = "tidegate@example.org"
to = ["ops@example.org"]
[[notify]]
name = "hook"
type = "exec"
command = ["/bin/sh", "-c", 'echo "$@ because $TIDEGATE_CAUSE" >> $DIR/roles; cat >> $DIR/roles.json', "hook"]
keepalived_arguments = true
[[notify]]
name = "post"
type = "webhook"
url = "http://{address}:8080/hook"
[[notify]]
name = "mail"
type = "email"
server = "{address}"
port = 2525
tls = "none"
from = "Tidegate <tidegate@example.org>"
to = ["ops@example.org"]
"#
    );
    pair.start(0, &(node(&router(200, "")) + &notifies))?;
    pair.start(1, &node(&router(100, "")))?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_roles(["backup", "active"])?;
    // Without its link it can run programs alone; the others are tried again when it is back.
    let roles = pair.host(0).work_dir().join("roles");
    let said = wait_until(SOON, "the program's line", || {
        let said = std::fs::read_to_string(&roles).ok()?;
        said.contains("INSTANCE front FAULT 200 because fault")
            .then_some(said)
    })?;
    ensure!(said.contains("INSTANCE front MASTER 200 because"), "{said}");
    let json = std::fs::read_to_string(roles.with_extension("json"))?;
    ensure!(json.contains("\"cause\":\"fault\""), "{json}");
    pair.lab.topology.switch().plug(pair.host(0))?;
    let fault = [
        "\"kind\":\"role_changed\"",
        "\"to\":\"backup\"",
        "\"cause\":\"fault\"",
    ];
    wait_for(&posts, "the post", &fault)?;
    let mail = wait_for(&mails, "the mail", &["cause: fault", "router: front"])?;
    for header in ["To: ops@example.org", "Auto-Submitted: auto-generated"] {
        ensure!(mail.contains(header), "{mail}");
    }
    pair.wait_for_roles(["active", "backup"])?;

    // What failed is told, and a test tells the same at once.
    wait_until(SOON, "the mail that nobody takes being given up", || {
        let status = pair.status(0).ok()?;
        let closed = status.notifiers.iter().find(|it| it.name == "closed")?;
        (closed.failed > 0 && closed.last_error.is_some()).then_some(())
    })?;
    let tested = pair.ask(0, &["notify", "test", "post"])?;
    ensure!(tested.status.success(), "{tested:?}");
    wait_for(&posts, "the test", &["\"kind\":\"notify_test\""])?;
    let tested = pair.ask(0, &["notify", "test", "closed"])?;
    ensure!(tested.status.code() == Some(1), "{tested:?}");

    // The last role before the end is told, though one program still hangs.
    pair.process(0)?.terminate(SOON)?;
    let said = std::fs::read_to_string(&roles)?;
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.starts_with("INSTANCE front"), "{said}");
    ensure!(!last.contains("MASTER"), "{said}");
    Ok(())
}

#[test]
fn a_gateway_that_is_gone_takes_the_role_and_a_script_the_priority() -> Result<()> {
    let mut pair = Pair::new()?;
    let gateway = pair.lab.topology.client.address(xtask::lab::Family::V4);
    let tracks = format!(
        "preempt_delay = \"1s\"\n[[vrrp.track]]\nname = \"gateway\"\ngateway = \"{gateway}\"\n\
         interval = \"200ms\"\n[[vrrp.track]]\nname = \"file\"\n\
         script = [\"/usr/bin/test\", \"-e\", \"$DIR/good\"]\ninterval = \"200ms\"\nweight = -150"
    );
    let good = pair.host(0).work_dir().join("good");
    std::fs::write(&good, "")?;
    pair.start(0, &node(&router(200, &tracks)))?;
    pair.start(1, &node(&router(100, "preempt_delay = \"1s\"")))?;
    pair.wait_for_roles(["active", "backup"])?;

    // The script fails: the priority falls below the peer's, who takes over.
    std::fs::remove_file(&good)?;
    pair.wait_for_roles(["backup", "active"])?;
    let lowered = pair.router(0)?;
    ensure!(
        lowered.priority == 50 && lowered.lowered_by == ["tracked"],
        "{lowered:?}"
    );
    let cause = lowered.last_change.map(|change| change.cause);
    ensure!(cause.as_deref() == Some("higher_priority"), "{cause:?}");
    std::fs::write(&good, "")?;
    pair.wait_for_roles(["active", "backup"])?;

    // The gateway is gone, and this node's link is not.
    let client = &pair.lab.topology.client;
    client.output("ip", &["link", "set", "eth0", "down"])?;
    pair.wait_for_roles(["backup", "active"])?;
    let held = pair.router(0)?;
    ensure!(held.faults == ["tracked"], "{held:?}");
    let down = held.tracked.iter().find(|it| it.name == "gateway");
    ensure!(down.is_some_and(|it| it.state == "down"), "{held:?}");
    let text = pair.tell(0, &["vrrp", "status"])?;
    ensure!(text.contains("depends on gateway"), "{text}");
    client.output("ip", &["link", "set", "eth0", "up"])?;
    pair.wait_for_roles(["active", "backup"])?;
    let told = pair.tell(0, &["events", "--json", "--kind", "track_changed"])?;
    for part in [
        "\"track\":\"gateway\"",
        "\"track\":\"file\"",
        "\"state\":\"down\"",
    ] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    Ok(())
}
