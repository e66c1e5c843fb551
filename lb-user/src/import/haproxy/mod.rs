//! Reads HAProxy's configuration: sections, and which lines each proxy has in the end.
//!
//! `words` takes lines apart, `proxy` makes services of a front end and its servers, `bind`, `server`
//! with its `parameters`, and `check` read what their names say, `reasons` knows why other lines have
//! no counterpart.

mod bind;
mod check;
mod parameters;
mod proxy;
mod reasons;
mod server;
mod words;

use self::words::{Line, split};
use super::draft::{Draft, Way};
use super::finding::{Findings, Weight};

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Global,
    Defaults,
    Frontend,
    Backend,
    Listen,
}

impl Kind {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "global" => Self::Global,
            "defaults" => Self::Defaults,
            "frontend" => Self::Frontend,
            "backend" => Self::Backend,
            "listen" => Self::Listen,
            _ => return None,
        })
    }
}

/// A section with its lines; those of the defaults that it goes by come first.
#[derive(Clone, Debug)]
struct Section {
    kind: Kind,
    line: usize,
    name: String,
    lines: Vec<Line>,
}

/// Sections that a balancer of packets has no use for.
const OTHERS: [(&str, &str); 14] = [
    (
        "peers",
        "stick tables are not shared: `[sync]` keeps both hosts up to date",
    ),
    ("resolvers", "backends have addresses, not names"),
    (
        "userlist",
        "nobody logs in to a balancer of packets; `[api]` says who may control it",
    ),
    ("mailers", "see [[notify]] with `type = \"email\"`"),
    ("program", "the service manager starts programs"),
    ("http-errors", "HTTP is passed on, not read"),
    ("cache", "HTTP is passed on, not read"),
    ("fcgi-app", "FastCGI is not spoken"),
    (
        "ring",
        "`tidegate events` has what happens, and [[notify]] tells of it",
    ),
    ("log-forward", "logs go to the service manager's journal"),
    ("log-profile", "logs go to the service manager's journal"),
    ("crt-store", "TLS is passed on, not ended"),
    ("acme", "TLS is passed on, not ended"),
    ("traces", "`tidegate trace` follows a client's packets"),
];

/// Puts what `text` says into `draft`.
pub(super) fn read(text: &str, way: Way, draft: &mut Draft, findings: &mut Findings) {
    let lines = lines(text, findings);
    let sections = sections(lines, findings);
    for section in &sections {
        match section.kind {
            Kind::Global => global(section, draft, findings),
            Kind::Frontend | Kind::Listen => {
                proxy::read(section, &sections, way, draft, findings);
            }
            // Told of where they are used.
            Kind::Defaults => {}
            Kind::Backend => unused(section, &sections, findings),
        }
    }
}

/// The lines that count; conditions are not decided here.
fn lines(text: &str, findings: &mut Findings) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut depth = 0_usize;
    for (number, text) in (1..).zip(text.lines()) {
        let words = match split(text) {
            Ok(words) => words,
            Err(reason) => {
                let what = text.split_whitespace().next().unwrap_or_default();
                let instead = "write the line out, and import again";
                findings.lost(number, what, reason.to_string(), instead);
                continue;
            }
        };
        match words.first().map(String::as_str) {
            None => {}
            Some(".if") => {
                if depth == 0 {
                    let why = "conditions are not decided here; all up to its .endif is left out";
                    findings.lost(number, ".if", why, "write out what holds on this host");
                }
                depth += 1;
            }
            Some(".endif") => depth = depth.saturating_sub(1),
            Some(_) if depth > 0 => {}
            Some("include" | ".include") => {
                let why = "other files are not read by this one's word";
                findings.lost(number, "include", why, "name them all on the command line");
            }
            Some(word) if word.starts_with('.') => {
                findings.needless(number, word, "it only tells of the file");
            }
            Some(_) => lines.push(Line { number, words }),
        }
    }
    lines
}

fn sections(lines: Vec<Line>, findings: &mut Findings) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // Whether the lines that come are of a section that is told of as a whole.
    let mut is_skipped = false;
    for line in lines {
        if let Some(kind) = Kind::named(line.word(0)) {
            is_skipped = false;
            let inherited = match kind {
                Kind::Global | Kind::Defaults => parent(&line, &sections).unwrap_or_default(),
                Kind::Frontend | Kind::Backend | Kind::Listen => {
                    let last = sections.iter().rev().find(|it| it.kind == Kind::Defaults);
                    let last = last.map(|it| it.lines.clone());
                    parent(&line, &sections).or(last).unwrap_or_default()
                }
            };
            sections.push(Section {
                kind,
                line: line.number,
                name: line.word(1).to_owned(),
                lines: inherited,
            });
            address_in_head(&line, kind, &mut sections);
        } else if let Some((word, reason)) = OTHERS.iter().find(|(word, _)| *word == line.word(0))
            && !is_keyword_here(word, &line, sections.last())
        {
            is_skipped = true;
            findings.add(
                Weight::Needless,
                line.number,
                format!("{word} {}", line.word(1)).trim_end().to_owned(),
                (*reason).to_owned(),
                String::new(),
            );
        } else if let Some(section) = sections.last_mut().filter(|_| !is_skipped) {
            section.lines.push(line);
        } else if !is_skipped {
            let what = line.word(0).to_owned();
            findings.lost(line.number, what, "it is in no section", "");
        }
    }
    sections
}

/// Names of sections that are keywords within others, too.
fn is_keyword_here(word: &str, line: &Line, section: Option<&Section>) -> bool {
    let kind = section.map(|section| section.kind);
    // `peers` and the like stand at the head of a section with one name behind them.
    matches!(word, "cache" | "ring" | "acme") && line.words.len() != 2
        || word == "traces" && kind == Some(Kind::Global) && line.words.len() > 1
}

/// The lines of the defaults that a section names with `from`.
fn parent(line: &Line, sections: &[Section]) -> Option<Vec<Line>> {
    let at = line.words.iter().position(|word| word == "from")?;
    let name = line.words.get(at + 1)?;
    let mut defaults = sections.iter().filter(|it| it.kind == Kind::Defaults);
    let named = defaults.find(|it| it.name == *name)?;
    Some(named.lines.clone())
}

/// `listen web :80` is `listen web` with `bind :80`.
fn address_in_head(line: &Line, kind: Kind, sections: &mut [Section]) {
    let has_one = matches!(kind, Kind::Frontend | Kind::Listen) && line.words.len() == 3;
    if let Some(section) = sections.last_mut().filter(|_| has_one) {
        section.lines.push(Line {
            number: line.number,
            words: vec!["bind".to_owned(), line.word(2).to_owned()],
        });
    }
}

fn global(section: &Section, draft: &mut Draft, findings: &mut Findings) {
    /// What a configuration has room for unless it says otherwise, and at most.
    const FLOWS: std::ops::RangeInclusive<u32> = 1_000_001..=50_000_000;
    for line in &section.lines {
        let word = line.word(0);
        if word == "maxconn" {
            let most = line.word(1).parse::<u32>().ok();
            if let Some(most) = most.filter(|most| FLOWS.contains(most)) {
                draft.flows = Some(most);
            }
        } else {
            reasons::global(line, findings);
        }
    }
}

/// A back end that no front end names by itself.
fn unused(section: &Section, sections: &[Section], findings: &mut Findings) {
    let is_named = sections.iter().any(|other| {
        let mut lines = other.lines.iter();
        lines.any(|line| {
            matches!(line.word(0), "default_backend" | "use_backend")
                && line.word(1) == section.name
        })
    });
    if !is_named {
        let what = format!("backend {}", section.name);
        let why = "no frontend names it";
        findings.lost(
            section.line,
            what,
            why,
            "add a [[service]] if something uses it",
        );
    }
}
