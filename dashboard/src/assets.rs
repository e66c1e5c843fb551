//! The page: files that are part of the program, so nothing has to be installed beside it, and nothing
//! of it comes from elsewhere.

use std::collections::HashMap;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::{
    random::Digest,
    refusal::Reason,
    router::{Shared, SharedState},
};

/// A file of a page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// The files of a page, and the name of the one that is found at `/`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub index: &'static str,
    pub files: &'static [Asset],
}

macro_rules! page {
    ($index:literal, $($name:literal),* $(,)?) => {
        Page {
            index: $index,
            files: &[$(Asset {
                name: $name,
                bytes: include_bytes!(concat!("../assets/", $name)),
            }),*],
        }
    };
}

/// The page of the balancer.
pub const BALANCER: Page = page!(
    "balancer/index.html",
    "balancer/actions.js",
    "balancer/backend.js",
    "balancer/backends.js",
    "balancer/balancer.css",
    "balancer/cells.css",
    "balancer/columns.css",
    "balancer/consequences.js",
    "balancer/drain.js",
    "balancer/events.js",
    "balancer/filter.js",
    "balancer/findings.js",
    "balancer/findings_node.js",
    "balancer/health.js",
    "balancer/index.html",
    "balancer/main.js",
    "balancer/model.js",
    "balancer/node.js",
    "balancer/overview.js",
    "balancer/parts.js",
    "balancer/rates.js",
    "balancer/service.js",
    "balancer/slots.js",
    "balancer/slotwords.js",
    "balancer/standing.js",
    "balancer/strip.js",
    "balancer/vrrp.js",
    "balancer/words.js",
    "common/app.js",
    "common/base.css",
    "common/dialogs.js",
    "common/dom.js",
    "common/early.js",
    "common/fields.css",
    "common/format.js",
    "common/frame.css",
    "common/frame.js",
    "common/icons.js",
    "common/journal.js",
    "common/live.js",
    "common/login.js",
    "common/mark.js",
    "common/mark.svg",
    "common/notices.js",
    "common/parts.css",
    "common/parts.js",
    "common/plot.js",
    "common/plots.css",
    "common/routes.js",
    "common/scale.js",
    "common/series.js",
    "common/session.js",
    "common/table.js",
    "common/tables.css",
    "common/theme.css",
    "common/theme.js",
);

impl Page {
    pub(crate) fn prepare(self) -> Assets {
        let prepare = |asset: &Asset| {
            let tag = format!("\"{}\"", Digest::of(asset.bytes).hex());
            let prepared = Prepared {
                bytes: asset.bytes,
                kind: kind(asset.name),
                tag,
            };
            (asset.name, prepared)
        };
        Assets {
            index: self.index,
            files: self.files.iter().map(prepare).collect(),
        }
    }
}

/// Files by name.
pub(crate) struct Assets {
    index: &'static str,
    files: HashMap<&'static str, Prepared>,
}

struct Prepared {
    bytes: &'static [u8],
    kind: &'static str,
    tag: String,
}

/// What a file is, by the end of its name. Browsers are told not to guess.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "webmanifest") => "application/json",
        Some(_) | None => "application/octet-stream",
    }
}

pub(crate) async fn index(State(shared): SharedState, headers: HeaderMap) -> Response {
    serve(&shared, shared.assets.index, &headers)
}

pub(crate) async fn asset(
    State(shared): SharedState,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    serve(&shared, &name, &headers)
}

fn serve(shared: &Shared, name: &str, headers: &HeaderMap) -> Response {
    let Some(Prepared { bytes, kind, tag }) = shared.assets.files.get(name) else {
        return shared.refuse(Reason::Route);
    };
    let about = [
        // Kept, but asked for again each time: a new version is seen at once.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag),
    ];
    if is_known(headers.get(header::IF_NONE_MATCH), tag) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, *kind)], *bytes).into_response()
}

/// Whether the asker has it already (RFC 9110, 13.1.2).
fn is_known(asked: Option<&HeaderValue>, tag: &str) -> bool {
    let Some(asked) = asked.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut tags = asked.split(',').map(str::trim);
    tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_the_balancer_is_whole() {
        let Assets { index, files } = BALANCER.prepare();
        assert_eq!(files[index].kind, "text/html; charset=utf-8");
        for (name, file) in &files {
            assert!(!file.bytes.is_empty(), "{name}");
            assert_ne!(file.kind, "application/octet-stream", "{name}");
        }
        let mut known: Vec<_> = files.keys().map(|name| (*name).to_owned()).collect();
        known.sort();
        assert_eq!(known, on_disk(&["balancer", "common"]));
    }

    /// All files that there are in these directories.
    fn on_disk(directories: &[&str]) -> Vec<String> {
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let mut names = Vec::new();
        for directory in directories {
            let Ok(entries) = std::fs::read_dir(assets.join(directory)) else {
                continue;
            };
            for entry in entries {
                let name = entry.unwrap().file_name().into_string().unwrap();
                names.push(format!("{directory}/{name}"));
            }
        }
        names.sort();
        names
    }

    #[test]
    fn tags_are_compared_weakly() {
        let value = |text| HeaderValue::from_static(text);
        for (asked, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            assert_eq!(is_known(Some(&value(asked)), "\"a\""), expected, "{asked}");
        }
        assert!(!is_known(None, "\"a\""));
    }
}
