//! Listings of any length: fetched and written page by page, so that neither side holds all of it.

use std::fmt::Write as _;

use console::{
    client::{Client, encode},
    output::{self, Reader},
    table::Table,
};
use serde::{Serialize, de::DeserializeOwned};

use super::target::Target;
use crate::control::view::Page;

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

/// A listing's route, with what narrows it down.
pub(super) struct Listing {
    route: String,
    limit: usize,
    page: usize,
}

impl Listing {
    /// Rows in pages of `page`.
    pub(super) fn of(route: &str, limit: Option<usize>, page: usize) -> Self {
        Self {
            route: format!("{route}?"),
            limit: limit.unwrap_or(usize::MAX),
            page,
        }
    }

    /// Rows of clients.
    pub(super) fn new(route: &str, selection: &Selection) -> Self {
        let mut listing = Self::of(route, selection.limit, PAGE);
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
        mut table: Table,
        cells: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let client = target.client()?;
        let mut left = self.limit;
        let mut after = None;
        loop {
            let Page { mut rows, next } = self.fetch::<T>(&client, left, after.as_deref())?;
            rows.truncate(left);
            left -= rows.len();
            let text = if target.json {
                rows.iter().map(output::json).collect::<Result<_, _>>()?
            } else {
                rows.iter().for_each(|row| table.row(cells(row)));
                table.take()
            };
            if output::print(&text)? == Reader::Gone || next.is_none() || left == 0 {
                return Ok(());
            }
            after = next;
        }
    }

    fn fetch<T: DeserializeOwned>(
        &self,
        client: &Client,
        left: usize,
        after: Option<&str>,
    ) -> anyhow::Result<Page<T>> {
        // A page of nothing is not to be had; it is not printed either.
        let mut route = format!("{}limit={}", self.route, left.clamp(1, self.page));
        if let Some(after) = after {
            route += &format!("&after={}", encode(after));
        }
        Ok(client.get(&route)?)
    }
}
