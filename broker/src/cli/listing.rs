//! Listings of any length: fetched and written page by page, so that neither side holds all of it.

use std::{fmt::Write as _, process::ExitCode};

use console::{
    client::{Client, encode},
    output::{self, Reader},
    table::{Align, Table},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::target::Target;
use crate::control::{
    DAEMON,
    view::{NodeRow, SilentNode},
};

/// Rows that are asked for at once.
pub(super) const PAGE: usize = 500;

/// Which rows are wanted.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Stop after so many.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Only clients whose id begins so.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
}

/// Whose rows are wanted.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Scope {
    /// Of all nodes of the broker's cluster. One that does not answer is named, and the exit code
    /// is 1.
    #[arg(long)]
    pub(super) cluster: bool,
}

/// A listing's route, with what narrows it down.
pub(super) struct Listing {
    route: String,
    limit: usize,
    page: usize,
    is_wide: bool,
}

/// A page of one node's listing, or of all nodes'.
#[derive(Debug, Deserialize)]
#[serde(bound = "R: DeserializeOwned")]
struct Answer<R> {
    rows: Vec<R>,
    next: Option<String>,
    #[serde(default)]
    silent: Vec<SilentNode>,
}

impl Listing {
    /// Rows in pages of `page`.
    pub(super) fn of(name: &str, limit: Option<usize>, page: usize) -> Self {
        Self {
            route: format!("/v1/{name}?"),
            limit: limit.unwrap_or(usize::MAX),
            page,
            is_wide: false,
        }
    }

    /// Rows of one node, or of all.
    pub(super) fn scoped(name: &str, scope: Scope, limit: Option<usize>) -> Self {
        if scope.cluster {
            let mut listing = Self::of(&format!("cluster/{name}"), limit, PAGE);
            listing.is_wide = true;
            listing
        } else {
            Self::of(name, limit, PAGE)
        }
    }

    /// Rows of clients.
    pub(super) fn new(name: &str, scope: Scope, selection: &Selection) -> Self {
        let mut listing = Self::scoped(name, scope, selection.limit);
        listing.narrow("prefix", Some(&selection.prefix));
        listing
    }

    pub(super) fn narrow(&mut self, option: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a String does not fail.
            let _ = write!(self.route, "{option}={}&", encode(value));
        }
    }

    /// Writes all of it: a table, or one line of JSON a row.
    pub(super) fn print<T: DeserializeOwned + Serialize>(
        &self,
        target: &Target,
        head: &[(&str, Align)],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<ExitCode> {
        if !self.is_wide {
            return self.print_rows(target, Table::new(head), cells);
        }
        let head: Vec<_> = std::iter::once(("NODE", Align::Left))
            .chain(head.iter().copied())
            .collect();
        self.print_rows(target, Table::new(&head), |row: &NodeRow<T>| {
            let mut all = vec![row.node.clone()];
            all.extend(cells(&row.row));
            all
        })
    }

    fn print_rows<R: DeserializeOwned + Serialize>(
        &self,
        target: &Target,
        mut table: Table,
        cells: impl Fn(&R) -> Vec<String>,
    ) -> anyhow::Result<ExitCode> {
        let client = target.client()?;
        let mut left = self.limit;
        let mut after = None;
        let mut missing = Vec::new();
        loop {
            let answer = self.fetch::<R>(&client, left, after.as_deref(), &missing)?;
            let Answer {
                mut rows,
                next,
                silent,
            } = answer;
            missing.extend(silent);
            rows.truncate(left);
            left -= rows.len();
            let text = if target.json {
                rows.iter().map(output::json).collect::<Result<_, _>>()?
            } else {
                rows.iter().for_each(|row| table.row(cells(row)));
                table.take()
            };
            if output::print(&text)? == Reader::Gone || next.is_none() || left == 0 {
                return Ok(outcome(&missing));
            }
            after = next;
        }
    }

    /// Nodes that have not answered are not asked again: each would take its time for every page.
    fn fetch<R: DeserializeOwned>(
        &self,
        client: &Client,
        left: usize,
        after: Option<&str>,
        missing: &[SilentNode],
    ) -> anyhow::Result<Answer<R>> {
        // A page of nothing is not to be had; it is not printed either.
        let mut route = format!("{}limit={}", self.route, left.clamp(1, self.page));
        if let Some(after) = after {
            route += &format!("&after={}", encode(after));
        }
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|silent| &*silent.node).collect();
            route += &format!("&skip={}", encode(&names.join(",")));
        }
        Ok(client.get(&route)?)
    }
}

/// Names the nodes whose part is missing; without them it is no success.
pub(super) fn outcome(missing: &[SilentNode]) -> ExitCode {
    for SilentNode { node, trouble } in missing {
        let (node, trouble) = (output::printable(node), output::printable(trouble));
        output::complain(
            DAEMON.program,
            &format!("{node} is missing here: {trouble}"),
        );
    }
    if missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_without_some_node_is_no_success() {
        // Exit codes can be shown and not compared.
        let shown = |missing: &[SilentNode]| format!("{:?}", outcome(missing));
        let missing = SilentNode {
            node: "broker2".to_owned(),
            trouble: "the connection to it was lost".to_owned(),
        };
        assert_eq!(shown(&[]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(shown(&[missing]), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn one_nodes_page_is_read_as_one_of_all() {
        let page: Answer<u32> = serde_json::from_str(r#"{"rows": [1], "next": null}"#).unwrap();
        assert!(page.rows == [1] && page.silent.is_empty());
    }
}
